"""One child process within asyncio: started fast, watched without threads, ended for good.

The child leads a process group of its own. When it is over, however that came about, whatever is
left of the group is killed; a process that has left the group (`setsid`, a daemon) is not found
any more. The child is reaped only after that, so that the group's number cannot have gone to
somebody else in between.

asyncio's own `create_subprocess_exec` starts a thread for each child on Python 3.11 and costs twice
the CPU; here, a pidfd (Linux) tells of the exit, and a thread only where there is none. What a loop
has to watch of all its children is watched in one place: registering each child with asyncio by
itself costs as much as all the rest that is done for it here.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import select
import signal
import subprocess
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

__all__ = (
    "GRACE_SECONDS",
    "STDERR_TAIL_BYTES",
    "Completed",
    "StopReason",
    "open_pidfd",
    "run_process",
    "spawn",
)

GRACE_SECONDS = 2.0
"""Between the request to end (TERM) and the end (KILL)."""

STDERR_TAIL_BYTES = 8192
"""What is kept of a child's standard error: its last bytes."""

_CHUNK = 65_536
_UNWATCHED_SECONDS = 0.01
"""A short command is over before anybody has to look into its pipes."""

_LEFT_IN_PIPE = 1 << 20
"""The most that Linux lets a pipe hold; nothing more can be left in it by a child that is gone."""

_PATH_VARIABLE = b"PATH"
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
        self._watcher = _watcher_of(loop)
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


class _Watcher:
    """Follows the children of one loop: tells each of its exit, and those that are not over soon
    to watch their pipes. It has a descriptor and a timer only while there are children."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        # The loop keeps its watcher, not the other way round.
        self._loop = weakref.proxy(loop)
        self._young: dict[_Child, None] = {}
        self._by_pidfd: dict[int, _Child] = {}
        self._exits: select.epoll | None = None
        self._timer: asyncio.TimerHandle | None = None

    def add(self, child: _Child, pidfd: int) -> None:
        self._young[child] = None
        if self._timer is None:
            self._timer = self._loop.call_at(child.began + _UNWATCHED_SECONDS, self._look_at_young)
        if pidfd >= 0:
            if self._exits is None:
                self._exits = select.epoll()
                self._loop.add_reader(self._exits.fileno(), self._tell)
            self._exits.register(pidfd, select.EPOLLIN)
            self._by_pidfd[pidfd] = child

    def forget(self, pidfd: int) -> None:
        if self._by_pidfd.pop(pidfd, None) is None or self._exits is None:
            return
        self._exits.unregister(pidfd)
        if not self._by_pidfd:
            self._loop.remove_reader(self._exits.fileno())
            self._exits.close()
            self._exits = None

    def remove(self, child: _Child) -> None:
        self._young.pop(child, None)

    def _tell(self) -> None:
        for pidfd, _ in self._exits.poll(0) if self._exits is not None else ():
            if (child := self._by_pidfd.get(pidfd)) is not None:
                child.on_exit()

    def _look_at_young(self) -> None:
        self._timer = None
        grown = self._loop.time() - _UNWATCHED_SECONDS
        while self._young:
            child = next(iter(self._young))  # the oldest
            if child.began > grown:
                at = child.began + _UNWATCHED_SECONDS
                self._timer = self._loop.call_at(at, self._look_at_young)
                return
            del self._young[child]
            child.watch_pipes()


_watchers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Watcher] = (
    weakref.WeakKeyDictionary()
)


def _watcher_of(loop: asyncio.AbstractEventLoop) -> _Watcher:
    watcher = _watchers.get(loop)
    if watcher is None:
        watcher = _watchers[loop] = _Watcher(loop)
    return watcher


def _read(fd: int) -> bytes | None:
    """What is there; empty at the end; `None` when there is nothing yet."""
    try:
        return os.read(fd, _CHUNK)
    except BlockingIOError:
        return None


def open_pidfd(pid: int) -> int:
    """-1 where there are none: not Linux, an old kernel, a sandbox that forbids it."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return -1


def spawn(
    argv: list[str],
    env: Mapping[bytes, bytes],
    cwd: Path | None,
    out: int,
    err: int,
    *,
    stdin: int | None = None,
) -> int:
    """Start `argv` as the leader of a new process group; its pid. Without `stdin` there is nothing
    to read for it.

    `posix_spawn` is the cheaper one, but can neither change the folder nor search another PATH
    than this process's own.
    """
    path = env.get(_PATH_VARIABLE)
    if _is_here(cwd) and path == os.environb.get(_PATH_VARIABLE):
        program = _found(argv[0], path)
        if program is not None:
            with contextlib.suppress(OSError):  # moved, or something else: let the search say
                return _posix_spawn(os.posix_spawn, program, argv, env, (stdin, out, err))
        return _posix_spawn(os.posix_spawnp, argv[0], argv, env, (stdin, out, err))
    process = subprocess.Popen(  # noqa: S603
        argv,
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL if stdin is None else stdin,
        stdout=out,
        stderr=err,
        process_group=0,
        close_fds=False,  # Python's descriptors are not inherited anyway
    )
    process.returncode = 0  # it is reaped here, not by subprocess
    return process.pid


def _posix_spawn(
    start: Callable[..., int],
    program: str,
    argv: list[str],
    env: Mapping[bytes, bytes],
    pipes: tuple[int | None, int, int],
) -> int:
    stdin, out, err = pipes
    reading = (
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
        if stdin is None
        else (os.POSIX_SPAWN_DUP2, stdin, 0)
    )
    return start(
        program,
        argv,
        env,
        file_actions=[
            reading,
            (os.POSIX_SPAWN_DUP2, out, 1),
            (os.POSIX_SPAWN_DUP2, err, 2),
        ],
        setpgroup=0,
        setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # Python ignores these two
    )


@functools.lru_cache(maxsize=64)
def _found(name: str, path: bytes | None) -> str | None:
    """Where on `path` the program is, looked up once: the search costs the child a failing `exec`
    in each folder before. `None` if that cannot be told, or depends on the working folder."""
    if "/" in name or not path:
        return None
    for folder in os.fsdecode(path).split(os.pathsep):
        program = f"{folder}/{name}"
        if os.access(program, os.X_OK) and os.path.isfile(program):
            return program if os.path.isabs(folder) else None
    return None


def _is_here(cwd: Path | None) -> bool:
    try:
        return cwd is None or os.fspath(cwd) == os.getcwd()
    except OSError:  # our own folder is gone
        return False
