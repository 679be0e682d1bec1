"""A child process that stays: it is written lines, and its lines are read as they come.

The child leads a process group of its own. When it is over, however that came about, whatever is
left of the group is killed, and what it wrote last is still read. Lines that are written within one
turn of the event loop leave in one write.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import signal
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path

from muster.providers.process import GRACE_SECONDS, STDERR_TAIL_BYTES
from muster.providers.spawn import open_pidfd, spawn

__all__ = ("LineProcess",)

_CHUNK = 1 << 18
_LEFT_IN_PIPE = 1 << 20
"""The most that Linux lets a pipe hold."""

_SHOWN_OF_LONG = 512
"""Of a line that is too long, what is kept of its beginning and of its end."""

_MAX_SKIPPED = 1 << 30
"""A line that goes on beyond this will not end."""

_UNKNOWN_EXIT = 255


class LineProcess:
    """A process and its three pipes. What comes of it is told by the methods named `on_…`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, max_line_bytes: int) -> None:
        self.loop = loop
        self.pid = 0
        self.exit_code = _UNKNOWN_EXIT
        self.stderr = bytearray()
        """The last `STDERR_TAIL_BYTES` of it."""
        self.ended: asyncio.Future[None] = loop.create_future()
        """Done when the process is gone, its group too, and all that it wrote has been read."""
        self._max_line = max_line_bytes
        self._in = self._out = self._err = self._pidfd = -1
        self._reaped = False
        self._outbox: list[bytes] = []
        self._flush_due = False
        self._unsent: memoryview | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self._skipped: _Skipped | None = None
        self._half = b""

    # --- what the child's user fills in ---

    def on_line(self, line: bytes) -> None:
        """A line, without its end."""
        raise NotImplementedError

    def on_long_line(self, head: bytes, tail: bytes | None) -> bool:
        """A line is longer than allowed. It is told as soon as that is known, with no `tail`; when
        that gives False, once more at the line's end."""
        raise NotImplementedError

    def on_broken(self, reason: str) -> None:
        """It cannot be talked to any more."""
        raise NotImplementedError

    def on_exit(self) -> None:
        """It is gone; the lines that it wrote before have been told."""
        raise NotImplementedError

    # --- its life ---

    def start(self, argv: list[str], env: Mapping[bytes, bytes], cwd: Path) -> None:
        """Start it. Raises `OSError` and `ValueError` as `spawn` does."""
        ends: list[int] = []
        try:
            for _ in range(3):
                ends += os.pipe()
            self.pid = spawn(argv, env, cwd, ends[3], ends[5], stdin=ends[0])
        except BaseException:
            for end in ends:
                os.close(end)
            raise
        for end in (ends[0], ends[3], ends[5]):
            os.close(end)
        self._in, self._out, self._err = ends[1], ends[2], ends[4]
        for end in (self._in, self._out, self._err):
            os.set_blocking(end, False)
        _register(self)
        self.loop.add_reader(self._out, self._read_stdout)
        self.loop.add_reader(self._err, self._read_stderr)
        self._pidfd = open_pidfd(self.pid)
        if self._pidfd >= 0:
            self.loop.add_reader(self._pidfd, self._exited)
        else:
            threading.Thread(target=self._wait_in_thread, daemon=True).start()

    async def stop(self, farewell: float) -> None:
        """End it: its input is closed, after `farewell` seconds the group gets TERM, and KILL
        `GRACE_SECONDS` later. Cancelled, it kills at once."""
        try:
            self.end_input()
            if not await self._gone_within(farewell):
                self._signal(signal.SIGTERM)
                if not await self._gone_within(GRACE_SECONDS):
                    self._signal(signal.SIGKILL)
                    await asyncio.wait((self.ended,))
        except asyncio.CancelledError:
            self.kill()
            raise

    def kill(self) -> None:
        """End it at once, its group too; nothing more of it is told."""
        if self.pid and not self._reaped:
            self._signal(signal.SIGKILL)
            self._reap()
        self._close()

    async def _gone_within(self, seconds: float) -> bool:
        done, _ = await asyncio.wait((self.ended,), timeout=seconds)
        return bool(done)

    def _exited(self) -> None:
        """The leader is gone, and not reaped yet: so the group's number is still its own."""
        if self._reaped:
            return
        self._signal(signal.SIGKILL)
        self._reap()
        self._drain()
        self._close()
        self.on_exit()

    def _reap(self) -> None:
        self._reaped = True
        # Where a thread waits, it may have been the one that reaped, and have noted the code.
        with contextlib.suppress(ChildProcessError):
            _, status = os.waitpid(self.pid, 0)
            self.exit_code = os.waitstatus_to_exitcode(status)

    def _wait_in_thread(self) -> None:
        with contextlib.suppress(ChildProcessError):
            _, status = os.waitpid(self.pid, 0)
            self.exit_code = os.waitstatus_to_exitcode(status)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(self._exited)

    def _signal(self, number: signal.Signals) -> None:
        if not self._reaped:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def _close(self) -> None:
        self._in, self._out = self._drop(self._in, writes=True), self._drop(self._out)
        self._err, self._pidfd = self._drop(self._err), self._drop(self._pidfd)
        self._outbox.clear()
        _living.discard(self)
        if not self.loop.is_closed() and not self.ended.done():
            self.ended.set_result(None)

    def _drop(self, fd: int, *, writes: bool = False) -> int:
        if fd >= 0:
            if not self.loop.is_closed():
                remove = self.loop.remove_writer if writes else self.loop.remove_reader
                remove(fd)
            os.close(fd)
        return -1

    # --- writing ---

    def write(self, line: bytes) -> None:
        """Send `line`; at the latest when the loop comes round."""
        self._outbox.append(line)
        if not self._flush_due:
            self._flush_due = True
            self.loop.call_soon(self._flush)

    def end_input(self) -> None:
        """Nothing more will be written; what has been, is still tried once."""
        if self._in >= 0:
            self._flush()
            self._in = self._drop(self._in, writes=True)

    def _flush(self) -> None:
        self._flush_due = False
        if self._in < 0:
            self._outbox.clear()
            return
        if self._unsent is not None or not self._outbox:
            return  # the loop tells when there is room again
        data = self._outbox[0] if len(self._outbox) == 1 else b"".join(self._outbox)
        self._outbox.clear()
        self._send(memoryview(data))

    def _send(self, data: memoryview) -> None:
        try:
            sent = os.write(self._in, data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._in = self._drop(self._in, writes=True)
            self._unsent = None
            # It may only be about to exit: that is the better thing to tell.
            self.loop.call_later(0.05, self._input_closed)
            return
        if sent == len(data):
            if self._unsent is not None:
                self._unsent = None
                self.loop.remove_writer(self._in)
            if self._outbox:
                self._flush()
            return
        if self._unsent is None:
            self.loop.add_writer(self._in, self._go_on)
        self._unsent = data[sent:]

    def _go_on(self) -> None:
        if self._unsent is not None:
            self._send(self._unsent)

    def _input_closed(self) -> None:
        if not self._reaped:
            self.on_broken("closed its standard input")

    # --- reading ---

    @property
    def half_line(self) -> bytes:
        """What it wrote after its last whole line."""
        return self._half or b"".join(self._parts)

    def _read_stdout(self) -> None:
        try:
            data = os.read(self._out, _CHUNK)
        except BlockingIOError:
            return
        if data:
            self._take(data)
        else:
            self._out = self._drop(self._out)
            self.loop.call_later(0.05, self._output_closed)

    def _output_closed(self) -> None:
        if not self._reaped:
            self.on_broken("closed its standard output")

    def _take(self, data: bytes) -> None:
        if self._skipped is not None:
            found = self._skip(self._skipped, data)
            if found is None:
                return
            data = found
        first, *lines = data.split(b"\n")
        if lines:
            self._line(b"".join((*self._parts, first)) if self._parts else first)
            for line in lines[:-1]:
                self._line(line)
            self._parts, self._size, first = [], 0, lines[-1]
        if first:
            self._parts.append(first)
            self._size += len(first)
            if self._size > self._max_line:
                joined = b"".join(self._parts)
                self._parts, self._size = [], 0
                told = self.on_long_line(joined[:_SHOWN_OF_LONG], None)
                self._skipped = _Skipped(joined, told)

    def _line(self, line: bytes) -> None:
        if len(line) <= self._max_line:
            self.on_line(line)
        elif not self.on_long_line(line[:_SHOWN_OF_LONG], None):
            self.on_long_line(line[:_SHOWN_OF_LONG], line[-_SHOWN_OF_LONG:])

    def _skip(self, skipped: _Skipped, data: bytes) -> bytes | None:
        """What follows the long line; `None` as long as it goes on."""
        rest, end, after = data.partition(b"\n")
        skipped.add(rest)
        if end:
            self._skipped = None
            if not skipped.told:
                self.on_long_line(skipped.head, skipped.tail)
            return after
        if skipped.size > _MAX_SKIPPED:
            skipped.size = 0
            self.on_broken("writes a line without an end")
        return None

    def _read_stderr(self) -> None:
        try:
            data = os.read(self._err, _CHUNK)
        except BlockingIOError:
            return
        if data:
            self._keep_tail(data)
        else:
            self._err = self._drop(self._err)

    def hear_stderr(self) -> None:
        """Read what is there: it was written before what we have just been told."""
        for data in _left_in(self._err):
            self._keep_tail(data)

    def _keep_tail(self, data: bytes) -> None:
        self.stderr += data
        if len(self.stderr) > STDERR_TAIL_BYTES:
            del self.stderr[:-STDERR_TAIL_BYTES]

    def _drain(self) -> None:
        """What is left in the pipes. Their end is not waited for: a process outside the group may
        hold them for ever."""
        self.hear_stderr()
        for data in _left_in(self._out):
            self._take(data)
        self._half, self._parts = b"".join(self._parts), []


class _Skipped:
    """A line that is too long: its two ends, and how much of it there was."""

    __slots__ = ("head", "size", "tail", "told")

    def __init__(self, begun: bytes, told: bool) -> None:
        self.head = begun[:_SHOWN_OF_LONG]
        self.tail = begun[-_SHOWN_OF_LONG:]
        self.size = len(begun)
        self.told = told

    def add(self, data: bytes) -> None:
        self.size += len(data)
        self.tail = (self.tail + data[-_SHOWN_OF_LONG:])[-_SHOWN_OF_LONG:]


def _left_in(fd: int) -> list[bytes]:
    found: list[bytes] = []
    left = _LEFT_IN_PIPE
    with contextlib.suppress(BlockingIOError):
        while fd >= 0 and left > 0 and (data := os.read(fd, _CHUNK)):
            found.append(data)
            left -= len(data)
    return found


# --- nothing outlives this process ----------------------------------------------------------------

_living: weakref.WeakSet[LineProcess] = weakref.WeakSet()
_owner = 0


def _register(process: LineProcess) -> None:
    global _owner  # noqa: PLW0603 (the one hook of this process)
    if _owner != os.getpid():
        _owner = os.getpid()
        _living.clear()  # those of the process that has forked us are not ours
        atexit.register(_kill_all)
    _living.add(process)


def _kill_all() -> None:
    if _owner == os.getpid():
        for process in list(_living):
            process.kill()
