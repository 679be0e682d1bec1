"""What a command wrote, as an answer.

A JSON object with `output` (messages; `output_messages` is the same), `text` or `error` is read as
the answer and its accounting:

    {"text": "Paris", "token_usage": {"input": 12, "output": 1}, "cost_usd": 0.0001}

Everything else, other JSON included, is the text of one assistant message.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from muster.provider import BadProviderOutput, Message, TokenUsage

__all__ = ("Answer", "read_answer")

_SPELLINGS = {
    "output_messages": "output",
    "outputMessages": "output",
    "tokenUsage": "token_usage",
    "costUsd": "cost_usd",
    "durationMs": "duration_ms",
    "finishReason": "finish_reason",
}
_FIELDS = frozenset(
    ("output", "text", "error", "token_usage", "cost_usd", "duration_ms", "model", "finish_reason")
)
_ACCOUNTING = frozenset(("token_usage", "cost_usd", "duration_ms"))
_SIMILAR = 0.8
"""From here on two names look alike: `outptu` and `output` do, `test` and `text` do not."""


@dataclass(slots=True)
class Answer:
    """An answer as it was written; `error` is the command's own word for a failure."""

    output: tuple[Message, ...] = ()
    token_usage: TokenUsage | None = None
    cost_usd: float | None = None
    duration_ms: float | None = None
    model: str | None = None
    finish_reason: str | None = None
    error: str | None = None
    session: str | None = None
    """The id of the session that the agent kept of it."""
    json: Mapping[str, Any] | None = None
    """The object that it was read from; `None` for plain text."""
    warnings: list[str] = field(default_factory=list)


def read_answer(data: bytes, what: str) -> Answer:
    """`data` as an answer; `what` names its source in messages.

    Raises:
        BadProviderOutput: it is not UTF-8.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadProviderOutput(
            f"{what} is not UTF-8 text: byte 0x{data[error.start]:02x} at offset {error.start}"
        ) from None
    row = _object(text)
    if row is None:
        return _plain(text)
    answer = Answer(json=row)
    row = {_SPELLINGS.get(name, name): value for name, value in row.items()}
    fault = _read_content(row, answer)
    if fault is not None:
        plain = _plain(text)
        if fault:
            plain.warnings.append(f"{what} is taken as plain text: {fault}")
        return plain
    _read_accounting(row, answer)
    answer.warnings += [f"{what}: {misspelt}; it is ignored" for misspelt in _misspelt(row)]
    return answer


def _object(text: str) -> dict[str, Any] | None:
    if not text.lstrip().startswith("{"):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _plain(text: str) -> Answer:
    """As `$(command)` in a shell: without the line breaks at the end."""
    return Answer((Message("assistant", text.rstrip("\r\n")),))


def _read_content(row: Mapping[str, Any], answer: Answer) -> str | None:
    """Take the messages or the error from `row`. What keeps it from being an answer is returned:
    a sentence if somebody seems to have meant one, else nothing but the empty text."""
    error = row.get("error")
    if error:
        answer.error = error if isinstance(error, str) else json.dumps(error, ensure_ascii=False)
        return None
    output, text = row.get("output"), row.get("text")
    if isinstance(output, list):
        try:
            answer.output = tuple(map(_message, output))
        except ValueError as fault:
            return f"`output` is not a list of messages: {fault}"
        return None
    if output is None and isinstance(text, str):
        answer.output = (Message("assistant", text),)
        return None
    if output is not None:
        return "`output` must be a list of messages; a string goes into `text`"
    if text is not None:
        return "`text` must be a string"
    misspelt = _misspelt(row)
    if misspelt:
        return misspelt[0]
    if row.keys() & _ACCOUNTING:
        return "it has neither `output` nor `text`"
    return ""


def _message(item: object) -> Message:
    if not isinstance(item, Mapping):
        raise ValueError(f"expected an object, found {json.dumps(item)[:60]}")
    return Message.from_mapping(item)


def _misspelt(row: Mapping[str, Any]) -> list[str]:
    found = []
    for name in row.keys() - _FIELDS:
        near = difflib.get_close_matches(name, _FIELDS - row.keys(), n=1, cutoff=_SIMILAR)
        if near:
            found.append(f'unknown field "{name}" (did you mean "{near[0]}"?)')
    return sorted(found)


def _read_accounting(row: Mapping[str, Any], answer: Answer) -> None:
    """Counts that make no sense are left out with a warning: none is ever invented."""
    usage = row.get("token_usage")
    if usage is not None:
        try:
            answer.token_usage = _usage(usage)
        except ValueError as fault:
            answer.warnings.append(f"token_usage is ignored: {fault}")
    answer.cost_usd = _measure(row, "cost_usd", answer)
    answer.duration_ms = _measure(row, "duration_ms", answer)
    for name in ("model", "finish_reason"):
        value = row.get(name)
        if isinstance(value, str):
            setattr(answer, name, value)
        elif value is not None:
            answer.warnings.append(f"{name} is ignored: it must be a string")


def _usage(value: object) -> TokenUsage:
    if not isinstance(value, Mapping):
        raise ValueError("it must be an object with input and output")
    for name in ("input", "output"):
        if value.get(name) is None:
            raise ValueError(f"{name} is missing")
    return TokenUsage.from_mapping(value)


def _measure(row: Mapping[str, Any], name: str, answer: Answer) -> float | None:
    value = row.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        answer.warnings.append(f"{name} is ignored: it must be a number, not {json.dumps(value)}")
    elif not math.isfinite(value) or value < 0:
        answer.warnings.append(f"{name} is ignored: {value} is not a number from 0 up")
    else:
        return value
    return None
