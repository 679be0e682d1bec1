"""A budget in US dollars over the calls of a run, held *before* each call."""

from __future__ import annotations

import asyncio

__all__ = ("MoneyBudget",)


class MoneyBudget:
    """Lets a call begin only while what was spent stays below the limit, each call under way
    taken to cost as much as the dearest so far.

    What one call costs is known only afterwards: the limit can be passed by the cost of the last
    call, not by that of every worker's. (Only calls dearer than any before can pass it further.)
    """

    def __init__(self, limit_usd: float, spent: float = 0.0) -> None:
        self.limit = limit_usd
        self.spent = spent
        self._dearest = 0.0
        self._ended_calls = 0
        self._under_way = 0
        self._ended = asyncio.Event()

    async def enter(self) -> bool:
        """Wait for room; False when the budget is spent."""
        while True:
            if self.spent >= self.limit:
                return False
            first_price_unknown = not self._ended_calls and self._under_way
            reserved = self._dearest * self._under_way
            if not first_price_unknown and self.spent + reserved < self.limit:
                self._under_way += 1
                return True
            if not self._under_way:
                return False
            self._ended.clear()
            await self._ended.wait()

    def enter_at_once(self) -> bool:
        """As `enter`, for a call made by one that is under way and waits for it: it must not wait
        for that one's end in turn."""
        if self.spent >= self.limit:
            return False
        self._under_way += 1
        return True

    def leave(self, cost_usd: float | None) -> None:
        """A call has ended; `None`: its cost is unknown and counts as nothing."""
        cost = cost_usd or 0.0
        self._under_way -= 1
        self._ended_calls += 1
        self._dearest = max(self._dearest, cost)
        self.spent += cost
        self._ended.set()

    def withdraw(self) -> None:
        """A call that was let in is not made after all."""
        self._under_way -= 1
        self._ended.set()
