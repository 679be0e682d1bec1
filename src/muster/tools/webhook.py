"""HTTP endpoints as tools: the arguments as JSON, or as query parameters of a GET."""

from __future__ import annotations

import asyncio
import codecs
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urljoin, urlsplit

from muster.config.secrets import Masker, secret_values
from muster.provider import Tool
from muster.tools.base import BoundTool, ToolFailed
from muster.tools.definitions import WebhookTool
from muster.tools.network_guard import AddressRefused, Guard
from muster.tools.output import bounded_text, cut, describe_binary, is_binary

if TYPE_CHECKING:
    import aiohttp

__all__ = ("Webhooks",)

MAX_REDIRECTS = 5
MAX_ERROR_BYTES = 4000
"""Of the body of an answer that says that it went wrong."""
_CHUNK = 65_536
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Webhooks:
    """The connections of webhook tools. One session for all tools that may reach the same hosts:
    a kept connection must not serve a tool that could not have opened it."""

    def __init__(self) -> None:
        self._sessions: dict[tuple[str, ...], tuple[Guard, aiohttp.ClientSession]] = {}

    def bind(self, source: WebhookTool) -> BoundTool:
        """The endpoint as a tool."""
        masker = Masker(secret_values(source.headers))

        async def call(arguments: Mapping[str, Any]) -> str:
            try:
                return await self._call(source, arguments)
            except ToolFailed as error:
                text = masker.mask(f'webhook tool "{source.name}": {error}')
                raise ToolFailed(text) from None

        parameters = source.parameters or {"type": "object"}
        tool = Tool(source.name, source.description, parameters)
        # The note about a cut is part of the text, and must not be cut off again.
        return BoundTool(tool, call, f'webhook tool "{source.name}"', source.max_bytes + 500)

    async def aclose(self) -> None:
        """Close all connections."""
        sessions, self._sessions = self._sessions, {}
        for _, session in sessions.values():
            await session.close()

    def _session(self, allow: tuple[str, ...]) -> tuple[Guard, aiohttp.ClientSession]:
        if allow not in self._sessions:
            import aiohttp

            guard = Guard(allow)
            session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(resolver=guard.resolver()),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                trust_env=False,
            )
            self._sessions[allow] = guard, session
        return self._sessions[allow]

    async def _call(self, source: WebhookTool, arguments: Mapping[str, Any]) -> str:
        import aiohttp

        try:
            async with asyncio.timeout(source.timeout_seconds):
                return await self._ask(source, arguments)
        except TimeoutError:
            raise ToolFailed(
                f"request failed: no answer within {source.timeout_seconds:g} s"
            ) from None
        except aiohttp.InvalidURL as error:
            raise ToolFailed(f"building request: not a URL: {error}") from None
        except aiohttp.ClientConnectorError as error:
            refused = isinstance(error.os_error, AddressRefused)
            reason = str(error.os_error) if refused else str(error)
            raise ToolFailed(f"request failed: {reason}") from None
        except (aiohttp.ClientError, AddressRefused, OSError) as error:
            raise ToolFailed(f"request failed: {str(error) or type(error).__name__}") from None
        except ValueError as error:
            raise ToolFailed(f"building request: {error}") from None

    async def _ask(self, source: WebhookTool, arguments: Mapping[str, Any]) -> str:
        guard, session = self._session(tuple(sorted(source.allow_hosts)))
        url = urlsplit(source.url)
        method = source.method.upper()
        options: dict[str, Any] = {"headers": dict(source.headers)}
        if method == "GET":
            options["params"] = _query(arguments)
        else:
            options["data"] = json.dumps(dict(arguments)).encode()
            if not any(name.lower() == "content-type" for name in source.headers):
                options["headers"]["Content-Type"] = "application/json"
        for _ in range(MAX_REDIRECTS + 1):
            _check(guard, url)
            async with session.request(
                method, url.geturl(), allow_redirects=False, **options
            ) as response:
                location = response.headers.get("Location")
                if response.status not in _REDIRECTS or not location:
                    return await _read(response, source.max_bytes)
                method, url = _next(method, response.status, url, location, options)
        raise ToolFailed(f"request failed: more than {MAX_REDIRECTS} redirects")


def _check(guard: Guard, url: SplitResult) -> None:
    if url.scheme not in _DEFAULT_PORTS or not url.hostname:
        raise ToolFailed(f"building request: {url.geturl()!r} is not an http or https URL")
    guard.check(url.hostname, url.port or _DEFAULT_PORTS[url.scheme])


def _next(
    method: str, status: int, url: SplitResult, location: str, options: dict[str, Any]
) -> tuple[str, SplitResult]:
    """Where a redirect leads, if it stays with the same server (or makes it https)."""
    target = urlsplit(urljoin(url.geturl(), location))
    if not _is_same_server(url, target):
        raise ToolFailed(f"request failed: redirect to another host, {target.hostname}, refused")
    options.pop("params", None)  # they are part of the URL that the server has answered with
    if status == 303 or (status in (301, 302) and method == "POST"):
        options.pop("data", None)
        method = "GET"
    return method, target


def _is_same_server(url: SplitResult, target: SplitResult) -> bool:
    if target.scheme not in _DEFAULT_PORTS or target.hostname != url.hostname:
        return False
    port, other = (part.port or _DEFAULT_PORTS[part.scheme] for part in (url, target))
    if target.scheme == url.scheme:
        return port == other
    return (url.scheme, port, target.scheme, other) == ("http", 80, "https", 443)


async def _read(response: aiohttp.ClientResponse, max_bytes: int) -> str:
    is_ok = 200 <= response.status < 300
    limit = max_bytes if is_ok else min(max_bytes, MAX_ERROR_BYTES)
    try:
        body, is_whole = await _body(response, limit)
    except Exception as error:
        if isinstance(error, TimeoutError):
            raise
        raise ToolFailed(f"reading response: {str(error) or type(error).__name__}") from None
    kind = response.headers.get("Content-Type")
    size = len(body) if is_whole else response.content_length or len(body)
    if is_binary(body, kind):
        text = describe_binary((kind or "").partition(";")[0].strip() or None, size)
    else:
        data = body.decode(_encoding(response.charset), "replace").encode("utf-8", "replace")
        known = f"{size:,} bytes" if response.content_length else "more"
        text = data.decode() if is_whole else cut(data, limit, known)
    if not is_ok:
        raise ToolFailed(f"server returned {response.status}: {bounded_text(text).strip()}")
    return text


def _encoding(charset: str | None) -> str:
    try:
        return codecs.lookup(charset or "utf-8").name
    except LookupError:
        return "utf-8"


async def _body(response: aiohttp.ClientResponse, limit: int) -> tuple[bytes, bool]:
    """The first `limit` bytes, and whether that is all."""
    parts: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_chunked(_CHUNK):
        parts.append(chunk)
        size += len(chunk)
        if size > limit:
            response.close()
            return b"".join(parts)[:limit], False
    return b"".join(parts), True


def _query(arguments: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Arguments as query parameters: lists repeat the name, objects are JSON, null is left out."""
    pairs: list[tuple[str, str]] = []
    for name, value in arguments.items():
        values = value if isinstance(value, list | tuple) else [value]
        pairs += [(name, _query_value(item)) for item in values if item is not None]
    return pairs


def _query_value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
