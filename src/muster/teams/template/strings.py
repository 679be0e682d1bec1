"""Functions on text, named and ordered as in sprig. Text is counted in characters."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from functools import lru_cache
from typing import Any

import regex

from muster.teams.template import printf
from muster.teams.template.arguments import check_items, check_text, text, whole
from muster.teams.template.errors import FunctionError
from muster.teams.template.values import Dict, show

__all__ = (
    "abbrev",
    "b64dec",
    "b64enc",
    "cat",
    "contains",
    "has_prefix",
    "has_suffix",
    "indent",
    "join",
    "lower",
    "nindent",
    "nospace",
    "quote_all",
    "regex_find",
    "regex_match",
    "regex_replace_all",
    "repeat",
    "replace",
    "sha256sum",
    "split",
    "split_list",
    "squote_all",
    "substr",
    "texts",
    "title",
    "trim",
    "trim_all",
    "trim_prefix",
    "trim_suffix",
    "trunc",
    "upper",
)

_LONGEST_PATTERN = 2000
_WORD_START = re.compile(r"(?<!\w)\w")
_SPACES = re.compile(r"\s+")


def upper(value: Any) -> str:
    """`ABC`."""
    return text(value).upper()


def lower(value: Any) -> str:
    """`abc`."""
    return text(value).lower()


def title(value: Any) -> str:
    """The first letter of each word in upper case, all others as they are."""
    return _WORD_START.sub(lambda match: match.group().upper(), text(value))


def trim(value: Any) -> str:
    """Without white space at both ends."""
    return text(value).strip()


def trim_all(characters: Any, value: Any) -> str:
    """Without any of `characters` at both ends."""
    return text(value).strip(text(characters, "the characters")) if characters else text(value)


def trim_prefix(prefix: Any, value: Any) -> str:
    """Without `prefix`, if it begins with that."""
    return text(value).removeprefix(text(prefix, "the prefix"))


def trim_suffix(suffix: Any, value: Any) -> str:
    """Without `suffix`, if it ends with that."""
    return text(value).removesuffix(text(suffix, "the suffix"))


def nospace(value: Any) -> str:
    """Without any white space."""
    return _SPACES.sub("", text(value))


def replace(old: Any, new: Any, value: Any) -> str:
    """With every `old` as `new`."""
    haystack, needle, other = text(value), text(old, "the old text"), text(new, "the new text")
    if len(other) > len(needle):
        growth = haystack.count(needle) * (len(other) - len(needle))
        check_text(len(haystack) + growth)
    return haystack.replace(needle, other)


def contains(part: Any, value: Any) -> bool:
    """Whether `part` stands in it."""
    return text(part, "the part") in text(value)


def has_prefix(prefix: Any, value: Any) -> bool:
    """Whether it begins with `prefix`."""
    return text(value).startswith(text(prefix, "the prefix"))


def has_suffix(suffix: Any, value: Any) -> bool:
    """Whether it ends with `suffix`."""
    return text(value).endswith(text(suffix, "the suffix"))


def split(separator: Any, value: Any) -> Dict:
    """The parts, as a mapping with the keys `_0`, `_1`, …"""
    parts = split_list(separator, value)
    return Dict({f"_{index}": part for index, part in enumerate(parts)})


def split_list(separator: Any, value: Any) -> list[str]:
    """The parts between separators; with an empty separator, the characters."""
    whole_text, between = text(value), text(separator, "the separator")
    check_items(whole_text.count(between) + 1 if between else len(whole_text))
    return whole_text.split(between) if between else list(whole_text)


def texts(value: Any) -> list[str]:
    """A list's items as text, without nulls; any other value as a list of one."""
    items = value if isinstance(value, list | tuple) else [value]
    return [show(item) for item in items if item is not None]


def join(separator: Any, value: Any) -> str:
    """A list's items with `separator` between them."""
    between, parts = text(separator, "the separator"), texts(value)
    check_text(sum(map(len, parts)) + len(between) * max(len(parts) - 1, 0))
    return between.join(parts)


def repeat(count: Any, value: Any) -> str:
    """`count` times."""
    times, unit = whole(count, "the count"), text(value)
    if times < 0:
        raise FunctionError(f"the count is {times}, below zero")
    check_text(times * len(unit))
    return unit * times


def substr(start: Any, end: Any, value: Any) -> str:
    """From `start` up to, not including, `end`; a negative one is no bound."""
    low, high, whole_text = whole(start, "the start"), whole(end, "the end"), text(value)
    return whole_text[max(low, 0) : high if high >= 0 else len(whole_text)]


def trunc(count: Any, value: Any) -> str:
    """The first `count` characters; the last ones if it is negative."""
    length, whole_text = whole(count, "the count"), text(value)
    return whole_text[:length] if length >= 0 else whole_text[length:]


def abbrev(width: Any, value: Any) -> str:
    """At most `width` characters, the last three of them dots if something was cut off."""
    most, whole_text = whole(width, "the width"), text(value)
    if most < 4 or len(whole_text) <= most:
        return whole_text
    return whole_text[: most - 3] + "..."


def quote_all(*values: Any) -> str:
    """Each value in double quotes, with a space between."""
    made = " ".join(printf.quote(show(value)) for value in values if value is not None)
    check_text(len(made))
    return made


def squote_all(*values: Any) -> str:
    """Each value in single quotes, with a space between."""
    made = " ".join(f"'{show(value)}'" for value in values if value is not None)
    check_text(len(made))
    return made


def cat(*values: Any) -> str:
    """Values with a space between."""
    made = " ".join(show(value) for value in values if value is not None).strip()
    check_text(len(made))
    return made


def indent(spaces: Any, value: Any) -> str:
    """With so many spaces before every line."""
    width, lines = whole(spaces, "the indentation"), text(value)
    if width < 0:
        raise FunctionError(f"the indentation is {width}, below zero")
    check_text(len(lines) + width * (lines.count("\n") + 1))
    pad = " " * width
    return pad + lines.replace("\n", "\n" + pad)


def nindent(spaces: Any, value: Any) -> str:
    """`indent` on a new line."""
    return "\n" + indent(spaces, value)


def b64enc(value: Any) -> str:
    """Base64 of the UTF-8 text."""
    return base64.b64encode(_utf8(value)).decode()


def b64dec(value: Any) -> str:
    """The UTF-8 text of Base64."""
    try:
        return base64.b64decode(_utf8(value), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise FunctionError("this is not text in Base64") from None


def sha256sum(value: Any) -> str:
    """The SHA-256 of the UTF-8 text, in hexadecimal."""
    return hashlib.sha256(_utf8(value)).hexdigest()


def _utf8(value: Any) -> bytes:
    return text(value).encode("utf-8", "replace")


# --- patterns -----------------------------------------------------------------------------------

_REFERENCE = re.compile(r"\$(?:(\$)|(\w+)|\{(\w+)\})")


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> regex.Pattern[str]:
    if len(pattern) > _LONGEST_PATTERN:
        raise FunctionError(f"the pattern is longer than {_LONGEST_PATTERN:,} characters")
    try:
        return regex.compile(pattern)
    except (regex.error, OverflowError, RecursionError) as error:
        raise FunctionError(f"{pattern!r} is not a pattern: {error}") from None


_TOO_SLOW = "the pattern takes too long on this text"


def regex_match(pattern: Any, value: Any, timeout: float) -> bool:
    """Whether the pattern is found."""
    return _search(pattern, value, timeout) is not None


def regex_find(pattern: Any, value: Any, timeout: float) -> str:
    """The first match, or the empty text."""
    match = _search(pattern, value, timeout)
    return match.group() if match else ""


def _search(pattern: Any, value: Any, timeout: float) -> regex.Match[str] | None:
    try:
        return _compiled(text(pattern, "the pattern")).search(text(value), timeout=timeout)
    except TimeoutError:
        raise FunctionError(_TOO_SLOW) from None


def regex_replace_all(pattern: Any, value: Any, replacement: Any, timeout: float) -> str:
    """With every match as `replacement`, where `$1` and `${name}` are groups."""
    compiled = _compiled(text(pattern, "the pattern"))
    haystack, template = text(value), text(replacement, "the replacement")
    pieces: list[str] = []
    size = last = 0
    try:
        for match in compiled.finditer(haystack, timeout=timeout):
            pieces += (haystack[last : match.start()], _expand(template, match))
            size += len(pieces[-1])
            check_text(size)
            last = match.end()
    except TimeoutError:
        raise FunctionError(_TOO_SLOW) from None
    pieces.append(haystack[last:])
    made = "".join(pieces)
    check_text(len(made))
    return made


def _expand(template: str, match: regex.Match[str]) -> str:
    if "$" not in template:
        return template

    def group(reference: re.Match[str]) -> str:
        if reference[1]:
            return "$"
        name = reference[2] or reference[3]
        try:
            return match[int(name) if name.isdecimal() else name] or ""
        except (IndexError, ValueError):
            return ""

    return _REFERENCE.sub(group, template)
