"""A run that has ended, as targets that answer again what they answered then."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from muster.errors import UsageError
from muster.evals.results import RESULTS_FILE, CaseResult, ResultKey, read_run
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

__all__ = ("CaseKey", "Recorded", "RecordedRun")

_ERRORS: dict[str, type[ProviderError]] = {
    error.kind: error
    for error in (
        AuthenticationFailed, BadProviderOutput, BadRequest, BudgetExceeded, LimitExceeded,
        ProviderFailed, ProviderTimeout, ProviderUnavailable, QuotaExhausted, RateLimited,
    )
}  # fmt: skip

CaseKey = tuple[str, str | None]
"""Id and prompt."""


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
        return self._records.answer(key[1], _made_for(key, turn))

    def files(self, key: ResultKey) -> list[str] | None:
        """Of the files that were asked about, the hashes of their content; `None`: not recorded."""
        asked = None
        if self._records is not None:
            asked = self._records.asked(key[1], _made_for(key, 0))
        return None if asked is None else sorted(map(str, (asked.get("files") or {}).values()))

    def close(self) -> None:
        """Close the files."""
        self._rows.close()
        if self._records is not None:
            self._records.close()


def _made_for(key: ResultKey, turn: int) -> Callable[[Row], bool]:
    suite, test_id, prompt, target, repeat = key
    named = of_case(test_id=test_id, prompt=prompt, target=target, repeat=repeat, turn=turn)
    return lambda row: named(row) and _suite_of(row["case"]) == suite


def _suite_of(case: Mapping[str, Any]) -> object:
    return case.get("eval_path") or case.get("suite")


def _joined(key: ResultKey) -> str:
    return msgspec.json.encode(key).decode()


class Recorded:
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
