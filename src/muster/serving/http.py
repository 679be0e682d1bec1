"""The HTTP server that stands guard: aiohttp's, with bounds on all that a client can hold.

Connections are bounded: when they are all taken, the one that has been idle longest is closed to
make room, so that ten thousand idle ones lock nobody out. Headers, bodies and answers must come
and go within their times; bodies have a size. Names and the token are checked before a body is
read. A client that is gone takes its call with it.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from muster.errors import MusterError
from muster.serving.access import Access
from muster.serving.answers import json_response
from muster.serving.refusal import Refusal
from muster.tasks import stop_tasks

__all__ = ("Face", "HttpServer", "HttpSettings")

TELL_SECONDS = 60.0
"""At most so often the same trouble is told."""

OWN_FILES = 128
"""Open files that are kept for other things than connections."""

SPARE_FILES = 512
"""That many more are asked of the system, for the targets."""

HELD_BODIES = 8
"""Bodies of the largest size whose bytes may be in memory at a time."""

SWEEP_SECONDS = 1.0

Handler = Callable[["HttpServer", web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """Where a server listens, whom it answers, and its bounds. Times in seconds."""

    host: str = "127.0.0.1"
    port: int = 0
    """0: the system chooses one."""
    token: str | None
    """`None`: everybody on this machine may ask."""
    allow_hosts: tuple[str, ...] = ()
    max_connections: int = 1000
    max_requests: int = 256
    """Under way at a time; more are answered with 503."""
    max_body: int = 32 * 2**20
    idle_seconds: float = 75.0
    """For a connection without a request: before its headers are whole, and between two."""
    body_seconds: float = 60.0
    """For a whole body."""
    write_seconds: float = 60.0
    """For a client to take what was sent to it."""
    public_paths: frozenset[str] = frozenset({"/health"})
    """Answered without a token."""


@dataclass(frozen=True, slots=True)
class Face:
    """What a server is for its clients."""

    answer: Handler
    path: str
    """Where it is, for people."""
    stop: Callable[[], Awaitable[int]]
    """The server is about to stop: ends what waits for clients; how much that was."""


class HttpServer:
    """Answers requests with `handler`. Start it, and stop it."""

    def __init__(
        self, handler: Handler, settings: HttpSettings, *, tell: Callable[[str], None]
    ) -> None:
        self.settings = settings
        self._handler = handler
        self._tell = tell
        self._told: dict[str, float] = {}
        self._access = Access(settings.token, host=settings.host, allow_hosts=settings.allow_hosts)
        self._max_connections = settings.max_connections
        self._open: set[_Connection] = set()
        self._idle: dict[_Connection, float] = {}
        """Without a request, and since when; the longest first."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._endless: set[asyncio.Task[Any]] = set()
        self._held = 0
        self._server: asyncio.Server | None = None
        self._sweeping: asyncio.TimerHandle | None = None
        self._stopping = False
        self._all_done = asyncio.Event()

    async def start(self) -> int:
        """Listen; the port.

        Raises:
            MusterError: nobody can listen there.
        """
        settings = self.settings
        self._max_connections = min(settings.max_connections, _files_for(settings.max_connections))
        if self._max_connections < settings.max_connections:
            self._tell(
                f"at most {self._max_connections} connections: the system allows no more open files"
            )
        factory = _Factory(self)
        try:
            self._server = await asyncio.get_running_loop().create_server(
                factory, settings.host, settings.port, backlog=1024
            )
        except OSError as error:
            raise MusterError(
                f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}"
            ) from None
        self._sweep()
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self, grace: float, hurry: asyncio.Event | None = None) -> int:
        """No new requests; those under way have `grace` seconds, or until `hurry` is set.

        Returns:
            How many were cut off.
        """
        self._stopping = True
        if self._server is not None:
            self._server.close()
        if self._sweeping is not None:
            self._sweeping.cancel()
        for connection in list(self._idle):
            connection.end()
        await stop_tasks(tuple(self._endless))
        if self._tasks:
            self._all_done.clear()
            waits = [asyncio.ensure_future(self._all_done.wait())]
            if hurry is not None:
                waits.append(asyncio.ensure_future(hurry.wait()))
            await asyncio.wait(waits, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
        cut = len(self._tasks)
        await stop_tasks(tuple(self._tasks))
        for connection in list(self._open):
            connection.end()
        await asyncio.sleep(0)  # their ends are told in the loop's next turn
        return cut

    def is_endless(self) -> None:
        """The request under way is a stream without an end: nobody waits for it in `stop`."""
        task = asyncio.current_task()
        assert task is not None
        self._endless.add(task)

    # --- connections ---

    def opened(self, connection: _Connection) -> bool:
        """False when there is no room for it."""
        if self._stopping:
            return False
        if len(self._open) >= self._max_connections:
            self._tell_seldom(
                f"{len(self._open)} connections are open (--max-connections): "
                + ("idle ones are closed to make room" if self._idle else "new ones are refused")
            )
            if not self._idle:
                return False
            oldest = next(iter(self._idle))
            self.closed(oldest)
            oldest.end()
        self._open.add(connection)
        self._idle[connection] = time.monotonic()
        return True

    def closed(self, connection: _Connection) -> None:
        """It is gone."""
        self._open.discard(connection)
        self._idle.pop(connection, None)

    def _sweep(self) -> None:
        """Close what has been idle for too long."""
        latest = time.monotonic() - self.settings.idle_seconds
        late = []
        for connection, since in self._idle.items():
            if since > latest:
                break
            late.append(connection)
        for connection in late:
            connection.end()
        self._sweeping = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    def _tell_seldom(self, text: str) -> None:
        now = time.monotonic()
        kind = text.partition(":")[2]
        if now - self._told.get(kind, -TELL_SECONDS) >= TELL_SECONDS:
            self._told[kind] = now
            self._tell(text)

    # --- one request ---

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer it, whatever it is."""
        connection = request.protocol
        assert isinstance(connection, _Connection)
        self._idle.pop(connection, None)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        held = connection.held = 0
        try:
            response = await self._answer(request)
            if self._stopping:
                response.force_close()
            async with asyncio.timeout(self.settings.write_seconds):
                await response.prepare(request)
                await response.write_eof()
            return response
        except TimeoutError:
            connection.end()
            raise ConnectionResetError("the client does not read") from None
        finally:
            held, connection.held = connection.held, 0
            self._held -= held
            self._tasks.discard(task)
            self._endless.discard(task)
            if not self._tasks:
                self._all_done.set()
            if connection in self._open:
                self._idle[connection] = time.monotonic()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            if self._stopping:
                raise _stopped()
            self._access.check_names(request)
            if request.path not in self.settings.public_paths:
                self._access.check_token(request)
            if len(self._tasks) > self.settings.max_requests:
                raise Refusal(
                    503,
                    f"{self.settings.max_requests} requests are under way (--max-requests); "
                    "try again later",
                    kind="server_error",
                    code="overloaded",
                    headers={"Retry-After": "1"},
                )
            return await self._handler(self, request)
        except Refusal as refusal:
            return _refused(refusal)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._stopping or request.transport is None or request.writer.output_size:
                raise
            assert task is not None
            task.uncancel()  # it was us, and the client is still there to be told
            return _refused(_stopped())
        except (ConnectionError, MemoryError):
            raise
        except Exception as error:
            self._tell(f"a request failed: {type(error).__name__}: {str(error)[:300]}")
            return _refused(
                Refusal(
                    500,
                    "the server has failed; its standard error says why",
                    kind="server_error",
                    code="internal_error",
                    close=True,
                )
            )

    async def read(self, request: web.BaseRequest) -> bytes:
        """The request's whole body. Raises `Refusal`."""
        settings = self.settings
        if (request.content_length or 0) > settings.max_body:
            raise self._too_large()
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise Refusal(415, "a compressed body is not taken: send it as it is", close=True)
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        # Most bodies come with their headers.
        seconds = None if request.content.is_eof() else settings.body_seconds
        try:
            async with asyncio.timeout(seconds):
                return await self._collected(request)
        except TimeoutError:
            raise Refusal(
                408,
                f"the body did not come within {settings.body_seconds:g} s",
                code="body_timeout",
                close=True,
            ) from None
        except web.RequestPayloadError as error:
            raise Refusal(400, f"the body is broken: {error}"[:300], close=True) from None

    async def _collected(self, request: web.BaseRequest) -> bytes:
        connection: Any = request.protocol
        content = request.content
        parts: list[bytes] = []
        while chunk := await content.readany():
            parts.append(chunk)
            connection.held += len(chunk)
            self._held += len(chunk)
            if connection.held > self.settings.max_body:
                raise self._too_large()
            if self._held > HELD_BODIES * self.settings.max_body:
                raise Refusal(
                    503,
                    "too many large requests at a time; try again later",
                    kind="server_error",
                    code="overloaded",
                    headers={"Retry-After": "1"},
                    close=True,
                )
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _too_large(self) -> Refusal:
        return Refusal(
            413,
            f"the body is larger than {self.settings.max_body:,} bytes (--max-body)",
            code="body_too_large",
            close=True,
        )


class _Factory(web.Server):
    """Makes the protocol of each connection."""

    def __init__(self, server: HttpServer) -> None:
        super().__init__(server.handle, handler_cancellation=True)
        self._server = server

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, self._server, self._loop)


class _Connection(web.RequestHandler):
    """One connection; the server hears of its beginning and its end."""

    __slots__ = ("_server", "held")

    def __init__(
        self, factory: web.Server, server: HttpServer, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(
            factory,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]
            auto_decompress=False,
            lingering_time=1.0,
            # The server closes idle connections itself: also those that never send a request.
            keepalive_timeout=server.settings.idle_seconds + 60.0,
        )
        self._server = server
        self.held = 0
        """Bytes of its body that are in memory."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let it in, or tell it why not."""
        super().connection_made(transport)
        if not self._server.opened(self):
            if isinstance(transport, asyncio.Transport):
                transport.write(_NO_ROOM)
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """It is gone; so is the call that it asked for."""
        self._server.closed(self)
        super().connection_lost(exc)

    def end(self) -> None:
        """Close it, whatever is still to be sent."""
        transport: Any = self.transport
        if transport is not None:
            transport.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is no HTTP gets one answer in our shape, and no traceback in a log."""
        words = " ".join((message or "").split())[:200] or "it cannot be read"
        if request.writer.output_size > 0:
            raise ConnectionResetError("an answer has begun already")
        return _refused(Refusal(status, f"not a good HTTP request: {words}", close=True))


def _stopped() -> Refusal:
    return Refusal(
        503, "the server is being stopped", kind="server_error", code="stopping", close=True
    )


def _refused(refusal: Refusal) -> web.Response:
    response = json_response(refusal.body, status=refusal.status, headers=refusal.headers)
    if refusal.close:
        response.force_close()
    return response


def _files_for(connections: int) -> int:
    """How many connections the limit of open files leaves room for, once it is raised."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + OWN_FILES + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        ceiling = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (ceiling, hard))
            soft = ceiling
    return connections if soft == resource.RLIM_INFINITY else max(1, soft - OWN_FILES)


_NO_ROOM_BODY = Refusal(
    503, "no room for another connection", kind="server_error", code="overloaded"
).body
_NO_ROOM = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(_NO_ROOM_BODY), _NO_ROOM_BODY)
)
