from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from eval_parts import now
from muster.evals.budget import MoneyBudget
from virtual_loop import virtual

Price = float | None
prices = st.one_of(st.none(), st.floats(0.0, 2.0))


def run(budget: MoneyBudget, calls: list[tuple[Price, float]], workers: int) -> list[Price]:
    """Make the calls, each of a price and a duration, with so many workers; the prices paid."""
    left, paid = iter(calls), []

    async def work() -> None:
        while (call := next(left, None)) is not None and await budget.enter():
            price, seconds = call
            await asyncio.sleep(seconds)
            paid.append(price)
            budget.leave(price)

    async def main() -> None:
        await asyncio.gather(*(work() for _ in range(workers)))

    virtual(main())
    return paid


calls_of = st.lists(st.tuples(prices, st.floats(0, 5)), min_size=1, max_size=30)


@settings(max_examples=150, deadline=None)
@given(calls_of, st.integers(1, 8), st.floats(0.01, 5))
def test_the_limit_is_passed_by_one_call_at_most(
    calls: list[tuple[Price, float]], workers: int, limit: float
) -> None:
    dearest = max(price or 0.0 for price, _ in calls)
    budget = MoneyBudget(limit)
    # The dearest comes first, or there is one worker: then no call is dearer than was foreseen.
    calls = [(dearest, 1.0), *calls] if workers > 1 else calls
    paid = run(budget, calls, workers)
    assert abs(budget.spent - sum(price or 0.0 for price in paid)) < 1e-9
    assert budget.spent < limit + dearest + 1e-9
    # Nobody is turned away before the money is spent.
    assert len(paid) == len(calls) or budget.spent >= limit


@settings(max_examples=50, deadline=None)
@given(calls_of, st.integers(1, 8), st.floats(0.01, 5), st.floats(0, 6))
def test_whatever_the_prices_every_call_is_made_or_the_budget_is_spent(
    calls: list[tuple[Price, float]], workers: int, limit: float, spent: float
) -> None:
    budget = MoneyBudget(limit, spent)
    paid = run(budget, calls, workers)
    if spent >= limit:
        assert paid == []
    assert len(paid) == len(calls) or budget.spent >= limit
    dearest = max(price or 0.0 for price, _ in calls)
    assert budget.spent < max(limit, spent) + workers * dearest + 1e-9


def test_the_first_price_is_waited_for() -> None:
    async def main() -> list[tuple[float, int]]:
        budget, begun = MoneyBudget(1.0), []

        async def call(number: int) -> None:
            assert await budget.enter()
            begun.append((now(), number))
            await asyncio.sleep(2)
            budget.leave(0.01)

        await asyncio.gather(*(call(number) for number in range(4)))
        return begun

    assert virtual(main()) == [(0, 0), (2, 1), (2, 2), (2, 3)]


def test_calls_under_way_are_taken_to_cost_as_much_as_the_dearest() -> None:
    async def main() -> None:
        budget = MoneyBudget(1.0)
        assert await budget.enter()
        budget.leave(0.1)
        assert await budget.enter()
        budget.leave(0.4)  # 0.5 is spent; one call more may cost 0.4, two 0.8
        assert await budget.enter()
        assert await budget.enter()
        third = asyncio.create_task(budget.enter())
        await asyncio.sleep(1)
        assert not third.done()
        budget.leave(0.05)
        assert await third
        budget.leave(0.4)
        budget.leave(0.4)
        assert round(budget.spent, 9) == 1.35
        assert not await budget.enter()

    virtual(main())


def test_calls_of_unknown_cost_count_as_nothing() -> None:
    budget = MoneyBudget(0.5)
    assert run(budget, [(None, 1.0)] * 20, 4) == [None] * 20
    assert budget.spent == 0


def test_a_limit_of_zero_allows_no_call() -> None:
    assert run(MoneyBudget(0.0), [(0.1, 1.0)], 1) == []


def test_whoever_is_cancelled_while_waiting_takes_no_place() -> None:
    async def main() -> None:
        budget = MoneyBudget(1.0)
        assert await budget.enter()
        waiting = [asyncio.create_task(budget.enter()) for _ in range(3)]
        await asyncio.sleep(1)
        waiting[0].cancel()
        await asyncio.sleep(1)
        assert waiting[0].cancelled()
        assert not waiting[1].done()
        budget.leave(0.9)  # one more fits, not two
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(1)
        assert [task.done() for task in waiting] == [True, True, False]
        waiting[2].cancel()
        budget.leave(None)  # the call of the second was cancelled
        assert await budget.enter()
        budget.leave(0.1)
        assert budget.spent == 1.0
        assert not await budget.enter()

    virtual(main())


def test_what_a_call_costs_at_most_is_reserved() -> None:
    async def main() -> None:
        budget = MoneyBudget(1.0)
        assert await budget.enter(0.4)
        assert await budget.enter(0.4)
        third = asyncio.create_task(budget.enter(0.4))
        await asyncio.sleep(1)
        assert not third.done()
        assert round(budget.left, 9) == 0.2
        budget.leave(0.1, 0.4)
        assert await third
        budget.leave(0.4, 0.4)
        budget.leave(0.4, 0.4)
        assert await budget.enter(0.4)  # more than is left, but nobody else is under way
        alone = asyncio.create_task(budget.enter(0.01))
        await asyncio.sleep(1)
        assert not alone.done()
        budget.leave(0.1, 0.4)
        assert not await alone
        assert round(budget.spent, 9) == 1.0

    virtual(main())
