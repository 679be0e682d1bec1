"""Who may ask: names under which the server answers, and the bearer token."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

from aiohttp import web

from muster.serving.refusal import Refusal

__all__ = ("Access", "is_loopback")


class Access:
    """Checks the headers of a request, before its body is read."""

    def __init__(self, token: str | None, *, host: str, allow_hosts: Iterable[str] = ()) -> None:
        self._token = None if token is None else token.encode()
        names = {"localhost", *(_bare(name) for name in allow_hosts)}
        if not _is_wildcard(host):
            names.add(_bare(host))
        self._names = names
        self._known: set[str] = set()
        """`Host` headers that were found good: few, and the same again and again."""

    def check_names(self, request: web.BaseRequest) -> None:
        """A page in a browser must not reach us under a name that its owner points here, nor send
        what browsers send without asking. Raises `Refusal`."""
        hosts = request.headers.getall("Host", ())
        if len(hosts) != 1:
            raise Refusal(400, "expected one Host header", code="host_not_allowed", close=True)
        given = hosts[0]
        if given not in self._known:
            if not self._is_ours(given):
                raise Refusal(
                    403,
                    f'the Host "{given[:80]}" is not allowed: this server answers for '
                    f"{', '.join(sorted(self._names))} and loopback addresses "
                    "(--allow-host NAME adds a name)",
                    code="host_not_allowed",
                    close=True,
                )
            if len(self._known) < 64:
                self._known.add(given)
        origin = request.headers.get("Origin")
        if origin is not None and not self._is_ours(_netloc(origin)):
            raise Refusal(
                403,
                f'pages of "{origin[:80]}" are not allowed to ask this server '
                "(--allow-host NAME adds a name)",
                code="origin_not_allowed",
                close=True,
            )

    def check_token(self, request: web.BaseRequest) -> None:
        """The token is there, and the right one. Raises `Refusal`."""
        if self._token is None:
            return
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        good = secrets.compare_digest(given.strip().encode("utf-8", "replace"), self._token)
        if good and scheme.lower() == "bearer":
            return
        wrong = "the token is wrong" if given else "no token"
        raise Refusal(
            401,
            f"{wrong}: expected the header `Authorization: Bearer TOKEN` with the token of this "
            "server (its client's API key)",
            kind="authentication_error",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
            close=True,
        )

    def _is_ours(self, netloc: str) -> bool:
        name = _bare(netloc)
        return name in self._names or is_loopback(name)


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine and nothing else."""
    name = _bare(host)
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _is_wildcard(host: str) -> bool:
    try:
        return ip_address(_bare(host)).is_unspecified
    except ValueError:
        return False


def _bare(netloc: str) -> str:
    """The name or address without port, brackets, and the dot at the end."""
    if netloc.startswith("["):
        return netloc[1:].partition("]")[0].lower()
    if netloc.count(":") > 1:
        return netloc.lower()  # an IPv6 address as it stands
    return netloc.partition(":")[0].lower().rstrip(".")


def _netloc(origin: str) -> str:
    """Of `null` and other things that are no URL: nothing, which is nobody's name."""
    try:
        return urlsplit(origin).netloc.rpartition("@")[2]
    except ValueError:
        return ""
