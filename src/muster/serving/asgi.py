"""An ASGI application behind our own HTTP server, so that its guard stands before it too."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any

from aiohttp import web

from muster.serving.http import HttpServer
from muster.serving.refusal import Refusal
from muster.tasks import stop_tasks

__all__ = ("AsgiApp", "AsgiBridge")

Message = MutableMapping[str, Any]
AsgiApp = Callable[
    [
        MutableMapping[str, Any],
        Callable[[], Awaitable[Message]],
        Callable[[Message], Awaitable[None]],
    ],
    Coroutine[Any, Any, None],
]


class AsgiBridge:
    """Asks the application. Close it with the server."""

    def __init__(self, app: AsgiApp) -> None:
        self._app = app
        self._left: set[asyncio.Task[None]] = set()
        """What goes on though its client is gone, as the application wants it."""

    async def answer(self, server: HttpServer, request: web.BaseRequest) -> web.StreamResponse:
        """What the application answers. The body is read before, within the server's bounds.

        A client that is gone does not cancel the application: it is told, and ends by itself.
        """
        answer = _Answer(server, request, await server.read(request))
        task = asyncio.ensure_future(self._app(_scope(request), answer.receive, answer.send))
        self._left.add(task)
        task.add_done_callback(self._ended)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            answer.gone.set()
            raise
        return answer.whole()

    async def aclose(self) -> None:
        """End what still goes on."""
        await stop_tasks(tuple(self._left))

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._left.discard(task)
        if not task.cancelled():
            task.exception()  # nobody may be there any more to be told


def _scope(request: web.BaseRequest) -> dict[str, Any]:
    transport = request.transport
    names = ("sockname", "peername")
    server, client = (transport.get_extra_info(name) if transport else None for name in names)
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": f"{request.version.major}.{request.version.minor}",
        "method": request.method,
        "scheme": "http",
        "path": request.path,
        "raw_path": request.rel_url.raw_path.encode(),
        "query_string": request.query_string.encode(),
        "root_path": "",
        "headers": [(name.lower(), value) for name, value in request.raw_headers],
        "server": tuple(server[:2]) if server else None,
        "client": tuple(client[:2]) if client else None,
    }


class _Answer:
    """The two channels of one request."""

    def __init__(self, server: HttpServer, request: web.BaseRequest, body: bytes) -> None:
        self._seconds = server.settings.write_seconds
        self._request = request
        self._body: bytes | None = body
        self.gone = asyncio.Event()
        """The client is not there any more."""
        self._response: web.StreamResponse | None = None

    async def receive(self) -> Message:
        """The body; then nothing, until the client is gone."""
        if self._body is None:
            await self.gone.wait()
            return {"type": "http.disconnect"}
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Message) -> None:
        """The head, or a piece of the body."""
        if self.gone.is_set():
            return
        if message["type"] == "http.response.start":
            response = web.StreamResponse(status=message["status"])
            for name, value in message.get("headers", ()):
                if name.lower() != b"transfer-encoding":
                    response.headers.add(name.decode("latin-1"), value.decode("latin-1"))
            self._response = response
            await response.prepare(self._request)  # a stream may have nothing to say for long
            return
        response = self.whole()
        try:
            async with asyncio.timeout(self._seconds):
                if message.get("body"):
                    await response.write(message["body"])
                if not message.get("more_body", False):
                    await response.write_eof()
        except TimeoutError:
            connection: Any = self._request.protocol
            connection.end()
            raise ConnectionResetError("the client does not read") from None

    def whole(self) -> web.StreamResponse:
        """The answer. Raises `Refusal` when there is none."""
        if self._response is None:
            raise Refusal(500, "the server has no answer", kind="server_error", close=True)
        return self._response
