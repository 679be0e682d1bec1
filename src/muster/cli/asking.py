"""Questions to the person at the terminal, one at a time, which can be taken back.

A thread in `input()` could not: the process would wait for an answer that nobody needs any more.
"""

from __future__ import annotations

import asyncio
import os
import sys

import click

from muster.cli.run_view import View

__all__ = ("Questions",)


class Questions:
    """Asks for approvals while a view shows the run."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._turn = asyncio.Lock()

    async def ask(self, step: str, message: str) -> bool | None:
        """Whether the person agrees; `None`: there is nobody any more."""
        async with self._turn:
            with self._view.paused():
                click.echo(f"\n{step} asks: {message}\napprove? [y/N] ", err=True, nl=False)
                answer = await _line()
        return None if answer is None else answer.strip().lower() in ("y", "yes")


async def _line() -> str | None:
    """A line of the terminal; `None` at its end."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    number = sys.stdin.fileno()

    def on_ready() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(number, on_ready)
    try:
        await ready
    finally:
        loop.remove_reader(number)
    try:
        read = os.read(number, 4096)  # a terminal gives a line at a time
    except OSError:  # it was closed
        return None
    return read.decode(errors="replace") if read else None
