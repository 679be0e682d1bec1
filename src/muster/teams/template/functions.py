"""The table of functions, and the contract between them and the compiler.

A function takes values of JSON and returns one; what it cannot work with is a `FunctionError`,
to which the compiler adds the place. None of them reads a clock, the environment, or chance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from muster.teams.template import conversions, lists, standard, strings

__all__ = ("FUNCTIONS", "Function")


@dataclass(frozen=True, slots=True)
class Function:
    """`call` with `least` to `most` arguments (`None`: any number)."""

    call: Callable[..., Any]
    least: int
    most: int | None
    takes_missing: bool = False
    """What is missing is empty for it; for all others it is an error."""
    timed: bool = False
    """Searches patterns; its last parameter is how many seconds are left for that."""

    def wrong_count(self, count: int) -> str | None:
        """How many arguments it takes, if `count` is wrong."""
        if count >= self.least and (self.most is None or count <= self.most):
            return None
        if self.most is None:
            return f"at least {_arguments(self.least)}"
        if self.most == self.least:
            return _arguments(self.least)
        return f"{self.least} to {_arguments(self.most)}"


def _arguments(count: int) -> str:
    return f"{count} argument{'' if count == 1 else 's'}"


_ANY = None

_TABLE: dict[str, tuple[Callable[..., Any], int, int | None]] = {
    # Go's own
    "and": (standard.lazy, 1, _ANY),
    "or": (standard.lazy, 1, _ANY),
    "not": (standard.negate, 1, 1),
    "eq": (standard.eq, 2, _ANY),
    "ne": (standard.ne, 2, 2),
    "lt": (standard.lt, 2, 2),
    "le": (standard.le, 2, 2),
    "gt": (standard.gt, 2, 2),
    "ge": (standard.ge, 2, 2),
    "len": (standard.length, 1, 1),
    "index": (standard.index, 1, _ANY),
    "slice": (standard.slice_of, 1, 4),
    "call": (standard.call, 1, _ANY),
    "print": (standard.sprint, 0, _ANY),
    "println": (standard.sprintln, 0, _ANY),
    "printf": (standard.sprintf, 1, _ANY),
    "html": (standard.html, 0, _ANY),
    "js": (standard.js, 0, _ANY),
    "urlquery": (standard.urlquery, 0, _ANY),
    # text
    "upper": (strings.upper, 1, 1),
    "lower": (strings.lower, 1, 1),
    "title": (strings.title, 1, 1),
    "trim": (strings.trim, 1, 1),
    "trimAll": (strings.trim_all, 2, 2),
    "trimPrefix": (strings.trim_prefix, 2, 2),
    "trimSuffix": (strings.trim_suffix, 2, 2),
    "nospace": (strings.nospace, 1, 1),
    "replace": (strings.replace, 3, 3),
    "contains": (strings.contains, 2, 2),
    "hasPrefix": (strings.has_prefix, 2, 2),
    "hasSuffix": (strings.has_suffix, 2, 2),
    "split": (strings.split, 2, 2),
    "splitList": (strings.split_list, 2, 2),
    "join": (strings.join, 2, 2),
    "repeat": (strings.repeat, 2, 2),
    "substr": (strings.substr, 3, 3),
    "trunc": (strings.trunc, 2, 2),
    "abbrev": (strings.abbrev, 2, 2),
    "quote": (strings.quote_all, 0, _ANY),
    "squote": (strings.squote_all, 0, _ANY),
    "cat": (strings.cat, 0, _ANY),
    "indent": (strings.indent, 2, 2),
    "nindent": (strings.nindent, 2, 2),
    "b64enc": (strings.b64enc, 1, 1),
    "b64dec": (strings.b64dec, 1, 1),
    "sha256sum": (strings.sha256sum, 1, 1),
    "regexMatch": (strings.regex_match, 2, 2),
    "regexFind": (strings.regex_find, 2, 2),
    "regexReplaceAll": (strings.regex_replace_all, 3, 3),
    # lists and mappings
    "list": (lists.make_list, 0, _ANY),
    "first": (lists.first, 1, 1),
    "last": (lists.last, 1, 1),
    "rest": (lists.rest, 1, 1),
    "initial": (lists.initial, 1, 1),
    "append": (lists.append, 2, 2),
    "prepend": (lists.prepend, 2, 2),
    "concat": (lists.concat, 0, _ANY),
    "uniq": (lists.uniq, 1, 1),
    "has": (lists.has, 2, 2),
    "without": (lists.without, 1, _ANY),
    "reverse": (lists.reverse, 1, 1),
    "sortAlpha": (lists.sort_alpha, 1, 1),
    "dict": (lists.make_dict, 0, _ANY),
    "get": (lists.get, 2, 2),
    "set": (lists.set_key, 3, 3),
    "hasKey": (lists.has_key, 2, 2),
    "keys": (lists.keys, 1, _ANY),
    "values": (lists.values, 1, 1),
    "pick": (lists.pick, 1, _ANY),
    "omit": (lists.omit, 1, _ANY),
    "merge": (lists.merge, 1, _ANY),
    # numbers, JSON, choices
    "int": (conversions.to_int, 1, 1),
    "int64": (conversions.to_int, 1, 1),
    "float64": (conversions.to_float, 1, 1),
    "add": (conversions.add, 1, _ANY),
    "sub": (conversions.subtract, 2, 2),
    "mul": (conversions.multiply, 1, _ANY),
    "div": (conversions.divide, 2, 2),
    "mod": (conversions.modulo, 2, 2),
    "max": (conversions.maximum, 1, _ANY),
    "min": (conversions.minimum, 1, _ANY),
    "round": (conversions.round_half_away, 1, 2),
    "floor": (conversions.floor, 1, 1),
    "ceil": (conversions.ceil, 1, 1),
    "toString": (conversions.to_string, 1, 1),
    "toJson": (conversions.to_json, 1, 1),
    "json": (conversions.to_json, 1, 1),
    "toPrettyJson": (conversions.to_pretty_json, 1, 1),
    "fromJson": (conversions.from_json, 1, 1),
    "default": (conversions.default, 1, 2),
    "empty": (conversions.empty, 1, 1),
    "coalesce": (conversions.coalesce, 1, _ANY),
    "ternary": (conversions.ternary, 3, 3),
}

_TAKE_MISSING = frozenset(
    {"and", "or", "not", "eq", "ne", "default", "empty", "coalesce", "ternary"}
)
_TIMED = frozenset({"regexMatch", "regexFind", "regexReplaceAll"})

FUNCTIONS: dict[str, Function] = {
    name: Function(call, least, most, name in _TAKE_MISSING, name in _TIMED)
    for name, (call, least, most) in _TABLE.items()
}
"""All functions by name."""
