"""A run from its plan to its end, with the record of it kept in its folder."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from muster.config.secrets import Masker, environment_secrets, masked_config, secret_values
from muster.errors import UsageError
from muster.evals.plan import EvalOptions, Plan, PlannedJob
from muster.evals.provenance import git_commit, versions
from muster.evals.results import (
    RESULTS_FILE,
    CaseResult,
    ResultKey,
    ResultsWriter,
    run_lock,
    write_run,
)
from muster.evals.resume import take_over
from muster.evals.runner import (
    DEFAULT_WORKERS,
    Earlier,
    Job,
    Observer,
    Outcome,
    RunLimits,
    run_jobs,
)
from muster.evals.scope import RunScope
from muster.evals.summary import RunTotals

__all__ = ("Evaluation", "masker_of", "run")


class Evaluation(msgspec.Struct):
    """A run that has ended, or was stopped; its results are in `folder`."""

    folder: Path
    outcome: Outcome
    planned: int
    record: dict[str, Any]
    trouble: list[str] = msgspec.field(default_factory=list)
    """What went wrong beside the results."""

    @property
    def expected(self) -> int:
        """Results that a full run has, without those that `stop_when` saved."""
        return self.planned - self.outcome.saved


async def run(
    plan: Plan,
    *,
    observe: Callable[[int, RunTotals], Observer] | None = None,
    resume: Path | None = None,
    stop: asyncio.Event | None = None,
    skip: Collection[ResultKey] = (),
    graded_from: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Run what was planned; results are in the run's folder as they come.

    Args:
        observe: called before the first call with the number of planned results, and the totals,
            which hold the results that are there already and go on with the run.
        resume: the folder of an earlier run to be completed.
        stop: set before this task is cancelled, it makes the cancellation an ordinary end: the
            calls under way are cancelled, and the run has the status `interrupted`.
        skip: results that are not to be made, nor planned.
        graded_from: the run whose answers are graded again, for the record.

    Raises:
        asyncio.CancelledError: cancelled without `stop`; the folder can be resumed all the same.
        MusterError: the folder cannot be used, or results cannot be written.
    """
    folder = resume if resume is not None else _new_folder(plan)
    with run_lock(folder):
        totals = RunTotals(plan.targets, repeated=plan.results > sum(j.cases for j in plan.jobs))
        totals.judges.root = plan.project.root
        record = _record(plan, folder)
        earlier = Earlier(done=set(skip))
        record["graded_from"] = graded_from
        if resume is not None:
            earlier = take_over(folder, plan, totals, record)
            earlier.done.update(skip)
        write_run(folder, record)
        observer = observe(plan.results, totals) if observe is not None else None
        outcome = Outcome(totals, status="interrupted")
        evaluation = Evaluation(folder, outcome, plan.results, record)
        await _complete(plan, evaluation, earlier, observer, stop)
    return evaluation


def masker_of(plan: Plan) -> Masker:
    """Knows the secrets of the targets, and those in the environment: a command may print them."""
    secrets: set[str] = set()
    for workspace in plan.workspaces:
        secrets |= environment_secrets(workspace.env)
        for target in workspace.pool.resolved:
            secrets |= secret_values(target.config)
    return Masker(secrets)


async def _complete(
    plan: Plan,
    evaluation: Evaluation,
    earlier: Earlier,
    observer: Observer | None,
    stop: asyncio.Event | None,
) -> None:
    options, record = plan.options, evaluation.record
    totals = evaluation.outcome.totals
    instruments, masker = plan.instruments, masker_of(plan)
    writer = ResultsWriter(evaluation.folder, masker)
    scope = RunScope()

    def write(result: CaseResult) -> CaseResult:
        instruments.check()
        written = writer.write(result)
        instruments.result(written)
        return written

    try:
        instruments.start(evaluation.folder, masker)
        evaluation.outcome = await run_jobs(
            [_job(job, options, scope) for job in plan.jobs],
            write,
            totals=totals,
            limits=RunLimits(
                options.timeout,
                options.budget_usd,
                options.fail_on_error,
                answers_cost=record["graded_from"] is None,
            ),
            observer=observer,
            earlier=earlier,
        )
        saved = evaluation.outcome.saved
        if totals.count + saved == plan.results and evaluation.outcome.status == "timed_out":
            evaluation.outcome.status = "complete"  # the last result came with the bell
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if stop is None or not stop.is_set() or task is None:
            raise
        task.uncancel()
    finally:
        evaluation.trouble = instruments.close()
        writer.close()
        record["status"] = evaluation.outcome.status
        record["ended_at"] = _now()
        record["totals"] = totals.to_dict()
        record["judges"] = totals.judges.to_list()
        record["not_run"] = plan.results - totals.count - evaluation.outcome.saved
        record["stopping"] = [report.to_dict() for report in evaluation.outcome.stopping]
        write_run(evaluation.folder, record)
        await scope.aclose()


def _job(job: PlannedJob, options: EvalOptions, scope: RunScope) -> Job:
    workers = options.workers or job.suite.max_concurrency or job.target.workers or DEFAULT_WORKERS
    return Job(
        suite=job.suite,
        target=job.target.name,
        provider=job.target.provider,
        provider_kind=job.target.resolved.provider,
        workers=max(1, min(workers, job.results)),
        selected=job.selected,
        limit=options.limit,
        repeat=options.repeat,
        threshold=options.threshold,
        case_timeout=options.case_timeout,
        eval_path=job.eval_path,
        judges=job.judges,
        scope=scope,
        cases=job.cases,
        results=job.results,
        stop_when=job.stop_when,
    )


def _new_folder(plan: Plan) -> Path:
    if plan.options.output is not None:
        folder = plan.options.output
        if (folder / RESULTS_FILE).exists():
            raise UsageError(
                f"{folder} holds a run already: choose another folder, or continue it "
                f"with --resume {folder}"
            )
    else:
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        name = re.sub(r"[^\w.-]+", "-", plan.suites[0].name).strip("-")[:40]
        results = plan.project.results_dir
        folder = results / f"{stamp}-{name}"
        number = 2
        while folder.exists():
            folder = results / f"{stamp}-{name}-{number}"
            number += 1
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be made: {error.strerror}") from None
    return folder


def _record(plan: Plan, folder: Path) -> dict[str, Any]:
    options = plan.options
    resolved = {job.target.name: job.target.resolved for job in plan.jobs}
    return {
        "schema_version": 1,
        "run_id": folder.name,
        "status": "running",
        "started_at": _now(),
        "ended_at": None,
        "versions": versions(),
        "git_commit": git_commit(plan.project.root),
        "suites": [
            {
                "name": suite.name,
                "path": str(suite.path) if suite.path else None,
                "eval_path": plan.eval_path(suite),
                "cases": suite.count,
                "content_hash": suite.content_hash,
                "skipped": list(suite.skipped),
            }
            for suite in plan.suites
        ],
        "targets": [
            {
                "name": target.name,
                "provider": target.provider,
                "config": masked_config(target),
                "fallback_targets": list(target.fallback_targets),
                "judge_target": target.judge_target,
            }
            for target in resolved.values()
        ],
        "resumed_at": [],
        "spent_on_retried_usd": {},
        "cwd": str(plan.cwd),
        "options": msgspec.to_builtins(options, enc_hook=str),
        "planned": plan.results,
        "not_run": None,
        "stopping": [],
        "totals": None,
        "judges": [],
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
