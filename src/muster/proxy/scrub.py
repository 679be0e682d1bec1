"""Requests and answers as they may be kept: without keys, tokens, and secrets of the environment.

A request is scrubbed before anything else is done with it: what it is recorded as is also what it
is recognized by, so that a replay needs no key, or another one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote

import msgspec

from muster.config.secrets import MASK, Masker, is_secret_name

__all__ = ("Asked", "Scrubber", "scrubbed_headers", "without_tokens")

MIN_SECRET = 8
"""Shorter keys are not looked for in texts: they may be ordinary words."""

MASKERS = 64
"""Sets of keys whose maskers are kept; clients have one key, or a few."""

_SECRET_WORD = re.compile(
    r"(?:^|[-_.])(?:auth|authorization|authentication|token|jwt|bearer|secret|key|apikey|passw(?:or)?d"
    r"|cookies?|session|sig|signature|credentials?)(?:$|[-_.])",
    re.IGNORECASE,
)
_SCHEME = re.compile(r"(?:Bearer|Basic|Digest|Token)\s+\S", re.IGNORECASE)
_BOUNDARY = re.compile(r'multipart/[^;]+;.*?boundary="?([^";]+)"?', re.IGNORECASE)
_TOKEN = re.compile(
    rb'("(?:access_token|refresh_token|id_token|client_secret|api_key)"\s*:\s*")(?:[^"\\]|\\.)+"'
)
_ONE_BOUNDARY = b"muster-boundary"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request without its secrets."""

    method: str
    path: str
    """With the query, its parameters in order of their names."""
    headers: Mapping[str, str]
    json: Any
    """The decoded body; `None` when it is no JSON."""
    body: bytes
    """JSON is canonical: keys in order, no spaces."""
    is_json: bool
    masker: Masker
    """Knows the secrets of the environment and those of this request."""

    @property
    def sha256(self) -> str:
        """Of the body."""
        return hashlib.sha256(self.body).hexdigest()

    @property
    def model(self) -> str | None:
        """The model that is asked for, where the body or the path says so."""
        if isinstance(self.json, dict) and isinstance(self.json.get("model"), str):
            return str(self.json["model"])
        found = re.search(r"/(?:models|deployments|engines)/([^/:?]+)", self.path)
        return found[1] if found else None

    @property
    def wants_stream(self) -> bool:
        """Whether it asks for an answer in pieces."""
        if isinstance(self.json, dict) and self.json.get("stream") is True:
            return True
        return "alt=sse" in self.path or ":stream" in self.path.partition("?")[0]


class Scrubber:
    """Takes secrets out; `secrets` are those of the environment."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets = frozenset(secrets)
        self._maskers: dict[frozenset[str], Masker] = {}

    def request(
        self, method: str, path: str, headers: Iterable[tuple[str, str]], body: bytes
    ) -> Asked:
        """The request without its secrets; `path` with the query, as it came."""
        pairs = list(headers)
        bare, _, query = path.partition("?")
        parameters = parse_qsl(query, keep_blank_values=True)
        masker = self._masker(_keys_in(pairs, parameters))
        value, data, is_json = _canonical(body, masker)
        if not is_json:
            data = _without_boundary(body, dict(pairs))
        if masker.found_in(data):  # in a number, or in what is no JSON
            value, is_json, data = None, False, masker.mask_bytes(data)
        return Asked(
            method=method.upper(),
            path=masker.mask(bare) + _scrubbed_query(parameters, masker),
            headers=scrubbed_headers(pairs, masker),
            json=value,
            body=data,
            is_json=is_json,
            masker=masker,
        )

    def _masker(self, keys: set[str]) -> Masker:
        kept = frozenset(keys)
        found = self._maskers.get(kept)
        if found is None:
            if len(self._maskers) >= MASKERS:
                self._maskers.clear()
            found = self._maskers[kept] = Masker([*self._secrets, *kept])
        return found


def scrubbed_headers(headers: Iterable[tuple[str, str]], masker: Masker) -> dict[str, str]:
    """Headers in lower case, those that hold secrets masked; several of one name are joined."""
    found: dict[str, str] = {}
    for name, value in headers:
        key = name.lower()
        kept = MASK if _is_secret(key, value) else masker.mask(value)
        found[key] = f"{found[key]}, {kept}" if key in found and kept != MASK else kept
    return found


def without_tokens(body: bytes) -> bytes:
    """An answer's body without the tokens that servers hand out."""
    return _TOKEN.sub(rb"\g<1>" + MASK.encode() + b'"', body)


def _is_secret(name: str, value: str) -> bool:
    return (
        _SECRET_WORD.search(name) is not None
        or is_secret_name(name)
        or _SCHEME.match(value) is not None
    )


def _keys_in(headers: list[tuple[str, str]], query: list[tuple[str, str]]) -> set[str]:
    """The secrets that a request brings, to be found again where the server repeats them."""
    found: set[str] = set()
    for name, value in (*headers, *query):
        if not _is_secret(name, value):
            continue
        scheme, _, rest = value.strip().partition(" ")
        found |= {value.strip(), rest.strip()}
        if scheme.lower() == "basic":
            found |= set(_basic(rest.strip()))
    return {value for value in found if len(value) >= MIN_SECRET}


def _basic(text: str) -> tuple[str, ...]:
    try:
        _, _, password = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return ()
    return (password,)


def _scrubbed_query(parameters: list[tuple[str, str]], masker: Masker) -> str:
    if not parameters:
        return ""
    kept = sorted(
        (name, MASK if _is_secret(name, value) else masker.mask(value))
        for name, value in parameters
    )
    return "?" + "&".join(f"{quote(name)}={quote(value, safe='*')}" for name, value in kept)


def _canonical(body: bytes, masker: Masker) -> tuple[Any, bytes, bool]:
    """JSON without its secrets, that as bytes, and whether it is any."""
    if not body:
        return None, b"", False
    try:
        value = _masked(msgspec.json.decode(body), masker)
        return value, msgspec.json.encode(value, order="sorted"), True
    except (ValueError, RecursionError):
        return None, body, False


def _masked(value: Any, masker: Masker) -> Any:
    if isinstance(value, str):
        return masker.mask(value)
    if isinstance(value, dict):
        return {
            masker.mask(key): MASK
            if isinstance(item, str) and is_secret_name(key)
            else _masked(item, masker)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_masked(item, masker) for item in value]
    return value


def _without_boundary(body: bytes, headers: dict[str, str]) -> bytes:
    """A form's parts are set apart by a text that is another one each time."""
    named = {name.lower(): value for name, value in headers.items()}
    found = _BOUNDARY.match(named.get("content-type", ""))
    return body.replace(found[1].encode(), _ONE_BOUNDARY) if found else body
