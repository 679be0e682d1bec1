"""Looks at the processes that a test started: are they gone?"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path


def is_alive(pid: int) -> bool:
    """A zombie that nobody reaps yet is dead."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def all_gone(pids: list[int]) -> bool:
    """A killed process takes a moment to be gone."""
    for _ in range(200):
        if not any(map(is_alive, pids)):
            return True
        await asyncio.sleep(0.01)
    return False


async def pids_in(path: Path, count: int) -> list[int]:
    for _ in range(500):
        pids = path.read_text().split() if path.exists() else []
        if len(pids) >= count:
            return [int(pid) for pid in pids]
        await asyncio.sleep(0.01)
    raise AssertionError(f"{path} never held {count} process ids")
