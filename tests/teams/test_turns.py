"""What a question holds for a turn, where its model has a price."""

from __future__ import annotations

import asyncio

import pytest

from muster.evals.budget import MoneyBudget
from muster.provider import BudgetExceeded, TokenUsage
from muster.teams.budget import TokenBudget
from muster.teams.turns import Turns


def price(prompt: int, answer: int) -> float:
    return prompt * 0.001 + answer * 0.01


def turns(purse: MoneyBudget, **more: object) -> Turns:
    given = {"prompt": 100, "answer": 50, "price": price} | more
    return Turns((), (purse,), **given)  # type: ignore[arg-type]


async def test_the_price_of_the_longest_answer_is_reserved() -> None:
    purse = MoneyBudget(1.0)
    first, second = turns(purse), turns(purse)
    await first.begin()
    assert purse.left == pytest.approx(0.4)
    waiting = asyncio.create_task(second.begin())
    await asyncio.sleep(0)
    assert not waiting.done()
    first.close(110, 0.2, unknown=0)
    await waiting
    assert purse.spent == 0.2
    assert second.output_allowed() == 50


async def test_an_answer_is_no_longer_than_the_money_is_enough_for() -> None:
    purse = MoneyBudget(1.0, spent=0.6)
    only = turns(purse)
    await only.begin()
    assert only.output_allowed() == 30  # 0.1 for the prompt, and 0.3 for so many
    only.close(130, 0.4, unknown=0)
    with pytest.raises(BudgetExceeded, match=r"budget of \$1 exceeded: spent \$1"):
        await turns(purse).begin()


async def test_money_for_less_than_the_prompt_is_none() -> None:
    purse, tokens = MoneyBudget(1.0, spent=0.95), TokenBudget(1000, "run")
    with pytest.raises(BudgetExceeded, match=r"spent \$0.95"):
        await Turns((tokens,), (purse,), prompt=100, answer=50, price=price).begin()
    assert (tokens.left, purse.left) == (1000, pytest.approx(0.05))


async def test_a_whole_takes_all_that_is_left() -> None:
    purse, tokens = MoneyBudget(1.0), TokenBudget(1000, "run")
    whole = Turns((tokens,), (purse,), prompt=10, answer=50, whole=True)
    await whole.begin()
    assert (whole.total_allowed, whole.output_allowed()) == (1000, 990)
    other = asyncio.create_task(Turns((tokens,), (purse,), prompt=10, answer=50).begin())
    await asyncio.sleep(0)
    assert not other.done()
    whole.close(400, 0.1, unknown=0)
    await other
    assert (tokens.used, purse.spent) == (400, 0.1)


async def test_what_is_known_at_the_end_sets_right_what_was_told_before() -> None:
    tokens = TokenBudget(1000, "run")
    asked = Turns((tokens,), (), prompt=10, answer=50)
    await asked.begin()
    asked.turn_ended(TokenUsage(40, 10), None)
    asked.pause()
    assert (tokens.used, tokens.left) == (50, 950)
    asked.close(70, None, unknown=0)  # it ended while its tools ran, after a try nobody told of
    assert (tokens.used, tokens.left) == (70, 930)
    asked.close(99, None, unknown=99)
    assert tokens.used == 70


async def test_who_gives_up_waiting_holds_nothing() -> None:
    tokens, purse = TokenBudget(100, "run"), MoneyBudget(1.0)
    first = Turns((tokens,), (), prompt=10, answer=None)
    await first.begin()
    second = asyncio.create_task(Turns((tokens,), (purse,), prompt=10, answer=5).begin())
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait((second,))
    first.close(20, None, unknown=0)
    assert (tokens.left, purse.left) == (80, 1.0)
