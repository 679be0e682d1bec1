"""Values as Go sees them: kinds, truth, comparison, and how they are shown.

Data come from JSON, whose numbers are Go's float64: every plain `int` or `float` is one. Whole
numbers that the template makes itself (`3`, `len`, `add`) are `Int`, and shown as Go shows an int.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from muster.teams.template.errors import FunctionError

__all__ = (
    "MAX_ITEMS",
    "MAX_TEXT",
    "Dict",
    "Int",
    "Missing",
    "compare",
    "equal",
    "float_text",
    "is_number",
    "is_true",
    "kind",
    "plain",
    "shortest_digits",
    "show",
    "sorted_items",
    "type_name",
    "with_exponent",
)

MAX_TEXT = 10_000_000
"""Characters of any text that a template makes."""

MAX_ITEMS = 1_000_000
"""Items of any list, and values within one value, that a template makes or shows."""

_MAX_DEPTH = 200


class Int(int):
    """A whole number that the template made."""

    __slots__ = ()


class Dict(dict[str, Any]):
    """A mapping that the template made, so `set` may change it."""

    __slots__ = ()


class Missing:
    """What a path leads to when its last name is not there. Empty in conditions, else an error."""

    __slots__ = ("explain", "offset")

    def __init__(self, explain: Callable[[], str], offset: int) -> None:
        self.explain = explain
        self.offset = offset


def is_number(value: object) -> bool:
    """Numbers are `int` and `float`; `bool` is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def kind(value: object) -> str:
    """What a value is, for messages."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    return f"a Python {type(value).__name__}"


def type_name(value: object) -> str:
    """The name of a value's type in Go, as `%T` prints it."""
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, Int):
        return "int"
    if isinstance(value, int | float):
        return "float64"
    if isinstance(value, str):
        return "string"
    return "map[string]interface {}" if isinstance(value, Mapping) else "[]interface {}"


def is_true(value: Any) -> bool:
    """Go's truth: everything but what is missing, null, false, zero or empty."""
    if isinstance(value, Missing):
        return False
    return bool(value)


# --- numbers ------------------------------------------------------------------------------------


def shortest_digits(value: float) -> tuple[str, int]:
    """The fewest digits that mean `value`, and the exponent of the first: 12.5 is "125", 1."""
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = whole + fraction
    stripped = digits.lstrip("0")
    if not stripped:
        return "0", 0
    first = len(whole) - 1 - (len(digits) - len(stripped)) + int(exponent or 0)
    return stripped.rstrip("0"), first


def float_text(value: float) -> str:
    """A float64 as Go's `%v` prints it: with an exponent if that is below -4 or above 5."""
    try:
        value = float(value)
    except OverflowError:
        raise FunctionError("a number is too large for a float64") from None
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("+Inf" if value > 0 else "-Inf")
    digits, exponent = shortest_digits(value)
    sign = "-" if math.copysign(1.0, value) < 0 else ""
    if exponent < -4 or exponent > 5:
        return sign + with_exponent(digits, exponent)
    if exponent < 0:
        return sign + "0." + "0" * (-exponent - 1) + digits
    whole = digits[: exponent + 1].ljust(exponent + 1, "0")
    fraction = digits[exponent + 1 :]
    return sign + (f"{whole}.{fraction}" if fraction else whole)


def with_exponent(digits: str, exponent: int) -> str:
    """`125`, 6 as `1.25e+06`."""
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{digits[0]}{fraction}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"


# --- showing ------------------------------------------------------------------------------------


def show(value: Any) -> str:
    """A value as Go's `%v` prints it: `[a b]`, `map[k:1]`, `<nil>`.

    Raises:
        FunctionError: it is larger than `MAX_TEXT`, nested too deeply, or no value of JSON.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping | list | tuple):
        pieces = _Pieces()
        _show_into(value, pieces, _MAX_DEPTH)
        return "".join(pieces)
    return _scalar(value)


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Int):
        return int.__repr__(value)
    if isinstance(value, int) and -1_000_000 < value < 1_000_000:
        return str(int(value))
    if isinstance(value, int | float):
        return float_text(value)
    if value is None:
        return "<nil>"
    raise FunctionError(f"{kind(value)} cannot be shown")


class _Pieces(list[str]):
    """Text in the making, bounded."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0

    def add(self, text: str) -> None:
        self.size += len(text)
        if self.size > MAX_TEXT:
            raise FunctionError(f"the text is longer than {MAX_TEXT:,} characters")
        if len(self) > 2 * MAX_ITEMS:  # with the space before each
            raise FunctionError(f"more than {MAX_ITEMS:,} values within one")
        self.append(text)


def _show_into(value: Any, pieces: _Pieces, depth: int) -> None:
    if depth == 0:
        raise FunctionError(f"a value nests more than {_MAX_DEPTH} levels deep")
    if isinstance(value, Mapping):
        pieces.add("map[")
        for index, (key, item) in enumerate(sorted_items(value)):
            pieces.add(f" {key}:" if index else f"{key}:")
            _show_into(item, pieces, depth - 1)
        pieces.add("]")
    elif isinstance(value, list | tuple):
        pieces.add("[")
        for index, item in enumerate(value):
            if index:
                pieces.add(" ")
            _show_into(item, pieces, depth - 1)
        pieces.add("]")
    else:
        pieces.add(value if isinstance(value, str) else _scalar(value))


def sorted_items(value: Mapping[Any, Any]) -> list[tuple[str, Any]]:
    """A mapping's entries in the order of its keys, which are text."""
    return sorted(((str(key), item) for key, item in value.items()), key=lambda entry: entry[0])


def plain(value: Any) -> Any:
    """A copy as JSON has it: keys are text, whole floats integers.

    Raises:
        FunctionError: too large, too deep, not finite, or no value of JSON.
    """
    return _plain(value, [0], _MAX_DEPTH)


def _plain(value: Any, count: list[int], depth: int) -> Any:
    count[0] += 1
    if count[0] > MAX_ITEMS:
        raise FunctionError(f"more than {MAX_ITEMS:,} values within one")
    if depth == 0:
        raise FunctionError(f"a value nests more than {_MAX_DEPTH} levels deep")
    if isinstance(value, Mapping):
        return {str(key): _plain(item, count, depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, count, depth - 1) for item in value]
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise FunctionError(f"{float_text(value)} is no number of JSON")
        return int(value) if value.is_integer() and abs(value) < 1e21 else value
    raise FunctionError(f"{kind(value)} is no value of JSON")


# --- comparing ----------------------------------------------------------------------------------


def equal(left: Any, right: Any) -> bool:
    """Go's `eq` of two values.

    Raises:
        FunctionError: of different types, or lists or mappings.
    """
    if left is None or right is None:
        return left is right
    if isinstance(left, str) and isinstance(right, str):
        return left == right
    if isinstance(left, bool) and isinstance(right, bool):
        return left is right
    if is_number(left) and is_number(right):
        _refuse_mixed(left, right)
        return bool(left == right)
    _refuse(left, right)
    raise FunctionError(f"{kind(left)} cannot be compared")


def compare(left: Any, right: Any) -> int:
    """Below, at or above zero, as `left` is less than, equal to or greater than `right`.

    Raises:
        FunctionError: not two texts and not two numbers of one type.
    """
    if is_number(left) and is_number(right):
        _refuse_mixed(left, right)
        return -1 if left < right else int(left > right)
    if isinstance(left, str) and isinstance(right, str):
        return -1 if left < right else int(left > right)
    _refuse(left, right)
    raise FunctionError(f"{kind(left)} has no order")


def _refuse_mixed(left: Any, right: Any) -> None:
    """Go compares no float64, which every number of JSON is, with an int."""
    if isinstance(left, Int) != isinstance(right, Int):
        whole = left if isinstance(left, Int) else right
        raise FunctionError(
            f"incompatible types for comparison: {type_name(left)} ({_short(left)})"
            f" and {type_name(right)} ({_short(right)}); numbers of JSON are float64: "
            f"write {whole}.0, or int before the other"
        )


def _refuse(left: Any, right: Any) -> None:
    if kind(left) != kind(right):
        raise FunctionError(
            f"incompatible types for comparison: {kind(left)} ({_short(left)})"
            f" and {kind(right)} ({_short(right)})"
        )


def _short(value: Any) -> str:
    if isinstance(value, Mapping | list | tuple):
        return f"{len(value)} entries" if isinstance(value, Mapping) else f"{len(value)} items"
    text = f'"{value}"' if isinstance(value, str) else _scalar(value)
    return text if len(text) <= 40 else text[:37] + '…"'
