"""What the Python peers are given to do: the same as Muster's targets."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from typing import Any

__all__ = ("TASKS", "read_cases")


def read_cases(path: str) -> list[dict[str, Any]]:
    """The cases of the workload."""
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


async def instant(question: str) -> str:
    """Answers at once."""
    return question


async def sleeping(question: str) -> str:
    """Answers after 50 ms."""
    await asyncio.sleep(0.05)
    return question


async def copy(question: str) -> str:
    """Runs `cp` by hand: these peers have no command of their own."""
    with tempfile.TemporaryDirectory() as folder:
        prompt, output = os.path.join(folder, "prompt"), os.path.join(folder, "output")
        with open(prompt, "w", encoding="utf-8") as file:
            file.write(question)
        process = await asyncio.create_subprocess_exec("/bin/cp", prompt, output)
        assert await process.wait() == 0
        with open(output, encoding="utf-8") as file:
            return file.read()


TASKS = {"instant": instant, "sleeping": sleeping, "copy": copy}
