"""What is run, when, and how a run ends; dependencies and budgets are in `test_runner_stops`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval_parts import Asked, Run, as_job, cases, grader, make_case, make_suite, takes
from muster.errors import MusterError
from muster.evals.case import Case, Suite
from muster.evals.results import CaseResult
from muster.evals.runner import Earlier, Job
from muster.provider import ProviderFailed, ProviderRequest
from muster.tasks import GRACE_SECONDS
from virtual_loop import virtual


class Watching:
    """An observer that notes what it is told."""

    def __init__(self) -> None:
        self.seen: list[CaseResult] = []

    def on_result(self, result: CaseResult) -> None:
        self.seen.append(result)


# --- what is run ----------------------------------------------------------------------------------


@st.composite
def plans(draw: st.DrawFn) -> list[Job]:
    """Suites on targets, their latencies and failures drawn from the data too."""
    latencies = draw(st.lists(st.sampled_from([0, 0, 1, 2.5, 7]), min_size=1, max_size=9))
    failures = draw(st.sets(st.integers(0, 8)))

    async def reply(request: ProviderRequest) -> str:
        number = int(request.question) + int(request.metadata["repeat"])
        await asyncio.sleep(latencies[number % len(latencies)])
        if number in failures:
            raise ProviderFailed("no") if number % 2 else LookupError("none")
        return request.question

    jobs = []
    for number in range(draw(st.integers(1, 3))):
        counts = draw(st.lists(st.integers(1, 3), max_size=5))
        suite = make_suite(
            *(
                make_case(f"{n}", suite=f"s{number}", repeat=count)
                for n, count in enumerate(counts)
            ),
            name=f"s{number}",
        )
        for target in draw(st.lists(st.sampled_from("xyz"), min_size=1, unique=True)):
            workers = draw(st.integers(1, 4))
            jobs.append(as_job(suite, Asked(reply), target, workers=workers))
    return jobs


@settings(max_examples=80, deadline=None)
@given(plans())
def test_each_case_target_and_repeat_once(jobs: list[Job]) -> None:
    run = Run(jobs)
    outcome = run()
    expected = [
        (job.suite.name, case.id, None, job.target, repeat)
        for job in jobs
        for case in job.suite.cases()
        for repeat in range(case.repeat)
    ]
    assert sorted(result.key for result in run.results) == sorted(expected)
    assert (outcome.status, outcome.totals.count) == ("complete", len(expected))
    for job in jobs:
        assert job.provider.most <= job.workers
    suites = [result.suite for result in run.results]
    assert suites == sorted(suites)  # one after the other
    assert run.left_running == 0


def test_workers_bound_the_calls_of_a_target() -> None:
    provider = takes(1)
    run = Run([as_job(make_suite(*cases(*"abcdefghij")), provider, workers=3)])
    run()
    assert (provider.most, run.seconds, len(run.results)) == (3, 4, 10)
    assert provider.questions == [*"abcdefghij"]


def test_targets_side_by_side_and_suites_one_after_the_other() -> None:
    first, second = make_suite(*cases(*"abc")), make_suite(*cases("d", suite="s2"), name="s2")
    slow, fast, other = takes(3), takes(1), takes(2)
    jobs = [as_job(first, slow, "slow", workers=1), as_job(first, fast, "fast", workers=1)]
    run = Run([*jobs, as_job(second, other, "fast", workers=1)])
    run()
    assert run.seconds == 9 + 2
    assert " ".join(f"{result.test_id}:{result.target}" for result in run.results) == (
        "a:fast b:fast a:slow c:fast b:slow c:slow d:fast"
    )


def test_one_suite_twice_on_a_target_counts_as_given() -> None:
    suite, provider = make_suite(*cases("a", repeat=2)), Asked()
    Run([as_job(suite, provider, repeat=3)])()
    assert [request.metadata["repeat"] for request in provider.requests] == ["0", "1", "2"]


def test_only_what_is_selected_and_within_the_limit() -> None:
    suite, provider = make_suite(*cases(*"abcdef")), Asked()
    run = Run([as_job(suite, provider, selected=lambda case: case.id in "bdef", limit=3)])
    run()
    assert run.ids == ["b", "d", "e"]


@pytest.mark.parametrize(("threshold", "status"), [(None, "quality_failure"), (0.5, "ok")])
def test_the_job_may_override_the_threshold(threshold: float | None, status: str) -> None:
    suite = make_suite(make_case(graders=(grader(0.5),), threshold=0.6))
    run = Run([as_job(suite, Asked(), threshold=threshold)])
    run()
    assert [result.execution_status for result in run.results] == [status]
    assert [result.threshold for result in run.results] == [threshold or 0.6]


@pytest.mark.parametrize(("timeout", "seconds"), [(None, 4), (2.0, 2)])
def test_the_job_may_override_the_timeout_of_cases(timeout: float | None, seconds: float) -> None:
    suite = make_suite(make_case(timeout_seconds=4))
    run = Run([as_job(suite, takes(9), case_timeout=timeout)])
    run()
    assert run.results[0].error_kind == "timeout"
    assert run.seconds == seconds


def test_cases_are_drawn_as_they_are_run() -> None:
    drawn = 0

    def many() -> Iterator[Case]:
        nonlocal drawn
        for number in range(100_000):
            drawn += 1
            yield make_case(str(number))

    suite: Suite = make_suite(cases=many, count=100_000, repeats=100_000)
    run = Run([as_job(suite, takes(1), workers=4)], seconds=2.5)
    assert run().status == "timed_out"
    assert (drawn, len(run.results)) == (12, 8)


def test_what_an_earlier_part_has_is_not_run_again() -> None:
    suite, provider = make_suite(*cases(*"ab", repeat=2)), Asked()
    done = {("a.yaml", "a", None, "t", 0), ("a.yaml", "b", None, "t", 1), ("s", "b", None, "t", 0)}
    run = Run([as_job(suite, provider, eval_path="a.yaml")])
    run(earlier=Earlier(done=done))
    assert [(result.test_id, result.repeat) for result in run.results] == [("a", 1), ("b", 0)]
    assert provider.questions == ["a", "b"]


# --- what is told, and when -----------------------------------------------------------------------


def test_a_result_is_written_before_anybody_learns_of_it_and_as_it_was_written() -> None:
    log: list[str] = []

    def write(result: CaseResult) -> CaseResult:
        log.append(f"write {result.output} {run.totals.count}")
        result.output = "masked"
        return result

    class Telling:
        def on_result(self, result: CaseResult) -> None:
            log.append(f"tell {result.output} {run.totals.count}")

    run = Run([as_job(make_suite(*cases(*"ab")), takes(1), workers=1)])
    run(write=write, observer=Telling())
    assert log == ["write a 0", "tell masked 1", "write b 1", "tell masked 2"]


@pytest.mark.parametrize("breaks", ["write", "observer"])
def test_when_results_cannot_be_kept_the_run_ends_and_its_calls_are_stopped(breaks: str) -> None:
    written: list[str] = []

    def full(result: CaseResult) -> CaseResult:
        if len(written) == 2:
            raise MusterError("disk full")
        written.append(result.test_id)
        return result

    class Broken:
        def on_result(self, result: CaseResult) -> None:
            full(result)

    providers = [takes(1), takes(1.5)]
    suite = make_suite(*cases(*"abcdefgh"))
    jobs = [as_job(suite, provider, name) for provider, name in zip(providers, "xy", strict=True)]
    run = Run([*jobs, as_job(make_suite(*cases("never")), providers[0], "x")])
    options = {"write": full} if breaks == "write" else {"observer": Broken()}
    with pytest.raises(MusterError, match="disk full"):
        run(**options)
    # The third result came at 1.5 s; by then y's first two calls ended, and x's were under way.
    assert (run.seconds, run.left_running) == (1.5, 0)
    assert [provider.under_way for provider in providers] == [0, 0]
    assert providers[0].questions == ["a", "b", "c", "d"]
    assert len(written) == 2


def test_a_worker_that_never_waits_lets_others_have_a_turn() -> None:
    def endless() -> Iterator[Case]:
        case = make_case()
        for _ in range(1_000_000):
            yield case

    async def main() -> int:
        run = Run([as_job(make_suite(cases=endless), Asked(), workers=1)])
        task = asyncio.create_task(run.begin())
        await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return len(run.results)

    assert 0 < asyncio.run(main()) < 100_000


# --- how a run ends -------------------------------------------------------------------------------


async def _swallow(request: ProviderRequest) -> str:
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            continue


@pytest.mark.parametrize("case_timeout", [None, 100.0])
@pytest.mark.parametrize(
    ("provider", "extra"), [(takes(4), 0), (Asked(_swallow), GRACE_SECONDS)], ids=["obeys", "not"]
)
def test_the_time_of_a_run_is_bounded(
    provider: Asked, extra: float, case_timeout: float | None
) -> None:
    suite = make_suite(*cases(*"abcdef"))
    jobs = [
        as_job(suite, takes(2), "quick", workers=1),
        as_job(suite, provider, "slow", case_timeout=case_timeout),
    ]
    run = Run(jobs, seconds=5)
    outcome = run()
    assert outcome.status == "timed_out"
    assert run.seconds == pytest.approx(5 + extra)
    # What ended in time is there; calls that were under way have no result.
    assert [result.test_id for result in run.results if result.target == "quick"] == ["a", "b"]
    slow = [result.test_id for result in run.results if result.target == "slow"]
    assert sorted(slow) == ([] if extra else ["a", "b"])
    assert outcome.totals.count == len(run.results)


def test_a_run_within_its_time() -> None:
    run = Run([as_job(make_suite(*cases("a")), takes(4))], seconds=5)
    outcome = run()
    assert (outcome.status, run.seconds) == ("complete", 4)
    assert 0 <= outcome.seconds < 1


def test_an_interrupted_run_leaves_nothing_running() -> None:
    provider = takes(2)

    async def main() -> Run:
        run = Run([as_job(make_suite(*cases(*"abcd")), provider)])
        task = asyncio.create_task(run.begin())
        await asyncio.sleep(3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return run

    run = virtual(main())
    assert run.ids == ["a", "b"]
    assert provider.under_way == 0
    assert run.seconds == 3


def test_no_cases_at_all() -> None:
    run = Run([as_job(make_suite(), Asked())])
    assert (run().status, run.results) == ("complete", [])


def test_observers_are_told_of_every_result() -> None:
    watching = Watching()
    run = Run([as_job(make_suite(*cases(*"abc")), takes(1))])
    run(observer=watching)
    assert watching.seen == run.results
    assert len(watching.seen) == 3
