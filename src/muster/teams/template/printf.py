"""`printf`: Go's fmt.Sprintf for the values that templates have.

A wrong verb is shown as Go shows it, `%!d(string=x)`. Numbers are numbers here: `%d` takes a whole
number that came from JSON, and `%.1f` one that the template made.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from muster.teams.template.arguments import whole
from muster.teams.template.errors import FunctionError
from muster.teams.template.values import (
    MAX_TEXT,
    Int,
    float_text,
    is_number,
    show,
    sorted_items,
    type_name,
)

__all__ = ("quote", "sprintf")

_DIRECTIVE = re.compile(
    r"%(?P<flags>[-+ 0#]*)(?P<width>\*|[0-9]*)(?:\.(?P<precision>\*|[0-9]*))?(?P<verb>.?)",
    re.DOTALL,
)
_WIDEST = 10_000
_WIDEST_OF_ITEMS = 100
_ESCAPES = {
    "\a": r"\a",
    "\b": r"\b",
    "\f": r"\f",
    "\n": r"\n",
    "\r": r"\r",
    "\t": r"\t",
    "\v": r"\v",
    "\\": r"\\",
    '"': r"\"",
}
_NEEDS_ESCAPE = re.compile(r'[^ -~]|["\\]')


class _Spec:
    """One directive: `%-5.2f`."""

    __slots__ = ("flags", "precision", "verb", "width")

    def __init__(self, flags: str, width: int, precision: int | None, verb: str) -> None:
        self.flags = flags
        self.width = width
        self.precision = precision
        self.verb = verb

    @property
    def zeros(self) -> bool:
        """Whether zeros fill the width."""
        return "0" in self.flags and "-" not in self.flags

    def general(self) -> _Spec:
        """The same measures for `%v`, whose `+` is no sign."""
        return _Spec(self.flags.replace("+", ""), self.width, self.precision, "v")

    def pad(self, text: str) -> str:
        """To the width; zeros go between the sign of a number and its digits."""
        if "-" in self.flags:
            return text.ljust(self.width)
        return text.rjust(self.width, "0" if self.zeros else " ")

    def pad_number(self, sign: str, digits: str) -> str:
        """As `pad`, with zeros after the sign."""
        if self.zeros:
            digits = digits.rjust(self.width - len(sign), "0")
        return self.pad(sign + digits)


def sprintf(template: str, *values: Any) -> str:
    """`values` in the places of `template`. Raises `FunctionError` for what would be too long."""
    pieces: list[str] = []
    size = last = used = 0
    for match in _DIRECTIVE.finditer(template):
        pieces.append(template[last : match.start()])
        last = match.end()
        text, used = _directive(match, values, used)
        pieces.append(text)
        size += len(text)
        if size > MAX_TEXT:
            raise FunctionError(f"the text is longer than {MAX_TEXT:,} characters")
    pieces.append(template[last:])
    if used < len(values):
        extra = ", ".join(_typed(value) for value in values[used:])
        pieces.append(f"%!(EXTRA {extra})")
    return "".join(pieces)


def _directive(match: re.Match[str], values: Sequence[Any], used: int) -> tuple[str, int]:
    flags, verb = match["flags"], match["verb"]
    width, used = _measure(match["width"], values, used)
    if width is not None and width < 0:
        flags, width = flags + "-", -width
    precision, used = _measure(match["precision"], values, used)
    if match["precision"] == "":
        precision = 0
    if precision is not None and precision < 0:
        precision = None
    if not verb:
        return "%!(NOVERB)", used
    if verb == "[":
        raise FunctionError("the values of a format cannot be numbered, as in %[1]d")
    if verb == "%":
        return "%", used
    if used >= len(values):
        return f"%!{verb}(MISSING)", used
    spec = _Spec(flags, width or 0, precision, verb)
    return _formatted(spec, values[used]), used + 1


def _measure(text: str | None, values: Sequence[Any], used: int) -> tuple[int | None, int]:
    """A width or precision: digits, or `*` for the next value."""
    if not text:
        return None, used
    if text == "*":
        if used >= len(values):
            raise FunctionError("* in a format takes a whole number, and there is none")
        number, used = whole(values[used], "the width for *"), used + 1
    else:
        number = int(text[:10])
    if abs(number) > _WIDEST:
        raise FunctionError(f"a width or precision above {_WIDEST:,}")
    return number, used


def _formatted(spec: _Spec, value: Any, *, inside: bool = False) -> str:
    """One value, as its verb says; `inside` a list or a mapping null is never padded."""
    verb = spec.verb
    if verb == "T":
        return spec.pad(type_name(value))
    if value is None:
        if inside:
            return "<nil>"
        return spec.pad("<nil>") if verb == "v" else f"%!{verb}(<nil>)"
    if isinstance(value, Mapping | list | tuple):
        return _each(spec, value, inside=inside)
    if verb == "v":
        return _general(spec.general(), value)
    if isinstance(value, bool):
        text = show(value) if verb == "t" else None
    elif isinstance(value, str):
        text = _text(spec, value)
    else:
        return _number(spec, value)
    return _wrong(spec, value) if text is None else spec.pad(text)


def _general(spec: _Spec, value: Any) -> str:
    if isinstance(value, str):
        cut = value[: spec.precision]
        return spec.pad(quote(cut) if "#" in spec.flags else cut)
    if isinstance(value, Int):
        return _whole(spec, int(value))
    if is_number(value):
        return _real(spec, value)
    return spec.pad(show(value))


def _each(spec: _Spec, value: Any, *, inside: bool) -> str:
    """A verb for lists and mappings is a verb for what they hold."""
    if not inside:
        if max(spec.width, spec.precision or 0) > _WIDEST_OF_ITEMS:
            raise FunctionError(f"a width or precision above {_WIDEST_OF_ITEMS} for each item")
        shown = show(value)  # refuses what is too large or too deep
        if spec.verb == "v" and not spec.flags and not spec.width and spec.precision is None:
            return shown
    if isinstance(value, Mapping):
        entries = (
            f"{_formatted(spec, key, inside=True)}:{_formatted(spec, item, inside=True)}"
            for key, item in sorted_items(value)
        )
        return f"map[{' '.join(entries)}]"
    return f"[{' '.join(_formatted(spec, item, inside=True) for item in value)}]"


def _wrong(spec: _Spec, value: Any) -> str:
    general = _Spec(spec.flags.replace("#", ""), spec.width, spec.precision, "v")
    return f"%!{spec.verb}({type_name(value)}={_general(general, value)})"


def _typed(value: Any) -> str:
    return "<nil>" if value is None else f"{type_name(value)}={show(value)}"


# --- text ---------------------------------------------------------------------------------------


def quote(text: str, *, ascii_only: bool = False) -> str:
    """Text in double quotes with Go's escapes."""

    def escaped(match: re.Match[str]) -> str:
        character = match.group()
        if character in _ESCAPES:
            return _ESCAPES[character]
        if character.isprintable() and not ascii_only:
            return character
        code = ord(character)
        if code < 0x80:
            return f"\\x{code:02x}"
        return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

    return f'"{_NEEDS_ESCAPE.sub(escaped, text)}"'


def _text(spec: _Spec, value: str) -> str | None:
    cut = value if spec.precision is None else value[: spec.precision]
    if spec.verb == "s":
        return cut
    if spec.verb == "q":
        if "#" in spec.flags and "`" not in cut and (cut.isprintable() or "\t" in cut):
            return f"`{cut}`"
        return quote(cut, ascii_only="+" in spec.flags)
    if spec.verb in "xX":
        raw = value.encode("utf-8", "surrogatepass")[: spec.precision]
        text = raw.hex(" ") if " " in spec.flags else raw.hex()
        return text if spec.verb == "x" else text.upper()
    return None


# --- numbers ------------------------------------------------------------------------------------


def _number(spec: _Spec, value: float) -> str:
    if spec.verb in "eEfFgG":
        return _real(spec, value)
    if spec.verb in "dxXobOcqU" and math.isfinite(value) and value == int(value):
        return _whole(spec, int(value))
    return _wrong(spec, value)


def _whole(spec: _Spec, value: int) -> str:
    verb = "d" if spec.verb == "v" else spec.verb
    if verb in "cqU":
        return _character(spec, value)
    digits = format(abs(value), "o" if verb == "O" else verb)
    sign = _sign(spec, value < 0)
    if spec.precision is not None:
        digits = "" if spec.precision == 0 and value == 0 else digits.rjust(spec.precision, "0")
    elif spec.zeros:
        digits = digits.rjust(spec.width - len(sign), "0")
    if verb == "O":
        digits = "0o" + digits
    elif "#" in spec.flags and not (verb == "o" and digits.startswith("0")):
        digits = {"x": "0x", "X": "0X", "o": "0", "b": "0b"}.get(verb, "") + digits
    text = sign + digits
    # As in Go, a precision turns zeros into spaces.
    return text.ljust(spec.width) if "-" in spec.flags else text.rjust(spec.width)


def _character(spec: _Spec, value: int) -> str:
    if spec.verb == "U":
        return spec.pad(f"U+{value % 2**64:04X}")
    known = 0 <= value <= 0x10FFFF and not 0xD800 <= value < 0xE000
    character = chr(value) if known else "\ufffd"
    if spec.verb == "c":
        return spec.pad(character)
    if character == "'":
        return spec.pad(r"'\''")
    inner = '"' if character == '"' else quote(character, ascii_only="+" in spec.flags)[1:-1]
    return spec.pad(f"'{inner}'")


def _real(spec: _Spec, value: float) -> str:
    try:
        real = float(value)
    except OverflowError:
        raise FunctionError("a number is too large for a float64") from None
    if not math.isfinite(real):
        sign = "+" if "+" in spec.flags and real > 0 else ""
        text = sign + float_text(real).lstrip("+")
        return text.ljust(spec.width) if "-" in spec.flags else text.rjust(spec.width)
    verb = "g" if spec.verb == "v" else spec.verb
    magnitude = abs(real)
    if verb in "gG" and spec.precision is None:
        text = float_text(magnitude)
    elif verb in "gG":
        text = format(magnitude, f".{max(spec.precision or 0, 1)}g")
    else:
        text = format(magnitude, f".{6 if spec.precision is None else spec.precision}{verb}")
    if verb in "EG":
        text = text.upper()
    return spec.pad_number(_sign(spec, math.copysign(1.0, real) < 0), text)


def _sign(spec: _Spec, negative: bool) -> str:
    if negative:
        return "-"
    return "+" if "+" in spec.flags else " " if " " in spec.flags else ""
