"""An evaluation from beginning to end: find suites and targets, run, and keep the record."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from muster.config.environment import load_environment
from muster.config.project import Project, find_project
from muster.config.secrets import Masker, masked_config, secret_values
from muster.config.targets import TargetCatalog, load_catalog
from muster.errors import UsageError
from muster.evals.case import Case, Suite
from muster.evals.graders import graders
from muster.evals.provenance import git_commit, versions
from muster.evals.results import (
    EXECUTION_ERROR,
    RESULTS_FILE,
    CaseResult,
    ResultKey,
    ResultsWriter,
    read_run,
    resume_results,
    write_run,
)
from muster.evals.runner import DEFAULT_WORKERS, Job, Observer, Outcome, RunLimits, run_jobs
from muster.evals.selection import Selection
from muster.evals.suites.discovery import find_suites
from muster.evals.suites.load import load_suite
from muster.evals.summary import RunTotals
from muster.provider import Provider
from muster.providers import providers
from muster.target import ResolvedTarget
from muster.targets import OpenTarget, Overrides, TargetPool

__all__ = (
    "EvalOptions",
    "Evaluation",
    "Plan",
    "PlannedJob",
    "Workspace",
    "options_of",
    "prepare",
    "run",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalOptions:
    """What is asked for; `None` and empty leave it to the suites and targets."""

    paths: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    targets_file: Path | None = None
    workers: int | None = None
    selection: Selection = field(default_factory=Selection)
    limit: int | None = None
    """Cases of each suite."""
    repeat: int | None = None
    threshold: float | None = None
    budget_usd: float | None = None
    timeout: float | None = None
    """Seconds for the whole run."""
    case_timeout: float | None = None
    """Seconds for each case."""
    max_retries: int | None = None
    output: Path | None = None
    fail_on_error: bool = False
    safe: bool = False
    skip_invalid: bool = False
    allow_outside: bool = False


@dataclass(slots=True)
class Workspace:
    """What the files of one project give: its environment, targets and pool of providers."""

    project: Project
    env: Mapping[str, str]
    catalog: TargetCatalog
    pool: TargetPool


@dataclass(slots=True)
class PlannedJob:
    """A suite on a target, with what it will come to."""

    suite: Suite
    eval_path: str | None
    target: OpenTarget
    workspace: Workspace
    selected: Callable[[Case], bool]
    cases: int = 0
    results: int = 0
    calls: int = 0


@dataclass(slots=True)
class Plan:
    """Checked and ready: nothing was asked of any target yet."""

    options: EvalOptions
    jobs: list[PlannedJob]
    project: Project
    workspaces: list[Workspace]
    cwd: Path
    warnings: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    @property
    def results(self) -> int:
        """Results that a full run has."""
        return sum(job.results for job in self.jobs)

    @property
    def targets(self) -> list[str]:
        """Names, in order, each once."""
        return list(dict.fromkeys(job.target.name for job in self.jobs))

    @property
    def suites(self) -> list[Suite]:
        """Each once."""
        return list({id(job.suite): job.suite for job in self.jobs}.values())

    async def aclose(self) -> None:
        """Close every provider that was opened."""
        async with AsyncExitStack() as stack:
            for workspace in self.workspaces:
                stack.push_async_callback(workspace.pool.aclose)


@dataclass(slots=True)
class Evaluation:
    """A run that has ended, or was stopped; its results are in `folder`."""

    folder: Path
    outcome: Outcome
    planned: int
    record: dict[str, Any]


def prepare(
    options: EvalOptions,
    *,
    cwd: Path | None = None,
    environ: Mapping[str, str] | None = None,
    suites: Sequence[Suite] | None = None,
    given: Mapping[str, Provider] | None = None,
) -> Plan:
    """Find and check everything that a run needs; no target is asked anything.

    Args:
        suites: suites made in memory; `options.paths` is then not looked at.
        given: targets that are objects already, by name; the caller closes them.

    Raises:
        MusterError: what is wrong with the files or the options.
    """
    here = cwd or Path.cwd()
    base = os.environ if environ is None else environ
    builder = _PlanBuilder(options, here, base, given or {})
    if suites is None:
        for path in find_suites(options.paths, here):
            builder.add_file(path)
    else:
        for suite in suites:
            builder.add(suite, None)
    return builder.finish()


class _PlanBuilder:
    def __init__(
        self,
        options: EvalOptions,
        here: Path,
        environ: Mapping[str, str],
        given: Mapping[str, Provider],
    ) -> None:
        self.options = options
        self.given = given
        self.here = here
        self.environ = environ
        self.jobs: list[PlannedJob] = []
        self.warnings: dict[str, None] = {}
        self.skipped: list[str] = []
        self.workspaces: dict[tuple[Any, ...], Workspace] = {}
        self.first_project: Project | None = None

    def add_file(self, path: Path) -> None:
        """Load and check the suite at `path`, and plan it on its targets."""
        project = find_project(path.parent)
        if self.options.safe:
            self._warn(_refused_code(project))
        env = load_environment(path.parent, self.environ)
        registry = graders.for_project(project.grader_folders, safe=self.options.safe)
        self._warn(registry.failures)
        suite = load_suite(
            path,
            env=env,
            registry=registry,
            safe=self.options.safe,
            skip_invalid=self.options.skip_invalid,
            allow_outside=self.options.allow_outside,
        )
        self.add(suite, os.path.relpath(path, project.root), project, env)

    def add(
        self,
        suite: Suite,
        eval_path: str | None,
        project: Project | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Plan a checked suite on its targets."""
        project = project or find_project(suite.base_dir)
        self.first_project = self.first_project or project
        self._warn(suite.warnings)
        self.skipped.extend(suite.skipped)
        workspace = self._workspace(suite, project, env)
        predicate = self.options.selection.predicate(suite)
        for name in self._target_names(suite, workspace):
            selected = self._selected(suite, name, predicate, workspace)
            job = PlannedJob(suite, eval_path, self._open(name, workspace), workspace, selected)
            self._count(job)
            if job.cases:
                self.jobs.append(job)

    def _open(self, name: str, workspace: Workspace) -> OpenTarget:
        provider = self.given.get(name)
        if provider is None:
            return workspace.pool.open(name)
        resolved = ResolvedTarget(name=name, provider=type(provider).__name__)
        return OpenTarget(name, resolved, provider, None)

    def finish(self) -> Plan:
        """The plan. Raises `UsageError` when nothing is left to run."""
        if not self.jobs:
            asked = self.options.selection
            why = f"no test matches {asked.describe()}" if asked else "the suites have no tests"
            raise UsageError(why)
        assert self.first_project is not None
        for workspace in self.workspaces.values():
            self._warn(workspace.catalog.warnings)
        return Plan(
            self.options,
            self.jobs,
            self.first_project,
            list(self.workspaces.values()),
            self.here,
            list(self.warnings),
            self.skipped,
        )

    def _warn(self, lines: Sequence[str]) -> None:
        self.warnings.update(dict.fromkeys(lines))

    def _workspace(
        self, suite: Suite, project: Project, env: Mapping[str, str] | None
    ) -> Workspace:
        options = self.options
        if env is None:
            env = load_environment(suite.base_dir, self.environ)
        catalog = load_catalog(
            suite.base_dir, explicit=options.targets_file, env=env, safe=options.safe
        )
        for name, entry in suite.inline_targets.items():
            catalog.add_inline(name, entry, suite.base_dir)
        own = id(suite) if suite.inline_targets else None
        key = (catalog.path, project.folders, own, tuple(sorted(env.items())))
        workspace = self.workspaces.get(key)
        if workspace is None:
            registry = providers.for_project(project.provider_folders, safe=options.safe)
            self._warn(registry.failures)
            overrides = Overrides(workers=options.workers, max_retries=options.max_retries)
            pool = TargetPool(catalog, registry, overrides)
            workspace = self.workspaces[key] = Workspace(project, env, catalog, pool)
        return workspace

    def _target_names(self, suite: Suite, workspace: Workspace) -> list[str]:
        if self.options.targets:
            return list(dict.fromkeys(self.options.targets))
        names = list(suite.targets)
        if (not names and len(suite.case_targets) == 0) or (
            not names and self._some_case_names_none(suite)
        ):
            names = [workspace.catalog.default_target(workspace.env)]
        return list(dict.fromkeys([*names, *suite.case_targets]))

    @staticmethod
    def _some_case_names_none(suite: Suite) -> bool:
        return any(case.targets is None for case in suite.cases())

    def _selected(
        self,
        suite: Suite,
        target: str,
        predicate: Callable[[Case], bool],
        workspace: Workspace,
    ) -> Callable[[Case], bool]:
        """Cases that name targets run on those; the others on the suite's. `--target` wins."""
        if self.options.targets or not suite.case_targets:
            return predicate
        general = set(suite.targets)
        if not general and self._some_case_names_none(suite):
            general = {workspace.catalog.default_target(workspace.env)}

        def selected(case: Case) -> bool:
            mine = target in (general if case.targets is None else case.targets)
            return mine and predicate(case)

        return selected

    def _count(self, job: PlannedJob) -> None:
        """How many cases, results and calls the job comes to; only counted when it must be."""
        suite, options = job.suite, self.options
        plain = not options.selection and not suite.case_targets and options.limit is None
        if plain and not suite.has_turns:
            job.cases = suite.count
            job.results = suite.repeats if options.repeat is None else suite.count * options.repeat
            job.calls = job.results
            return
        for case in suite.cases():
            if job.selected(case):
                if options.limit is not None and job.cases >= options.limit:
                    break
                repeat = options.repeat if options.repeat is not None else case.repeat
                job.cases += 1
                job.results += repeat
                job.calls += repeat * max(1, len(case.turns))


def _refused_code(project: Project) -> list[str]:
    """What `--safe` leaves aside, named."""
    folders = [*project.provider_folders, *project.grader_folders]
    files = [path for folder in folders for path in sorted(folder.glob("*.py"))]
    return [f"--safe refuses project code: {path} was not loaded" for path in files]


async def run(
    plan: Plan,
    *,
    observe: Callable[[int, int], Observer] | None = None,
    resume: Path | None = None,
    stop: asyncio.Event | None = None,
) -> Evaluation:
    """Run what was planned; results are in the run's folder as they come.

    Args:
        observe: called with (planned results, results there already) before the first call.
        resume: the folder of an earlier run to be completed.
        stop: set before this task is cancelled, it makes the cancellation an ordinary end: the
            calls under way are cancelled, and the run has the status `interrupted`.

    Raises:
        asyncio.CancelledError: cancelled without `stop`; the folder can be resumed all the same.
        MusterError: the folder cannot be used, or results cannot be written.
    """
    folder = resume if resume is not None else _new_folder(plan)
    masker = Masker(
        {
            value
            for workspace in plan.workspaces
            for target in workspace.pool.resolved
            for value in secret_values(target.config)
        }
    )
    writer = ResultsWriter(folder, masker.mask_bytes if masker else None)
    try:
        return await _run_in(plan, folder, writer, observe, stop, resuming=resume is not None)
    finally:
        writer.close()


async def _run_in(
    plan: Plan,
    folder: Path,
    writer: ResultsWriter,
    observe: Callable[[int, int], Observer] | None,
    stop: asyncio.Event | None,
    *,
    resuming: bool,
) -> Evaluation:
    options = plan.options
    totals = RunTotals(plan.targets, repeated=plan.results > sum(job.cases for job in plan.jobs))
    done: set[ResultKey] = set()
    outcomes: dict[tuple[str, str], dict[tuple[str, str | None, int], str]] = {}
    if resuming:
        _take_over(folder, plan, totals, done, outcomes)
    record = _record(plan, folder)
    write_run(folder, record)
    evaluation = Evaluation(folder, Outcome(totals, status="interrupted"), plan.results, record)
    observer = observe(plan.results, len(done)) if observe is not None else None
    limits = RunLimits(options.timeout, options.budget_usd, options.fail_on_error)
    try:
        evaluation.outcome = await run_jobs(
            [_job(job, options) for job in plan.jobs],
            writer.write,
            totals=totals,
            limits=limits,
            observer=observer,
            done=done,
            outcomes=outcomes,
        )
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if stop is None or not stop.is_set() or task is None:
            raise
        task.uncancel()
    finally:
        record["status"] = evaluation.outcome.status
        record["ended_at"] = _now()
        record["totals"] = totals.to_dict()
        record["not_run"] = plan.results - totals.count
        write_run(folder, record)
    return evaluation


def _job(job: PlannedJob, options: EvalOptions) -> Job:
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
    )


def _take_over(
    folder: Path,
    plan: Plan,
    totals: RunTotals,
    done: set[ResultKey],
    outcomes: dict[tuple[str, str], dict[tuple[str, str | None, int], str]],
) -> None:
    """Count what an earlier part of the run has brought; errors are tried again."""
    _check_same_suites(read_run(folder), plan, folder)
    needed = {(job.eval_path or job.suite.name): job.suite.dependencies for job in plan.jobs}
    targets = set(plan.targets)

    def keep(result: CaseResult) -> bool:
        return result.execution_status != EXECUTION_ERROR and result.target in targets

    for result in resume_results(folder, keep):
        done.add(result.key)
        totals.add(result)
        suite_key = result.eval_path or result.suite
        if result.test_id in needed.get(suite_key, ()):
            ended = outcomes.setdefault((suite_key, result.target), {})
            ended[result.test_id, result.prompt, result.repeat] = result.execution_status


def _check_same_suites(record: Mapping[str, Any], plan: Plan, folder: Path) -> None:
    before = {suite["name"]: suite["content_hash"] for suite in record.get("suites", ())}
    for suite in plan.suites:
        if before.get(suite.name) != suite.content_hash:
            raise UsageError(
                f'{folder}: suite "{suite.name}" is not what it was when the run began; '
                "results of both would be mixed. Start a new run instead."
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
            }
            for target in resolved.values()
        ],
        "cwd": str(plan.cwd),
        "options": {
            name: str(value) if isinstance(value, Path) else value
            for name, value in asdict(options).items()
        },
        "planned": plan.results,
        "not_run": None,
        "totals": None,
    }


def options_of(folder: Path) -> tuple[EvalOptions, Path]:
    """The options that the run in `folder` was started with, and the folder it was started in."""
    record = read_run(folder)
    stored = dict(record.get("options", {}))
    try:
        stored["selection"] = Selection(**stored.get("selection", {}))
        for name in ("targets_file", "output"):
            stored[name] = Path(stored[name]) if stored.get(name) else None
        for name in ("paths", "targets"):
            stored[name] = tuple(stored.get(name, ()))
        return replace(EvalOptions(**stored), output=None), Path(record["cwd"])
    except (TypeError, KeyError) as error:
        raise UsageError(f"{folder}: its run.json is of another version: {error}") from None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
