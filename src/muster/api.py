"""The Python interface: register what is one's own, and evaluate targets on suites."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextvars import copy_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, overload

if TYPE_CHECKING:
    from muster.evals.case import Case
    from muster.evals.evaluation import Evaluation as _Run
    from muster.evals.results import CaseResult
    from muster.provider import Provider

__all__ = (
    "Evaluation",
    "aevaluate",
    "evaluate",
    "register",
    "register_grader",
    "register_queue",
)

F = TypeVar("F", bound=Callable[..., Any])

SuiteLike: TypeAlias = "str | Path | Sequence[str | Path] | Iterable[Case | Mapping[str, Any]]"
TargetLike: TypeAlias = "str | Provider | Callable[..., Any]"
AssertionLike: TypeAlias = "Mapping[str, Any] | str | Callable[..., Any]"


@overload
def register(name: str, factory: F, *, override: bool = False) -> F: ...
@overload
def register(name: str, *, override: bool = False) -> Callable[[F], F]: ...
def register(
    name: str, factory: F | None = None, *, override: bool = False
) -> F | Callable[[F], F]:
    """Make a provider known as `name`; without a factory, a decorator.

    The factory takes a `ResolvedTarget` and returns a provider, a chat model, or a function.

    Raises:
        UsageError: the name is a built-in's, or taken, and `override` is not given.
    """
    from muster.providers import providers

    made: F | Callable[[F], F] = _register(providers, name, factory, override)
    return made


@overload
def register_grader(name: str, factory: F, *, override: bool = False) -> F: ...
@overload
def register_grader(name: str, *, override: bool = False) -> Callable[[F], F]: ...
def register_grader(
    name: str, factory: F | None = None, *, override: bool = False
) -> F | Callable[[F], F]:
    """Make a grader known as the assertion type `name`; without a factory, a decorator.

    The factory takes a `GraderSpec` and returns a function of a `GradeContext`.

    Raises:
        UsageError: the name is a built-in's, or taken, and `override` is not given.
    """
    from muster.evals.graders import graders

    made: F | Callable[[F], F] = _register(graders, name, factory, override)
    return made


@overload
def register_queue(name: str, factory: F, *, override: bool = False) -> F: ...
@overload
def register_queue(name: str, *, override: bool = False) -> Callable[[F], F]: ...
def register_queue(
    name: str, factory: F | None = None, *, override: bool = False
) -> F | Callable[[F], F]:
    """Make a kind of queue known by the scheme `name` of its URLs; without a factory, a decorator.

    The factory takes a `QueueURL` and returns a `TaskQueue`.

    Raises:
        UsageError: the name is a built-in's, or taken, and `override` is not given.
    """
    from muster.queues import queues

    made: F | Callable[[F], F] = _register(queues, name, factory, override)
    return made


def _register(registry: Any, name: str, factory: Any, override: bool) -> Any:
    if factory is None:
        return registry.register(name, override=override)
    return registry.register(name, factory, override=override)


class Evaluation:
    """A finished run. Iterating reads its results from the run's folder, in the order they came,
    as often as one likes; a large run is not held in memory."""

    def __init__(self, run: _Run, warnings: Sequence[str] = ()) -> None:
        self._run = run
        self._warnings = tuple(warnings)

    @property
    def folder(self) -> Path:
        """Where `results.jsonl` and `run.json` are."""
        return self._run.folder

    @property
    def status(self) -> str:
        """`complete`, `timed_out`, `budget_exceeded` or `failed`."""
        return self._run.outcome.status

    @property
    def summary(self) -> dict[str, Any]:
        """Totals, by target too: counts, mean score, pass rate and its 95 % interval, tokens,
        cost, latencies."""
        return self._run.outcome.totals.to_dict()

    @property
    def passed(self) -> bool:
        """True when every planned result is there, without an error, and reached its threshold."""
        totals = self._run.outcome.totals
        complete = self.status == "complete" and totals.count == self._run.expected
        return complete and not totals.errors and not totals.quality_failures

    @property
    def warnings(self) -> list[str]:
        """What one should know beside the results: of the suites and targets, and what went wrong
        that does not spoil them, such as spans that no collector took."""
        return [*self._warnings, *self._run.trouble]

    def __len__(self) -> int:
        return self._run.outcome.totals.count

    def __iter__(self) -> Iterator[CaseResult]:
        from muster.evals.results import read_results

        return read_results(self.folder)

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` with a row for each result.

        Raises:
            ImportError: pandas is not installed (`pip install 'muster-ai[pandas]'`).
        """
        try:
            import pandas
        except ImportError:
            raise ImportError("to_pandas() needs pandas: pip install 'muster-ai[pandas]'") from None
        return pandas.DataFrame([result.to_dict() for result in self])

    def __repr__(self) -> str:
        rates = ", ".join(
            f"{target['target']} {target['passed']}/{target['count']}"
            for target in self.summary["targets"]
        )
        return f"<Evaluation {self.status}: {rates}; {self.folder}>"


async def aevaluate(
    suite: SuiteLike,
    target: TargetLike | Sequence[TargetLike] = (),
    *,
    assertions: Sequence[AssertionLike] = (),
    targets_file: str | Path | None = None,
    workers: int | None = None,
    repeat: int | None = None,
    limit: int | None = None,
    threshold: float | None = None,
    budget_usd: float | None = None,
    timeout: float | None = None,
    case_timeout: float | None = None,
    max_retries: int | None = None,
    judge: TargetLike | None = None,
    stop_when: Mapping[str, Any] | None = None,
    record: bool = False,
    cache: bool | None = None,
    cache_path: str | Path | None = None,
    otel: str | Path | None = None,
    otel_content: bool = False,
    output: str | Path | None = None,
    on_result: Callable[[CaseResult], None] | None = None,
) -> Evaluation:
    """Measure targets on a suite.

    Args:
        suite: a path or paths (files, folders, globs), or cases in memory: mappings as in a
            suite's `tests`, or `Case` objects.
        target: the name of a target, a provider, or a plain function of the question or the
            request, sync or async; or several of these. Default: what the suite names.
        assertions: judge every case in memory too, after its own: entries as in a suite, texts
            for a judge, or functions of the `GradeContext`, sync or async.
        judge: who judges where nothing else is said: as `target`, one.
        otel: where spans go: a file, a collector's address, or `""` for the collector that
            `OTEL_EXPORTER_OTLP_ENDPOINT` names.
        output: the folder of the run; default `.muster/results/TIME-SUITE` in the project.
        on_result: called with each result, after it is on disk.

    The other arguments are the options of `muster eval`.

    Raises:
        MusterError: the suite, the targets or the options are wrong; nothing was called.
    """
    from muster.evals.evaluation import run
    from muster.evals.plan import EvalOptions
    from muster.evals.planning import prepare
    from muster.evals.suites.load import suite_from_cases
    from muster.wrappers.base import close_provider

    paths, cases = _split(suite)
    names, given, made = _targets(target)
    judge_name = _judge(judge, given, made)
    options = EvalOptions(
        paths=paths,
        targets=names,
        targets_file=Path(targets_file) if targets_file is not None else None,
        workers=workers,
        repeat=repeat,
        limit=limit,
        threshold=threshold,
        budget_usd=budget_usd,
        timeout=timeout,
        case_timeout=case_timeout,
        max_retries=max_retries,
        judge=judge_name,
        stop_when=_rule(stop_when),
        record=record,
        cache=None if cache is None else "on" if cache else "off",
        cache_path=Path(cache_path) if cache_path is not None else None,
        otel=str(otel) if otel is not None else None,
        otel_content=otel_content,
        output=Path(output) if output is not None else None,
    )
    suites = None
    if cases is not None:
        suites = [suite_from_cases("cases", cases, assertions=assertions)]
    plan = prepare(options, suites=suites, given=given)
    try:
        observer = _Observer(on_result)
        ended = await run(plan, observe=lambda planned, totals: observer)
        return Evaluation(ended, plan.warnings)
    finally:
        await plan.aclose()
        for provider in made:
            await close_provider(provider)


def evaluate(
    suite: SuiteLike,
    target: TargetLike | Sequence[TargetLike] = (),
    *,
    assertions: Sequence[AssertionLike] = (),
    targets_file: str | Path | None = None,
    workers: int | None = None,
    repeat: int | None = None,
    limit: int | None = None,
    threshold: float | None = None,
    budget_usd: float | None = None,
    timeout: float | None = None,
    case_timeout: float | None = None,
    max_retries: int | None = None,
    judge: TargetLike | None = None,
    stop_when: Mapping[str, Any] | None = None,
    record: bool = False,
    cache: bool | None = None,
    cache_path: str | Path | None = None,
    otel: str | Path | None = None,
    otel_content: bool = False,
    output: str | Path | None = None,
    on_result: Callable[[CaseResult], None] | None = None,
) -> Evaluation:
    """As `aevaluate`, for code that is not async; within a running event loop (a notebook) it
    runs in a thread of its own."""
    work = aevaluate(
        suite,
        target,
        assertions=assertions,
        targets_file=targets_file,
        workers=workers,
        repeat=repeat,
        limit=limit,
        threshold=threshold,
        budget_usd=budget_usd,
        timeout=timeout,
        case_timeout=case_timeout,
        max_retries=max_retries,
        judge=judge,
        stop_when=stop_when,
        record=record,
        cache=cache,
        cache_path=cache_path,
        otel=otel,
        otel_content=otel_content,
        output=output,
        on_result=on_result,
    )
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1, "muster-evaluate") as pool:
        return pool.submit(copy_context().run, asyncio.run, work).result()


class _Observer:
    def __init__(self, on_result: Callable[[CaseResult], None] | None) -> None:
        self._tell = on_result

    def on_result(self, result: CaseResult) -> None:
        if self._tell is not None:
            self._tell(result)


def _split(
    suite: SuiteLike,
) -> tuple[tuple[str, ...], Iterable[Case | Mapping[str, Any]] | None]:
    """(paths, None) or ((), cases)."""
    if isinstance(suite, str | Path):
        return (str(suite),), None
    items: list[Any] = list(suite)
    if items and all(isinstance(item, str | Path) for item in items):
        return tuple(str(item) for item in items), None
    return (), items


def _targets(
    target: TargetLike | Sequence[TargetLike],
) -> tuple[tuple[str, ...], dict[str, Provider], list[Provider]]:
    """Names to run; the providers of those that are objects, not names; and which of these were
    made here, so that their threads must be ended. What can be closed is closed by its giver."""
    from muster.providers.create import as_provider

    items: list[Any] = list(target) if isinstance(target, list | tuple) else [target]
    names: list[str] = []
    given: dict[str, Provider] = {}
    made: list[Provider] = []
    for item in items:
        if isinstance(item, str):
            names.append(item)
            continue
        name = _free_name(item, names)
        names.append(name)
        given[name] = as_provider(item, name=name)
        if not hasattr(item, "aclose"):
            made.append(given[name])
    return tuple(names), given, made


def _free_name(item: Any, taken: Collection[str]) -> str:
    base = getattr(item, "target_name", None) or getattr(item, "__name__", None)
    name = base = base or type(item).__name__
    number = 2
    while name in taken:
        name, number = f"{base}-{number}", number + 1
    return str(name)


def _judge(
    judge: TargetLike | None, given: dict[str, Provider], made: list[Provider]
) -> str | None:
    """The judge's name; one that is an object is added to what is `given`."""
    from muster.providers.create import as_provider

    if judge is None or isinstance(judge, str):
        return judge
    name = _free_name(judge, given)
    given[name] = as_provider(judge, name=name)
    if not hasattr(judge, "aclose"):
        made.append(given[name])
    return name


def _rule(stop_when: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if stop_when is None:
        return None
    from muster.errors import UsageError

    if not isinstance(stop_when, Mapping):
        raise UsageError(
            f"stop_when: expected a mapping, such as {{'ci_width': 0.04}}, found {stop_when!r}"
        )
    return dict(stop_when)
