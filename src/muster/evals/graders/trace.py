"""What an agent did on its way to the answer, as its target reports it: calls of tools, with their
arguments.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from muster.evals.graders.base import GradeContext, GraderError
from muster.provider import ToolCall

__all__ = ("MISSING", "arguments_of", "calls_of", "contains", "look_up", "matches_name", "same")

MISSING = object()
"""What a path leads to that leads nowhere."""


def calls_of(context: GradeContext) -> tuple[ToolCall, ...]:
    """The calls that led to the answer, in order.

    Raises:
        GraderError: the target says nothing but the answer's text, so that none is not known to be
            none.
    """
    response = context.response
    calls = response.tool_calls
    if not calls and not _tells_more(context):
        raise GraderError(
            "the target reports nothing but a text: whether it called tools is not known. Let it "
            "answer with messages that have tool_calls, or with token_usage beside the text"
        )
    return calls


def _tells_more(context: GradeContext) -> bool:
    response = context.response
    known = (response.finish_reason, response.model, response.token_usage)
    return len(response.output) > 1 or any(value is not None for value in known)


def arguments_of(call: ToolCall) -> Any:
    """The arguments of a call; those that are told as JSON in a text are read."""
    if not isinstance(call.input, str):
        return {} if call.input is None else call.input
    try:
        return json.loads(call.input)
    except (ValueError, RecursionError):
        return call.input


def matches_name(name: str, pattern: str) -> bool:
    """Whether `pattern`, with `*` and `?`, is the whole of `name`, letter case aside."""
    return _compiled(pattern).match(name) is not None


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    # Brackets have no meaning of their own.
    return re.compile(fnmatch.translate(pattern.replace("[", "[[]")), re.IGNORECASE)


# --- values ---------------------------------------------------------------------------------------


def same(one: Any, other: Any) -> bool:
    """Equal as JSON values are: 1 is 1.0, and is not true."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, Mapping):
        return (
            isinstance(other, Mapping)
            and one.keys() == other.keys()
            and all(same(value, other[key]) for key, value in one.items())
        )
    if isinstance(one, list | tuple):
        return (
            isinstance(other, list | tuple)
            and len(one) == len(other)
            and all(map(same, one, other))
        )
    return bool(one == other)


def contains(actual: Any, expected: Any) -> bool:
    """Whether `actual` has all that `expected` has, at every depth; lists are of one length."""
    if isinstance(expected, Mapping):
        return isinstance(actual, Mapping) and all(
            key in actual and contains(actual[key], value) for key, value in expected.items()
        )
    if isinstance(expected, list | tuple):
        return (
            isinstance(actual, list | tuple)
            and len(actual) == len(expected)
            and all(map(contains, actual, expected))
        )
    return same(actual, expected)


@lru_cache(maxsize=4096)
def _steps(path: str) -> tuple[str, ...]:
    return tuple(part for part in re.split(r"[.\[\]]", path) if part)


def look_up(value: Any, path: str) -> Any:
    """What the path (`a.b[0].c`) leads to in a JSON value; `MISSING` if it leads nowhere."""
    for step in _steps(path):
        if isinstance(value, Mapping) and step in value:
            value = value[step]
        elif isinstance(value, Sequence) and not isinstance(value, str) and step.isdecimal():
            if int(step) >= len(value):
                return MISSING
            value = value[int(step)]
        else:
            return MISSING
    return value
