"""A bound on the time of one call."""

from __future__ import annotations

import asyncio
from typing import Any

from muster.provider import (
    Provider,
    ProviderFailed,
    ProviderRequest,
    ProviderResponse,
    ProviderTimeout,
)
from muster.wrappers.base import Wrapper

__all__ = ("GRACE_SECONDS", "Timeout")

GRACE_SECONDS = 5.0
"""How long a call that was cancelled may take to clean up."""


class Timeout(Wrapper):
    """Answers within `seconds`, or raises `ProviderTimeout`.

    The call that is late is cancelled and awaited, so that it leaves nothing behind. One that does
    not end within `grace` seconds of its cancellation is closed by force (`coroutine.close()`), as
    a process is killed that ignores SIGTERM: a provider that swallows cancellation cannot hang the
    run. The same holds when the caller is cancelled.
    """

    __slots__ = ("grace", "seconds")

    def __init__(self, provider: Provider, seconds: float, *, grace: float = GRACE_SECONDS) -> None:
        super().__init__(provider)
        self.seconds = seconds
        self.grace = grace

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        """Answer as the provider inside does, or raise `ProviderTimeout`."""
        loop = asyncio.get_running_loop()
        # A task of its own: a call that will not end can be left, which `asyncio.timeout` cannot.
        task = loop.create_task(self.provider.invoke(request))
        ended: asyncio.Future[None] = loop.create_future()

        def end(_: object) -> None:
            if not ended.done():
                ended.set_result(None)

        task.add_done_callback(end)
        timer = loop.call_later(self.seconds, end, None)
        try:
            await ended
        except asyncio.CancelledError:
            await self._stop(task)
            raise
        finally:
            timer.cancel()
        if not task.done():
            await self._stop(task)
            raise self._expired(task)
        if task.cancelled():
            raise ProviderFailed("the provider cancelled its own call")
        return task.result()

    async def _stop(self, task: asyncio.Task[Any]) -> None:
        """Cancel the task and wait for its end, by force after the grace."""
        task.add_done_callback(_look_at)
        task.cancel()
        try:
            await asyncio.wait((task,), timeout=self.grace)
        finally:
            if not task.done():
                _kill(task)

    def _expired(self, task: asyncio.Task[ProviderResponse]) -> ProviderTimeout:
        message = f"no answer within {self.seconds:g} s (timeout_seconds)"
        if not task.done():
            message += f"; the provider went on for {self.grace:g} s after it was cancelled"
        late = None
        if task.done() and not task.cancelled() and task.exception() is None:
            late = task.result()  # too late to count as an answer, but it was paid for
        return ProviderTimeout(
            message,
            token_usage=late.token_usage if late else None,
            cost_usd=late.cost_usd if late else None,
        )


def _look_at(task: asyncio.Task[Any]) -> None:
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
