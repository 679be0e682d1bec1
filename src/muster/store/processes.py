"""Whether the process that a run was in is still that process: numbers are used again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Literal

__all__ = ("identity", "state_of", "terminate")

_SEPARATOR = "|"


def identity(pid: int) -> str | None:
    """What tells the process `pid` from all others: machine, boot and start. `None` if there is
    no such process."""
    started = _start_of(pid)
    return None if started is None else _SEPARATOR.join((socket.gethostname(), _boot(), started))


def state_of(pid: int | None, known: str | None) -> Literal["alive", "dead", "elsewhere"]:
    """Of a process that `identity` has described: `elsewhere` is on another machine, where it
    cannot be looked up."""
    if pid is None or known is None:
        return "dead"
    if known.partition(_SEPARATOR)[0] != socket.gethostname():
        return "elsewhere"
    return "alive" if identity(pid) == known else "dead"


def terminate(pid: int, known: str) -> bool:
    """Ask the process that `identity` has described to end (SIGTERM). `False`: it is gone; what
    has its number now gets no signal."""
    if not hasattr(os, "pidfd_open"):
        return _signal_if_it_is(pid, known, lambda: os.kill(pid, signal.SIGTERM))
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:  # from here on the handle is this process, whatever becomes of the number
        send = partial(signal.pidfd_send_signal, handle, signal.SIGTERM)
        return _signal_if_it_is(pid, known, send)
    finally:
        os.close(handle)


def _signal_if_it_is(pid: int, known: str, send: Callable[[], None]) -> bool:
    if identity(pid) != known:
        return False
    try:
        send()
    except ProcessLookupError:
        return False
    return True


def _start_of(pid: int) -> str | None:
    if Path("/proc/self/stat").exists():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (OSError, IndexError):
            return None
        return None if fields[0] in "ZX" else fields[19]  # a zombie does nothing any more
    return _start_by_ps(pid)


def _start_by_ps(pid: int) -> str | None:
    """Where there is no /proc."""
    try:
        told = subprocess.run(  # noqa: S603
            ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        ).stdout.split()
    except OSError:
        return None
    return None if not told or told[0].startswith("Z") else " ".join(told[1:])


@cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
