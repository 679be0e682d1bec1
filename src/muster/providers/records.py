"""Answers out of `records.jsonl`, the exchanges that `muster eval --record` keeps beside a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from muster.exchange import response_of
from muster.provider import ProviderRequest, ProviderResponse, TokenUsage
from muster.providers.paths import PathError
from muster.providers.row_index import Row, RowIndex

__all__ = ("RECORDS_FILE", "Records")

RECORDS_FILE = "records.jsonl"

Condition: TypeAlias = Callable[[Row], bool]


class Records:
    """What the measured targets of a run were asked, and what they answered."""

    def __init__(self, path: Path, target: str | None = None, *, by_question: bool = False) -> None:
        """Rows of `target` alone, if it is named, found by the test's id or by the question.

        Raises:
            ConfigError: the file cannot be read, or some lines are wrong.
        """

        def key_of(row: Row) -> str | None:
            case = row.get("case")
            if case is None or row.get("role") != "target":
                return None
            if not isinstance(case, Mapping) or not isinstance(row.get("request"), Mapping):
                raise PathError("not the record of an exchange")
            if target is not None and case.get("target") != target:
                return None
            key = row["request"].get("question") if by_question else case.get("test_id")
            return str(key).strip()

        self._index = RowIndex(path, key_of, torn_end=True)

    @classmethod
    def beside(
        cls, results: Path, target: str | None, *, by_question: bool = False
    ) -> Records | None:
        """Those beside a run's results; `None` if it kept none."""
        path = results.parent / RECORDS_FILE
        return cls(path, target, by_question=by_question) if path.is_file() else None

    def answer(
        self, key: str, must: Condition, prefer: Sequence[Condition] = ()
    ) -> ProviderResponse | None:
        """The answer to the latest question under `key` whose rows `must` holds of, its failed
        tries counted in; of several questions rather one for which the conditions of `prefer`
        hold. `None` when there is none.

        Raises:
            ValueError: what is recorded is no answer.
        """
        rows = [self._index.read(number) for number in self._index.find(key.strip())]
        calls: dict[str, list[Row]] = {}
        for row in rows:
            if must(row):
                calls.setdefault(str(row["case"].get("call")), []).append(row)
        answered = [call for call in calls.values() if "response" in call[-1]]
        for condition in prefer:
            answered = [call for call in answered if condition(call[-1])] or answered
        return _answer_of(answered[-1]) if answered else None

    def asked(self, key: str, must: Condition) -> Mapping[str, Any] | None:
        """The first question under `key` whose row `must` holds of; `None` without one."""
        for number in self._index.find(key.strip()):
            row = self._index.read(number)
            if must(row):
                asked: Mapping[str, Any] = row["request"]
                return asked
        return None

    def close(self) -> None:
        """Close the file."""
        self._index.close()


def asks(request: ProviderRequest) -> Condition:
    """Whether a row is of the same question."""
    return lambda row: str(row["request"].get("question")) == request.question


def shows(request: ProviderRequest) -> Condition:
    """Whether a row is of a question after the same messages."""
    messages = [message.to_dict() for message in request.messages]
    return lambda row: (row["request"].get("messages") or []) == messages


def of_case(**fields: object) -> Condition:
    """Whether a row was made for a case with these fields."""
    return lambda row: all(row["case"].get(name) == value for name, value in fields.items())


def _answer_of(call: Sequence[Row]) -> ProviderResponse:
    """The last try's answer, with what all tries took."""
    last = call[-1]
    response = response_of(last["response"])
    usage: TokenUsage | None = response.token_usage
    cost = response.cost_usd
    for row in call[:-1]:
        spent: Mapping[str, Any] = row.get("error") or row.get("response") or {}
        if spent.get("token_usage") is not None:
            usage = TokenUsage.from_mapping(spent["token_usage"]) + usage
        if spent.get("cost_usd") is not None:
            cost = (cost or 0.0) + spent["cost_usd"]
    answered_by = last.get("target")
    return replace(
        response,
        token_usage=usage,
        cost_usd=cost,
        duration_ms=_duration(call) if response.duration_ms is None else response.duration_ms,
        attempts=len(call),
        target_used=None if answered_by == last["case"].get("target") else answered_by,
    )


def _duration(call: Sequence[Row]) -> float | None:
    measured = [row["duration_ms"] for row in call if row.get("duration_ms") is not None]
    return sum(measured) if measured else None
