"""Dates in texts: by the formats that are named, and only then by a guess."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from functools import lru_cache

__all__ = ("check_format", "read_date")

_MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september",
    "october", "november", "december",
)  # fmt: skip
_NUMBER_OF = {name[:3]: number for number, name in enumerate(_MONTHS, 1)}

_TOKENS = {
    "YYYY": r"(?P<year>\d{4})",
    "YY": r"(?P<short>\d{2})",
    "MMMM": r"(?P<name>[A-Za-z]{3,9})\.?",
    "MMM": r"(?P<name>[A-Za-z]{3,9})\.?",
    "MM": r"(?P<month>\d{1,2})",
    "M": r"(?P<month>\d{1,2})",
    "DD": r"(?P<day>\d{1,2})",
    "D": r"(?P<day>\d{1,2})",
    "HH": r"\d{1,2}",
    "H": r"\d{1,2}",
    "hh": r"\d{1,2}",
    "h": r"\d{1,2}",
    "mm": r"\d{2}",
    "ss": r"\d{2}",
    "SSS": r"\d{1,6}",
    "A": r"[AaPp][Mm]",
    "a": r"[AaPp][Mm]",
    "ZZ": r"(?:Z|[+-]\d{2}:?\d{2})",
    "Z": r"(?:Z|[+-]\d{2}:?\d{2})",
}
_SPLIT = re.compile(r"(YYYY|YY|MMMM|MMM|MM|M|DD|D|HH|H|hh|h|mm|SSS|ss|ZZ|Z|A|a|\[[^\]]*\])")

_TIME = (
    r"(?:(?:[T ]|, )\s*\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?\s*(?:[AaPp][Mm])?\s*"
    r"(?:Z|UTC|GMT|[+-]\d{2}:?\d{2})?)?"
)
_ISO = re.compile(rf"(?P<year>\d{{4}})[-/.](?P<month>\d{{1,2}})[-/.](?P<day>\d{{1,2}}){_TIME}")
_DAY_NAME = r"(?:[A-Za-z]{3,9}\.?,? )?"
_NAMED = (
    re.compile(
        rf"{_DAY_NAME}(?P<day>\d{{1,2}})(?:st|nd|rd|th)?[-. ]+(?P<name>[A-Za-z]{{3,9}})\.?,?[-. ]*"
        rf"(?P<year>\d{{4}}){_TIME}"
    ),
    re.compile(
        rf"{_DAY_NAME}(?P<name>[A-Za-z]{{3,9}})\.? (?P<day>\d{{1,2}})(?:st|nd|rd|th)?,? "
        rf"(?P<year>\d{{4}}){_TIME}"
    ),
)
_NUMBERS = re.compile(rf"(?P<one>\d{{1,2}})[-/.](?P<two>\d{{1,2}})[-/.](?P<year>\d{{4}}){_TIME}")


def read_date(text: str, formats: Sequence[str] = ()) -> date | None:
    """The day that `text` names, as it is written there: neither the machine's time zone nor one in
    the text moves it. `None` if it is none.

    `formats` (`DD/MM/YYYY`, `D MMMM YYYY`) are tried first, in order. What none of them fits is
    guessed: a year first, or a month's name, is plain; of two numbers before a year, one over 12 is
    the day; otherwise the order is that of `formats`, and month first if these do not say.
    """
    text = text.strip()
    if len(text) > 100:
        return None
    for written in formats:
        found = _compiled(written).fullmatch(text)
        day = _day(found.groupdict()) if found is not None else None
        if day is not None:
            return day
    for pattern in (_ISO, *_NAMED):
        found = pattern.fullmatch(text)
        if found is not None:
            return _day(found.groupdict())
    found = _NUMBERS.fullmatch(text)
    return None if found is None else _guessed(found, formats)


def check_format(written: str) -> str:
    """The format, which names a day.

    Raises:
        ValueError: it does not.
    """
    parts = _SPLIT.findall(written)
    kinds = {part[:1] for part in parts if part[:1] in "YMD"}
    if kinds != {"Y", "M", "D"}:
        raise ValueError(
            f'"{written}" names no day; a format has YYYY, MM (or MMM) and DD, as in DD/MM/YYYY'
        )
    for kind in "YMD":
        if sum(part.startswith(kind) for part in parts) > 1:
            raise ValueError(f'"{written}" has {kind} twice')
    return written


@lru_cache(maxsize=256)
def _compiled(written: str) -> re.Pattern[str]:
    made = ""
    for part in _SPLIT.split(written):
        if part.startswith("[") and part.endswith("]"):
            made += re.escape(part[1:-1])
        else:
            made += _TOKENS.get(part, re.escape(part))
    return re.compile(made, re.IGNORECASE)


def _guessed(found: re.Match[str], formats: Sequence[str]) -> date | None:
    one, two, year = int(found["one"]), int(found["two"]), int(found["year"])
    day_first = one > 12 or (two <= 12 and _day_comes_first(formats))
    day, month = (one, two) if day_first else (two, one)
    return _made(year, month, day)


def _day_comes_first(formats: Sequence[str]) -> bool:
    """What formats without a month's name and with the year last say; month first if they say both,
    or nothing."""
    orders = {
        "".join(part[0] for part in _SPLIT.findall(written) if part in {"MM", "M", "DD", "D"})
        for written in formats
    }
    return "DM" in orders and "MD" not in orders


def _day(parts: Mapping[str, str | None]) -> date | None:
    year = parts.get("year")
    if year is None:
        # As in most software: 69 is 1969, 68 is 2068.
        short = int(parts["short"] or 0)
        year = str(short + (2000 if short < 69 else 1900))
    name = parts.get("name")
    if name is not None:
        month = _NUMBER_OF.get(name[:3].lower(), 0)
        if not month or not (_MONTHS[month - 1].startswith(name.lower()) or name.lower() == "sept"):
            return None
    else:
        month = int(parts["month"] or 0)
    return _made(int(year), month, int(parts["day"] or 0))


def _made(year: int, month: int, day: int) -> date | None:
    try:
        return date(year, month, day)
    except ValueError:
        return None
