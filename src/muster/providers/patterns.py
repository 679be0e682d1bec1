"""A short text that a regular expression matches: best effort, checked before it is given out."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable
from typing import Any

__all__ = ("shortest_match",)

_CATEGORIES = {
    "CATEGORY_DIGIT": "0",
    "CATEGORY_NOT_DIGIT": "a",
    "CATEGORY_SPACE": " ",
    "CATEGORY_NOT_SPACE": "a",
    "CATEGORY_WORD": "a",
    "CATEGORY_NOT_WORD": "-",
}
_TRIED = "a0A -_.,:;/@#!?+*=()[]{}<>|&%$~^'\"\\`bBzZ1é\n\t"


def shortest_match(
    pattern: str, *, min_length: int = 0, max_length: int | None = None
) -> str | None:
    """A text in which `pattern` is found, of a length within the bounds; `None` if none is found.

    Of lookarounds, only what positive lookaheads ask for is tried, one after the other.
    """
    try:
        compiled = re.compile(pattern)
        # The parser is not public, but has kept its form since Python 2; what it gives is checked.
        parsed = importlib.import_module("re._parser").parse(pattern)
    except (re.error, ImportError, RecursionError, OverflowError):
        return None
    writer = _Writer(0)
    shortest = writer.write(parsed)
    missing = max(0, min_length - len(shortest))
    candidates = [shortest]
    if missing:
        candidates += [
            _Writer(missing).write(parsed),
            shortest + "a" * missing,
            shortest + shortest[-1:] * missing,
            "a" * missing + shortest,
        ]
    if writer.ahead:
        candidates += [writer.ahead + text[len(writer.ahead) :] for text in list(candidates)]
    for text in candidates:
        fits = len(text) >= min_length and (max_length is None or len(text) <= max_length)
        if fits and compiled.search(text):
            return text
    return None


class _Writer:
    """Writes out a parsed expression; `extra` characters go into the first repeat with room."""

    def __init__(self, extra: int) -> None:
        self.extra = extra
        self.groups: dict[int, str] = {}
        self.ahead = ""
        """What the positive lookaheads want to see."""

    def write(self, tokens: Iterable[tuple[Any, Any]]) -> str:
        return "".join(self._token(str(op), value) for op, value in tokens)

    def _token(self, op: str, value: Any) -> str:
        match op:
            case "LITERAL":
                return chr(value)
            case "NOT_LITERAL":
                return "b" if value == ord("a") else "a"
            case "ANY":
                return "a"
            case "IN":
                return _member(value)
            case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
                return self._repeat(*value)
            case "SUBPATTERN":
                group, _, _, inner = value
                text = self.write(inner)
                if group is not None:
                    self.groups[group] = text
                return text
            case "ATOMIC_GROUP":
                return self.write(value)
            case "BRANCH":
                return min((self.write(branch) for branch in value[1]), key=len)
            case "GROUPREF":
                return self.groups.get(value, "")
            case "ASSERT" if value[0] > 0:
                self.ahead += self.write(value[1])
        return ""  # positions and lookarounds take no room

    def _repeat(self, low: int, high: Any, inner: Any) -> str:
        once = self.write(inner)
        count = low
        if self.extra and once:
            room = int(high) - low
            more = min(room, -(-self.extra // len(once)))
            self.extra = max(0, self.extra - more * len(once))
            count += more
        return once * count


def _member(items: list[tuple[Any, Any]]) -> str:
    """A character that a set matches."""
    if str(items[0][0]) == "NEGATE":
        return next((char for char in _TRIED if not _in_set(char, items[1:])), "\u4e00")
    op, value = items[0]
    if str(op) == "LITERAL":
        return chr(value)
    if str(op) == "RANGE":
        return chr(value[0])
    return _CATEGORIES.get(str(value), "a")


def _in_set(char: str, items: list[tuple[Any, Any]]) -> bool:
    for op, value in items:
        if str(op) == "LITERAL" and ord(char) == value:
            return True
        if str(op) == "RANGE" and value[0] <= ord(char) <= value[1]:
            return True
        if str(op) == "CATEGORY" and _in_category(char, str(value)):
            return True
    return False


def _in_category(char: str, category: str) -> bool:
    positive = category.replace("_NOT_", "_")
    inside = {
        "CATEGORY_DIGIT": char.isdigit(),
        "CATEGORY_SPACE": char.isspace(),
        "CATEGORY_WORD": char.isalnum() or char == "_",
    }.get(positive, False)
    return inside is (positive == category)
