"""A loopback server whose every byte the test decides: for answers that no decent server gives.

async with RawServer(answer) as server:      # answer(request, writer) is a coroutine
    … server.url …
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

__all__ = ("RawServer", "Request", "events", "reply")


@dataclass
class Request:
    """A request as it came; `headers` have lower-case names."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


Answer = Callable[[Request, asyncio.StreamWriter], Awaitable[None]] | bytes


@dataclass
class RawServer:
    """Answers each request with bytes, or lets a coroutine write them; then closes."""

    answer: Answer | list[bytes]
    """A list is one answer a request, the last one for ever."""
    requests: list[Request] = field(default_factory=list)
    closed_early: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a client went away while the server was still holding its connection."""

    async def __aenter__(self) -> RawServer:
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            request = await _read(reader)
            self.requests.append(request)
            answer = self.answer
            if isinstance(answer, list):
                answer = answer[min(len(self.requests), len(answer)) - 1]
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
            else:
                held = asyncio.ensure_future(answer(request, writer))
                gone = asyncio.ensure_future(reader.read(1))
                done, rest = await asyncio.wait({held, gone}, return_when="FIRST_COMPLETED")
                if held not in done:
                    self.closed_early.set()
                for other in rest:
                    other.cancel()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()


def reply(
    body: bytes | str | dict[str, Any] | list[Any],
    *,
    status: int = 200,
    content_type: str = "application/json",
    headers: dict[str, str] | None = None,
) -> bytes:
    """A whole answer that ends with the connection."""
    if isinstance(body, dict | list):
        body = json.dumps(body)
    data = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status} Status", f"Content-Type: {content_type}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if not any(name.lower() == "content-length" for name in headers or {}):
        lines.append(f"Content-Length: {len(data)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


def events(*data: Any, ended: bool = True) -> bytes:
    """A chunked stream of server-sent events; strings go out as they are, the rest as JSON.

    With `ended` False the connection closes before the last chunk says so.
    """
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    body = b""
    for item in data:
        text = item if isinstance(item, str) else json.dumps(item)
        name = f"event: {item['type']}\n" if isinstance(item, dict) and "type" in item else ""
        event = f"{name}data: {text}\n\n".encode()
        body += f"{len(event):x}\r\n".encode() + event + b"\r\n"
    return head + body + (b"0\r\n\r\n" if ended else b"")


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, path, headers, body)
