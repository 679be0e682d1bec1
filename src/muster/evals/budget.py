"""A budget in US dollars over the calls of a run, held *before* each call."""

from __future__ import annotations

import asyncio

__all__ = ("MoneyBudget",)


class MoneyBudget:
    """Lets a call begin only while what was spent, and what the calls under way will probably
    cost (the mean so far), stays below the limit. What one call costs is known only afterwards:
    the limit can be passed by the cost of the last call, not by that of every worker's."""

    def __init__(self, limit_usd: float, spent: float = 0.0) -> None:
        self.limit = limit_usd
        self.spent = spent
        self._paid_calls = 0
        self._under_way = 0
        self._ended = asyncio.Event()

    async def enter(self) -> bool:
        """Wait for room; False when the budget is spent."""
        while True:
            if self.spent >= self.limit:
                return False
            mean = self.spent / self._paid_calls if self._paid_calls else 0.0
            first_price_unknown = not self._paid_calls and self._under_way
            if not first_price_unknown and self.spent + mean * self._under_way < self.limit:
                self._under_way += 1
                return True
            if not self._under_way:
                return False
            self._ended.clear()
            await self._ended.wait()

    def leave(self, cost_usd: float | None) -> None:
        """A call has ended; `None`: its cost is unknown and counts as nothing."""
        self._under_way -= 1
        self._paid_calls += 1
        self.spent += cost_usd or 0.0
        self._ended.set()
