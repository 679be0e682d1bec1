"""HTTP for providers: one pool per client and event loop, and every failure as a `ProviderError`.

    client = HttpClient()
    reply = await client.send("POST", url, headers=headers, body=b"{}")
    if reply.status >= 300:
        raise error_for_status(reply.status, reply.headers, reply.body, who="my-target")

A status is data, not an exception: the caller decides, normally with `error_for_status`, which this
module passes on from `muster.providers.http_errors`. aiohttp is imported at the first call.
"""

from __future__ import annotations

import asyncio
import io
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from muster.provider import (
    BadProviderOutput,
    BadRequest,
    ProviderError,
    ProviderTimeout,
    ProviderUnavailable,
)
from muster.providers.http_errors import error_for_payload, error_for_status, origin_of

if TYPE_CHECKING:
    import aiohttp

__all__ = ("HttpClient", "HttpReply", "HttpStream", "error_for_payload", "error_for_status")

MAX_REDIRECTS = 5
# aiohttp warns about a body above 1 MiB given as bytes; a file object it sends in pieces.
LARGE_BODY = 2**20


@dataclass(frozen=True, slots=True)
class HttpReply:
    """A whole answer. `headers` are case-insensitive."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpClient:
    """Sends requests and reads answers; safe to share between tasks and event loops.

    Connections are kept and used again. Each event loop gets its own pool, so that a client
    outlives `asyncio.run`. Redirects are followed within the same host only, because headers carry
    keys; any other comes back as its 3xx status. Proxies of the environment are used only with
    `proxy_from_env`. Cookies are ignored.
    """

    def __init__(
        self,
        *,
        connect_timeout: float | None = 10.0,
        read_timeout: float | None = 600.0,
        max_body_bytes: int = 64 * 2**20,
        proxy_from_env: bool = False,
    ) -> None:
        """`connect_timeout` in seconds; `read_timeout` in seconds without a single byte."""
        self.connect_timeout = connect_timeout
        self.read_timeout = read_timeout
        self.max_body_bytes = max_body_bytes
        self.proxy_from_env = proxy_from_env
        self._sessions: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession] = {}

    async def send(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None
    ) -> HttpReply:
        """Send a request and read the whole answer, whatever its status.

        Raises:
            ProviderUnavailable: refused, reset, or closed before the answer was whole.
            ProviderTimeout: no connection, or no byte, in time.
            BadProviderOutput: not HTTP, or a body above `max_body_bytes`.
            BadRequest: the URL is not one.
        """
        response = await self._open(method, url, headers, body)
        data = await _read_all(response, self.max_body_bytes, url)
        return HttpReply(response.status, response.headers, data)

    def stream(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None
    ) -> HttpStream:
        """`async with client.stream(...) as answer:` reads the body as it comes. Raises as `send`.

        Leaving the block before the end of the body closes the connection.
        """
        return HttpStream(self, method, url, headers, body)

    async def aclose(self) -> None:
        """Close this event loop's connections; those of loops that have ended are dropped."""
        here = asyncio.get_running_loop()
        for loop in [loop for loop in self._sessions if loop is here or loop.is_closed()]:
            session = self._sessions.pop(loop)
            connector = session.connector
            if loop is not here and connector is not None:
                await connector.close()
            else:
                await session.close()

    async def _open(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> aiohttp.ClientResponse:
        session = self._sessions.get(asyncio.get_running_loop()) or await self._new_session()
        for _ in range(MAX_REDIRECTS + 1):
            data = body if body is None or len(body) < LARGE_BODY else io.BytesIO(body)
            try:
                response = await session.request(
                    method, url, headers=headers, data=data, allow_redirects=False
                )
            except Exception as error:
                raise _translated(error, url) from None
            target = None
            if response.status in (301, 302, 303, 307, 308):
                target = _redirect_target(method, response)
            if target is None:
                return response
            response.release()
            url = target
        raise BadRequest(f"{origin_of(url)}: more than {MAX_REDIRECTS} redirects")

    async def _new_session(self) -> aiohttp.ClientSession:
        import aiohttp

        for ended in [loop for loop in self._sessions if loop.is_closed()]:
            # Held until its connections are closed: a session that goes before complains.
            old = self._sessions.pop(ended)
            if old.connector is not None:
                await old.connector.close()
        loop = asyncio.get_running_loop()
        if loop in self._sessions:
            return self._sessions[loop]
        session = aiohttp.ClientSession(
            # How many calls run at once is for the caller to limit, not for the pool.
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "muster"},
            timeout=aiohttp.ClientTimeout(
                total=None, connect=self.connect_timeout, sock_read=self.read_timeout
            ),
            trust_env=self.proxy_from_env,
        )
        self._sessions[loop] = session
        return session


class HttpStream:
    """An answer whose body is read as it comes; made by `HttpClient.stream`."""

    def __init__(
        self,
        client: HttpClient,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
    ) -> None:
        self._client = client
        self._request = (method, url, headers, body)
        self._response: aiohttp.ClientResponse | None = None

    async def __aenter__(self) -> HttpStream:
        self._response = await self._client._open(*self._request)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._response is not None:
            # A body read to its end has given its connection back already; else this closes it.
            self._response.close()

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self._opened.status

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, case-insensitive."""
        return self._opened.headers

    async def read(self) -> bytes:
        """The rest of the body. Raises as `HttpClient.send`."""
        return await _read_all(self._opened, self._client.max_body_bytes, self._request[1])

    async def chunks(self) -> AsyncIterator[bytes]:
        """Pieces of the body as they come, never empty. Raises as `HttpClient.send`."""
        readany = self._opened.content.readany
        limit, url, size = self._client.max_body_bytes, self._request[1], 0
        while True:
            try:
                chunk = await readany()
            except Exception as error:
                raise _translated(error, url) from None
            if not chunk:
                return
            size += len(chunk)
            if size > limit:
                raise _too_large(url, limit)
            yield chunk

    @property
    def _opened(self) -> aiohttp.ClientResponse:
        if self._response is None:
            raise RuntimeError("an HttpStream is read within `async with`")
        return self._response


async def _read_all(response: aiohttp.ClientResponse, limit: int, url: str) -> bytes:
    """The body, given up as soon as it is larger than `limit` bytes."""
    readany = response.content.readany
    parts: list[bytes] = []
    size = 0
    try:
        while chunk := await readany():
            size += len(chunk)
            if size > limit:
                raise _too_large(url, limit)
            parts.append(chunk)
    except BaseException as error:
        response.close()
        if isinstance(error, Exception):
            raise _translated(error, url) from None
        raise
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(url: str, limit: int) -> BadProviderOutput:
    return BadProviderOutput(
        f"{origin_of(url)}: the answer is larger than {limit:,} bytes", retryable=False
    )


def _redirect_target(method: str, response: aiohttp.ClientResponse) -> str | None:
    """Where a redirect may be followed to; `None` when it may not.

    The body and the keys go to the same host only; a POST is never turned into a GET.
    """
    from yarl import URL

    location = response.headers.get("Location")
    if location is None or (response.status < 307 and method.upper() not in ("GET", "HEAD")):
        return None
    try:
        target = response.url.join(URL(location))
    except ValueError:
        return None
    old = response.url
    secured = (old.scheme, target.scheme) == ("http", "https") and old.is_default_port()
    same = (target.scheme, target.port) == (old.scheme, old.port)
    upgraded = secured and target.is_default_port()
    return str(target) if target.host == old.host and (same or upgraded) else None


def _translated(error: Exception, url: str) -> Exception:
    """A failure of aiohttp or of the socket as a `ProviderError`; others as they are.

    The message holds the origin of the URL only: a path or a query may carry a key.
    """
    import aiohttp

    where = origin_of(url)
    found: Exception
    match error:
        case ProviderError():
            found = error
        case aiohttp.ConnectionTimeoutError():
            found = ProviderTimeout(f"{where}: no connection in time")
        case TimeoutError():
            found = ProviderTimeout(f"{where}: the server sent nothing for too long")
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            found = BadRequest(f"{where}: not a URL that can be called (expected http[s]://host/…)")
        case aiohttp.ClientConnectorCertificateError() | ssl.SSLCertVerificationError():
            reason = getattr(error, "certificate_error", error)
            found = ProviderUnavailable(
                f"{where}: the certificate is not trusted: {reason} (SSL_CERT_FILE names a file "
                "of authorities that are)",
                retryable=False,
            )
        case aiohttp.ClientConnectorDNSError():
            found = ProviderUnavailable(f"{where}: no such host")
        case aiohttp.ClientConnectorError():
            found = ProviderUnavailable(f"{where}: no connection: {_reason(error.os_error)}")
        case aiohttp.ServerDisconnectedError():
            found = ProviderUnavailable(f"{where}: the server closed the connection unanswered")
        case aiohttp.ClientPayloadError():
            found = ProviderUnavailable(f"{where}: the connection broke off amid the answer")
        case aiohttp.ClientResponseError():
            found = BadProviderOutput(f"{where}: the answer is not valid HTTP")
        case aiohttp.ClientError() | OSError():
            found = ProviderUnavailable(f"{where}: the connection failed: {_reason(error)}")
        case ValueError():
            # A header value with a line break, for one: aiohttp refuses to send it.
            found = BadRequest(f"{where}: the request cannot be sent as HTTP")
        case _:
            found = error
    return found


def _reason(error: Any) -> str:
    """The operating system's words for an error, without addresses."""
    return getattr(error, "strerror", None) or type(error).__name__
