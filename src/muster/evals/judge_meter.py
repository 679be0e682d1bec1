"""Bounds on what judges may take outside of a run: money, and a number of calls."""

from __future__ import annotations

from muster.errors import MusterError
from muster.evals.budget import MoneyBudget
from muster.evals.graders.base import GraderError
from muster.provider import Provider, ProviderError, ProviderRequest, ProviderResponse
from muster.wrappers.base import Wrapper

__all__ = ("BUDGET_EXIT", "JudgeMeter", "NotAsked", "NothingAsked")


class NotAsked(GraderError):
    """A bound was reached: nothing is wrong with what was to be judged."""


BUDGET_EXIT = 4
"""What the process ends with when a bound was reached."""


class NothingAsked(MusterError):
    """A bound was reached before anything was known."""

    exit_code = BUDGET_EXIT


class JudgeMeter:
    """Lets calls begin until a bound is reached, whichever judge they are for."""

    def __init__(self, budget_usd: float | None = None, max_calls: int | None = None) -> None:
        self._budget = None if budget_usd is None else MoneyBudget(budget_usd)
        self._max_calls = max_calls
        self._calls = 0
        self.stopped: str | None = None
        """Which bound was reached."""
        self.without_cost = 0
        """Calls whose cost is not known, so that the budget does not count them."""

    @property
    def bounded_money(self) -> bool:
        """Whether there is a budget."""
        return self._budget is not None

    def around(self, judge: Provider) -> Provider:
        """The judge, within the bounds."""
        bounded = self._budget is not None or self._max_calls is not None
        return _Metered(judge, self) if bounded else judge

    async def enter(self) -> None:
        """Wait until a call may begin.

        Raises:
            NotAsked: none may begin any more.
        """
        if self.stopped is None and self._max_calls is not None and self._calls >= self._max_calls:
            self.stopped = f"all {self._max_calls} calls were made"
        if self.stopped is None:
            self._calls += 1
            if self._budget is not None and not await self._budget.enter():
                self._calls -= 1
                self.stopped = f"the budget of ${self._budget.limit:g} is spent"
        if self.stopped is not None:
            raise NotAsked(self.stopped)

    def leave(self, cost_usd: float | None) -> None:
        """A call has ended."""
        self.without_cost += cost_usd is None
        if self._budget is not None:
            self._budget.leave(cost_usd)


class _Metered(Wrapper):
    __slots__ = ("_meter",)

    def __init__(self, provider: Provider, meter: JudgeMeter) -> None:
        super().__init__(provider)
        self._meter = meter

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        await self._meter.enter()
        cost: float | None = None
        try:
            response = await self.provider.invoke(request)
            cost = 0.0 if response.cached else response.cost_usd
            return response
        except ProviderError as error:
            cost = error.cost_usd
            raise
        finally:
            self._meter.leave(cost)
