"""An MCP server as a child process that speaks over its standard input and output.

The `mcp` package has such a transport too. This one also ends what the server itself has started,
when the server is already gone; sees a server die though a grandchild holds its output open; reads
a message of fifty megabytes without copying it eight hundred times; and keeps the last lines of
standard error for the message that says what went wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from muster.tools.mcp_session import McpFailed

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
    from mcp.client import Transport

__all__ = ("StdioChannel",)

MAX_MESSAGE_BYTES = 64 * 2**20
STDERR_TAIL_BYTES = 4096
EOF_SECONDS = 0.5
"""Given to a server to end by itself once its input is closed."""
TERM_SECONDS = 2.0
"""Between the request to end (TERM) and the end (KILL)."""
GROUP_SECONDS = 0.5
"""The same for those that the server has started and left behind."""
_CHUNK = 2**18
_POLL_SECONDS = 0.02

INHERITED = ("HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "USER")
"""What a server gets of our environment; the rest is not its business. See `McpServer.env`."""


class StdioChannel:
    """One child, from its start to its end."""

    def __init__(
        self, command: tuple[str, ...], env: Mapping[str, str], cwd: Path | None = None
    ) -> None:
        self._command = command
        self._env = env
        self._cwd = cwd
        self._child: _Child | None = None
        self._broken: str | None = None

    def connect(self) -> Transport:
        """The streams that the `mcp` client wants; the child lives as long as the block."""
        return self._streams()

    async def ended(self) -> None:
        """Returns when the child is gone or its output is closed."""
        assert self._child is not None
        await self._child.over.wait()

    def trouble(self) -> str:
        """What is known of why it does not answer: exit code, last words."""
        child = self._child
        if child is None:
            return ""
        said = []
        if self._broken:
            said.append(self._broken)
        elif child.exited.is_set() and not child.was_stopped:
            said.append(_describe_exit(child.exit_code))
        words = bytes(child.stderr).decode("utf-8", "replace").strip()
        if words:
            said.append(f"its last words: {words[-1000:]}")
        return "; ".join(said)

    @asynccontextmanager
    async def _streams(self) -> AsyncIterator[tuple[Any, Any]]:
        child = self._child = await self._start()
        incoming, read_stream = anyio.create_memory_object_stream[Any](0)
        write_stream, outgoing = anyio.create_memory_object_stream[Any](0)
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._read, child, incoming)
                group.start_soon(self._write, child, outgoing)
                try:
                    yield read_stream, write_stream
                finally:
                    with anyio.CancelScope(shield=True):
                        await child.stop()
                    group.cancel_scope.cancel()
        finally:
            child.kill()
            for stream in (incoming, read_stream, write_stream, outgoing):
                stream.close()

    async def _start(self) -> _Child:
        environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
        loop = asyncio.get_running_loop()
        try:
            transport, child = await loop.subprocess_exec(
                lambda: _Child(loop),
                *self._command,
                env={**environment, **self._env},
                cwd=self._cwd,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise McpFailed(f"cannot start {self._command[0]}: {error}") from error
        child.transport = transport
        return child

    async def _read(self, child: _Child, incoming: MemoryObjectSendStream[Any]) -> None:
        from mcp.shared.message import SessionMessage
        from mcp.types import jsonrpc_message_adapter

        try:
            async for line in _lines(child.output):
                # Servers that print to their output are common; that is no reason to give up.
                with contextlib.suppress(ValueError):
                    message = jsonrpc_message_adapter.validate_json(line, by_name=False)
                    await incoming.send(SessionMessage(message))
        except _TooLong:
            self._broken = f"it sent a message of more than {MAX_MESSAGE_BYTES:,} bytes"
        except (anyio.ClosedResourceError, anyio.BrokenResourceError, OSError):
            pass  # the session is closed
        finally:
            incoming.close()
            child.over.set()

    async def _write(self, child: _Child, outgoing: MemoryObjectReceiveStream[Any]) -> None:
        async for item in outgoing:
            data = item.message.model_dump_json(by_alias=True, exclude_unset=True)
            await child.send(data.encode() + b"\n")


class _Child(asyncio.SubprocessProtocol):
    """The child's pipes and its end, told by callbacks: they come as well while a grandchild holds
    the pipes open."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.transport: asyncio.SubprocessTransport | None = None
        self.output = asyncio.StreamReader(limit=2 * _CHUNK, loop=loop)
        self.stderr = bytearray()
        self.exited = asyncio.Event()
        self.over = asyncio.Event()
        self.exit_code: int | None = None
        self.was_stopped = False
        self._is_ended = False
        self._pid = 0
        self._loop = loop
        self._writable = asyncio.Event()
        self._writable.set()

    # --- callbacks ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.SubprocessTransport)
        self.transport = transport
        self._pid = transport.get_pid()
        output = transport.get_pipe_transport(1)
        if output is not None:
            self.output.set_transport(output)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 1:
            self.output.feed_data(data)
            return
        self.stderr += data
        del self.stderr[:-STDERR_TAIL_BYTES]

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == 0:
            self._writable.set()
        elif fd == 1:
            self._end_output()

    def process_exited(self) -> None:
        assert self.transport is not None
        self.exit_code = self.transport.get_returncode()
        self.exited.set()
        self._writable.set()
        # What it wrote last may still be in the pipe, which somebody else may hold open.
        self._loop.call_later(EOF_SECONDS, self._end_output)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _end_output(self) -> None:
        if not self.output.at_eof():
            self.output.feed_eof()

    # --- what the channel does ---

    async def send(self, data: bytes) -> None:
        await self._writable.wait()
        stdin = self._stdin()
        if stdin is not None and not stdin.is_closing():
            stdin.write(data)

    async def stop(self) -> None:
        """Input closed, then TERM, then KILL, to the whole group; all is over after it."""
        self.was_stopped = not self.over.is_set()
        stdin = self._stdin()
        if stdin is not None:
            stdin.close()
        try:
            if not await self._gone(EOF_SECONDS):
                self.was_stopped = True
                self._signal(signal.SIGTERM)
                await self._gone(TERM_SECONDS)
            await self._group_gone()
        finally:
            self.kill()
        await self._gone(TERM_SECONDS)

    async def _group_gone(self) -> None:
        """Those that the server has started, and that outlive it, get TERM and their time too."""
        end = self._loop.time() + GROUP_SECONDS
        if self._signal(signal.SIGTERM):
            while self._signal(0) and self._loop.time() < end:  # noqa: ASYNC110 (nobody tells us)
                await asyncio.sleep(_POLL_SECONDS)

    def kill(self) -> None:
        """At once: the leader, and whoever is left of its group; then let go of the pipes."""
        if not self._is_ended:
            self._is_ended = True
            self._signal(signal.SIGKILL)
        if self.transport is not None:
            self.transport.close()

    async def _gone(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.exited.wait()
        return self.exited.is_set()

    def _signal(self, number: int) -> bool:
        """False when nobody of the group is left."""
        try:
            os.killpg(self._pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def _stdin(self) -> asyncio.WriteTransport | None:
        pipe = None if self.transport is None else self.transport.get_pipe_transport(0)
        return pipe if isinstance(pipe, asyncio.WriteTransport) else None


class _TooLong(Exception):
    """A line has more bytes than anybody wants to read."""


async def _lines(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Whole lines; each is put together once, however long it is."""
    parts: list[bytes] = []
    size = 0
    while chunk := await reader.read(_CHUNK):
        *complete, rest = chunk.split(b"\n")
        for line in complete:
            yield b"".join([*parts, line])
            parts, size = [], 0
        parts.append(rest)
        size += len(rest)
        if size > MAX_MESSAGE_BYTES:
            raise _TooLong


def _describe_exit(code: int | None) -> str:
    if code is None:
        return "the process ended"
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"the process was ended by {signal.Signals(-code).name}"
    return f"the process ended with exit code {code}"
