"""A budget of tokens over the calls of a run or a step, held before each call."""

from __future__ import annotations

from dataclasses import dataclass

from muster.evals.budget import MoneyBudget
from muster.provider import BudgetExceeded

__all__ = ("Budgets", "TokenBudget")

_BYTES_PER_TOKEN = 4


class TokenBudget:
    """Refuses a call when what was used, and what the calls under way will use at least, leaves
    no room for it.

    How much a call will use is known only afterwards. Before it, its prompt is counted as a
    quarter of a token a byte; a call may use what is left, and no more.
    """

    def __init__(self, limit: int, of: str, used: int = 0) -> None:
        self.limit = limit
        self.of = of
        """Whose budget it is, for messages: `run` or `step "x"`."""
        self.used = used
        self._reserved = 0

    @property
    def left(self) -> int:
        """Tokens that a further call may use."""
        return self.limit - self.used - self._reserved

    def reserve(self, estimate: int) -> None:
        """A call begins. Raises `BudgetExceeded` when the budget does not allow it."""
        if estimate >= self.left:
            raise BudgetExceeded(
                f"token budget of {self.limit} of the {self.of} exceeded: used {self.used}"
                + (f", under way about {self._reserved}" if self._reserved else "")
                + f", the next call needs about {estimate} at least"
            )
        self._reserved += estimate

    def release(self, estimate: int, used: int) -> None:
        """The call has ended; what it used counts from now on."""
        self._reserved -= estimate
        self.used += used

    @staticmethod
    def estimate(*texts: str | None) -> int:
        """About how many tokens these texts are."""
        return sum(len(text.encode()) for text in texts if text) // _BYTES_PER_TOKEN


@dataclass(frozen=True, slots=True)
class Budgets:
    """What something may use up."""

    tokens: tuple[TokenBudget, ...] = ()
    money: tuple[MoneyBudget, ...] = ()

    @property
    def exceeded(self) -> str | None:
        """Which of them the last call has gone beyond: how much it takes is known afterwards."""
        for budget in self.tokens:
            if budget.used > budget.limit:
                return f"token budget of {budget.limit} exceeded: used {budget.used}"
        for purse in self.money:
            if purse.spent > purse.limit:
                return f"budget of ${purse.limit:g} exceeded: spent ${purse.spent:.4g}"
        return None
