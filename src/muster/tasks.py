"""Ending asyncio tasks for certain, those too that swallow their cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

__all__ = ("GRACE_SECONDS", "LAST_SECONDS", "end_within", "look_at", "stop_tasks", "surely")

T = TypeVar("T")

GRACE_SECONDS = 5.0
"""How long a task that was cancelled may take to clean up."""

LAST_SECONDS = 0.1
"""How long it may take when it was cancelled a second time."""

AGAIN_SECONDS = 0.1
TRIES = 5
"""How often a cancellation that was lost is repeated, and after which time."""


async def end_within(
    task: asyncio.Task[Any], seconds: float, *, grace: float = GRACE_SECONDS
) -> bool:
    """Wait for the task's end; False when `seconds` went by first, and it was stopped.

    When the caller is cancelled, the task is stopped as well.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def end(_: object) -> None:
        if not ended.done():
            ended.set_result(None)

    task.add_done_callback(end)
    timer = loop.call_later(seconds, end, None)
    try:
        await ended
    except asyncio.CancelledError:
        await stop_tasks((task,), grace=grace)
        raise
    finally:
        timer.cancel()
    if task.done():
        return True
    await stop_tasks((task,), grace=grace)
    return False


async def surely(work: Coroutine[Any, Any, T]) -> T:
    """Await somebody else's code which now and then loses its cancellation and goes on: it runs in
    a task of its own, which is cancelled until it has ended."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(look_at)
        for _ in range(TRIES):
            if task.done():
                break
            task.cancel()
            with suppress(asyncio.CancelledError):  # of the caller, once more: it is under way
                await asyncio.wait((task,), timeout=AGAIN_SECONDS)
        else:
            await stop_tasks((task,), grace=LAST_SECONDS)
        raise


async def stop_tasks(tasks: Collection[asyncio.Task[Any]], *, grace: float = GRACE_SECONDS) -> None:
    """Cancel the tasks and wait for their end.

    One that goes on for `grace` seconds is closed by force (`coroutine.close()`), as a process is
    killed that ignores SIGTERM. When the caller is cancelled meanwhile, the
    tasks are cancelled once more, and have `LAST_SECONDS`.
    """
    live = [task for task in tasks if not task.done()]
    if not live:
        return
    for task in live:
        task.add_done_callback(look_at)
        task.cancel()
    try:
        await asyncio.wait(live, timeout=grace)
    except asyncio.CancelledError:
        for task in live:
            task.cancel()
        await asyncio.wait(live, timeout=LAST_SECONDS)
        raise
    finally:
        for task in live:
            if not task.done():
                _kill(task)


def look_at(task: asyncio.Task[Any]) -> None:
    """Fetch the exception of a task nobody waits for, so that asyncio does not print it."""
    if not task.cancelled():
        task.exception()


def _kill(task: asyncio.Task[Any]) -> None:
    """End a task whose coroutine swallows `CancelledError`: `close()` raises `GeneratorExit` where
    it waits. The second `cancel` wakes the task, which finds its coroutine closed."""
    coroutine: Any = task.get_coro()
    try:
        coroutine.close()
    except (RuntimeError, ValueError):
        return  # it refuses this as well: nothing more can be done
    task.cancel()
