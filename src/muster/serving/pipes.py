"""Standard input and output as a channel of lines that nothing else writes to.

While the channel is open, the process's own standard output is its standard error, so that a
`print` of somebody's code, or a child's, is no line of ours; its standard input is empty.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import stat
import threading
from collections.abc import AsyncIterator
from typing import Any

__all__ = ("LineTooLong", "Pipes")

MAX_LINE = 64 * 2**20
CHUNK = 2**18
HIGH_WATER = 2**20
"""Bytes that are read ahead."""


class LineTooLong(Exception):
    """A line has more bytes than anybody wants to read; it was skipped."""


class Pipes:
    """The channel. Open it within the loop, read `batches`, close it."""

    def __init__(self, max_line: int = MAX_LINE) -> None:
        self._max_line = max_line
        self._input = _private(0)
        self._output = _private(1)
        self._writer: asyncio.WriteTransport | None = None
        self._flow = _Flow()
        self._reader: asyncio.StreamReader | None = None
        self._reading: asyncio.ReadTransport | None = None

    async def open(self) -> Pipes:
        """Point the standard streams elsewhere, and begin to read."""
        _point(0, os.open(os.devnull, os.O_RDONLY))
        _point(1, os.dup(2))
        loop = asyncio.get_running_loop()
        reader = self._reader = asyncio.StreamReader(limit=HIGH_WATER // 2, loop=loop)
        if _is_pollable(self._input):
            file = os.fdopen(self._input, "rb", 0)
            self._reading, _ = await loop.connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(reader, loop=loop), file
            )
        else:
            _read_on_thread(self._input, reader, loop)
        if _is_pollable(self._output):
            file = os.fdopen(self._output, "wb", 0)
            self._writer, _ = await loop.connect_write_pipe(lambda: self._flow, file)
        return self

    async def batches(self) -> AsyncIterator[list[bytes | LineTooLong]]:
        """Whole lines, those together that came together; ends with the input."""
        assert self._reader is not None
        parts: list[bytes] = []
        size = 0
        while chunk := await self._reader.read(CHUNK):
            *complete, rest = chunk.split(b"\n")
            lines: list[bytes | LineTooLong] = []
            for line in complete:
                size += len(line)
                parts.append(line)
                lines.append(b"".join(parts) if size <= self._max_line else LineTooLong())
                parts, size = [], 0
            size += len(rest)
            if size <= self._max_line:
                parts.append(rest)
            else:
                parts = []  # it is too long already; its end is waited for
            if lines:
                yield lines
        if size:
            yield [b"".join(parts) if size <= self._max_line else LineTooLong()]

    def write(self, data: bytes) -> None:
        """Send it, as soon as the other side takes it."""
        if self._writer is not None:
            if not self._writer.is_closing():
                self._writer.write(data)
            return
        while data:
            data = data[os.write(self._output, data) :]

    @property
    def is_broken(self) -> bool:
        """Nobody reads any more."""
        return self._flow.lost

    async def broken(self) -> None:
        """Wait until nobody reads any more."""
        await self._flow.closed.wait()

    async def drain(self) -> None:
        """Wait while the other side is slow."""
        await self._flow.ready.wait()

    async def close(self, seconds: float = 2.0) -> None:
        """Let what was written go out, for so long, and let go of the streams."""
        if self._writer is not None:
            self._writer.close()
            try:
                async with asyncio.timeout(seconds):
                    await self._flow.closed.wait()
            except TimeoutError:
                self._writer.abort()
        if self._reading is not None:
            self._reading.close()


class _Flow(asyncio.BaseProtocol):
    """Hears whether the output takes more."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.ready.set()
        self.closed = asyncio.Event()
        self.lost = False

    def pause_writing(self) -> None:
        self.ready.clear()

    def resume_writing(self) -> None:
        self.ready.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.ready.set()
        self.closed.set()


def _private(fd: int) -> int:
    """A copy of the stream that children do not get."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)


def _point(fd: int, other: int) -> None:
    os.dup2(other, fd)
    os.close(other)


def _is_pollable(fd: int) -> bool:
    mode = os.fstat(fd).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode)


def _read_on_thread(fd: int, reader: asyncio.StreamReader, loop: asyncio.AbstractEventLoop) -> None:
    """A file is always ready, which loops cannot wait for."""

    def read() -> None:
        taken: Any
        while True:
            data = os.read(fd, CHUNK)
            taken = asyncio.run_coroutine_threadsafe(_feed(reader, data), loop)
            taken.result()
            if not data:
                return

    threading.Thread(target=read, name="standard input", daemon=True).start()


async def _feed(reader: asyncio.StreamReader, data: bytes) -> None:
    if data:
        reader.feed_data(data)
    else:
        reader.feed_eof()
    await asyncio.sleep(0)
