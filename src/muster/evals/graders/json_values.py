"""JSON in an answer, and the JSON that is expected of it."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any, Never

from muster.evals.graders.base import GradeContext, GraderError
from muster.evals.graders.trace import MISSING

__all__ = ("MISSING", "all_json", "answer_json", "as_json", "expected_json", "read_json")

MAX_DEPTH = 200
"""How deep values may be nested that are compared."""

_FENCE = re.compile(r"```[\w-]*[ \t]*\n(.*?)```", re.DOTALL)


def answer_json(text: str) -> Any:
    """The JSON value that an answer holds: the whole of it, what stands in its first fence, or the
    first object (or else list) in it.

    Raises:
        ValueError: it holds none, or one that is nested too deeply.
    """
    whole = text.strip()
    for candidate in (whole, *_FENCE.findall(text)[:10]):
        try:
            return _shallow(read_json(candidate))
        except json.JSONDecodeError:
            continue
    for opening in "{[":
        value = _first(whole, opening)
        if value is not MISSING:
            return _shallow(value)
    raise ValueError("it holds no JSON")


_TRIES = 100
"""Brackets that may begin a value."""


def _first(text: str, opening: str) -> Any:
    decoder = json.JSONDecoder(parse_constant=_refuse)
    at = text.find(opening)
    for _ in range(_TRIES):
        if at < 0:
            break
        try:
            return decoder.raw_decode(text, at)[0]
        except json.JSONDecodeError:
            at = text.find(opening, at + 1)
        except RecursionError:
            raise ValueError("nested too deeply") from None
    return MISSING


MAX_READ = 5_000_000
"""Letters that are read again, in looking for JSON in a text."""


def all_json(text: str) -> list[Any]:
    """The JSON in an answer: the whole of it or a fence in it, if that is an object or a list, and
    each object that stands in no other.

    Raises:
        GraderError: it would take too long to look.
    """
    found: list[Any] = []
    for candidate in (text.strip(), *_FENCE.findall(text)):
        with suppress(ValueError):
            value = read_json(candidate)
            if isinstance(value, dict | list):
                found.append(value)
    decoder = json.JSONDecoder(parse_constant=_refuse)
    again, at = 0, text.find("{")
    while at >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            # Of one that is nested too deeply it is not said how far it was read.
            again += max(getattr(error, "pos", at + 5000) - at, 1)
            if again > MAX_READ:
                raise GraderError("the answer has too many braces that begin no JSON") from None
            at = text.find("{", at + 1)
        else:
            if value not in found:
                found.append(value)
            at = text.find("{", end)
    return found


def read_json(text: str) -> Any:
    """`text`, which is JSON and nothing else.

    Raises:
        ValueError: it is not; `NaN` and `Infinity`, which Python lets pass, are not JSON either.
    """
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except json.JSONDecodeError:
        raise
    except ValueError as error:
        if "limit" not in str(error):
            raise
        return json.loads(text, parse_int=float)  # whole numbers of over 4,300 digits


class _NoValue(json.JSONDecodeError):
    """A word that Python's reader takes for a value."""

    def __str__(self) -> str:
        return self.msg


def _refuse(word: str) -> Never:
    raise _NoValue(f"{word} is not a JSON value", word, 0)


def _shallow(value: Any) -> Any:
    """The value, which can be walked through.

    Raises:
        ValueError: it is nested too deeply.
    """
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for one in level
            if isinstance(one, dict | list)
            for item in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return value
    raise ValueError("nested too deeply")


def as_json(value: Any) -> Any:
    """A value of a YAML file as JSON has it: names are texts.

    Raises:
        ValueError: it is nested too deeply.
    """
    return _named(_shallow(value))


def _named(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _named(inner) for key, inner in value.items()}
    return [_named(inner) for inner in value] if isinstance(value, list) else value


def expected_json(context: GradeContext) -> Any:
    """The value of the last expected message that is JSON.

    Raises:
        GraderError: there is none: what the test does not say cannot be judged.
    """
    for message in reversed(context.expected_output):
        content = message.content
        if isinstance(content, dict | list):
            return as_json(content)
        try:
            return answer_json(message.text)
        except ValueError:
            continue
    raise GraderError("the test's expected_output holds no JSON to compare with")
