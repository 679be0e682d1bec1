"""JSON in an answer, and the JSON that is expected of it."""

from __future__ import annotations

import json
import re
from typing import Any, Never

from muster.evals.graders.base import GradeContext, GraderError
from muster.evals.graders.trace import MISSING

__all__ = ("MISSING", "answer_json", "as_json", "expected_json")

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
            return _shallow(_read(candidate))
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


def _read(text: str) -> Any:
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


def _refuse(word: str) -> Never:
    raise json.JSONDecodeError(f"{word} is not a JSON value", word, 0)


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
