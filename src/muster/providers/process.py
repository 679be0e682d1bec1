"""One child process within asyncio: started fast, watched without threads, ended for good.

The child leads a process group of its own. When it is over, however that came about, whatever is
left of the group is killed; a process that has left the group (`setsid`, a daemon) is not found
any more. The child is reaped only after that, so that the group's number cannot have gone to
somebody else in between.

asyncio's own `create_subprocess_exec` starts a thread for each child on Python 3.11 and costs twice
the CPU; here, a pidfd (Linux) tells of the exit, and a thread only where there is none.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Literal, TypeAlias

from muster.providers.child_watch import watcher_of
from muster.providers.spawn import open_pidfd, spawn

__all__ = (
    "GRACE_SECONDS",
    "STDERR_TAIL_BYTES",
    "Completed",
    "StopReason",
    "readable_file",
    "run_process",
)

GRACE_SECONDS = 2.0
"""Between the request to end (TERM) and the end (KILL)."""

STDERR_TAIL_BYTES = 8192
"""What is kept of a child's standard error: its last bytes."""

_CHUNK = 65_536

_LEFT_IN_PIPE = 1 << 20
"""The most that Linux lets a pipe hold; nothing more can be left in it by a child that is gone."""

_UNKNOWN_EXIT = 255
"""As asyncio: somebody else has reaped the child."""

StopReason: TypeAlias = Literal["timeout", "stdout", "cancelled"]


@dataclass(frozen=True, slots=True)
class Completed:
    """How a child ended. `exit_code` is negative for a signal, as in `subprocess`."""

    exit_code: int
    stdout: bytes
    """The whole of it, unless `stopped` is `stdout`: then its first `max_stdout` bytes."""
    stderr: bytes
    """The last `STDERR_TAIL_BYTES` of it."""
    stopped: StopReason | None = None
    """Why it was made to end: the time was up, or it wrote too much."""


async def run_process(
    argv: list[str],
    *,
    env: Mapping[bytes, bytes],
    cwd: Path | None = None,
    timeout: float | None = None,
    max_stdout: int,
    stdin: int | None = None,
) -> Completed:
    """Run `argv` (found on `env`'s PATH) to its end; it reads the descriptor `stdin`, which stays
    the caller's, or an empty standard input.

    After `timeout` seconds, after `max_stdout` bytes, or when this call is cancelled, the whole
    process group gets TERM, and KILL `GRACE_SECONDS` later. A second cancellation kills at once.

    Raises:
        OSError: it cannot be started.
        ValueError: an argument holds a NUL character, or cannot be encoded.
    """
    child = _Child(asyncio.get_running_loop(), max_stdout)
    try:
        child.start(argv, env, cwd, stdin)
        if timeout is not None:
            child.stop_after(timeout)
        try:
            await child.ended
        except asyncio.CancelledError:
            await child.stop_and_wait()
            raise
    finally:
        child.close()
    return Completed(child.exit_code, child.stdout, bytes(child.stderr), child.stopped)


@contextlib.contextmanager
def readable_file(data: bytes) -> Iterator[int]:
    """A descriptor to read `data` from: a file has no bound that both sides could wait at."""
    with TemporaryFile() as file:
        file.write(data)
        file.flush()
        file.seek(0)
        yield file.fileno()


class _Child:
    """A process, its two pipes, and the callbacks that follow it to its end."""

    __slots__ = (
        "_chunks",
        "_deadline",
        "_err",
        "_exited",
        "_kill_timer",
        "_loop",
        "_max_stdout",
        "_out",
        "_pid",
        "_pidfd",
        "_reaped",
        "_room",
        "_watched",
        "_watcher",
        "began",
        "ended",
        "exit_code",
        "stderr",
        "stopped",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, max_stdout: int) -> None:
        self.ended: asyncio.Future[None] = loop.create_future()
        self.exit_code = _UNKNOWN_EXIT
        self.stderr = bytearray()
        self.stopped: StopReason | None = None
        self._loop = loop
        self._max_stdout = max_stdout
        self._chunks: list[bytes] = []
        self._room = max_stdout
        self._pid = 0
        self._pidfd = self._out = self._err = -1
        self._exited = self._reaped = self._watched = False
        self._watcher = watcher_of(loop)
        self.began = loop.time()
        self._deadline: asyncio.TimerHandle | None = None
        self._kill_timer: asyncio.TimerHandle | None = None

    @property
    def stdout(self) -> bytes:
        return b"".join(self._chunks)[: self._max_stdout]

    def start(
        self,
        argv: list[str],
        env: Mapping[bytes, bytes],
        cwd: Path | None,
        stdin: int | None = None,
    ) -> None:
        out_end = err_end = -1
        try:
            self._out, out_end = os.pipe()
            self._err, err_end = os.pipe()
            self._pid = spawn(argv, env, cwd, out_end, err_end, stdin=stdin)
        finally:
            for end in (out_end, err_end):
                if end >= 0:
                    os.close(end)
        os.set_blocking(self._out, False)
        os.set_blocking(self._err, False)
        self._pidfd = open_pidfd(self._pid)
        self._watcher.add(self, self._pidfd)
        if self._pidfd < 0:
            threading.Thread(target=self._wait_in_thread, daemon=True).start()

    def stop_after(self, seconds: float) -> None:
        self._deadline = self._loop.call_later(seconds, self._stop, "timeout")

    async def stop_and_wait(self) -> None:
        """End the group; the cancellation has used up `ended`, so there is a new one."""
        if not self._reaped:
            self.ended = self._loop.create_future()
            self._stop("cancelled")
            await self.ended

    def close(self) -> None:
        """Kill and reap what is still there, at once; give back what is open."""
        if self._pid and not self._reaped:
            self._end()
        self._drop_stdout()
        self._drop_stderr()

    # --- the end ---

    def _stop(self, reason: StopReason) -> None:
        if self.stopped is None and not self._reaped:
            self.stopped = reason
            self._signal(signal.SIGTERM)
            self._kill_timer = self._loop.call_later(GRACE_SECONDS, self._kill)

    def _kill(self) -> None:
        self._signal(signal.SIGKILL)
        self._kill_timer = None
        if self._exited:
            self._finish()

    def on_exit(self) -> None:
        """The leader is gone, but not reaped. Of a group that was told to end, the others get
        their time too, as far as they can be seen: they hold one of the pipes open."""
        self._exited = True
        self._forget_pidfd()
        waiting = self._kill_timer is not None and (self._out >= 0 or self._err >= 0)
        if not waiting:
            self._finish()

    def _finish(self) -> None:
        if not self._reaped:
            self._end()
            if not self.ended.done():
                self.ended.set_result(None)

    def _end(self) -> None:
        self._signal(signal.SIGKILL)
        self._reaped = True
        self._reap()
        for timer in (self._deadline, self._kill_timer):
            if timer is not None:
                timer.cancel()
        self._forget_pidfd()
        self._watcher.remove(self)
        self._drain()

    def _reap(self) -> None:
        # Where a thread waits, it may have been the one that reaped, and have noted the code.
        with contextlib.suppress(ChildProcessError):
            _, status = os.waitpid(self._pid, 0)
            self.exit_code = os.waitstatus_to_exitcode(status)

    def _signal(self, number: signal.Signals) -> None:
        # Nobody left, or (macOS) only the leader, dead and not yet reaped.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, number)

    def _wait_in_thread(self) -> None:
        self._reap()
        with contextlib.suppress(RuntimeError):  # the loop is closed: `close` has done the rest
            self._loop.call_soon_threadsafe(self.on_exit)

    def _forget_pidfd(self) -> None:
        if self._pidfd >= 0:
            self._watcher.forget(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    # --- the pipes ---

    def watch_pipes(self) -> None:
        """Read what the child writes from now on, as it comes."""
        self._watched = True
        self._loop.add_reader(self._out, self._read_stdout)
        self._loop.add_reader(self._err, self._read_stderr)

    def _read_stdout(self) -> None:
        chunk = _read(self._out)
        if chunk:
            self._room -= len(chunk)
            self._chunks.append(chunk)
            if self._room >= 0:
                return
            self._stop("stdout")
        elif chunk is None:
            return
        self._drop_stdout()
        self._pipe_closed()

    def _read_stderr(self) -> None:
        chunk = _read(self._err)
        if chunk:
            self._keep_tail(chunk)
        elif chunk is not None:
            self._drop_stderr()
            self._pipe_closed()

    def _keep_tail(self, chunk: bytes) -> None:
        self.stderr += chunk
        if len(self.stderr) > STDERR_TAIL_BYTES:
            del self.stderr[:-STDERR_TAIL_BYTES]

    def _pipe_closed(self) -> None:
        if self._exited and self._out < 0 and self._err < 0:
            self._finish()

    def _drain(self) -> None:
        """Take what the child left in the pipes. Their end is not waited for: a process outside
        the group may hold them for ever."""
        left = _LEFT_IN_PIPE
        while self._out >= 0 and left > 0 and (chunk := _read(self._out)):
            self._chunks.append(chunk)
            self._room -= len(chunk)
            left -= len(chunk)
        if self._room < 0 and self.stopped is None:
            self.stopped = "stdout"
        left = _LEFT_IN_PIPE
        while self._err >= 0 and left > 0 and (chunk := _read(self._err)):
            self._keep_tail(chunk)
            left -= len(chunk)

    def _drop_stdout(self) -> None:
        self._out = self._drop(self._out)

    def _drop_stderr(self) -> None:
        self._err = self._drop(self._err)

    def _drop(self, pipe: int) -> int:
        if pipe >= 0:
            if self._watched:
                self._loop.remove_reader(pipe)
            os.close(pipe)
        return -1


def _read(fd: int) -> bytes | None:
    """What is there; empty at the end; `None` when there is nothing yet."""
    try:
        return os.read(fd, _CHUNK)
    except BlockingIOError:
        return None
