"""Runs suites on targets: every case, target and repeat once, each result on disk as it comes."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol

import msgspec

from muster.evals.budget import MoneyBudget
from muster.evals.case import Case, Suite
from muster.evals.execution import Item, execute, failed_dependency
from muster.evals.results import EXECUTION_ERROR, CaseResult, ResultKey
from muster.evals.schedule import Schedule
from muster.evals.summary import RunTotals
from muster.provider import Provider
from muster.tasks import stop_tasks

__all__ = ("DEFAULT_WORKERS", "Earlier", "Job", "Observer", "Outcome", "RunLimits", "run_jobs")

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


class Earlier(msgspec.Struct):
    """What an earlier part of the same run has brought."""

    done: set[ResultKey] = msgspec.field(default_factory=set)
    """Results that are there, and are not run again."""
    outcomes: dict[tuple[str, str], dict[tuple[str, str | None, int], str]] = msgspec.field(
        default_factory=dict
    )
    """By (suite key, target): how cases ended that others depend on."""
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
                await _run_group(run, group)
                outcome.status = run.suite_stop or outcome.status
                if run.stop is not None:
                    break
    except TimeoutError:
        if not deadline.expired():
            raise
        run.stop = "timed_out"
    finally:
        outcome.seconds = time.perf_counter() - started
    outcome.status = run.stop or outcome.status
    return outcome


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
    done, suite_key = run.earlier.done, job.suite_key
    for case in islice(filter(job.selected, job.suite.cases()), job.limit):
        threshold = job.threshold if job.threshold is not None else case.threshold
        for repeat in range(job.repeats_of(case)):
            if done and (suite_key, case.id, case.prompt, job.target, repeat) in done:
                continue
            yield Item(
                case,
                job.target,
                repeat,
                job.eval_path,
                job.provider_kind,
                threshold,
                case.timeout_seconds if job.case_timeout is None else job.case_timeout,
                job.cwd,
            )


async def _work(run: _Run, job: Job, schedule: Schedule) -> None:
    pause_at = time.monotonic() + _YIELD_EVERY
    while run.stop is None and run.suite_stop is None:
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
        cost = result.cost_usd
        return result
    finally:
        for budget in budgets:
            budget.leave(cost)
