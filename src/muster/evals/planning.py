"""Suites and targets found and checked, before anything is asked."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muster.capabilities import capabilities_of
from muster.config.environment import load_environment
from muster.config.project import Project, find_project
from muster.config.targets import load_catalog
from muster.embeddings import Embedder
from muster.errors import UsageError
from muster.evals.case import Case, Suite
from muster.evals.conversation import make_request
from muster.evals.graders import graders
from muster.evals.instruments import Instruments, as_judge, cache_file
from muster.evals.judging import Judges, describe_judge
from muster.evals.plan import EvalOptions, Plan, PlannedJob, Workspace
from muster.evals.recording import Recorder
from muster.evals.stopping import checked_rule
from muster.evals.suites.load import load_suite
from muster.evals.suites.packaged import NamedSuite, suites_named
from muster.provider import Provider
from muster.providers import providers
from muster.target import ResolvedTarget
from muster.targets import OpenTarget, Overrides, TargetPool
from muster.wrappers.capability import CapabilityCheck
from muster.wrappers.embedding import WrappedEmbedder, embedder_within

if TYPE_CHECKING:
    from muster.evals.tracing import Tracer

__all__ = ("prepare",)

LOOKED_AT = 1000
"""So many cases of a suite are held against what its targets can do, before the run begins."""


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
        given: targets that are objects already, by name; the caller closes them. One with a
            `resolved` target stands in for that where it is measured, not where it judges.

    Raises:
        MusterError: what is wrong with the files or the options.
    """
    here = cwd or Path.cwd()
    base = os.environ if environ is None else environ
    builder = _PlanBuilder(options, here, base, given or {})
    if suites is None:
        for named in suites_named(options.paths, here):
            builder.add_file(named)
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
        self.instruments = Instruments(
            recorder=Recorder() if options.record else None, tracer=_tracer(options)
        )

    def add_file(self, named: NamedSuite) -> None:
        """Load and check a suite's file, and plan it on its targets."""
        path = named.path
        start = path.parent if named.label is None else self.here
        project = find_project(start)
        if self.options.safe:
            self._warn(_refused_code(project))
        env = load_environment(start, self.environ)
        registry = graders.for_project(project.grader_folders, safe=self.options.safe)
        self._warn(registry.failures)
        suite = load_suite(
            path,
            env=env,
            registry=registry,
            safe=self.options.safe,
            skip_invalid=self.options.skip_invalid,
            allow_outside=self.options.allow_outside,
            project_root=named.folder,
        )
        # From one root for all suites of the run: it tells those of several projects apart.
        root = (self.first_project or project).root
        eval_path = named.label or os.path.relpath(path, root)
        self.add(suite, eval_path, project, env, here=self.here if named.label else None)

    def add(
        self,
        suite: Suite,
        eval_path: str | None,
        project: Project | None = None,
        env: Mapping[str, str] | None = None,
        *,
        here: Path | None = None,
    ) -> None:
        """Plan a checked suite on its targets, which are looked for in `here`; by default where the
        suite is."""
        project = project or find_project(suite.base_dir)
        self.first_project = self.first_project or project
        self._warn(suite.warnings)
        self.skipped.extend(suite.skipped)
        workspace = self._workspace(suite, project, env, here or suite.base_dir)
        predicate = self.options.selection.predicate(suite)
        general = self._general_targets(suite, workspace)
        others = () if self.options.targets else suite.case_targets
        for name in dict.fromkeys([*general, *others]):
            selected = self._selected(suite, name, general, predicate)
            opened = self._open(name, workspace)
            _check_capabilities(suite, opened, selected)
            judges = self._judges(suite, opened, workspace)
            job = PlannedJob(suite, eval_path, opened, workspace, selected, judges)
            self._count(job)
            if job.cases:
                self.jobs.append(job)

    def _open(self, name: str, workspace: Workspace, *, judges: bool = False) -> OpenTarget:
        provider = self.given.get(name)
        stands_for = getattr(provider, "resolved", None)
        # Recorded answers to other questions are no judgement.
        if provider is None or (judges and isinstance(stands_for, ResolvedTarget)):
            return workspace.pool.open(name)
        if isinstance(stands_for, ResolvedTarget):
            resolved = stands_for
        else:
            resolved = ResolvedTarget(name=name, provider=type(provider).__name__)
        try:
            capabilities = capabilities_of(provider)
        except ValueError as error:
            raise UsageError(f'target "{name}": {error}') from None
        if capabilities.refuses:
            provider = CapabilityCheck(provider, capabilities, name)
        layers = self.instruments.layers(caching=False)
        if layers is not None and resolved is not stands_for:
            watched = layers.each_try(provider, resolved)
            provider = layers.whole(watched, resolved, capabilities, builtin=False)
        return OpenTarget(name, resolved, provider, None, capabilities)

    def _judges(self, suite: Suite, target: OpenTarget, workspace: Workspace) -> Judges | None:
        """Whom the suite's graders ask on `target`; that they are there is found out now."""
        if not suite.judges:
            return None
        default = target.resolved.judge_target or self.options.judge
        for name in sorted(suite.judges, key=str):
            if (judge := name or default) is None:
                raise UsageError(f"{suite.path or suite.name}: {describe_judge()}")
            self._open(judge, workspace, judges=True)

        def open_judge(name: str) -> Provider:
            return self._open(name, workspace, judges=True).provider

        return Judges(
            as_judge(open_judge) if self.instruments.watching else open_judge,
            default,
            lambda name: self._open(name, workspace, judges=True).capabilities,
            lambda name: self._embedder(name, workspace),
        )

    def _embedder(self, name: str, workspace: Workspace) -> Embedder:
        provider = self.given.get(name)
        if provider is None:
            return workspace.pool.embedder(name)
        inner = embedder_within(provider)
        if inner is None:
            raise UsageError(f'target "{name}" ({type(provider).__name__}) has no `embed`')
        return WrappedEmbedder(inner, name, lambda wrapped: wrapped)

    def finish(self) -> Plan:
        """The plan. Raises `UsageError` when nothing is left to run."""
        if not self.jobs:
            raise UsageError(self._why_nothing())
        assert self.first_project is not None
        for workspace in self.workspaces.values():
            self._warn(workspace.catalog.warnings)
        self._warn(self.instruments.not_cached())
        self._set_stop_when()
        return Plan(
            self.options,
            self.jobs,
            self.first_project,
            list(self.workspaces.values()),
            self.here,
            list(self.warnings),
            self.skipped,
            self.instruments,
        )

    def _set_stop_when(self) -> None:
        """When each suite stops early. Raises `UsageError` where that cannot be."""
        for suite in {id(job.suite): job.suite for job in self.jobs}.values():
            asked = self.options.stop_when
            data = suite.stop_when if asked is None else asked
            if not data:
                continue
            jobs = [job for job in self.jobs if job.suite is suite]
            where = f"{suite.path or suite.name}: stop_when"
            rule = checked_rule(data, where)
            names = [job.target.name for job in jobs]
            for name in rule.compare or ():
                if name not in names:
                    raise UsageError(
                        f'{where}: compares "{name}", but the run asks {", ".join(names)}'
                    )
            if (why := _why_no_stopping(suite, self.options)) is not None:
                raise UsageError(f"{where}: {why}")
            for job in jobs:
                job.stop_when = rule

    def _why_nothing(self) -> str:
        asked = self.options.selection
        why = f"no test matches {asked.describe()}" if asked else "the suites have no tests"
        if self.skipped:
            why += " that can be run; left out:\n" + "\n".join(self.skipped)
        return why

    def _warn(self, lines: Sequence[str]) -> None:
        self.warnings.update(dict.fromkeys(lines))

    def _workspace(
        self, suite: Suite, project: Project, env: Mapping[str, str] | None, start: Path
    ) -> Workspace:
        options = self.options
        if env is None:
            env = load_environment(start, self.environ)
        catalog = load_catalog(start, explicit=options.targets_file, env=env, safe=options.safe)
        for name, entry in suite.inline_targets.items():
            catalog.add_inline(name, entry, suite.base_dir)
        own = id(suite) if suite.inline_targets else None
        caching = self._is_cached(suite, project)
        key = (catalog.path, project.folders, own, tuple(sorted(env.items())), caching)
        workspace = self.workspaces.get(key)
        if workspace is None:
            registry = providers.for_project(project.provider_folders, safe=options.safe)
            self._warn(registry.failures)
            overrides = Overrides(workers=options.workers, max_retries=options.max_retries)
            layers = self.instruments.layers(caching=caching)
            pool = TargetPool(catalog, registry, overrides, layers)
            workspace = self.workspaces[key] = Workspace(project, env, catalog, pool)
        return workspace

    def _is_cached(self, suite: Suite, project: Project) -> bool:
        """Whether the suite's answers are cached; the cache is made when the first one's are."""
        if not (self.options.cache == "on" or (suite.cache and self.options.cache is None)):
            return False
        if self.instruments.cache is None:
            from muster.store.responses import DEFAULT_BYTES, ResponseCache

            size = self.options.cache_mb
            self.instruments.cache = ResponseCache(
                cache_file(self.options.cache_path, project),
                DEFAULT_BYTES if size is None else int(size * 1e6),
            )
        return True

    def _general_targets(self, suite: Suite, workspace: Workspace) -> list[str]:
        """Where the cases run that name no target of their own."""
        if self.options.targets or suite.targets:
            return list(dict.fromkeys(self.options.targets or suite.targets))
        if suite.case_targets and all(case.targets is not None for case in suite.cases()):
            return []
        return [workspace.catalog.default_target(workspace.env)]

    def _selected(
        self,
        suite: Suite,
        target: str,
        general: Sequence[str],
        predicate: Callable[[Case], bool],
    ) -> Callable[[Case], bool]:
        """Which cases run on `target`. `--target` wins over what cases name."""
        if self.options.targets or not suite.case_targets:
            return predicate

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


def _check_capabilities(suite: Suite, target: OpenTarget, selected: Callable[[Case], bool]) -> None:
    """Raise `UsageError` for a case that asks for what the target says that it does not have. Only
    the first cases are looked at: the others are found out when it is their turn."""
    if target.resolved.fallback_targets or not target.capabilities.refuses:
        return
    for case in islice(suite.cases(), LOOKED_AT):
        if not selected(case):
            continue
        messages = (*case.input, *(message for turn in case.turns for message in turn.input))
        request = make_request(case, messages, 0)
        if (why := target.refusal(request)) is not None:
            raise UsageError(f'{suite.path or suite.name}: case "{case.id}": {why}')


def _why_no_stopping(suite: Suite, options: EvalOptions) -> str | None:
    """Why the cases of a suite cannot be taken in any order, as independent ones."""
    if suite.has_clusters:
        return "cases that share a cluster are not independent, which its bounds need"
    if suite.dependencies:
        return "cases that depend on others cannot run in any order, which its bounds need"
    if suite.case_targets and not options.targets:
        return "cases name targets of their own, so that these are not asked the same"
    return None


def _tracer(options: EvalOptions) -> Tracer | None:
    if options.otel is None:
        return None
    from muster.evals.tracing import Tracer

    return Tracer(options.otel, content=options.otel_content)


def _refused_code(project: Project) -> list[str]:
    """What `--safe` leaves aside, named."""
    folders = [*project.provider_folders, *project.grader_folders]
    files = [path for folder in folders for path in sorted(folder.glob("*.py"))]
    return [f"--safe refuses project code: {path} was not loaded" for path in files]
