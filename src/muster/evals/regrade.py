"""Grading a run's recorded answers again, by the graders that its suite has by now.

The targets are not asked: a provider that reads the run stands in for each. All else goes as in any
run, so the result is a run of its own, which says where its answers come from. What has no answer
to the question that the suite asks now is left out, and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from muster.config.secrets import Masker
from muster.errors import UsageError
from muster.evals.case import Case, Suite
from muster.evals.conversation import make_request, shown_input
from muster.evals.evaluation import masker_of
from muster.evals.plan import EvalOptions, Plan, PlannedJob
from muster.evals.planning import prepare
from muster.evals.recorded_run import CaseKey, Recorded, RecordedRun
from muster.evals.results import ResultKey, masked_texts
from muster.evals.suites.packaged import packaged_suites
from muster.exchange import file_hash, files_of
from muster.provider import (
    Message,
)
from muster.providers.row_index import Row
from muster.target import ResolvedTarget

__all__ = ("LeftOut", "Regrading", "plan_regrading")


class LeftOut(msgspec.Struct):
    """Results of the run that are not graded again, by the reason."""

    changed: int = 0
    """The test asks something else by now."""
    gone: int = 0
    """There is no such test any more."""

    def lines(self) -> list[str]:
        """A line for each reason that there is."""
        told = {
            "the test asks something else by now": self.changed,
            "the suite has no such test any more": self.gone,
        }
        return [f"{number} results: {why}" for why, number in told.items() if number]


class Regrading(msgspec.Struct):
    """A plan whose targets answer from a run."""

    plan: Plan
    skip: set[ResultKey]
    """Repeats that the run has no answer of."""
    left_out: LeftOut
    about: dict[str, Any]
    """What the new run's record says of where its answers come from."""
    recorded: RecordedRun

    async def aclose(self) -> None:
        """Close what was opened."""
        self.recorded.close()
        await self.plan.aclose()


def plan_regrading(
    folder: Path, options: EvalOptions, *, environ: Mapping[str, str] | None = None
) -> Regrading:
    """What grading the run in `folder` again would do; nothing is asked.

    `options.paths` are the suites to grade by; without any, those that the run names.
    `options.targets` are the targets whose answers are graded; without any, all of the run's.

    Raises:
        MusterError: the folder holds no run, its suites are not found, or have mistakes.
    """
    run = RecordedRun(folder)
    try:
        stored = run.record.get("options") or {}
        names = _targets(run, options)
        given = {name: Recorded(run, _resolved(run, name)) for name in names}
        options = replace(
            options,
            paths=options.paths or _paths(run),
            targets=tuple(names),
            judge=options.judge or stored.get("judge"),
            threshold=stored.get("threshold") if options.threshold is None else options.threshold,
            stop_when={},
            repeat=None,
        )
        plan = prepare(options, environ=environ, given=given)
    except BaseException:
        run.close()
        raise
    skip: set[ResultKey] = set()
    left_out = LeftOut()
    masker = masker_of(plan)
    by_suite: dict[int, list[PlannedJob]] = {}
    for job in plan.jobs:
        by_suite.setdefault(id(job.suite), []).append(job)
    graded: set[str] = set()
    for jobs in by_suite.values():
        then = _suite_then(run, jobs[0], len(by_suite))
        graded.add(then)
        for name in names:
            given[name].suites[jobs[0].suite_key] = then
        _fit(run, jobs, then, masker, skip, left_out)
    plan.jobs = [job for job in plan.jobs if job.results]
    for (suite, target), cases in run.repeats.items():
        if target in names and suite not in graded:
            left_out.gone += sum(map(len, cases.values()))
    if not plan.jobs:
        run.close()
        why = "; ".join(left_out.lines()) or "it has no results"
        raise UsageError(f"{folder}: nothing of it can be graded: {why}")
    return Regrading(plan, skip, left_out, _about(run, left_out), run)


def _targets(run: RecordedRun, options: EvalOptions) -> list[str]:
    known = run.targets
    for name in options.targets:
        if name not in known:
            raise UsageError(
                f'{run.folder}: no result of a target "{name}" (found: {", ".join(known)})'
            )
    return list(options.targets) or known


def _resolved(run: RecordedRun, name: str) -> ResolvedTarget:
    entry = next(entry for entry in run.record["targets"] if entry["name"] == name)
    return ResolvedTarget(
        name=name,
        provider=entry["provider"],
        config=entry.get("config") or {},
        judge_target=entry.get("judge_target"),
    )


def _paths(run: RecordedRun) -> tuple[str, ...]:
    paths = []
    for suite in run.record.get("suites", ()):
        path = suite.get("path")
        if path is None:
            raise UsageError(
                f'{run.folder}: suite "{suite["name"]}" was made in memory; say by which file to '
                "grade with --suite FILE"
            )
        label = str(suite.get("eval_path"))
        if ":" in label and packaged_suites(label):
            path = label
        elif not Path(path).exists():
            raise UsageError(
                f"{run.folder}: its suite {path} is not there any more; say by which file to grade "
                "with --suite FILE"
            )
        paths.append(path)
    return tuple(paths)


def _suite_then(run: RecordedRun, job: PlannedJob, suites: int) -> str:
    """The key that a suite had in the run: its file, else its name, else there is only one."""
    known = run.suites
    path = None if job.suite.path is None else str(job.suite.path)
    for suite in run.record.get("suites", ()):
        key = suite.get("eval_path") or suite["name"]
        if path is not None and suite.get("path") == path and key in known:
            return str(key)
    if job.suite_key in known:
        return job.suite_key
    named = [
        str(suite.get("eval_path") or suite["name"])
        for suite in run.record.get("suites", ())
        if suite["name"] == job.suite.name
    ]
    if len(named) == 1 and named[0] in known:
        return named[0]
    if suites == 1 and len(known) == 1:
        return known[0]
    raise UsageError(
        f'{run.folder}: which of its suites is "{job.suite.name}"? It has {", ".join(known)}'
    )


def _fit(  # noqa: PLR0917
    run: RecordedRun,
    jobs: list[PlannedJob],
    then: str,
    masker: Masker,
    skip: set[ResultKey],
    left_out: LeftOut,
) -> None:
    """Make the jobs of a suite be of those results that the run has an answer for."""
    recorded = {job.target.name: run.repeats.get((then, job.target.name), {}) for job in jobs}
    there: dict[str, set[CaseKey]] = {job.target.name: set() for job in jobs}
    for case in jobs[0].suite.cases():
        key = (case.id, case.prompt)
        asks = masked_texts(shown_input(_asked(case)), masker)
        for job in jobs:
            name = job.target.name
            repeats = recorded[name].get(key)
            if not repeats or not job.selected(case):
                continue
            first = (then, *key, name, min(repeats))
            row = run.row(first)
            same = row is not None and _same_question(row, case, asks, masker)
            if not (same and _same_files(run.files(first), case)):
                left_out.changed += len(repeats)
                recorded[name].pop(key)
                continue
            there[name].add(key)
    most = _most(recorded)
    suite = _repeated(jobs[0].suite, most)
    for job in jobs:
        name = job.target.name
        left_out.gone += sum(
            len(repeats) for key, repeats in recorded[name].items() if key not in there[name]
        )
        job.results = 0
        for key in there[name]:
            mine = recorded[name][key]
            job.results += len(mine)
            absent = set(range(most[key])) - mine
            skip.update((job.suite_key, *key, name, repeat) for repeat in absent)
        job.suite = suite
        job.cases = len(there[name])
        job.selected = _kept(there[name])


def _kept(keys: set[CaseKey]) -> Callable[[Case], bool]:
    return lambda case: (case.id, case.prompt) in keys


def _asked(case: Case) -> tuple[Message, ...]:
    return case.input + case.turns[0].input if case.turns else case.input


def _same_question(row: Row, case: Case, asks: object, masker: Masker) -> bool:
    if msgspec.to_builtins(asks) != row.get("input"):
        return False
    then = [turn.get("input") for turn in row.get("turns") or ()]
    now = [
        msgspec.to_builtins(masked_texts(shown_input(turn.input), masker)) for turn in case.turns
    ]
    # A conversation that broke off has fewer turns than its test.
    return now[: len(then)] == then and bool(then) == bool(now)


def _same_files(then: list[str] | None, case: Case) -> bool:
    """Whether the question's files hold what they held then, as far as that is known."""
    if then is None:
        return True
    asked = make_request(case, _asked(case), 0)
    return then == sorted(str(file_hash(path)) for path in dict.fromkeys(files_of(asked)))


def _most(recorded: Mapping[str, Mapping[CaseKey, set[int]]]) -> dict[CaseKey, int]:
    """By case: how many repeats, counted from 0, some target has."""
    most: dict[CaseKey, int] = {}
    for cases in recorded.values():
        for key, repeats in cases.items():
            most[key] = max(most.get(key, 0), max(repeats) + 1)
    return most


def _repeated(suite: Suite, most: Mapping[CaseKey, int]) -> Suite:
    """The suite, each case as often as it was run."""

    def cases() -> Iterator[Case]:
        for case in suite.cases():
            repeat = most.get((case.id, case.prompt), case.repeat)
            yield case if repeat == case.repeat else replace(case, repeat=repeat)

    return replace(suite, cases=cases, budget_usd=None)


def _about(run: RecordedRun, left_out: LeftOut) -> dict[str, Any]:
    return {
        "run_id": run.record.get("run_id"),
        "folder": str(run.folder.resolve()),
        "started_at": run.record.get("started_at"),
        "git_commit": run.record.get("git_commit"),
        "records": run.has_records,
        "suites": [
            {"name": suite["name"], "content_hash": suite.get("content_hash")}
            for suite in run.record.get("suites", ())
        ],
        "left_out": msgspec.to_builtins(left_out),
    }
