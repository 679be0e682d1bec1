"""An MCP server behind a URL: streamable HTTP, or the older server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx2
    from mcp.client import Transport

__all__ = ("HttpChannel",)

CONNECT_SECONDS = 10.0
MIN_READ_SECONDS = 300.0
"""Without a single byte; the bound on a call is another one, and shorter."""
MAX_EVENT_BYTES = 64 * 2**20


class HttpChannel:
    """The way to one URL. Proxies of the environment are not used, redirects not followed to
    another origin: headers carry keys."""

    def __init__(
        self, url: str, headers: Mapping[str, str], *, is_sse: bool, read_seconds: float
    ) -> None:
        self._url = url
        self._headers = dict(headers)
        self._is_sse = is_sse
        self._read_seconds = max(read_seconds, MIN_READ_SECONDS)
        self._ended = asyncio.Event()
        self.status: int | None = None
        """Of the last answer that was an error."""
        self.answered = False
        """Somebody speaks HTTP there."""

    def connect(self) -> Transport:
        """The streams that the `mcp` client wants."""
        return self._streams()

    async def ended(self) -> None:
        """Nothing tells of the end of a server that is asked anew each time."""
        await self._ended.wait()

    def trouble(self) -> str:
        """The status of the last answer, if it was an error."""
        if self.status is None:
            return ""
        try:
            return f"HTTP {self.status} {HTTPStatus(self.status).phrase}"
        except ValueError:
            return f"HTTP {self.status}"

    @asynccontextmanager
    async def _streams(self) -> AsyncIterator[tuple[Any, Any]]:
        if self._is_sse:
            from mcp.client.sse import sse_client

            streams = sse_client(
                self._url,
                timeout=CONNECT_SECONDS,
                sse_read_timeout=self._read_seconds,
                httpx_client_factory=self._client,
            )
            async with streams as pair:
                yield pair
            return
        from mcp.client.streamable_http import streamable_http_client

        async with (
            self._client() as client,
            streamable_http_client(
                self._url, http_client=client, max_sse_event_size=MAX_EVENT_BYTES
            ) as pair,
        ):
            yield pair

    def _client(
        self,
        headers: dict[str, str] | None = None,
        timeout: httpx2.Timeout | None = None,
        auth: httpx2.Auth | None = None,
    ) -> httpx2.AsyncClient:
        import httpx2

        async def note(response: httpx2.Response) -> None:
            self.answered = True
            # 405 to a GET is how a server says that it has no stream of its own to offer.
            if response.status_code >= 400 and (self._is_sse or response.request.method == "POST"):
                self.status = response.status_code

        return httpx2.AsyncClient(
            headers={**(headers or {}), **self._headers},
            timeout=timeout or httpx2.Timeout(CONNECT_SECONDS, read=self._read_seconds),
            auth=auth,
            event_hooks={"response": [note]},
            trust_env=False,
        )
