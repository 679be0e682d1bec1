"""Runs suites on targets: every case, target and repeat once, each result on disk as it comes."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol, TypeAlias

import msgspec

from muster.evals.budget import MoneyBudget, sum_known
from muster.evals.case import Case, Suite
from muster.evals.execution import Item, execute, failed_dependency
from muster.evals.judging import Judges
from muster.evals.results import EXECUTION_ERROR, CaseResult, ResultKey
from muster.evals.schedule import Schedule
from muster.evals.scope import RunScope
from muster.evals.stopping import Stopping, StopReport, StopWhen, shuffled
from muster.evals.summary import RunTotals
from muster.provider import Provider
from muster.tasks import stop_tasks

__all__ = ("DEFAULT_WORKERS", "Earlier", "Job", "Observer", "Outcome", "RunLimits", "run_jobs")

Interval: TypeAlias = tuple[float, float]

DEFAULT_WORKERS = 8

_YIELD_EVERY = 0.02
"""Seconds of work after which a worker lets the loop look at signals and other workers."""


class Job(msgspec.Struct, frozen=True):
    """A suite on one target."""

    suite: Suite
    target: str
    provider: Provider
    provider_kind: str
    workers: int
    selected: Callable[[Case], bool]
    """Which cases run on this target."""
    limit: int | None = None
    """Only so many cases, from the beginning."""
    repeat: int | None = None
    """Overrides the cases' own."""
    threshold: float | None = None
    case_timeout: float | None = None
    eval_path: str | None = None
    cwd: Path | None = None
    judges: Judges | None = None
    """Whom graders may ask."""
    scope: RunScope | None = None
    """What graders keep while the run lasts; whoever made it closes it."""
    cases: int = 0
    """How many cases are selected; `stop_when` needs to know."""
    results: int = 0
    """And how many results they give."""
    stop_when: StopWhen | None = None
    """The suite's rule for stopping early."""

    @property
    def suite_key(self) -> str:
        """What tells the suite from the others of the run."""
        return self.eval_path or self.suite.name

    def repeats_of(self, case: Case) -> int:
        """How often the case is run."""
        return case.repeat if self.repeat is None else self.repeat


class RunLimits(msgspec.Struct, frozen=True):
    """Bounds on the whole run; `None` is no bound."""

    seconds: float | None = None
    budget_usd: float | None = None
    fail_on_error: bool = False
    answers_cost: bool = True
    """What a result says of its cost is spent now; not where answers are recorded ones, and the
    judges alone are paid."""


class Observer(Protocol):
    """Told of each result, after it is on disk."""

    def on_result(self, result: CaseResult) -> None:
        """One more result."""
        ...


class Outcome(msgspec.Struct):
    """How a run ended: `complete`, `interrupted`, `timed_out`, `budget_exceeded` or `failed`."""

    totals: RunTotals
    status: str = "complete"
    seconds: float = 0.0
    stopping: list[StopReport] = msgspec.field(default_factory=list)
    """What came of each suite's `stop_when`."""

    @property
    def saved(self) -> int:
        """Results that were not needed."""
        return sum(report.results_saved for report in self.stopping)


class Earlier(msgspec.Struct):
    """What an earlier part of the same run has brought."""

    done: set[ResultKey] = msgspec.field(default_factory=set)
    """Results that are there, and are not run again."""
    outcomes: dict[tuple[str, str], dict[tuple[str, str | None, int], str]] = msgspec.field(
        default_factory=dict
    )
    """By (suite key, target): how cases ended that others depend on."""
    scores: dict[ResultKey, tuple[float | None, bool]] = msgspec.field(default_factory=dict)
    """Score and pass of each result that is there, of suites with `stop_when`."""
    spent_usd: dict[str, float] = msgspec.field(default_factory=dict)
    """By suite key; results that are run again are in it, for they were paid for."""


class _Run(msgspec.Struct):
    totals: RunTotals
    write: Callable[[CaseResult], CaseResult]
    observer: Observer | None
    limits: RunLimits
    budget: MoneyBudget | None
    earlier: Earlier
    stop: str | None = None
    """Why no further case of the run is begun."""
    suite_stop: str | None = None
    """Why no further case of the suite is begun; the next suite is."""
    suite_budget: MoneyBudget | None = None
    stopping: Stopping | None = None
    """The rule of the suite that is under way."""
    sequential: dict[str, tuple[Interval, Interval]] = msgspec.field(default_factory=dict)
    """By target: mean score and pass rate, by the last suite that had a rule."""


async def run_jobs(
    jobs: Sequence[Job],
    write: Callable[[CaseResult], CaseResult],
    *,
    totals: RunTotals,
    limits: RunLimits,
    observer: Observer | None = None,
    earlier: Earlier | None = None,
) -> Outcome:
    """Run all jobs; suites one after the other, the targets of a suite side by side.

    Args:
        write: puts a result on disk and gives it back as it is there, secrets masked; nothing else
            learns of a result before that.
        totals: counts every result; those of an earlier part of the run are in it already.

    Raises:
        asyncio.CancelledError: the run was interrupted; calls under way are cancelled and have
            no result.
        MusterError: results cannot be written.
    """
    earlier = earlier or Earlier()
    budget = None
    if limits.budget_usd is not None:
        budget = MoneyBudget(limits.budget_usd, math.fsum(earlier.spent_usd.values()))
    run = _Run(totals, write, observer, limits, budget, earlier)
    outcome = Outcome(totals)
    started = time.perf_counter()
    try:
        async with asyncio.timeout(limits.seconds) as deadline:
            for group in _by_suite(jobs):
                run.suite_budget = _suite_budget(group[0], earlier)
                run.suite_stop = None
                run.stopping = _stopping(group)
                if run.stopping is not None:
                    _replay(run.stopping, group, run.earlier)
                try:
                    await _run_group(run, group)
                finally:
                    _tell_stopping(run, group, outcome)
                outcome.status = run.suite_stop or outcome.status
                if run.stop is not None:
                    break
    except TimeoutError:
        if not deadline.expired():
            raise
        run.stop = "timed_out"
    finally:
        _tell_sequential(run)
        outcome.seconds = time.perf_counter() - started
    outcome.status = run.stop or outcome.status
    return outcome


def _stopping(jobs: Sequence[Job]) -> Stopping | None:
    first = jobs[0]
    if first.stop_when is None:
        return None
    targets = {job.target: (job.cases, job.workers) for job in jobs}
    return Stopping(first.stop_when, first.suite_key, first.suite.content_hash, targets)


def _replay(stopping: Stopping, jobs: Sequence[Job], earlier: Earlier) -> None:
    """Let the rule see what an earlier part of the run has brought, before anything is asked."""
    for job in jobs:
        left = sum(key[0] == job.suite_key and key[3] == job.target for key in earlier.scores)
        if not left:
            continue
        for place, case in _cases_in_order(job, stopping):
            repeats = job.repeats_of(case)
            for repeat in range(repeats):
                key = (job.suite_key, case.id, case.prompt, job.target, repeat)
                if key in earlier.scores:
                    score, passed = earlier.scores[key]
                    stopping.add(job.target, place, repeats, score, passed=passed)
                    left -= 1
            if not left:
                break


def _tell_stopping(run: _Run, jobs: Sequence[Job], outcome: Outcome) -> None:
    """Note what came of the rule; what it told of a mean holds however one stopped."""
    if run.stopping is None:
        return
    suites = run.totals.suites
    there = {
        job.target: suites[key].judged + suites[key].errors
        for job in jobs
        if (key := (job.suite_key, job.target)) in suites
    }
    planned = {job.target: job.results for job in jobs}
    outcome.stopping += run.stopping.reports(planned, there)
    for name, track in run.stopping.tracks.items():
        run.sequential[name] = (track.scores.interval(), track.passes.interval())


def _tell_sequential(run: _Run) -> None:
    """What is told of a mean holds however one stopped; of several suites nothing is."""
    for name, (mean_score, pass_rate) in run.sequential.items():
        of_one = sum(target == name for _, target in run.totals.suites) == 1
        totals = run.totals.targets[name]
        totals.set_sequential(*((mean_score, pass_rate) if of_one else (None, None)))


def _suite_budget(job: Job, earlier: Earlier) -> MoneyBudget | None:
    limit = job.suite.budget_usd
    if limit is None:
        return None
    return MoneyBudget(limit, earlier.spent_usd.get(job.suite_key, 0.0))


def _by_suite(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    group: list[Job] = []
    for job in jobs:
        if group and group[0].suite is not job.suite:
            yield group
            group = []
        group.append(job)
    if group:
        yield group


async def _run_group(run: _Run, jobs: Sequence[Job]) -> None:
    """The targets of one suite side by side, each with its own workers; one failure ends all."""
    workers: list[asyncio.Task[None]] = []
    for job in jobs:
        schedule = _schedule(run, job)
        workers += [asyncio.create_task(_work(run, job, schedule)) for _ in range(job.workers)]
    try:
        ended, _ = await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        await stop_tasks(workers)
    for worker in ended:
        if not worker.cancelled() and (error := worker.exception()) is not None:
            raise error


def _schedule(run: _Run, job: Job) -> Schedule:
    suite = job.suite
    planned: dict[str, int] = {}
    if suite.dependencies:
        selected = islice(filter(job.selected, suite.cases()), job.limit)
        planned = {
            case.id: job.repeats_of(case) for case in selected if case.id in suite.dependencies
        }
    outcomes = run.earlier.outcomes.get((job.suite_key, job.target))
    return Schedule(_items(run, job), suite.dependencies, planned, outcomes)


def _items(run: _Run, job: Job) -> Iterator[Item]:
    done, suite_key, stopping = run.earlier.done, job.suite_key, run.stopping
    for place, case in _cases_in_order(job, stopping):
        if stopping is not None:
            stopping.drawn(job.target, place)
        threshold = job.threshold if job.threshold is not None else case.threshold
        for repeat in range(job.repeats_of(case)):
            if done and (suite_key, case.id, case.prompt, job.target, repeat) in done:
                continue
            if stopping is not None and stopping.stopped(job.target):
                return
            yield Item(
                case,
                job.target,
                repeat,
                job.eval_path,
                job.provider_kind,
                threshold,
                case.timeout_seconds if job.case_timeout is None else job.case_timeout,
                job.cwd,
                job.judges,
                place,
                job.scope,
            )


def _cases_in_order(job: Job, stopping: Stopping | None) -> Iterator[tuple[int, Case]]:
    def cases() -> Iterator[Case]:
        return islice(filter(job.selected, job.suite.cases()), job.limit)

    if stopping is None:
        return enumerate(cases())
    return shuffled(cases, job.cases, stopping.seed)


async def _work(run: _Run, job: Job, schedule: Schedule) -> None:
    try:
        await _work_on(run, job, schedule)
    finally:
        if run.stopping is not None:
            run.stopping.wake()


async def _work_on(run: _Run, job: Job, schedule: Schedule) -> None:
    pause_at = time.monotonic() + _YIELD_EVERY
    stopping = run.stopping
    while run.stop is None and run.suite_stop is None:
        if stopping is not None:
            if stopping.stopped(job.target):
                return
            if not stopping.has_room(job.target):
                await stopping.change()
                continue
        item = schedule.take()
        if item is None:
            if await schedule.wait():
                continue
            return
        result = await _run_item(run, job, schedule, item)
        if result is None:
            schedule.done(item, EXECUTION_ERROR)
            return
        schedule.done(item, result.execution_status)
        if result.execution_status == EXECUTION_ERROR:
            if run.limits.fail_on_error:
                run.stop = "failed"
            elif job.suite.fail_on_error:
                run.suite_stop = "failed"
        if time.monotonic() >= pause_at:
            await asyncio.sleep(0)
            pause_at = time.monotonic() + _YIELD_EVERY


async def _run_item(run: _Run, job: Job, schedule: Schedule, item: Item) -> CaseResult | None:
    """The result, on disk and counted; `None` when a budget does not allow the call."""
    failed = schedule.failed(item) if item.case.depends_on else []
    if failed and item.case.on_dependency_failure != "run":
        result = failed_dependency(item, failed)
    elif run.budget is None and run.suite_budget is None:
        result = await execute(item, job.provider)
    else:
        paid = await _execute_within_budget(run, job, item)
        if paid is None:
            return None
        result = paid
    result = run.write(result)
    run.totals.add(result)
    if run.stopping is not None:
        passed = result.passed
        repeats = job.repeats_of(item.case)
        run.stopping.add(job.target, item.place, repeats, result.score, passed=passed)
    if run.observer is not None:
        run.observer.on_result(result)
    return result


async def _execute_within_budget(run: _Run, job: Job, item: Item) -> CaseResult | None:
    budgets = [budget for budget in (run.budget, run.suite_budget) if budget is not None]
    for number, budget in enumerate(budgets):
        if not await budget.enter():
            for entered in budgets[:number]:
                entered.withdraw()
            if budget is run.budget:
                run.stop = run.stop or "budget_exceeded"
            else:
                run.suite_stop = run.suite_stop or "budget_exceeded"
            return None
    cost: float | None = None
    try:
        result = await execute(item, job.provider)
        answer = result.cost_usd if run.limits.answers_cost else None
        cost = sum_known(answer, result.judge_cost_usd)
        return result
    finally:
        for budget in budgets:
            budget.leave(cost)
