"""Budgets that stand for longer than a run: tokens of any 24 hours, and money of a day, a week or a
month. What all runs of a project have spent counts, those that were deleted too, as the journal
has it turn by turn; what the turns under way here may use yet is reserved.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta

from muster.evals.budget import MoneyBudget
from muster.provider import BudgetExceeded
from muster.store.reading import JournalReader
from muster.store.spending import Spending
from muster.teams.budget import TokenBudget
from muster.teams.definition import Budget

__all__ = ("DAY", "DailyTokens", "PeriodMoney", "Standing")

DAY = timedelta(hours=24)

Counts = Callable[[Spending], bool]


class Standing:
    """The budgets of one journal, each once for all runs that go on in this process."""

    def __init__(self, journal: JournalReader) -> None:
        self._journal = journal
        self._tokens: dict[tuple[str, int], DailyTokens] = {}
        self._money: dict[Budget, PeriodMoney] = {}

    def tokens_of(
        self, agent: str, limit: int | None, teams: Mapping[str, int]
    ) -> Iterator[TokenBudget]:
        """What a turn of the agent has to keep to: its own `limit`, and those of the teams around
        it, by name."""
        if limit is not None:
            yield self._daily(f"agent {agent}", limit, lambda spent: spent.agent == agent)
        for team, most in teams.items():
            yield self._daily(f"team {team}", most, _of_teams((team,)))

    def _daily(self, whose: str, limit: int, counts: Counts) -> DailyTokens:
        key = (whose, limit)
        if key not in self._tokens:
            self._tokens[key] = DailyTokens(self._journal, whose, limit, counts)
        return self._tokens[key]

    def money_of(self, budgets: Iterable[Budget]) -> Iterator[PeriodMoney]:
        """The purses of `budgets`."""
        for budget in budgets:
            if budget not in self._money:
                counts = _of_teams(budget.teams)
                self._money[budget] = PeriodMoney(self._journal, budget, counts)
            yield self._money[budget]


def _of_teams(names: Collection[str] | None) -> Counts:
    return lambda spent: spent.counts_for(names)


class DailyTokens(TokenBudget):
    """Tokens of an agent, or of a team, in the last 24 hours."""

    def __init__(self, journal: JournalReader, whose: str, limit: int, counts: Counts) -> None:
        super().__init__(limit, whose)
        self._journal = journal
        self._counts = counts
        self._seen = 0
        self._entries: deque[tuple[datetime, int]] = deque()
        self._total = 0

    def check(self, estimate: int) -> None:
        self._look()
        if self.used + estimate >= self.limit:
            raise BudgetExceeded(
                f"daily token usage {self.used} of {self.of} leaves no room for about {estimate} "
                f"more: its limit is {self.limit}"
            )

    def _look(self) -> None:
        since = datetime.now(UTC) - DAY
        for spent in self._journal.spending(since, after=self._seen):
            self._seen = spent.id
            if self._counts(spent):
                self._entries.append((spent.moment, spent.tokens))
                self._total += spent.tokens
        while self._entries and self._entries[0][0] < since:
            self._total -= self._entries.popleft()[1]
        self.used = self._total


_LENGTHS = {"daily": "day", "weekly": "week", "monthly": "month"}


class PeriodMoney(MoneyBudget):
    """US dollars that some teams may spend in a day, a week (from Monday), a month, all of UTC."""

    def __init__(self, journal: JournalReader, budget: Budget, counts: Counts) -> None:
        super().__init__(budget.limit_usd)
        self._journal = journal
        self._budget = budget
        self._counts = counts
        self._since = datetime.min.replace(tzinfo=UTC)
        self._seen = 0
        self._total = 0.0
        self._warned: datetime | None = None

    async def enter(self, at_most: float | None = None) -> bool:
        self._look()
        return await super().enter(at_most)

    @property
    def exceeded(self) -> str:
        name, period = self._budget.name, _LENGTHS[self._budget.period]
        return (
            f'budget "{name}" of ${self.limit:g} a {period} exceeded: '
            f"spent ${self.spent:.4g} since {self._since:%Y-%m-%d}"
        )

    def warning(self) -> str | None:
        """What is to be said when most of it is spent, once in a period."""
        self._look()
        if self._warned == self._since or self.spent < self.limit * self._budget.warn_at:
            return None
        self._warned = self._since
        name, period = self._budget.name, _LENGTHS[self._budget.period]
        return (
            f'budget "{name}": ${self.spent:.4g} of ${self.limit:g} a {period} are spent '
            f"({self.spent / self.limit:.0%})"
        )

    def _look(self) -> None:
        since = _beginning(self._budget.period, datetime.now(UTC))
        if since != self._since:
            self._since, self._seen, self._total = since, 0, 0.0
        for spent in self._journal.spending(since, after=self._seen):
            self._seen = spent.id
            if self._counts(spent):
                self._total += spent.cost_usd
        self.spent = self._total


def _beginning(period: str, moment: datetime) -> datetime:
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "weekly":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if period == "monthly" else day
