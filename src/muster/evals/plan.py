"""What a run will do, as plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec

from muster.config.project import Project
from muster.config.targets import TargetCatalog
from muster.evals.case import Case, Suite
from muster.evals.instruments import Instruments
from muster.evals.judging import Judges
from muster.evals.selection import Selection
from muster.evals.stopping import StopWhen
from muster.targets import OpenTarget, TargetPool

__all__ = ("EvalOptions", "Plan", "PlannedJob", "Workspace")


class EvalOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for; `None` and empty leave it to the suites and targets."""

    paths: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    targets_file: Path | None = None
    workers: int | None = None
    selection: Selection = msgspec.field(default_factory=Selection)
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
    judge: str | None = None
    """The target that judges where neither suite nor target names one."""
    stop_when: dict[str, Any] | None = None
    """Instead of the suites' own; empty: none stops early."""
    record: bool = False
    """Keep every exchange with a provider."""
    cache: str | None = None
    """`on` or `off`, instead of what the suites say: whether answers that are there already are
    asked for again."""
    cache_path: Path | None = None
    cache_mb: float | None = None
    """What the cache may hold, in millions of bytes."""
    otel: str | None = None
    """Where spans go: a file, a collector's address, or empty for what the environment names."""
    otel_content: bool = False
    """Whether they have what was said."""
    output: Path | None = None
    fail_on_error: bool = False
    safe: bool = False
    skip_invalid: bool = False
    allow_outside: bool = False


class Workspace(msgspec.Struct):
    """What the files of one project give: its environment, targets and pool of providers."""

    project: Project
    env: Mapping[str, str]
    catalog: TargetCatalog
    pool: TargetPool


class PlannedJob(msgspec.Struct):
    """A suite on a target, with what it will come to."""

    suite: Suite
    eval_path: str | None
    target: OpenTarget
    workspace: Workspace
    selected: Callable[[Case], bool]
    judges: Judges | None = None
    cases: int = 0
    results: int = 0
    calls: int = 0
    stop_when: StopWhen | None = None

    @property
    def suite_key(self) -> str:
        """What tells the suite from the others of the run."""
        return self.eval_path or self.suite.name


class Plan(msgspec.Struct):
    """Checked and ready: nothing was asked of any target yet."""

    options: EvalOptions
    jobs: list[PlannedJob]
    project: Project
    workspaces: list[Workspace]
    cwd: Path
    warnings: list[str] = msgspec.field(default_factory=list)
    skipped: list[str] = msgspec.field(default_factory=list)
    instruments: Instruments = msgspec.field(default_factory=Instruments)
    """What watches the calls; starts with the run."""

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

    def eval_path(self, suite: Suite) -> str | None:
        """Where the suite's file is, seen from the root of the plan's project; `None` for one in
        memory."""
        return next(job.eval_path for job in self.jobs if job.suite is suite)

    @property
    def has_budget(self) -> bool:
        """Whether the run, or one of its suites, is bounded in money."""
        budgets = [self.options.budget_usd, *(suite.budget_usd for suite in self.suites)]
        return any(budget is not None for budget in budgets)

    async def aclose(self) -> None:
        """Close every provider that was opened."""
        async with AsyncExitStack() as stack:
            for workspace in self.workspaces:
                stack.push_async_callback(workspace.pool.aclose)
