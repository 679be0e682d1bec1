"""The program that shuts code in: `python -I -S guard.py`, the task as JSON on standard input, the
verdict as one line of JSON on standard output. Standard library only.

Three processes: the first is outside and waits; the second is the first of its own process
namespace, builds the walls, and watches; the third runs the code. When the first is killed, the
second ends, and with it everything in the namespace.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from muster.evals.sandbox import inmate, walls
else:  # the package is not there to be imported: this is a program of its own
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import inmate
    import walls

    del sys.path[0]

_TAIL = 4096
_CHUNK = 65_536
_LOOK_SECONDS = 0.02
_MOST_TOLD = 1_000_000
"""Bytes that the code's own process may say of how it went."""

_OUTSIDE = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/sbin")
_FILES = ("/etc/ld.so.cache", "/etc/localtime")


def main() -> None:
    """Shut in, run, tell."""
    spec = json.load(sys.stdin)
    try:
        walls.check_platform()
        inner = _start(spec)
    except walls.Refused as error:
        _answer({"refused": str(error)})
        return
    _, status = os.waitpid(inner, 0)
    if status:
        _answer({"refused": f"the process that watches ended with {status}"})


def _answer(verdict: dict[str, Any]) -> None:
    os.write(1, json.dumps(verdict).encode() + b"\n")


def _start(spec: dict[str, Any]) -> int:
    user = walls.unused_user()
    life, ours = os.pipe()  # its other end goes with this process
    walls.unshare(as_root=user is not None)
    pid = os.fork()
    if pid == 0:
        os.close(ours)
        code = 1
        try:
            _watch(spec, life, user)
            code = 0
        except walls.Refused as error:
            _answer({"refused": str(error)})
            code = 0
        except BaseException as error:
            _answer({"refused": f"{type(error).__name__}: {error}"})
            code = 0
        finally:
            os._exit(code)
    os.close(life)
    return pid


def _watch(spec: dict[str, Any], life: int, user: int | None) -> None:
    limits = spec["limits"]
    owner = walls.INNER_USER if user is None else user
    seen = (*_OUTSIDE, *_FILES, sys.base_prefix, sys.base_exec_prefix)
    readable = {path: path for path in seen}
    packages = {path: f"/packages/{number}" for number, path in enumerate(spec["packages"])}
    spec["packages"] = list(packages.values())
    readable |= packages
    proc = walls.build_root(readable, limits["disk"], owner, owner, base="/proc")
    walls.cannot_be_traced()
    said, tell = os.pipe()
    printed, out = os.pipe()
    processes = limits["processes"] if proc is not None else 1
    began = time.monotonic()
    inner = os.fork()
    if inner == 0:
        for descriptor in (life, said, printed):
            os.close(descriptor)
        if proc is not None:
            os.close(proc)
        # In a user namespace, this process and the one outside are the same user's.
        _become_inmate(spec, user, processes + (2 if user is None else 0), tell, out)
    os.close(tell)
    os.close(out)
    walls.become(None if user is None else user + 1)
    walls.cannot_be_traced()
    verdict = _Watch(inner, (life, said, printed), proc, limits).verdict(began)
    _answer(verdict)


def _become_inmate(
    spec: dict[str, Any], user: int | None, processes: int, tell: int, out: int
) -> NoReturn:
    limits = spec["limits"]
    try:
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.dup2(tell, 3)
        os.closerange(4, 256)
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
        os.environ.clear()
        os.environ.update(
            HOME=walls.FOLDER, TMPDIR=walls.FOLDER, PATH="/usr/bin:/bin", LANG="C.UTF-8"
        )
        walls.set_limit(resource.RLIMIT_CORE, 0)
        walls.set_limit(resource.RLIMIT_AS, limits["memory"])
        walls.set_limit(resource.RLIMIT_CPU, limits["cpu"])
        walls.set_limit(resource.RLIMIT_FSIZE, limits["file_size"])
        walls.set_limit(resource.RLIMIT_NOFILE, limits["files"])
        walls.set_limit(resource.RLIMIT_NPROC, processes)
        walls.set_limit(resource.RLIMIT_MEMLOCK, 65_536)
        walls.become(user)
        walls.forbid_calls()
    except BaseException as error:
        os.write(3, json.dumps({"refused": f"{type(error).__name__}: {error}"}).encode() + b"\n")
        os._exit(1)
    sys.path.extend(spec["packages"])
    code = 1
    try:
        inmate.run(spec, 3)
        code = 0
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
        os._exit(code)


class _Watch:
    """Follows the code until it is over, or takes too much."""

    def __init__(
        self,
        inner: int,
        pipes: tuple[int, int, int],
        proc: int | None,
        limits: dict[str, Any],
    ) -> None:
        self._inner = inner
        self._life, self._said, self._printed = pipes
        self._proc = proc
        self._limits = limits
        self._told = bytearray()
        self._tail = bytearray()
        self._stopped: str | None = None

    def verdict(self, began: float) -> dict[str, Any]:
        status = self._follow(began + self._limits["seconds"])
        took = time.monotonic() - began
        lines = []
        for line in bytes(self._told).splitlines() if self._stopped != "told" else ():
            with contextlib.suppress(ValueError, RecursionError):
                lines.append(json.loads(line))
        return {
            "lines": lines,
            "stopped": self._stopped,
            "exit_code": None if status is None else os.waitstatus_to_exitcode(status),
            "printed": bytes(self._tail).decode("utf-8", "replace"),
            "seconds": round(took, 4),
        }

    def _follow(self, end: float) -> int | None:
        """Until the code's first process has ended; what it has started ends with us."""
        poll = select.poll()
        for descriptor in (self._life, self._said, self._printed):
            os.set_blocking(descriptor, False)
            poll.register(descriptor, select.POLLIN)
        with contextlib.suppress(AttributeError, OSError):
            poll.register(os.pidfd_open(self._inner), select.POLLIN)
        while True:
            left = end - time.monotonic()
            if left <= 0:
                self._stopped = "time"
                return self._kill()
            for descriptor, _ in poll.poll(min(left, _LOOK_SECONDS) * 1000):
                if descriptor == self._life:
                    os._exit(1)  # nobody waits for us any more
                if descriptor in (self._said, self._printed) and not self._read(descriptor):
                    poll.unregister(descriptor)
            status = self._ended()
            if status is not None:
                return status
            self._stopped = self._too_much()
            if self._stopped is not None:
                return self._kill()

    def _read(self, descriptor: int) -> bool:
        """False at the end."""
        try:
            data = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return True
        if descriptor == self._said:
            self._told += data
        else:
            self._tail = (self._tail + data)[-_TAIL:]
        return bool(data)

    def _ended(self) -> int | None:
        """The status of the code's first process, if it has ended. What other processes leave is
        ours to reap."""
        found = None
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid == self._inner:
                found = status
        if found is not None:
            for descriptor in (self._said, self._printed):
                for _ in range(64):
                    with contextlib.suppress(OSError):
                        if not self._read_more(descriptor):
                            break
        return found

    def _read_more(self, descriptor: int) -> bool:
        before = len(self._told), bytes(self._tail)
        return self._read(descriptor) and (len(self._told), bytes(self._tail)) != before

    def _too_much(self) -> str | None:
        if len(self._told) > _MOST_TOLD:
            return "told"
        if self._proc is None:
            return None
        taken = 0
        for name in os.listdir(self._proc):
            if name.isdigit() and name != "1":
                taken += self._resident(name)
        return "memory" if taken > self._limits["memory"] else None

    def _resident(self, name: str) -> int:
        try:
            file = os.open(f"{name}/statm", os.O_RDONLY, dir_fd=self._proc)
        except OSError:
            return 0
        try:
            pages = int(os.read(file, 200).split()[1])
        except (OSError, ValueError, IndexError):
            return 0
        finally:
            os.close(file)
        return pages * resource.getpagesize()

    def _kill(self) -> int | None:
        # We are the first process of the namespace: this ends everybody in it but us.
        with contextlib.suppress(OSError):
            os.kill(-1, signal.SIGKILL)
        return None


if __name__ == "__main__":
    main()
