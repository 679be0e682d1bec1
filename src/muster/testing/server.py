"""The environment's server: HTTP/1.1 on loopback, every byte of which the script decides.

It runs on a thread of its own, so that a provider which blocks its event loop still gets answers
and is found out by the rule that is about it, not by a hang.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from muster.testing.dialects import Dialect
from muster.testing.script import (
    Body,
    Call,
    Cut,
    Empty,
    EndEarly,
    Endless,
    ErrorEvent,
    Reply,
    Reset,
    Script,
    Stall,
    Status,
)

__all__ = ("Server",)

T = TypeVar("T")

PAUSE = 0.003
"""Between the torn pieces of a stream: so long that they arrive one by one."""
HALF = Reply(text="This is the first half of an answer, and this its second half.")
BLOCK = 1 << 18


class _Thread:
    """The event loop that all servers of a process share."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._work, name="muster-environment", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait here for what is done there."""
        done: Future[T] = asyncio.run_coroutine_threadsafe(work, self.loop)
        return done.result(30)


_threads: list[_Thread] = []
_starting = threading.Lock()


def _shared_thread() -> _Thread:
    with _starting:
        if not _threads:
            _threads.append(_Thread())
        return _threads[0]


class Server:
    """Answers each call as `script` says; keeps the calls, oldest first."""

    def __init__(self, script: Script, dialect_at: Callable[[str], Dialect]) -> None:
        self.script = script
        self.dialect_at = dialect_at
        """What is spoken at a path."""
        self.calls: list[Call] = []
        self.connections = 0
        """Open ones, as the server sees them."""
        self.sent = 0
        """Bytes of endless answers that were taken from it."""
        self.trouble: Exception | None = None
        """The first failure to read a call, or to write an answer."""
        self._thread = _shared_thread()
        self._tasks: set[asyncio.Task[None]] = set()
        self._socket = _bound(0)
        self.port = int(self._socket.getsockname()[1])
        self._server = self._thread.run(self._listen())

    def refuse(self) -> None:
        """Close the port and all connections; from now on nobody can connect."""
        self._thread.run(self._stop())
        self._socket = _bound(self.port)  # held, so that nobody else gets it

    def close(self) -> None:
        """Close everything."""
        self._thread.run(self._stop())
        self._socket.close()

    async def _listen(self) -> asyncio.Server:
        self._socket.listen(256)
        return await asyncio.start_server(self._serve, sock=self._socket, limit=1 << 20)

    async def _stop(self) -> None:
        self._server.close()
        self._socket.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            await _Connection(self, reader, writer).run()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, OSError):
            pass
        except asyncio.CancelledError:
            pass  # the server closes
        except Exception as error:  # of the dialect, which may be an author's own
            self.trouble = self.trouble or error
        finally:
            self.connections -= 1
            self._tasks.discard(task)
            writer.transport.abort()


def _bound(port: int) -> socket.socket:
    # With the protocol named, asyncio sends small pieces at once, without Nagle's 40 ms.
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.bind(("127.0.0.1", port))
    return found


class _Connection:
    """One connection, and the calls that come over it one after the other."""

    def __init__(
        self, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.server = server
        self.reader = reader
        self.writer = writer

    async def run(self) -> None:
        """Answer until either side closes."""
        while True:
            method, path, headers = await self._head()
            body = await self._body(headers)
            dialect = self.server.dialect_at(path)
            call = dialect.read(path, headers, _decoded(body))
            if method == "GET" and path.rstrip("/").endswith("/models"):
                await self._send(200, b'{"object": "list", "data": []}')
                continue
            self.server.calls.append(call)
            if not await self._answer(dialect, call):
                return

    # --- reading ---

    async def _head(self) -> tuple[str, str, dict[str, str]]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.rstrip("\r\n").split("\r\n")
        method, path, _ = first.split(" ", 2)
        pairs = (line.partition(":") for line in lines)
        return method, path, {name.strip().lower(): value.strip() for name, _, value in pairs}

    async def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("expect", "").lower() == "100-continue":
            self.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "chunked" not in headers.get("transfer-encoding", "").lower():
            return await self.reader.readexactly(int(headers.get("content-length") or 0))
        parts = []
        while size := int((await self.reader.readline()).split(b";")[0], 16):
            parts.append(await self.reader.readexactly(size))
            await self.reader.readexactly(2)
        while (await self.reader.readline()).strip():
            pass
        return b"".join(parts)

    # --- answering; True: the connection can be used again ---

    async def _answer(self, dialect: Dialect, call: Call) -> bool:
        answer = self.server.script(call)
        match answer:
            case Reply():
                return await self._reply(dialect, call, answer)
            case Status():
                data = json.dumps(dialect.error(answer.message, answer.code)).encode()
                await self._send(answer.status, data, headers=dict(answer.headers))
                return True
            case Reset():
                self._reset()
            case Stall():
                if answer.amid:
                    await self._half(dialect, call)
                await self.reader.read(1)  # until the client has enough of it
            case Cut():
                await self._cut(dialect, call)
            case Endless():
                await self._endless(call, answer.size)
            case _:
                return await self._broken(dialect, call, answer)
        return False

    async def _broken(self, dialect: Dialect, call: Call, answer: Any) -> bool:
        """Answers that are good HTTP, and no good as answers."""
        match answer:
            case Body(data=data, as_event=True) if call.stream:
                await self._half(dialect, call)
                await self._chunk(b"data: " + data + b"\n\n")
            case Body(data=data):
                await self._send(200, data, content_type=answer.content_type)
                return True
            case EndEarly() if call.stream:
                await self._half(dialect, call)
            case EndEarly():
                data = json.dumps(dialect.whole(call, HALF)).encode()
                await self._send(200, data[: len(data) // 2])
                return True
            case ErrorEvent() if call.stream:
                await self._half(dialect, call)
                await self._chunk(dialect.error_event(answer.message).encode())
            case ErrorEvent():
                error = dialect.error(answer.message, "server_error")
                await self._send(200, json.dumps(error).encode())
                return True
            case Empty() if call.stream:
                await self._stream_head(dialect)
                await self._chunk("".join(dialect.empty_events(call)).encode())
            case Empty():
                await self._send(200, json.dumps(dialect.empty(call)).encode())
                return True
        await self._end_chunks()
        return True

    async def _reply(self, dialect: Dialect, call: Call, reply: Reply) -> bool:
        if reply.delay:
            await asyncio.sleep(reply.delay)
        if not call.stream:
            await self._send(200, json.dumps(dialect.whole(call, reply)).encode())
            return True
        await self._stream_head(dialect)
        events = [
            *dialect.opening(call, reply),
            *dialect.pieces(call, reply),
            *dialect.closing(call, reply),
        ]
        if reply.torn:
            for part in _torn("".join(events).encode()):
                await self._chunk(part)
                await asyncio.sleep(PAUSE)
        else:
            for event in events:
                await self._chunk(event.encode())
        await self._end_chunks()
        return True

    async def _half(self, dialect: Dialect, call: Call) -> None:
        """The first half of a stream; or the head of an answer in one piece, and half of that."""
        if not call.stream:
            data = json.dumps(dialect.whole(call, HALF)).encode()
            self._head_of(200, {"Content-Type": "application/json", "Content-Length": len(data)})
            self.writer.write(data[: len(data) // 2])
            await self.writer.drain()
            return
        await self._stream_head(dialect)
        pieces = dialect.pieces(call, HALF)
        for event in (*dialect.opening(call, HALF), *pieces[: len(pieces) // 2]):
            await self._chunk(event.encode())

    async def _cut(self, dialect: Dialect, call: Call) -> None:
        await self._half(dialect, call)
        # What was written must have left before the connection goes.
        await asyncio.sleep(PAUSE * 5)
        self.writer.close()
        await self.writer.wait_closed()

    async def _endless(self, call: Call, size: int) -> None:
        """One string that does not end; `sent` says how much of it was taken."""
        kind = "text/event-stream" if call.stream else "application/json"
        self._head_of(200, {"Content-Type": kind, "Transfer-Encoding": "chunked"})
        await self._chunk(b'data: {"text": "' if call.stream else b'{"text": "')
        block = b"a" * BLOCK
        for _ in range(size // BLOCK):
            await self._chunk(block)
            self.server.sent += BLOCK
        await self._chunk(b'"}\n\n')
        await self._end_chunks()

    def _reset(self) -> None:
        found = self.writer.get_extra_info("socket")
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    # --- bytes ---

    async def _send(
        self,
        status: int,
        data: bytes,
        *,
        content_type: str = "application/json",
        headers: dict[str, str] | None = None,
    ) -> None:
        fixed = {"Content-Type": content_type, "Content-Length": len(data)}
        self._head_of(status, {**fixed, **(headers or {})})
        self.writer.write(data)
        await self.writer.drain()

    async def _stream_head(self, dialect: Dialect) -> None:
        kind = dialect.stream_type
        self._head_of(200, {"Content-Type": kind, "Transfer-Encoding": "chunked"})
        await self.writer.drain()

    def _head_of(self, status: int, headers: dict[str, Any]) -> None:
        lines = [f"HTTP/1.1 {status} Status", *(f"{name}: {v}" for name, v in headers.items())]
        self.writer.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")

    async def _chunk(self, data: bytes) -> None:
        if data:
            self.writer.write(b"%x\r\n%b\r\n" % (len(data), data))
            await self.writer.drain()

    async def _end_chunks(self) -> None:
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()


def _decoded(body: bytes) -> Any:
    text = body.decode("utf-8", "replace")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _torn(data: bytes) -> list[bytes]:
    """`data` cut within each character of several bytes, and elsewhere now and then."""
    cuts = [place for place in range(1, len(data)) if data[place] & 0xC0 == 0x80]
    # Enough cuts to find who decodes piece by piece; each costs a pause.
    cuts = cuts[:: max(1, len(cuts) // 12)] or [len(data) // 3, len(data) // 2]
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
