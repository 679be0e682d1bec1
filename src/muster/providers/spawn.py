"""Starting a child as the leader of a new process group, the cheapest way that there is."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

__all__ = ("open_pidfd", "spawn")

_PATH_VARIABLE = b"PATH"


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
    env = _in_folder(env, cwd)
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


def _in_folder(env: Mapping[bytes, bytes], cwd: Path | None) -> Mapping[bytes, bytes]:
    """`env` with a PWD that is true: there are programs that work where it says."""
    told = env.get(b"PWD")
    if cwd is None or told is None or told == (folder := os.fsencode(cwd)):
        return env
    return {**env, b"PWD": folder}


def _is_here(cwd: Path | None) -> bool:
    try:
        return cwd is None or os.fspath(cwd) == os.getcwd()
    except OSError:  # our own folder is gone
        return False
