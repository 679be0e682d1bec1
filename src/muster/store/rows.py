"""Records as rows of the journal, and back; secrets are masked on the way in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from muster.config.secrets import Masker
from muster.provider import TokenUsage
from muster.store.records import (
    NO_DATA,
    ApprovalRecord,
    CallRecord,
    EventRecord,
    RunRecord,
    StepRecord,
)

__all__ = (
    "Writer",
    "approval_of",
    "call_of",
    "columns",
    "event_of",
    "run_of",
    "step_of",
    "usage_of",
)

_USAGE = ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens")

_RUN = (
    "id", "team", "file", "definition_hash", "input", "options", "status", "reason", "error",
    "output", "started_at", "ended_at", "cost_usd", "parent", "trigger", "pid", "process",
    "shares_process",
)  # fmt: skip
_STEP = (
    "id", "run_id", "name", "agent", "iteration", "item", "attempt", "status", "prompt",
    "prompt_hash", "output", "data", "error", "error_kind", "message", "started_at", "ended_at",
    "cost_usd", "model", "target", "parent",
)  # fmt: skip
_CALL = (
    "id", "step_id", "kind", "name", "arguments", "arguments_hash", "result", "status",
    "started_at", "duration_ms",
)  # fmt: skip
_EVENT = ("id", "run_id", "step_id", "kind", "data", "at")
_APPROVAL = (
    "run_id", "step", "item", "message", "status", "asked_at", "deadline", "decided_at", "by",
    "comment",
)  # fmt: skip

_JSON = frozenset({"input", "options", "data", "arguments"})
_SPOKEN = frozenset({"error", "output", "prompt", "message", "result", "comment"})
"""Where a secret may come to stand. Names stay as they are: they say which thing it is."""


def columns(kind: str, table: str = "") -> str:
    """The columns of a kind of record, as `…_of` expects them."""
    names = {
        "run": (*_RUN, *_USAGE),
        "step": (*_STEP, *_USAGE),
        "call": _CALL,
        "event": _EVENT,
        "approval": _APPROVAL,
    }[kind]
    return ", ".join(f'{table}"{name}"' for name in names)


class Writer:
    """Makes columns of fields."""

    def __init__(self, masker: Masker | None = None) -> None:
        self._masker = masker  # one that is empty may learn secrets later

    def row(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The columns for these fields of a record."""
        row: dict[str, Any] = {}
        for name, value in fields.items():
            if name == "token_usage":
                row |= _usage_columns(value)
            elif name in _JSON:
                row[name] = None if value is NO_DATA else self.json(value)
            elif isinstance(value, str):
                row[name] = self.text(value) if name in _SPOKEN else whole(value)
            else:
                row[name] = value
        return row

    def text(self, text: str) -> str:
        """`text` without secrets, as UTF-8 can hold it."""
        return whole(text if self._masker is None else self._masker.mask(text))

    def json(self, value: Any) -> str:
        """The value as JSON, without secrets in its texts."""
        try:
            encoded = _encode(value)
        except UnicodeEncodeError:
            encoded = _encode(_each_text(value, whole))
        if self._masker is not None and self._masker.found_in(encoded):
            value = _each_text(msgspec.json.decode(encoded), self._masker.mask)
            encoded = _encode(value)
        return encoded.decode()


def _encode(value: Any) -> bytes:
    return msgspec.json.encode(value, enc_hook=_plain)


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else str(value)


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {_each_text(key, change): _each_text(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_each_text(item, change) for item in value]
    return value


def whole_values(value: Any) -> Any:
    """`value` with every text in it made `whole`."""
    return _each_text(value, whole)


def whole(text: str) -> str:
    """`text` without halves of surrogate pairs, which JSON can name and UTF-8 cannot."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _usage_columns(usage: TokenUsage | None) -> dict[str, int | None]:
    if usage is None:
        return dict.fromkeys(_USAGE)
    counts = (usage.input, usage.output, usage.cached, usage.reasoning)
    return dict(zip(_USAGE, counts, strict=True))


def usage_of(counts: tuple[int | None, ...]) -> TokenUsage | None:
    """From the four columns of usage."""
    if counts[0] is None and counts[1] is None:
        return None
    return TokenUsage(counts[0] or 0, counts[1] or 0, cached=counts[2], reasoning=counts[3])


def _fields(names: tuple[str, ...], row: tuple[Any, ...]) -> dict[str, Any]:
    found = dict(zip(names, row, strict=False))
    for name in _JSON & found.keys():
        found[name] = NO_DATA if found[name] is None else msgspec.json.decode(found[name])
    return found


def run_of(row: tuple[Any, ...]) -> RunRecord:
    """The run in a row of `columns("run")`."""
    found = _fields(_RUN, row)
    found["shares_process"] = bool(found["shares_process"])
    return RunRecord(**found, token_usage=usage_of(row[-4:]))


def step_of(row: tuple[Any, ...]) -> StepRecord:
    """The step in a row of `columns("step")`."""
    return StepRecord(**_fields(_STEP, row), token_usage=usage_of(row[-4:]))


def call_of(row: tuple[Any, ...]) -> CallRecord:
    """The call in a row of `columns("call")`."""
    return CallRecord(**_fields(_CALL, row))


def event_of(row: tuple[Any, ...]) -> EventRecord:
    """The event in a row of `columns("event")`."""
    return EventRecord(**_fields(_EVENT, row))


def approval_of(row: tuple[Any, ...]) -> ApprovalRecord:
    """The approval in a row of `columns("approval")`."""
    return ApprovalRecord(**dict(zip(_APPROVAL, row, strict=True)))
