"""Answers over HTTP: whole ones, and those that go out piece by piece."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from muster.serving.http import HttpServer

__all__ = ("AnswerStream", "EventStream", "json_response")


class AnswerStream:
    """An answer to `request` that goes out piece by piece, as fast as its client reads."""

    def __init__(
        self, server: HttpServer, request: web.BaseRequest, response: web.StreamResponse
    ) -> None:
        self._request = request
        self._seconds = server.settings.write_seconds
        self.response = response

    @property
    def begun(self) -> bool:
        """Something was sent, so that the status cannot be another any more."""
        return self.response.prepared

    async def begin(self) -> None:
        """Send the head. Raises as `send`."""
        await self.send(b"")

    async def send(self, data: bytes) -> None:
        """Send a piece; waits while the client is slow. The head goes out before the first one.

        Raises:
            ConnectionError: nobody reads any more.
        """
        try:
            async with asyncio.timeout(self._seconds):
                if not self.response.prepared:
                    await self.response.prepare(self._request)
                if data:
                    await self.response.write(data)
        except TimeoutError:
            connection: Any = self._request.protocol
            connection.end()
            raise ConnectionResetError("the client does not read") from None


class EventStream(AnswerStream):
    """Server-sent events as the answer to `request`; its head goes out with the first of them."""

    def __init__(self, server: HttpServer, request: web.BaseRequest, headers: dict[str, str]):
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream; charset=utf-8",
                "Cache-Control": "no-cache",
                "Server": "muster",
                **headers,
            }
        )
        super().__init__(server, request, response)


def json_response(
    body: bytes, *, status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    """JSON that nobody keeps."""
    return web.Response(
        body=body,
        status=status,
        headers={
            "Content-Type": "application/json",
            "Cache-Control": "no-store",
            "Server": "muster",
            **(headers or {}),
        },
    )
