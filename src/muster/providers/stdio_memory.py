"""How much memory a process and its descendants hold.

A limit of the system on the address space (`RLIMIT_AS`) is of no use here: Node and Go reserve tens
of gigabytes that they never touch. So resident memory is looked at, from time to time.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ("can_watch", "resident_bytes")

_PAGE = os.sysconf("SC_PAGE_SIZE")


def can_watch() -> bool:
    """Whether this system tells (Linux does)."""
    return Path("/proc/self/statm").exists()


def resident_bytes(pid: int) -> int:
    """The resident memory of `pid` and all that it has started, as far as they are still its
    descendants. What processes share counts once for each."""
    total = 0
    left = [pid]
    seen: set[int] = set()
    while left:
        one = left.pop()
        if one in seen:
            continue
        seen.add(one)
        with contextlib.suppress(OSError, ValueError):  # it has just ended
            with open(f"/proc/{one}/statm", "rb") as file:
                total += int(file.read().split()[1]) * _PAGE
            for thread in os.listdir(f"/proc/{one}/task"):
                with open(f"/proc/{one}/task/{thread}/children", "rb") as file:
                    left += map(int, file.read().split())
    return total
