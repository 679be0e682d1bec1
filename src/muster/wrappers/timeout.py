"""A bound on the time of one call."""

from __future__ import annotations

import asyncio

from muster.provider import (
    Provider,
    ProviderFailed,
    ProviderRequest,
    ProviderResponse,
    ProviderTimeout,
)
from muster.tasks import GRACE_SECONDS, end_within
from muster.wrappers.base import Wrapper

__all__ = ("Timeout",)


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
        # A task of its own: a call that will not end can be left, which `asyncio.timeout` cannot.
        task = asyncio.get_running_loop().create_task(self.provider.invoke(request))
        if not await end_within(task, self.seconds, grace=self.grace):
            raise self._expired(task)
        if task.cancelled():
            raise ProviderFailed("the provider cancelled its own call")
        return task.result()

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
