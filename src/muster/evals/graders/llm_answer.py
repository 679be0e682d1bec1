"""What a judge answered, read: JSON, if need be out of fences or prose, and nothing guessed.

Whatever cannot be read for certain is `Unreadable`, and the judge is asked again. Two different
verdicts in one answer are not readable either: one of them may be quoted from what was judged.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Never

import msgspec

from muster.evals.graders.base import Assertion

__all__ = ("FREE_FORM", "Unreadable", "Verdict", "read_free_form", "read_object", "shown_value")

MAX_ANSWER = 200_000
"""Characters of an answer that are looked at."""

_FENCE = re.compile(r"```[\w-]*[ \t]*\n(.*?)```", re.DOTALL)


class Unreadable(ValueError):
    """The answer is no verdict; the message is told to the judge."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a judge found."""

    score: float
    assertions: tuple[Assertion, ...] = ()
    reason: str | None = None
    passed: bool | None = None
    """What the judge itself calls it, where it says."""
    checks: Mapping[str, float] | None = None
    """By criterion, the share of it that is met: 0 or 1, or a score in between."""


FREE_FORM: Mapping[str, Any] = {
    "title": "verdict",
    "type": "object",
    "additionalProperties": False,
    "required": ["reason", "assertions", "score"],
    "properties": {
        "reason": {"type": "string", "description": "Why, in a sentence or two."},
        "assertions": {
            "type": "array",
            "description": "What was looked at, one by one.",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["text", "passed", "evidence"],
                "properties": {
                    "text": {"type": "string"},
                    "passed": {"type": "boolean"},
                    "evidence": {"type": "string"},
                },
            },
        },
        "score": {"type": "number", "description": "From 0 (not at all) to 1 (fully)."},
    },
}
"""The schema of a free-form verdict."""


# --- from text to an object -----------------------------------------------------------------------


def read_object(
    text: str, is_verdict: Callable[[Mapping[str, Any]], bool], *, finish: str | None = None
) -> Mapping[str, Any]:
    """The one JSON object in `text` that `is_verdict` says may be the verdict.

    Raises:
        Unreadable: there is none, or there are several that differ.
    """
    text = text.strip()
    if not text:
        raise Unreadable("it is empty")
    if len(text) > MAX_ANSWER:
        raise Unreadable(f"it is longer than {MAX_ANSWER:,} characters")
    whole = _whole(text)
    if whole is not None:
        return whole
    found = [value for value in _objects(text) if is_verdict(value)]
    distinct = [value for number, value in enumerate(found) if value not in found[:number]]
    if len(distinct) == 1:
        return distinct[0]
    if distinct:
        raise Unreadable(
            "it holds several different JSON objects; answer with one and nothing else"
        )
    raise Unreadable(_why_none(text, finish))


def _whole(text: str) -> Mapping[str, Any] | None:
    """The text, or the only fenced block in it, as an object."""
    fenced = _FENCE.findall(text)
    alone = len(fenced) == 1 and not _FENCE.sub("", text).strip()
    try:
        value = _load(fenced[0] if alone else text)
    except ValueError as error:
        if isinstance(error, Unreadable):
            raise
        return None
    if isinstance(value, dict):
        return value
    raise Unreadable(f"it is {_kind(value)}, not a JSON object")


def _load(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse, object_pairs_hook=_pairs)
    except RecursionError:
        raise Unreadable("its JSON is nested too deeply") from None


def _refuse(word: str) -> Never:
    raise Unreadable(f"{word} is no JSON value")


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Unreadable(f'its JSON says "{twice}" twice')
    return made


_TRIES = 200
"""Braces of an answer in prose that may begin an object."""


def _objects(text: str) -> list[Mapping[str, Any]]:
    """The objects that stand in a text, outermost ones, in order."""
    decoder = json.JSONDecoder(parse_constant=_refuse, object_pairs_hook=_pairs)
    found: list[Mapping[str, Any]] = []
    at = 0
    for _ in range(_TRIES):
        at = text.find("{", at)
        if at < 0:
            return found
        try:
            value, at = decoder.raw_decode(text, at)
        except Unreadable:
            raise
        except (ValueError, RecursionError):
            at += 1
            continue
        found.append(value)
    return found


def _why_none(text: str, finish: str | None) -> str:
    if finish == "length":
        return "it was cut short by the limit on output tokens"
    if "{" not in text:
        return "it is prose without a JSON object"
    if text.count("{") > text.count("}"):
        return "its JSON is cut short"
    return "it holds no JSON object with a verdict"


def _kind(value: Any) -> str:
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return "a text"
    return "nothing" if value is None else f"the value {shown_value(value)}"


def shown_value(value: Any) -> str:
    """A value of an answer, as a message tells it."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:59] + "…"


# --- from an object to a verdict ------------------------------------------------------------------

_SCORES = ("score", "pass", "passed", "verdict", "checks", "assertions")
_WORDS = {"pass": True, "passed": True, "fail": False, "failed": False}


def read_free_form(text: str, finish: str | None = None) -> Verdict:
    """A verdict in any of the shapes that are in use: `{score, assertions}`, `{reason, pass,
    score}`, `{pass, score, reason, checks}`, `{verdict: pass|fail}`.

    Raises:
        Unreadable: it is none of these, or the score is no number from 0 to 1.
    """
    value = read_object(text, lambda found: any(name in found for name in _SCORES), finish=finish)
    passed = _passed(value)
    items = value.get("assertions", value.get("checks")) or ()
    assertions = _assertions(items)
    if value.get("score") is not None:
        score = _share(value["score"])
    elif passed is not None:
        score = float(passed)
    elif assertions:
        score = sum(item.passed for item in assertions) / len(assertions)
    else:
        raise Unreadable('its JSON has no "score"')
    reason = value.get("reason", value.get("reasoning", value.get("overall_reasoning")))
    if reason is not None and not isinstance(reason, str):
        reason = shown_value(reason)
    return Verdict(score=score, assertions=assertions, reason=reason or None, passed=passed)


def _passed(value: Mapping[str, Any]) -> bool | None:
    for name in ("pass", "passed", "verdict"):
        said = value.get(name)
        if isinstance(said, str) and said.strip().lower() in _WORDS:
            said = _WORDS[said.strip().lower()]
        if said is None:
            continue
        if not isinstance(said, bool):
            raise Unreadable(f'"{name}" is {shown_value(said)}, neither true nor false')
        return said
    return None


def _share(value: Any) -> float:
    number = _number(value)
    if number is None:
        raise Unreadable(f'"score" is {shown_value(value)}, not a number')
    if not 0 <= number <= 1:
        raise Unreadable(f'"score" is {shown_value(value)}, which is not from 0 to 1')
    return number


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return math.inf
    return number if not math.isnan(number) else None


def _assertions(items: Any) -> tuple[Assertion, ...]:
    if not isinstance(items, list | tuple):
        raise Unreadable(f'"assertions" is {_kind(items)}, not a list')
    return tuple(_assertion(item) for item in items)


def _assertion(item: Any) -> Assertion:
    if not isinstance(item, dict):
        raise Unreadable(f"an assertion is {_kind(item)}, not an object")
    passed = item.get("passed", item.get("pass", item.get("satisfied")))
    text = item.get("text", item.get("id", item.get("assertion")))
    if not isinstance(passed, bool) or not isinstance(text, str):
        raise Unreadable("an assertion needs a text, and passed: true or false")
    evidence = item.get("evidence", item.get("reason", item.get("reasoning")))
    return Assertion(text, passed, str(evidence) if evidence else None)
