"""Grading a run's recorded answers again, by the graders that its suite has by now.

The targets are not asked: a provider that reads the run stands in for each. All else goes as in any
run, so the result is a run of its own, which says where its answers come from. What has no answer
to the question that the suite asks now is left out, and counted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from muster.config.secrets import Masker
from muster.errors import UsageError
from muster.evals.case import Case, Suite
from muster.evals.conversation import shown_input
from muster.evals.evaluation import masker_of
from muster.evals.plan import EvalOptions, Plan, PlannedJob, prepare
from muster.evals.results import RESULTS_FILE, CaseResult, ResultKey, masked_texts, read_run
from muster.exchange import OCCASION, Occasion
from muster.provider import (
    AuthenticationFailed,
    BadProviderOutput,
    BadRequest,
    BudgetExceeded,
    LimitExceeded,
    Message,
    ProviderError,
    ProviderFailed,
    ProviderRequest,
    ProviderResponse,
    ProviderTimeout,
    ProviderUnavailable,
    QuotaExhausted,
    RateLimited,
)
from muster.providers.records import Records, of_case
from muster.providers.row_index import Row, RowIndex
from muster.target import ResolvedTarget

__all__ = ("LeftOut", "Regrading", "plan_regrading")

_ERRORS: dict[str, type[ProviderError]] = {
    error.kind: error
    for error in (
        AuthenticationFailed, BadProviderOutput, BadRequest, BudgetExceeded, LimitExceeded,
        ProviderFailed, ProviderTimeout, ProviderUnavailable, QuotaExhausted, RateLimited,
    )
}  # fmt: skip

CaseKey = tuple[str, str | None]
"""Id and prompt."""


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


class RecordedRun:
    """The results of a run by their keys, and its exchanges if it kept them."""

    def __init__(self, folder: Path) -> None:
        """Raises `UsageError` or `ConfigError` when the folder holds no readable run."""
        self.folder = folder
        self.record = read_run(folder)
        path = folder / RESULTS_FILE
        if not path.is_file():
            raise UsageError(f"{folder}: no {RESULTS_FILE} there; is it the folder of a run?")
        self.repeats: dict[tuple[str, str], dict[CaseKey, set[int]]] = {}
        """By suite and target: the repeats of each case."""

        def key_of(row: Row) -> str:
            result = msgspec.convert(row, CaseResult, strict=False)
            suite, test_id, prompt, target, repeat = result.key
            self.repeats.setdefault((suite, target), {}).setdefault((test_id, prompt), set()).add(
                repeat
            )
            return _joined(result.key)

        self._rows = RowIndex(path, key_of, torn_end=True)
        self._records = Records.beside(path, None)

    @property
    def targets(self) -> list[str]:
        """The targets that have results, in the run's order."""
        named = [entry["name"] for entry in self.record.get("targets", ())]
        return [*dict.fromkeys(n for n in named if any(t == n for _, t in self.repeats))]

    @property
    def suites(self) -> list[str]:
        """The keys of the suites that have results."""
        return list(dict.fromkeys(suite for suite, _ in self.repeats))

    @property
    def has_records(self) -> bool:
        """Whether the run kept its exchanges."""
        return self._records is not None

    def row(self, key: ResultKey) -> Row | None:
        """The latest result with this key."""
        found = self._rows.find(_joined(key))
        return self._rows.read(found[-1]) if found else None

    def exchange(self, key: ResultKey, turn: int) -> ProviderResponse | None:
        """The answer to one turn as it was recorded, all tries counted in; `None` without one."""
        if self._records is None:
            return None
        suite, test_id, prompt, target, repeat = key
        named = of_case(test_id=test_id, prompt=prompt, target=target, repeat=repeat, turn=turn)
        return self._records.answer(
            test_id,
            lambda row: (
                named(row) and (row["case"].get("eval_path") or row["case"]["suite"]) == suite
            ),
        )

    def close(self) -> None:
        """Close the files."""
        self._rows.close()
        if self._records is not None:
            self._records.close()


def _suite_of(case: Mapping[str, Any]) -> object:
    return case.get("eval_path") or case.get("suite")


def _joined(key: ResultKey) -> str:
    return msgspec.json.encode(key).decode()


class _Recorded:
    """Stands in for a target of the run."""

    def __init__(self, run: RecordedRun, resolved: ResolvedTarget) -> None:
        self.resolved = resolved
        self._run = run
        self.suites: dict[str, str] = {}
        """From a suite's key now to its key in the run."""

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        """What the target answered then.

        Raises:
            ProviderError: what it failed with, or that it was not asked.
        """
        occasion = OCCASION.get()
        assert occasion is not None, "asked outside of a case"
        key = self._key(occasion)
        row = self._run.row(key)
        if row is None:
            raise ProviderFailed("the recorded run has no answer for this")
        if not _is_answered(row, occasion.turn):
            raise _failure_of(row)
        found = self._run.exchange(key, occasion.turn)
        if found is None:
            return _answer_of(row, occasion.turn)
        whole = not row.get("turns") and row.get("duration_ms") is not None
        return _timed(found, row["duration_ms"]) if whole else found

    def _key(self, occasion: Occasion) -> ResultKey:
        suite = occasion.eval_path or occasion.suite
        return (
            self.suites.get(suite, suite),
            occasion.test_id,
            occasion.prompt,
            self.resolved.name,
            occasion.repeat,
        )


def _is_answered(row: Row, turn: int) -> bool:
    if row.get("turns"):
        return turn < len(_answered_turns(row))
    return row.get("output") is not None


def _answered_turns(row: Row) -> list[dict[str, Any]]:
    return [entry for entry in row.get("turns") or () if "output" in entry]


def _timed(response: ProviderResponse, duration_ms: float) -> ProviderResponse:
    return dataclasses.replace(response, duration_ms=duration_ms)


def _answer_of(row: Row, turn: int) -> ProviderResponse:
    """The answer that a result holds. Of a conversation without records, the sums of all turns
    come with the last one."""
    turns = row.get("turns")
    asked = _answered_turns(row)
    messages: Any = row.get("messages") or [{"role": "assistant", "content": row.get("output")}]
    if turns:
        messages = _said_in(messages, asked, turn)
        if turn < len(asked) - 1:
            return ProviderResponse(messages, model=row.get("model"))
    usage, cost = row.get("token_usage"), row.get("cost_usd")
    if row.get("cached"):  # graders saw what the answer took when it was given
        usage, cost = row["saved"].get("token_usage"), row["saved"].get("cost_usd")
    return ProviderResponse(
        messages,
        token_usage=usage,
        cost_usd=cost,
        duration_ms=row.get("duration_ms"),
        finish_reason=row.get("finish_reason"),
        model=row.get("model"),
        target_used=None if row.get("target_used") == row.get("target") else row.get("target_used"),
        attempts=row.get("attempts") or 1,
    )


def _said_in(
    messages: list[dict[str, Any]], asked: list[dict[str, Any]], turn: int
) -> list[dict[str, Any]]:
    """What was answered in a turn: its messages, tool calls included, where they can be told from
    those of the other turns; else its text."""
    answers: list[list[dict[str, Any]]] = []
    before = "user"
    for message in messages:
        role = message.get("role")
        if role in ("assistant", "tool"):
            if before not in ("assistant", "tool"):
                answers.append([])
            answers[-1].append(message)
        before = str(role)
    text = asked[turn]["output"]
    if len(answers) >= len(asked):
        said = answers[len(answers) - len(asked) + turn]
        spoken = [entry for entry in said if entry.get("role") == "assistant"]
        if spoken and Message.from_mapping(spoken[-1]).text == text:
            return said
    return [{"role": "assistant", "content": text}]


def _failure_of(row: Row) -> ProviderError:
    kind = str(row.get("error_kind"))
    error = _ERRORS.get(kind, ProviderFailed)(
        row.get("error") or "the recorded run has no answer for this",
        retryable=False,
        cost_usd=row.get("cost_usd"),
    )
    error.attempts = row.get("attempts") or 1
    return error


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
        given = {name: _Recorded(run, _resolved(run, name)) for name in names}
        options = replace(
            options,
            paths=options.paths or _paths(run),
            targets=tuple(names),
            judge=options.judge or stored.get("judge"),
            threshold=stored.get("threshold") if options.threshold is None else options.threshold,
            stop_when={},
            repeat=None,
            budget_usd=None,
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
        if not Path(path).exists():
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
            row = run.row((then, *key, name, min(repeats)))
            if row is None or not _same_question(row, case, asks, masker):
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
