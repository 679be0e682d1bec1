"""The functions that Go's text/template brings along."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote_plus

from muster.errors import nearest
from muster.teams.template import printf
from muster.teams.template.arguments import check_text, sequence, text, whole
from muster.teams.template.errors import FunctionError
from muster.teams.template.values import (
    Int,
    Missing,
    compare,
    equal,
    is_true,
    kind,
    show,
)

__all__ = (
    "NoKey",
    "call",
    "eq",
    "ge",
    "gt",
    "html",
    "index",
    "js",
    "lazy",
    "le",
    "length",
    "lt",
    "ne",
    "negate",
    "no_key",
    "slice_of",
    "sprint",
    "sprintf",
    "sprintln",
    "urlquery",
)


class NoKey(FunctionError):
    """`index` found no such key; for the last one the compiler makes this a missing value."""

    def __init__(self, container: Mapping[str, Any], key: str, *, is_last: bool) -> None:
        super().__init__()
        self.container = container
        self.key = key
        self.is_last = is_last


def no_key(path: str, container: Mapping[Any, Any], key: str) -> str:
    """That the container at `path` has no such key, and what it has."""
    known = sorted(str(name) for name in container)
    near = nearest(key, known[:1000])
    if near:
        return f'{path} has no "{key}"; did you mean "{near[0]}"?'
    if not known:
        return f'{path} has no "{key}"; it is empty'
    shown = ", ".join(known[:8]) + (", …" if len(known) > 8 else "")
    return f'{path} has no "{key}"; it has: {shown}'


# --- logic and comparison -----------------------------------------------------------------------


def lazy(*_values: Any) -> Any:
    """`and` and `or`: the compiler evaluates them itself, as far as it needs to."""
    raise FunctionError("is evaluated by the compiler")


def negate(value: Any) -> bool:
    """`not`."""
    return not is_true(value)


def eq(first: Any, *others: Any) -> bool:
    """Whether `first` equals any of the others. Only `nil` may be compared with the missing."""
    return any(_equal(first, other) for other in others)


def _equal(left: Any, right: Any) -> bool:
    for value, other in ((left, right), (right, left)):
        if isinstance(value, Missing):
            if other is None:
                return True
            raise FunctionError(value.explain())
    return equal(left, right)


def ne(left: Any, right: Any) -> bool:
    """Not `eq`."""
    return not _equal(left, right)


def lt(left: Any, right: Any) -> bool:
    """Less than."""
    return compare(left, right) < 0


def le(left: Any, right: Any) -> bool:
    """Less than or equal to."""
    return compare(left, right) <= 0


def gt(left: Any, right: Any) -> bool:
    """Greater than."""
    return compare(left, right) > 0


def ge(left: Any, right: Any) -> bool:
    """Greater than or equal to."""
    return compare(left, right) >= 0


# --- parts of values ----------------------------------------------------------------------------


def length(value: Any) -> Int:
    """Characters of a text, items of a list, keys of a mapping."""
    if isinstance(value, str | Mapping | list | tuple):
        return Int(len(value))
    raise FunctionError(f"{kind(value)} has no length")


def index(value: Any, *keys: Any) -> Any:
    """`index x 1 "a"` is `x[1]["a"]`."""
    if value is None:
        raise FunctionError("null has no index")
    for position, key in enumerate(keys):
        if isinstance(value, Mapping):
            if not isinstance(key, str):
                raise FunctionError(f"a mapping's key is text, not {kind(key)}")
            if key not in value:
                raise NoKey(value, key, is_last=position == len(keys) - 1)
            value = value[key]
        elif isinstance(value, list | tuple | str):
            at = whole(key, "the index")
            if not 0 <= at < len(value):
                raise FunctionError(f"the index is {at}, but there are {_items(value)}")
            value = Int(ord(value[at])) if isinstance(value, str) else value[at]
        else:
            raise FunctionError(f"{kind(value)} has no index")
    return value


def _items(value: Any) -> str:
    noun = "character" if isinstance(value, str) else "item"
    return f"{len(value)} {noun}{'' if len(value) == 1 else 's'}"


def slice_of(value: Any, *bounds: Any) -> Any:
    """`slice x 1 2` is `x[1:2]`."""
    if not isinstance(value, str):
        sequence(value, "what is sliced")
    elif len(bounds) == 3:
        raise FunctionError("text takes two bounds, not three")
    numbers = [whole(bound, "a bound") for bound in bounds]
    for number in numbers:
        if not 0 <= number <= len(value):
            raise FunctionError(f"the bound is {number}, but there are {_items(value)}")
    if numbers != sorted(numbers):
        raise FunctionError(f"bounds in the wrong order: {' '.join(map(str, numbers))}")
    low = numbers[0] if numbers else 0
    high = numbers[1] if len(numbers) > 1 else len(value)
    return value[low:high]


def call(function: Any, *_arguments: Any) -> Any:
    """Go's `call` needs a function among the data, where there never is one."""
    raise FunctionError(f"{kind(function)} is not a function; data holds none")


# --- printing -----------------------------------------------------------------------------------


def bounded(made: str) -> str:
    """`made`, unless it is too long."""
    check_text(len(made))
    return made


def sprint(*values: Any) -> str:
    """Values one after another, with a space between two that are no text."""
    before_is_text = True
    pieces: list[str] = []
    for value in values:
        is_text = isinstance(value, str)
        if pieces and not is_text and not before_is_text:
            pieces.append(" ")
        pieces.append(show(value))
        before_is_text = is_text
    return bounded("".join(pieces))


def sprintln(*values: Any) -> str:
    """Values with spaces between them, and a line end."""
    return bounded(" ".join(show(value) for value in values) + "\n")


def sprintf(template: Any, *values: Any) -> str:
    """`printf`."""
    return printf.sprintf(text(template, "the format"), *values)


_HTML = {34: "&#34;", 39: "&#39;", 38: "&amp;", 60: "&lt;", 62: "&gt;", 0: "\ufffd"}
_JS = {
    **{code: f"\\u{code:04X}" for code in range(32)},
    **{ord(character): f"\\{character}" for character in "\\'\""},
    **{ord(character): f"\\u{ord(character):04X}" for character in "<>&="},
}
_NOT_ASCII = re.compile(r"[^\x00-\x7e]")


def _printed(values: tuple[Any, ...]) -> str:
    """As `print` does, but with null as an action shows it."""
    return sprint(*("<no value>" if value is None else value for value in values))


def html(*values: Any) -> str:
    """Text for HTML."""
    return bounded(_printed(values).translate(_HTML))


def js(*values: Any) -> str:
    """Text for a string of JavaScript."""
    escaped = _printed(values).translate(_JS)
    return bounded(_NOT_ASCII.sub(_js_escape, escaped))


def _js_escape(match: re.Match[str]) -> str:
    character = match.group()
    return character if character.isprintable() else f"\\u{ord(character):04X}"


def urlquery(*values: Any) -> str:
    """Text for the query of a URL."""
    return bounded(quote_plus(_printed(values), errors="replace"))
