"""As many calls at a time as the server bears."""

from __future__ import annotations

import asyncio
from collections import deque

from muster.provider import Provider, ProviderRequest, ProviderResponse, RateLimited
from muster.wrappers.base import Wrapper
from muster.wrappers.retry import LONGEST_WAIT

__all__ = ("AdaptiveLimit",)


class AdaptiveLimit(Wrapper):
    """A limit on concurrent calls that moves between 1 and `maximum` (AIMD, as TCP's congestion
    avoidance, RFC 5681): halved by a rate limit, one more after each round of successes.

    The limit starts at `maximum`. Calls that were under way when it was halved tell nothing about
    the new limit: a burst of rate limits halves it once. It grows only while it is reached, by
    1/limit a success. A `retry_after` of the server holds back all new calls of the target, unless
    it is longer than `longest_wait` seconds: then each call hears of it by its own error.
    Those who wait are let in in the order they came.
    """

    __slots__ = (
        "_closed_until",
        "_round",
        "_running",
        "_timer",
        "_waiting",
        "limit",
        "longest_wait",
        "maximum",
    )

    def __init__(
        self, provider: Provider, maximum: int, *, longest_wait: float = LONGEST_WAIT
    ) -> None:
        super().__init__(provider)
        self.maximum = maximum
        self.longest_wait = longest_wait
        self.limit = float(maximum)
        """Calls let in at a time, now; the part after the point is growth still to come."""
        self._running = 0
        self._round = 0
        self._closed_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        """Answer as the provider inside does, when it is this call's turn."""
        if self._waiting or self._running >= int(self.limit) or self._closed():
            await self._wait()
        else:
            self._running += 1
        began_in = self._round
        try:
            response = await self.provider.invoke(request)
        except RateLimited as error:
            self._back_off(began_in, error.retry_after)
            raise
        else:
            self._grow(began_in)
            return response
        finally:
            self._leave()

    def _closed(self) -> bool:
        return bool(self._closed_until) and (asyncio.get_running_loop().time() < self._closed_until)

    async def _wait(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._let_in()
        try:
            await waiter
        except BaseException:
            # Let in and cancelled in the same moment: the place goes to the next.
            if not waiter.cancel() and not waiter.cancelled():
                self._leave()
            raise

    def _leave(self) -> None:
        self._running -= 1
        self._let_in()

    def _let_in(self) -> None:
        """Let in as many as there is room for; nobody while a `retry_after` lasts."""
        if not self._waiting:
            return
        if self._closed():
            if self._timer is None:
                loop = asyncio.get_running_loop()
                self._timer = loop.call_at(self._closed_until, self._reopen)
            return
        while self._waiting and self._running < int(self.limit):
            waiter = self._waiting.popleft()
            if not waiter.done():
                self._running += 1
                waiter.set_result(None)

    def _reopen(self) -> None:
        self._timer = None
        self._let_in()

    def _back_off(self, began_in: int, retry_after: float | None) -> None:
        if retry_after is not None and 0 < retry_after <= self.longest_wait:
            until = asyncio.get_running_loop().time() + retry_after
            self._closed_until = max(self._closed_until, until)
        if began_in == self._round:
            self._round += 1
            self.limit = max(1.0, min(self.limit, self._running) / 2)

    def _grow(self, began_in: int) -> None:
        if (
            self.limit < self.maximum
            and began_in == self._round
            and self._running >= int(self.limit)
        ):
            self.limit = min(float(self.maximum), self.limit + 1 / self.limit)
