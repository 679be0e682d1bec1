"""As many calls at a time as the server bears."""

from __future__ import annotations

import asyncio

from muster.provider import Provider, ProviderRequest, ProviderResponse, RateLimited
from muster.wrappers.base import Wrapper
from muster.wrappers.limit import in_place
from muster.wrappers.places import Places
from muster.wrappers.retry import LONGEST_WAIT

__all__ = ("AdaptiveLimit",)


class AdaptiveLimit(Wrapper):
    """A limit on concurrent calls that moves between 1 and `maximum` (AIMD, as TCP's congestion
    avoidance, RFC 5681): halved by a rate limit, one more after each round of successes.

    The limit starts at `maximum`. Calls that were under way when it was halved tell nothing about
    the new limit: a burst of rate limits halves it once. It grows only while it is reached, by
    1/limit a success. A `retry_after` of the server holds back all new calls of the target, unless
    it is longer than `longest_wait` seconds: then each call hears of it by its own error.
    Those who wait are let in in the order they came. While the tools of a call run, its place is
    free, as in a `ConcurrencyLimit`.
    """

    __slots__ = ("_places", "_round", "longest_wait", "maximum")

    def __init__(
        self, provider: Provider, maximum: int, *, longest_wait: float = LONGEST_WAIT
    ) -> None:
        super().__init__(provider)
        self.maximum = maximum
        self.longest_wait = longest_wait
        self._places = Places(float(maximum))
        self._round = 0

    @property
    def limit(self) -> float:
        """Calls let in at a time, now; the part after the point is growth still to come."""
        return self._places.limit

    @limit.setter
    def limit(self, limit: float) -> None:
        self._places.limit = limit

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        """Answer as the provider inside does, when it is this call's turn."""
        await self._places.enter()
        began_in = self._round
        with in_place(self._places, request) as asked:
            try:
                response = await self.provider.invoke(asked)
            except RateLimited as error:
                self._back_off(began_in, error.retry_after)
                raise
            self._grow(began_in)
            return response

    def _back_off(self, began_in: int, retry_after: float | None) -> None:
        if retry_after is not None and 0 < retry_after <= self.longest_wait:
            self._places.close_until(asyncio.get_running_loop().time() + retry_after)
        if began_in == self._round:
            self._round += 1
            self.limit = max(1.0, min(self.limit, self._places.running) / 2)

    def _grow(self, began_in: int) -> None:
        if (
            self.limit < self.maximum
            and began_in == self._round
            and self._places.running >= int(self.limit)
        ):
            self.limit = min(float(self.maximum), self.limit + 1 / self.limit)
