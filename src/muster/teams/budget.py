"""A budget of tokens over the calls of a run or a step, held before each call."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from muster.evals.budget import MoneyBudget
from muster.provider import BudgetExceeded

__all__ = ("Budgets", "TokenBudget", "reserve")

_BYTES_PER_TOKEN = 4


class TokenBudget:
    """Tokens that were used, and tokens that calls under way may use yet.

    How much a call uses is known only afterwards. Before it, as much is reserved as it may use at
    most: its prompt, counted as a quarter of a token a byte, and the longest answer that it is
    allowed. So calls at the same time cannot use the same tokens.
    """

    def __init__(self, limit: int, of: str, used: int = 0) -> None:
        self.limit = limit
        self.of = of
        """Whose budget it is, for messages: `run` or `step "x"`."""
        self.used = used
        self._reserved = 0
        self._under_way = 0
        self._settled = asyncio.Event()

    @property
    def left(self) -> int:
        """Tokens that a further call may use."""
        return self.limit - self.used - self._reserved

    @property
    def awaits_others(self) -> bool:
        """Whether calls are under way, which may give back some of what is reserved for them."""
        return self._under_way > 0

    def check(self, estimate: int) -> None:
        """Raises `BudgetExceeded` when a prompt of so many tokens leaves none for an answer,
        whatever the calls under way use."""
        if self.used + estimate >= self.limit:
            raise BudgetExceeded(
                f"token budget of {self.limit} of the {self.of} exceeded: used {self.used}, "
                f"the next call needs about {estimate} at least"
            )

    def take(self, tokens: int) -> None:
        """Reserve tokens for a call that begins."""
        self._reserved += tokens
        self._under_way += 1

    def settle(self, reserved: int, used: int) -> None:
        """The call has ended; what it used counts from now on."""
        self._reserved -= reserved
        self._under_way -= 1
        self.used += used
        self._settled.set()

    async def one_settled(self) -> None:
        """Wait until one of the calls under way has ended."""
        self._settled.clear()
        await self._settled.wait()

    @staticmethod
    def estimate(*texts: str | None) -> int:
        """About how many tokens these texts are."""
        return (
            sum(len(text.encode("utf-8", "surrogatepass")) for text in texts if text)
            // _BYTES_PER_TOKEN
        )


async def reserve(budgets: Sequence[TokenBudget], estimate: int, answer: int | None) -> int:
    """Reserve the tokens of one call on all budgets: `estimate` for its prompt, and up to `answer`
    for its answer (`None`: it has no limit of its own, and may take what is left).

    While there is not enough, and calls under way may give some back, it waits for them; what is
    left when nobody else is under way is taken, though it is less. How many were reserved.

    Raises:
        BudgetExceeded: nothing is left.
    """
    while True:
        for budget in budgets:
            budget.check(estimate)
        tightest = min(budgets, key=lambda budget: budget.left)
        wanted = tightest.limit if answer is None else estimate + answer
        if tightest.left >= wanted or not tightest.awaits_others:
            tokens = min(tightest.left, wanted)
            for budget in budgets:
                budget.take(tokens)
            return tokens
        await tightest.one_settled()


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
                return purse.exceeded
        return None
