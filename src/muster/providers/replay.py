"""`replay`: recorded answers, from a JSON-lines file or from an earlier run.

Of a run that kept its exchanges (`muster eval --record`), these are what is answered. A case's rows
are found by its id or by its question. Several rows with one key are its repeats: the first is for
repeat 0, and so on; a single row serves every repeat. Nothing is called, nothing is spent; tokens,
money and milliseconds are those of the recording.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

from pydantic import model_validator

from muster.capabilities import Capabilities
from muster.errors import ConfigError, Problem
from muster.provider import BadProviderOutput, ProviderFailed, ProviderRequest, ProviderResponse
from muster.providers.answers import as_response
from muster.providers.paths import JmesPath, PathError, Search, compile_path
from muster.providers.records import Records, asks, of_case, shows
from muster.providers.row_index import Row, RowIndex
from muster.providers.settings import ProviderSettings, located
from muster.target import ResolvedTarget

__all__ = ("ReplayProvider",)

RESULTS_FILE = "results.jsonl"
DEFAULT_KEYS = {
    ("file", "id"): "id || test_id || case_id",
    ("file", "input"): "input || question || prompt",
    ("run", "id"): "test_id",
    ("run", "input"): "input",
}
DEFAULT_OUTPUT = "output || text || answer || response"


class ReplaySettings(ProviderSettings):
    """Settings of `provider: replay`. Paths into rows are JMESPath expressions."""

    file: str | None = None
    """A JSON-lines file, one recorded answer a line."""
    run: str | None = None
    """The folder of an earlier run."""
    match: Literal["id", "input"] = "id"
    """What a row is found by: the case's id, or the text of its question."""
    key: JmesPath | None = None
    """Where a row holds that; by default `id`, `test_id` or `case_id`; `input`, `question` or
    `prompt`."""
    output: JmesPath | None = None
    """Where a row holds the answer: text, messages, or any JSON; by default `output`, `text`,
    `answer` or `response`."""
    usage: JmesPath = "token_usage"
    """Where a row holds `{input, output, cached, reasoning}`, if it does."""
    cost: JmesPath = "cost_usd"
    """Where a row holds what the answer cost, if it does."""
    duration: JmesPath = "duration_ms"
    """Where a row holds how long the answer took, if it does."""
    target: str | None = None
    """The target whose rows of the run count; needed when the run had several."""

    @model_validator(mode="after")
    def _one_source(self) -> ReplaySettings:
        if (self.file is None) is (self.run is None):
            raise ValueError("one of `file` and `run` is required, and only one")
        if self.target is not None and self.run is None:
            raise ValueError("`target` chooses among the targets of a `run`; a `file` has none")
        return self


class ReplayProvider:
    """Answers with what was recorded; a case without a row is `ProviderFailed`."""

    Settings = ReplaySettings
    capabilities = Capabilities(streaming=False, embeddings=False, batch=False)
    """It answers for others, so it refuses nothing that they were asked."""

    def __init__(self, target: ResolvedTarget) -> None:
        settings = self.Settings.model_validate(target.config)
        self._name = target.name
        self._settings = settings
        self._is_run = settings.run is not None
        kind = "run" if self._is_run else "file"
        self._key = compile_path(settings.key or DEFAULT_KEYS[kind, settings.match])
        self._key_shown = settings.key or DEFAULT_KEYS[kind, settings.match]
        self._output = compile_path(settings.output or DEFAULT_OUTPUT)
        self._accounting: tuple[tuple[str, Search], ...] = (
            ("token_usage", compile_path(settings.usage)),
            ("cost_usd", compile_path(settings.cost)),
            ("duration_ms", compile_path(settings.duration)),
        )
        path = located(target, settings.run or settings.file or "", kind)
        if self._is_run and path.is_dir():
            path /= RESULTS_FILE
        self._index = self._build(path)
        self._records: Records | None = None
        if self._is_run and settings.output is None:
            self._records = Records.beside(path, settings.target, by_question=self._by_input)

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        """The recorded answer.

        Raises:
            ProviderFailed: there is no row for the case, or the row records an error.
            BadProviderOutput: the row has no answer where `output` says.
        """
        number, row = self._row_for(request)
        try:
            response = self._recorded(row, request)
            if response is None:
                response = self._response(row, request, self._index.place(number))
        except (PathError, TypeError, ValueError) as error:
            raise BadProviderOutput(
                f"{self._index.place(number)}: {error}", retryable=False
            ) from error
        if request.on_chunk is not None and response.text:
            request.on_chunk(response.text)
        return response

    async def aclose(self) -> None:
        """Close the file."""
        self._index.close()
        if self._records is not None:
            self._records.close()

    def _recorded(self, row: Row, request: ProviderRequest) -> ProviderResponse | None:
        """The answer as the run's records have it; `None` without one."""
        if self._records is None:
            return None
        of_row = {name: row.get(name) for name in ("suite", "test_id", "target", "eval_path")}
        rightly = of_case(**of_row, repeat=row.get("repeat", 0), prompt=row.get("prompt"))
        same = asks(request)
        key = request.question if self._by_input else str(row["test_id"])
        found = self._records.answer(
            key, lambda record: rightly(record) and same(record), (shows(request),)
        )
        return None if found is None else replace(found, target_used=None, attempts=1)

    def _build(self, path: Any) -> RowIndex:
        seen: set[str] = set()

        def key_of(row: Row) -> str | None:
            if self._is_run:
                named = str(row.get("target"))
                seen.add(named)
                if self._settings.target is not None and named != self._settings.target:
                    return None
            value = _question_in(self._key(row)) if self._by_input else self._key(row)
            if value is None or isinstance(value, dict | list):
                raise PathError(f"no `{self._key_shown}` in this row, by which it could be found")
            return _normal(value)

        index = RowIndex(path, key_of, torn_end=self._is_run)
        wanted = self._settings.target
        names = ", ".join(sorted(seen))
        if wanted is None and len(seen) > 1:
            index.close()
            raise ConfigError(
                Problem(f"the run had several targets ({names}); say which with `target`", path)
            )
        if wanted is not None and wanted not in seen:
            index.close()
            raise ConfigError(Problem(f'no row of a target "{wanted}" (found: {names})', path))
        return index

    @property
    def _by_input(self) -> bool:
        return self._settings.match == "input"

    def _row_for(self, request: ProviderRequest) -> tuple[int, Row]:
        key = request.question if self._by_input else request.eval_case_id
        if key is None:
            raise ProviderFailed(f"{self._name}: the request has no case id to find a row by")
        found = self._index.find(_normal(key))
        if not found:
            raise ProviderFailed(
                f"{self._name}: no row for {self._settings.match} {_shown(key)} in "
                f"{self._index.path} (by `{self._key_shown}`; {self._index.summary()})"
            )
        try:
            rows = [(number, self._index.read(number)) for number in found]
        except (OSError, ValueError) as error:
            raise ProviderFailed(
                f"{self._index.place(found[0])}: cannot be read any more: {error}"
            ) from None
        if len(rows) > 1 and self._is_run:
            rows = _preferred(rows, lambda row: row.get("suite") == request.metadata.get("suite"))
            rows = _preferred(rows, lambda row: _question_in(row.get("input")) == request.question)
        return rows[0] if len(rows) == 1 else self._repeat(rows, request, key)

    def _repeat(
        self, rows: list[tuple[int, Row]], request: ProviderRequest, key: str
    ) -> tuple[int, Row]:
        """The row of the request's repeat."""
        repeat = int(request.metadata.get("repeat", "0"))
        if self._is_run:
            # A later row of the same repeat is the same case, run again.
            by_repeat = {row.get("repeat", 0): (number, row) for number, row in rows}
            known = by_repeat.get(repeat)
        else:
            known = rows[repeat] if repeat < len(rows) else None
        if known is None:
            raise ProviderFailed(
                f"{self._name}: {len(rows)} rows for {self._settings.match} {_shown(key)} in "
                f"{self._index.path}, but none for repeat {repeat} (0-based)"
            )
        return known

    def _response(self, row: Row, request: ProviderRequest, place: str) -> ProviderResponse:
        turns = row.get("turns") if self._is_run else None
        answer: Any
        if turns:
            answer, last = _turn_of(turns, request)
        else:
            answer, last = self._output(row), True
            if self._is_run and self._settings.output is None and row.get("messages"):
                answer = row["messages"]
        if answer is None:
            if row.get("error"):
                raise ProviderFailed(f"{place}: the recording is of an error: {row['error']}")
            raise PathError(f"no `{self._settings.output or DEFAULT_OUTPUT}` in this row")
        if isinstance(answer, bool | int | float):
            answer = json.dumps(answer)
        given = as_response(answer, place)
        found = {name: search(row) for name, search in self._accounting} if last else {}
        usage, cost = found.get("token_usage"), _number(found.get("cost_usd"), "cost")
        duration = _number(found.get("duration_ms"), "duration")
        return ProviderResponse(
            given.output,
            token_usage=given.token_usage if usage is None else _mapping(usage),
            cost_usd=given.cost_usd if cost is None else cost,
            duration_ms=given.duration_ms if duration is None else duration,
            finish_reason=_text(row.get("finish_reason")) or given.finish_reason,
            model=_text(row.get("model")) or given.model,
        )


def _turn_of(turns: list[Row], request: ProviderRequest) -> tuple[Any, bool]:
    """The recorded answer of the turn that asks the request's question, and whether it is the last
    one: the recorded sums are the whole conversation's."""
    same = [
        number
        for number, turn in enumerate(turns)
        if _question_in(turn.get("input")) == request.question
    ]
    if not same:
        raise PathError("none of the recorded turns asks this question")
    before = sum(
        message.role == "user" and message.text == request.question for message in request.messages
    )
    chosen = same[min(before, len(same) - 1)]
    return turns[chosen].get("output"), chosen == len(turns) - 1


def _preferred(
    rows: list[tuple[int, Row]], condition: Callable[[Row], bool]
) -> list[tuple[int, Row]]:
    """The rows that meet the condition; all of them when none does."""
    return [row for row in rows if condition(row[1])] or rows


def _question_in(value: Any) -> Any:
    """The text of the last user message when `value` is a list of messages; else `value`."""
    if not isinstance(value, list):
        return value
    for message in reversed(value):
        if isinstance(message, dict) and message.get("role") == "user":
            content = message.get("content")
            if isinstance(content, str):
                return content
            texts = [part.get("text") for part in content or () if isinstance(part, dict)]
            return "\n".join(text for text in texts if isinstance(text, str))
    return None


def _normal(key: object) -> str:
    return str(key).strip()


def _shown(key: str) -> str:
    return f'"{key}"' if len(key) <= 80 else f'"{key[:77]}…"'


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise PathError(f"the usage is no mapping of counts: {value!r:.60}")
    return value


def _number(value: Any, what: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise PathError(f"the {what} is no number from 0 up: {value!r:.60}")
    return value


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
