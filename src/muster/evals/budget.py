"""A budget in US dollars over the calls of a run, held *before* each call."""

from __future__ import annotations

import asyncio

__all__ = ("MoneyBudget", "sum_known")


def sum_known(one: float | None, other: float | None) -> float | None:
    """Both; what is not known is left out, `None` when nothing is known."""
    return one if other is None else (one or 0.0) + other


class MoneyBudget:
    """Lets a call begin only while what was spent, and what the calls under way may cost yet, stay
    below the limit.

    What a call costs at most is known where its model has a price and its answer a limit; each
    other call under way is taken to cost as much as the dearest so far. What one call costs is
    known only afterwards: the limit can be passed by the cost of the last call, not by that of
    every worker's. (Only calls dearer than foreseen can pass it further.)
    """

    def __init__(self, limit_usd: float, spent: float = 0.0) -> None:
        self.limit = limit_usd
        self.spent = spent
        self._dearest = 0.0
        self._ended_calls = 0
        self._under_way: list[float | None] = []
        """What each call costs at most, as far as that is known."""
        self._ended = asyncio.Event()

    @property
    def left(self) -> float:
        """What is not spent, and not reserved for the calls under way."""
        return self.limit - self.spent - self._reserved

    @property
    def exceeded(self) -> str:
        """What is to be said when nothing is left."""
        return f"budget of ${self.limit:g} exceeded: spent ${self.spent:.4g}"

    @property
    def _reserved(self) -> float:
        return sum(self._dearest if price is None else price for price in self._under_way)

    async def enter(self, at_most: float | None = None) -> bool:
        """Wait for room; False when the budget is spent. A call that may cost more than is left
        is let in when no other is under way."""
        while True:
            if self.spent >= self.limit:
                return False
            if not self._under_way or self._fits(at_most):
                self._under_way.append(at_most)
                return True
            self._ended.clear()
            await self._ended.wait()

    def _fits(self, at_most: float | None) -> bool:
        if at_most is not None:
            known = self._ended_calls or None not in self._under_way
            return bool(known) and at_most <= self.left
        return bool(self._ended_calls) and self.left > 0

    def leave(self, cost_usd: float | None, at_most: float | None = None) -> None:
        """A call has ended, which was entered with `at_most`. A cost that is not known, `None`,
        counts as nothing."""
        cost = cost_usd or 0.0
        self._under_way.remove(at_most)
        self._ended_calls += 1
        self._dearest = max(self._dearest, cost)
        self.spent += cost
        self._ended.set()

    def withdraw(self, at_most: float | None = None) -> None:
        """A call that was let in is not made after all."""
        self._under_way.remove(at_most)
        self._ended.set()
