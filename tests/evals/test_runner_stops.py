"""Why a case is not run, or a run goes no further: dependencies, errors, money."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval_parts import Asked, Run, as_job, cases, make_case, make_suite, takes
from muster.evals.runner import Earlier
from muster.provider import ProviderFailed, ProviderRequest, ProviderResponse


def failing(*names: str) -> Asked:
    async def reply(request: ProviderRequest) -> str:
        await asyncio.sleep(1)
        if request.question in names:
            raise ProviderFailed("no")
        return request.question

    return Asked(reply)


def costing(*prices: float | None) -> Asked:
    """Each call takes a second and costs the next price; the last one goes on."""
    calls = 0

    async def reply(request: ProviderRequest) -> ProviderResponse:
        nonlocal calls
        price = prices[min(calls, len(prices) - 1)]
        calls += 1
        await asyncio.sleep(1)
        return ProviderResponse("x", cost_usd=price)

    return Asked(reply)


def ended(run: Run) -> dict[str, str]:
    """By id: the error, or else the status."""
    return {result.test_id: result.error or result.execution_status for result in run.results}


# --- dependencies ---------------------------------------------------------------------------------


def test_what_is_done_with_those_that_depend_on_an_error() -> None:
    rules = ("skip", "fail", "run")
    after = [make_case(rule, depends_on=("a",), on_dependency_failure=rule) for rule in rules]
    last = make_case("last", depends_on=("skip", "run"))
    provider = failing("a")
    run = Run([as_job(make_suite(last, *after, *cases("a", "b")), provider)])
    assert run().status == "complete"
    assert ended(run) == {
        "a": "no",
        "b": "ok",
        "skip": "Skipped: dependency failed (a)",
        "fail": "Failed: dependency failed (a)",
        "run": "ok",
        "last": "Skipped: dependency failed (skip)",
    }
    assert sorted(provider.questions) == ["a", "b", "run"]
    assert dict(run.totals.targets["t"].errors) == {"provider_failed": 1, "dependency_failed": 3}


def test_a_low_score_is_no_failed_dependency() -> None:
    low = make_case("a", threshold=1.1)
    run = Run([as_job(make_suite(low, make_case("b", depends_on=("a",))), Asked())])
    run()
    assert ended(run) == {"a": "quality_failure", "b": "ok"}


def test_repeats_and_targets_have_dependencies_of_their_own() -> None:
    async def reply(request: ProviderRequest) -> str:
        if request.question == "a" and request.metadata["repeat"] == "1":
            raise ProviderFailed("no")
        return "x"

    suite = make_suite(make_case("b", depends_on=("a",), repeat=2), *cases("a", repeat=2))
    run = Run([as_job(suite, Asked(reply), "x"), as_job(suite, failing("a"), "y")])
    run()
    asked = {(r.target, r.repeat): r.execution_status for r in run.results if r.test_id == "b"}
    error = "execution_error"
    assert asked == {("x", 0): "ok", ("x", 1): error, ("y", 0): error, ("y", 1): error}


def test_a_dependency_that_is_filtered_out_or_cut_off_holds_nobody_back() -> None:
    suite = make_suite(make_case("b", depends_on=("a",)), make_case("c", depends_on=("z",)))
    suite = make_suite(*suite.cases(), *cases("a", "z"), dependencies=frozenset("az"))
    run = Run([as_job(suite, failing("a"), selected=lambda case: case.id != "a", limit=2)])
    run()
    assert ended(run) == {"b": "ok", "c": "ok"}


def test_dependencies_of_an_earlier_part_of_the_run() -> None:
    suite = make_suite(
        *(make_case(name, depends_on=(on,)) for name, on in ["ca", "db"]), *cases(*"ab")
    )
    earlier = Earlier(
        done={("s", "a", None, "t", 0), ("s", "b", None, "t", 0)},
        outcomes={
            ("s", "t"): {("a", None, 0): "ok", ("b", None, 0): "execution_error"},
            ("other", "t"): {("a", None, 0): "execution_error"},
        },
    )
    run = Run([as_job(suite, Asked())])
    run(earlier=earlier)
    assert ended(run) == {"c": "ok", "d": "Skipped: dependency failed (b)"}


# --- errors ---------------------------------------------------------------------------------------


def test_fail_on_error_ends_the_run_with_what_is_under_way() -> None:
    provider, other = failing("b"), takes(1)
    jobs = [
        as_job(make_suite(*cases(*"abcdef")), provider, workers=3),
        as_job(make_suite(*cases("g")), other),
    ]
    run = Run(jobs, fail_on_error=True)
    assert run().status == "failed"
    # The one after "a" began before "b" failed; it is let end.
    assert ended(run) == {"a": "ok", "b": "no", "c": "ok", "d": "ok"}
    assert provider.questions == ["a", "b", "c", "d"]
    assert other.requests == []


def test_a_suite_that_fails_on_error_does_not_end_the_others() -> None:
    first, second = failing("b"), takes(1)
    strict = make_suite(*cases(*"abcd"), fail_on_error=True)
    jobs = [as_job(strict, first, workers=1), as_job(make_suite(*cases(*"ef")), second)]
    run = Run(jobs)
    assert run().status == "failed"
    assert first.questions == ["a", "b"]
    assert second.questions == ["e", "f"]


def test_without_it_errors_end_nothing() -> None:
    run = Run([as_job(make_suite(*cases(*"abcd")), failing("a", "b"))])
    assert run().status == "complete"
    assert ended(run) == {"a": "no", "b": "no", "c": "ok", "d": "ok"}


# --- money ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "made", "status"),
    [(0.35, 4, "budget_exceeded"), (0.3, 3, "budget_exceeded"), (0.65, 6, "complete")],
)
def test_the_budget_of_a_run(limit: float, made: int, status: str) -> None:
    provider = costing(0.1)
    run = Run([as_job(make_suite(*cases(*"abcdef")), provider, workers=3)], budget_usd=limit)
    outcome = run()
    assert (outcome.status, len(provider.requests)) == (status, made)
    assert outcome.totals.count == made
    # The first call is waited for, for its price.
    assert run.seconds == 1 + -(-(made - 1) // 3)


prices = st.one_of(st.none(), st.floats(0.0, 1.0))


@settings(max_examples=50, deadline=None)
@given(st.lists(prices, min_size=1, max_size=12), st.integers(1, 4), st.floats(0.05, 3))
def test_money_is_spent_to_the_limit_and_no_further(
    listed: list[float | None], workers: int, limit: float
) -> None:
    dearest = max(price or 0.0 for price in listed)
    provider = costing(dearest, *listed)
    names = [str(number) for number in range(len(listed) + 1)]
    jobs = [as_job(make_suite(*cases(*names)), provider, workers=workers)]
    run = Run(jobs, budget_usd=limit)
    status = run().status
    spent = run.totals.cost_usd or 0.0
    assert spent < limit + dearest + 1e-9
    assert (status == "complete") == (len(run.results) == len(names))
    assert status == "complete" or spent >= limit - 1e-9


def test_the_budget_of_a_suite_is_its_own() -> None:
    first, second = costing(0.1), costing(0.1)
    bounded = make_suite(*cases(*"abcdef"), budget_usd=0.25)
    jobs = [
        as_job(bounded, first, "x", workers=1),
        as_job(bounded, second, "y", workers=1),
        as_job(make_suite(*cases(*"ghi"), budget_usd=0.5), third := costing(0.1), "x"),
    ]
    run = Run(jobs)
    assert run().status == "budget_exceeded"
    # Both targets of the suite spend from the same purse.
    assert len(first.requests) + len(second.requests) == 3
    assert len(third.requests) == 3


def test_a_run_and_a_suite_with_budgets() -> None:
    first, second = costing(0.1), costing(0.1)
    jobs = [
        as_job(make_suite(*cases(*"abcd"), budget_usd=0.15), first, workers=4),
        as_job(make_suite(*cases(*"efgh")), second, workers=4),
    ]
    run = Run(jobs, budget_usd=0.45)
    assert run().status == "budget_exceeded"
    assert (len(first.requests), len(second.requests)) == (2, 3)


def test_what_an_earlier_part_spent_counts() -> None:
    first, second = costing(0.1), costing(0.1)
    jobs = [
        as_job(make_suite(*cases(*"abc"), budget_usd=0.5), first, eval_path="one.yaml"),
        as_job(make_suite(*cases(*"def")), second, eval_path="two.yaml"),
    ]
    run = Run(jobs, budget_usd=1.0)
    outcome = run(earlier=Earlier(spent_usd={"one.yaml": 0.45, "two.yaml": 0.4}))
    assert outcome.status == "budget_exceeded"
    # 0.05 is left for the suite, and after its one call 0.05 for the run.
    assert (len(first.requests), len(second.requests)) == (1, 1)


def test_the_budget_is_spent_already() -> None:
    provider = costing(0.1)
    run = Run([as_job(make_suite(*cases("a")), provider)], budget_usd=0.2)
    outcome = run(earlier=Earlier(spent_usd={"gone.yaml": 0.2}))
    assert (outcome.status, provider.requests) == ("budget_exceeded", [])


def test_skipped_cases_cost_nothing_and_need_no_budget() -> None:
    suite = make_suite(*cases("a"), make_case("b", depends_on=("a",)))
    error = ProviderFailed("no", cost_usd=0.5)
    run = Run([as_job(suite, Asked(lambda request: error))], budget_usd=0.4)
    assert run().status == "complete"
    assert ended(run) == {"a": "no", "b": "Skipped: dependency failed (a)"}
    assert run.totals.cost_usd == 0.5


def test_answers_of_unknown_cost_end_no_run() -> None:
    run = Run([as_job(make_suite(*cases(*"abcdef")), costing(None), workers=3)], budget_usd=0.1)
    assert run().status == "complete"
    assert len(run.results) == 6
    assert run.totals.targets["t"].without_cost == 6
