"""Literals of templates as values: Go's numbers, characters and quoted text."""

from __future__ import annotations

import re

from muster.teams.template.values import Int

__all__ = ("character", "number", "quoted")

_INT = re.compile(
    r"[+-]?(?:0[xX](?:_?[0-9a-fA-F])+|0[oO]?(?:_?[0-7])+|0[bB](?:_?[01])+|0|[1-9](?:_?[0-9])*)\Z"
)
_FLOAT = re.compile(
    r"[+-]?(?:[0-9](?:_?[0-9])*(?:\.(?:[0-9](?:_?[0-9])*)?)?|\.[0-9](?:_?[0-9])*)"
    r"(?:[eE][+-]?[0-9](?:_?[0-9])*)?\Z"
)
_HEX_FLOAT = re.compile(r"[+-]?0[xX][0-9a-fA-F]*(?:\.[0-9a-fA-F]*)?[pP][+-]?[0-9]+\Z")
_ESCAPE = re.compile(
    r"\\(?:([abfnrtv\\'\"])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|(.?))",
    re.DOTALL,
)
_SIMPLE = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "\\": "\\",
    "'": "'",
    '"': '"',
}
_LONGEST = 400
"""Digits of a number; longer ones would only cost time."""


def number(text: str) -> Int | float:
    """A literal's value: whole, or with a fraction or exponent. Raises `ValueError`."""
    if len(text) > _LONGEST:
        raise ValueError("a number of more than 400 characters")
    if _INT.match(text):
        digits = text.replace("_", "")
        body = digits.lstrip("+-")
        if len(body) > 1 and body[0] == "0" and body[1].isdigit():
            value = int(digits.replace(body, "0o" + body[1:]), 0)
        else:
            value = int(digits, 0)
        if not -(2**63) <= value < 2**63:
            raise ValueError(f"{text} does not fit into 64 bits")
        return Int(value)
    if _FLOAT.match(text) and not text.replace("_", "").lstrip("+-").isdecimal():
        real = float(text.replace("_", ""))
    elif _HEX_FLOAT.match(text):
        try:
            real = float.fromhex(text)
        except (OverflowError, ValueError):
            raise ValueError(f"{text} is not a number") from None
    else:
        raise ValueError(f"{text} is not a number")
    if real in {float("inf"), float("-inf")}:
        raise ValueError(f"{text} is too large")
    return real


def quoted(text: str) -> str:
    """The value of `"…"`, quotes included in `text`. Raises `ValueError`."""
    return _unescape(text[1:-1], "'")


def character(text: str) -> Int:
    """The code of `'x'`. Raises `ValueError`."""
    value = _unescape(text[1:-1], '"')
    if len(value) != 1:
        raise ValueError(f'{text} is not one character; text is written in "…"')
    return Int(ord(value))


def _unescape(text: str, forbidden: str) -> str:
    if "\\" not in text:
        return text
    raw = b""
    last = 0
    for match in _ESCAPE.finditer(text):
        raw += text[last : match.start()].encode("utf-8", "surrogatepass")
        raw += _escaped(match, forbidden)
        last = match.end()
    raw += text[last:].encode("utf-8", "surrogatepass")
    return raw.decode("utf-8", "replace")


def _escaped(match: re.Match[str], forbidden: str) -> bytes:
    simple, two, four, eight, octal, _other = match.groups()
    if simple and simple != forbidden:
        return _SIMPLE[simple].encode()
    if two:
        return bytes([int(two, 16)])
    if octal and int(octal, 8) < 256:
        return bytes([int(octal, 8)])
    code = int(four or eight or "d800", 16)
    if code > 0x10FFFF or 0xD800 <= code < 0xE000:
        raise ValueError(f"{match.group()} is not an escape that Go knows")
    return chr(code).encode()
