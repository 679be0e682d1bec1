"""Numbers, JSON, and choices between values."""

from __future__ import annotations

import json
import math
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from muster.teams.template.arguments import check_text, number, text, whole
from muster.teams.template.errors import FunctionError
from muster.teams.template.values import Dict, Int, is_true, kind, plain, show

__all__ = (
    "add",
    "ceil",
    "coalesce",
    "default",
    "divide",
    "empty",
    "floor",
    "from_json",
    "maximum",
    "minimum",
    "modulo",
    "multiply",
    "round_half_away",
    "subtract",
    "ternary",
    "to_float",
    "to_int",
    "to_json",
    "to_pretty_json",
    "to_string",
)

# --- numbers ------------------------------------------------------------------------------------

_LARGEST = 2**63


def _result(value: int | float) -> Int | float:
    """A whole result is an `Int`; one beyond 64 bits is refused."""
    if isinstance(value, float):
        return value
    if not -_LARGEST <= value < _LARGEST:
        raise FunctionError("the result does not fit into 64 bits")
    return Int(value)


def _exact(value: Any) -> int | float:
    """A number; a float without a fraction counts as whole."""
    found = number(value, "an operand")
    return int(found) if isinstance(found, float) and found.is_integer() else found


def _cut(value: int | float) -> Int:
    if isinstance(value, float) and not math.isfinite(value):
        raise FunctionError("an infinite number has no whole part")
    return Int(_result(int(value)))


def to_int(value: Any) -> Int:
    """A whole number: a number's without its fraction, a text's, a boolean's 1 or 0."""
    return _cut(_parsed(value))


def to_float(value: Any) -> float:
    """A float64 of a number, of text that is one, of a boolean."""
    try:
        return float(_parsed(value))
    except OverflowError:
        raise FunctionError("the number is too large for a float64") from None


def _parsed(value: Any) -> int | float:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str):
        stripped = value.strip()
        try:
            if len(stripped) > 400:
                raise ValueError
            try:
                return int(stripped)
            except ValueError:
                return float(stripped)
        except ValueError:
            shown = stripped if len(stripped) <= 40 else stripped[:37] + "…"
            raise FunctionError(f'"{shown}" is not a number') from None
    if isinstance(value, int | float):
        return value
    raise FunctionError(f"{kind(value)} is not a number")


def add(*values: Any) -> Int | float:
    """The sum."""
    return _result(sum(_exact(value) for value in values))


def subtract(left: Any, right: Any) -> Int | float:
    """`left - right`."""
    return _result(_exact(left) - _exact(right))


def multiply(*values: Any) -> Int | float:
    """The product."""
    product: int | float = 1
    for value in values:
        product = _result(product * _exact(value))
    return product


def divide(left: Any, right: Any) -> Int | float:
    """`left / right`: of whole numbers the whole part, as in Go."""
    over, under = _exact(left), _divisor(right)
    if isinstance(over, int) and isinstance(under, int):
        quotient = abs(over) // abs(under)
        return _result(quotient if (over < 0) == (under < 0) else -quotient)
    return over / under


def modulo(left: Any, right: Any) -> Int | float:
    """The rest of `div`, with the sign of `left`, as in Go."""
    over, under = _exact(left), _divisor(right)
    if isinstance(over, int) and isinstance(under, int):
        rest = abs(over) % abs(under)
        return _result(-rest if over < 0 else rest)
    return math.fmod(over, under)


def _divisor(value: Any) -> int | float:
    found = _exact(value)
    if found == 0:
        raise FunctionError("division by zero")
    return found


def maximum(*values: Any) -> Int | float:
    """The largest."""
    return _result(max(_exact(value) for value in values))


def minimum(*values: Any) -> Int | float:
    """The smallest."""
    return _result(min(_exact(value) for value in values))


def round_half_away(value: Any, places: Any = 0) -> Int | float:
    """To so many decimal places; a half goes away from zero."""
    digits, found = whole(places, "the number of places"), _parsed(value)
    if not -300 <= digits <= 300:
        raise FunctionError("the number of places must be between -300 and 300")
    if isinstance(found, float) and not math.isfinite(found):
        return found
    exact = Decimal(found) if isinstance(found, int) else Decimal(repr(found))
    if exact.as_tuple().exponent >= -digits:  # type: ignore[operator]  # finite, so a number
        return _cut(found) if digits <= 0 else found
    scaled = exact.scaleb(digits).to_integral_value(ROUND_HALF_UP)
    rounded = scaled.scaleb(-digits)
    return _cut(int(rounded)) if digits <= 0 else float(rounded)


def floor(value: Any) -> Int:
    """The next whole number below."""
    found = _parsed(value)
    return _cut(math.floor(found) if math.isfinite(found) else found)


def ceil(value: Any) -> Int:
    """The next whole number above."""
    found = _parsed(value)
    return _cut(math.ceil(found) if math.isfinite(found) else found)


# --- JSON and text ------------------------------------------------------------------------------


def to_string(value: Any) -> str:
    """As `print` shows it."""
    return show(value)


def to_json(value: Any) -> str:
    """JSON on one line, with sorted keys."""
    return _dumped(value, None)


def to_pretty_json(value: Any) -> str:
    """JSON with two spaces a level."""
    return _dumped(value, 2)


def _dumped(value: Any, indent: int | None) -> str:
    separators = (",", ":") if indent is None else (",", ": ")
    made = json.dumps(
        plain(value), ensure_ascii=False, indent=indent, separators=separators, sort_keys=True
    )
    check_text(len(made))
    return made


def from_json(value: Any) -> Any:
    """The value of a JSON text."""
    source = text(value)
    try:
        return json.loads(source, parse_constant=_no_constant, object_hook=Dict)
    except json.JSONDecodeError as error:
        raise FunctionError(
            f"this is not JSON: {error.msg} in line {error.lineno}, column {error.colno}"
        ) from None
    except ValueError as error:
        raise FunctionError(f"this is not JSON: {error}") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no value of JSON")


# --- choices ------------------------------------------------------------------------------------


def default(fallback: Any, value: Any = None) -> Any:
    """`value`, or `fallback` if it is empty."""
    return value if is_true(value) else fallback


def empty(value: Any) -> bool:
    """Whether it is missing, null, false, zero or without content."""
    return not is_true(value)


def coalesce(*values: Any) -> Any:
    """The first that is not empty; null if all are."""
    return next((value for value in values if is_true(value)), None)


def ternary(if_true: Any, if_false: Any, condition: Any) -> Any:
    """`ternary "yes" "no" .x`."""
    return if_true if is_true(condition) else if_false
