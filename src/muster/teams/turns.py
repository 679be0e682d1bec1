"""What a question holds for each of its turns: a place at the agent, its money, its tokens.

All of it is taken before a turn of the model, and given back while the tools run that the turn
asked for: they may ask other agents, on the same budgets. The order is always the same, and the
places and rates of the target come last (`muster.wrappers`), so that nobody waits for one who
waits in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from muster.evals.budget import MoneyBudget
from muster.provider import BudgetExceeded, TokenUsage
from muster.teams.budget import TokenBudget, reserve

__all__ = ("OnSpent", "Price", "Turns")

OnSpent = Callable[[int, float | None], None]
"""Told of tokens, and of US dollars as far as they are known."""

Price = Callable[[int, int], float | None]
"""US dollars for so many tokens of a prompt and of its answer; `None`: not known."""


class Turns:
    """The turns of one question, each within the budgets. A `TurnWatch`.

    `begin` before the question is asked, `close` when it is answered or has failed; `pause` and
    `resume` around the tools.
    """

    def __init__(
        self,
        tokens: Sequence[TokenBudget],
        money: Sequence[MoneyBudget],
        *,
        prompt: int,
        answer: int | None,
        whole: bool = False,
        price: Price | None = None,
        on_spent: OnSpent | None = None,
    ) -> None:
        """
        Args:
            prompt: tokens, about.
            answer: tokens at most; `None`: as many as are left.
            whole: it is many calls, and keeps to what is left for all of them: it takes that.
            price: of the model, as far as that is known.
            on_spent: is told what each turn has used, as the budgets count it.
        """
        self._tokens = tokens
        self._money = money
        self._answer = None if whole else answer
        self._whole = whole
        self.prompt = prompt
        """Tokens of the next turn's prompt, about."""
        self._price = price
        self._on_spent = on_spent
        self._held = self._closed = False
        self._reserved = 0
        self._at_most: float | None = None
        """What the turn may cost."""
        self._affordable: int | None = None
        """Tokens that the money is enough for, where it is not enough for all of them."""
        self.token_usage: TokenUsage | None = None
        """Of all turns, as far as the provider has told."""
        self.cost_usd: float | None = None
        """As `token_usage`."""
        self._told_tokens: int | None = None
        self._told_cost: float | None = None
        self._settled_tokens = 0
        self._settled_cost = 0.0

    # --- what the provider is allowed, and tells ---

    def output_allowed(self) -> int | None:
        """Tokens that the next turn may answer with."""
        reserved = self._reserved - self.prompt if self._tokens else None
        bounds = (self._answer, reserved, self._affordable)
        return min((bound for bound in bounds if bound is not None), default=None)

    def turn_ended(self, usage: TokenUsage | None, cost_usd: float | None, /) -> None:
        """Note what a turn has used. Several, if an earlier try was repeated meanwhile."""
        if usage is not None:
            self._told_tokens = (self._told_tokens or 0) + usage.total
            self.token_usage = usage + self.token_usage
        if cost_usd is not None:
            self._told_cost = (self._told_cost or 0.0) + cost_usd
            self.cost_usd = (self.cost_usd or 0.0) + cost_usd

    @property
    def total_allowed(self) -> int | None:
        """Tokens that may be used from now on, if nobody else uses any."""
        return min((each.left + self._reserved for each in self._tokens), default=None)

    @property
    def money_allowed(self) -> float | None:
        """US dollars that may be spent from now on."""
        return min((each.limit - each.spent for each in self._money), default=None)

    # --- taking and giving back ---

    async def begin(self) -> None:
        """A turn is about to be made. Raises `BudgetExceeded`."""
        entered: list[MoneyBudget] = []
        self._at_most = self._cost_at_most()
        try:
            for purse in self._money:
                if not await purse.enter(self._at_most):
                    raise _spent(purse)
                entered.append(purse)
            if self._tokens:
                self._reserved = await reserve(self._tokens, self.prompt, self._answer)
            self._affordable = self._what_money_buys()
        except BaseException:
            for purse in entered:
                purse.withdraw(self._at_most)
            for budget in self._tokens if self._reserved else ():
                budget.settle(self._reserved, 0)
            self._reserved = 0
            raise
        self._held = True

    def _cost_at_most(self) -> float | None:
        if not self._money:
            return None
        everything = max(purse.limit for purse in self._money)
        if self._whole:
            return everything
        if self._price is None:
            return None
        if self._answer is None:
            return everything if self._price(self.prompt, 0) is not None else None
        return self._price(self.prompt, self._answer)

    def _what_money_buys(self) -> int | None:
        """The tokens of an answer that costs no more than is left; `None`: all that it may have.
        Raises `BudgetExceeded` when it is not even the prompt."""
        if self._price is None or self._at_most is None:
            return None
        tightest = min(self._money, key=lambda purse: purse.left)
        left = tightest.left + self._at_most
        prompt, one = self._price(self.prompt, 0), self._price(0, 1)
        if left >= self._at_most or prompt is None or not one:
            return None
        tokens = int((left - prompt) / one)
        if tokens < 1:
            raise _spent(tightest)
        return tokens

    def pause(self) -> None:
        """Tools run: the turn that asked for them is over."""
        used = self._told_tokens
        self._settle(self.prompt if used is None else used, self._told_cost)

    async def resume(self, results: int) -> None:
        """A further turn. Its prompt is the last one, its answer, and the tools' results, which are
        `results` tokens."""
        if self._told_tokens is not None:
            self.prompt = self._told_tokens
        self.prompt += results
        self._told_tokens = self._told_cost = None
        await self.begin()

    def close(self, tokens: int | None, cost_usd: float | None, *, unknown: int) -> None:
        """It is over, and has used so much in all. Of what is not known (`None`), what the turns
        have told counts, and `unknown` tokens for a last one that has not. Again: nothing."""
        if self._closed:
            return
        self._closed = True
        if not self._held:  # it ended while tools ran
            self._correct(tokens, cost_usd)
            return
        used = self._told_tokens
        if tokens is not None:
            used = tokens - self._settled_tokens
        cost = self._told_cost if cost_usd is None else cost_usd - self._settled_cost
        self._settle(unknown if used is None else used, cost)

    def _settle(self, tokens: int, cost_usd: float | None) -> None:
        self._held = False
        self._tell(tokens, cost_usd)
        for budget in self._tokens:
            budget.settle(self._reserved, tokens)
        for purse in self._money:
            purse.leave(cost_usd, self._at_most)
        self._reserved = 0
        self._settled_tokens += tokens
        self._settled_cost += cost_usd or 0.0

    def _tell(self, tokens: int, cost_usd: float | None) -> None:
        if self._on_spent is not None and (tokens or cost_usd):
            self._on_spent(tokens, cost_usd)

    def _correct(self, tokens: int | None, cost_usd: float | None) -> None:
        self._tell(
            0 if tokens is None else tokens - self._settled_tokens,
            None if cost_usd is None else cost_usd - self._settled_cost,
        )
        if tokens is not None:
            for budget in self._tokens:
                budget.used += tokens - self._settled_tokens
        if cost_usd is not None:
            for purse in self._money:
                purse.spent += cost_usd - self._settled_cost


def _spent(purse: MoneyBudget) -> BudgetExceeded:
    return BudgetExceeded(purse.exceeded)
