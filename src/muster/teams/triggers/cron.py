"""Cron expressions: five fields, `@daily` and the like, `@every 1h`, each with `TZ=` before it.

What ark's parser takes means the same here; `7` is Sunday too. Where the clocks change:

- a schedule whose minute and hour both are fixed (`30 2 * * *`) fires once a day: if the clocks
  leap over its time, at the moment after the leap; if they come by it twice, the first time;
- any other (`*/15 * * * *`, `0 * * * *`) follows the time that really passes: nothing fires for
  what is leapt over, and an hour that comes twice counts twice.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Protocol
from zoneinfo import ZoneInfo

from muster.teams.triggers.durations import parse_duration

__all__ = ("Calendar", "CronError", "Every", "Schedule", "parse_cron")

_DESCRIPTORS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_HORIZON = 366 * 9
"""Days: 29 February may be eight years away."""


class CronError(ValueError):
    """It is no cron expression; the text says why."""


class Schedule(Protocol):
    """Times without end."""

    def next(self, after: datetime) -> datetime | None:
        """The first time after this one, in UTC; `None`: there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Every:
    """The same time between all of them, counted from the last."""

    seconds: float

    def next(self, after: datetime) -> datetime | None:
        """See `Schedule`."""
        try:
            return after.astimezone(UTC) + timedelta(seconds=self.seconds)
        except OverflowError:
            return None


@dataclass(frozen=True, slots=True)
class Calendar:
    """The five fields, in a time zone."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    any_day: bool
    """One of the two fields of days is `*`: then both must hold; else one of them is enough."""
    is_fixed: bool
    """Neither minute nor hour begins with `*`."""
    zone: tzinfo = UTC

    def next(self, after: datetime) -> datetime | None:
        """See `Schedule`."""
        moment = after.astimezone(UTC)
        try:
            day = moment.astimezone(self.zone).date() - timedelta(days=1)
            for _ in range(_HORIZON):
                found = self._first(day, moment)
                if found is not None:
                    # Where the clocks go back over midnight, the next day begins before this ends.
                    later = self._first(day + timedelta(days=1), moment)
                    return found if later is None else min(found, later)
                day += timedelta(days=1)
        except OverflowError:
            pass
        return None

    def matches(self, local: datetime) -> bool:
        """Whether the wall clock's minute is one of them."""
        return (
            local.minute in self.minutes
            and local.hour in self.hours
            and self._has_day(local.date())
        )

    def _has_day(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        by_number, by_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return (by_number and by_weekday) if self.any_day else (by_number or by_weekday)

    def _first(self, day: date, after: datetime) -> datetime | None:
        """The first moment of the day after `after`."""
        if not self._has_day(day):
            return None
        offset = self._only_offset(day)
        if offset is None:
            moments = sorted(set(self._moments(day)))
            place = bisect_right(moments, after)
            return moments[place] if place < len(moments) else None
        local = after.replace(tzinfo=None) + offset
        wall = self._wall(day, local)
        return None if wall is None else (wall - offset).replace(tzinfo=UTC)

    def _only_offset(self, day: date) -> timedelta | None:
        """How far the clocks are from UTC on that day; `None`: they are changed on it."""
        ends = (datetime.combine(day + timedelta(days=n), time(), self.zone) for n in (0, 1))
        found = {end.replace(fold=fold).utcoffset() for end in ends for fold in (0, 1)}
        return found.pop() if len(found) == 1 else None

    def _wall(self, day: date, after: datetime) -> datetime | None:
        """The first time of the day after `after`, as the clocks show both."""
        if after.date() > day:
            return None
        hours, minutes = self.hours, self.minutes
        if after.date() < day:
            return datetime.combine(day, time(hours[0], minutes[0]))
        place = bisect_right(minutes, after.minute)
        if after.hour in hours and place < len(minutes):
            return datetime.combine(day, time(after.hour, minutes[place]))
        place = bisect_right(hours, after.hour)
        if place == len(hours):
            return None
        return datetime.combine(day, time(hours[place], minutes[0]))

    def _moments(self, day: date) -> Iterator[datetime]:
        for hour in self.hours:
            for minute in self.minutes:
                wall = datetime.combine(day, time(hour, minute), self.zone)
                yield from self._real(wall)

    def _real(self, wall: datetime) -> Iterator[datetime]:
        """When the clocks show this: once, twice, or never."""
        first, second = (wall.replace(fold=fold).astimezone(UTC) for fold in (0, 1))
        if first == second:
            yield first
        elif first < second:
            yield first
            if not self.is_fixed:
                yield second
        elif self.is_fixed:
            yield _leap_between(second, first, self.zone)


def _leap_between(before: datetime, after: datetime, zone: tzinfo) -> datetime:
    """The second at which the clocks leap, between these two moments."""
    old = before.astimezone(zone).utcoffset()
    low, high = 0, round((after - before).total_seconds())
    while high - low > 1:
        middle = (low + high) // 2
        if (before + timedelta(seconds=middle)).astimezone(zone).utcoffset() == old:
            low = middle
        else:
            high = middle
    return before + timedelta(seconds=high)


def parse_cron(text: str) -> Schedule:
    """The schedule of a cron expression.

    Raises:
        CronError: it is none, or its time never comes.
    """
    try:
        return _parsed(text)
    except CronError as error:
        raise CronError(f'invalid cron expression "{text}": {error}') from None


def _parsed(text: str) -> Schedule:
    zone: tzinfo = UTC
    words = text.split()
    named = re.fullmatch(r"(?:CRON_)?TZ=(.*)", words[0]) if words else None
    if named is not None:
        zone, words = _zone(named[1]), words[1:]
    if words and words[0].startswith("@"):
        return _descriptor(words, zone)
    if len(words) != 5:
        raise CronError(
            f"expected five fields (minute, hour, day, month, weekday), found {len(words)}"
        )
    return _calendar(words, zone)


def _zone(name: str) -> tzinfo:
    if name in ("", "UTC"):
        return UTC
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        raise CronError(
            f'no time zone "{name}" on this machine; expected one such as Europe/Berlin'
        ) from None


def _descriptor(words: list[str], zone: tzinfo) -> Schedule:
    if words[0] == "@every" and len(words) == 2:
        try:
            seconds = parse_duration(words[1])
        except ValueError as error:
            raise CronError(str(error)) from None
        return Every(max(1.0, float(int(seconds))))
    if len(words) == 1 and words[0] in _DESCRIPTORS:
        return _calendar(_DESCRIPTORS[words[0]].split(), zone)
    known = ", ".join(_DESCRIPTORS)
    raise CronError(f'"{" ".join(words)}" is none of {known}, @every 1h')


def _calendar(words: list[str], zone: tzinfo) -> Calendar:
    minutes, _ = _field("minute", words[0], 0, 59)
    hours, _ = _field("hour", words[1], 0, 23)
    days, any_day = _field("day", words[2], 1, 31, blank=True)
    months, _ = _field("month", words[3], 1, 12, _MONTHS)
    weekdays, any_weekday = _field("weekday", words[4], 0, 7, _DAYS, blank=True)
    made = Calendar(
        tuple(sorted(minutes)),
        tuple(sorted(hours)),
        frozenset(days),
        frozenset(months),
        frozenset(day % 7 for day in weekdays),
        any_day or any_weekday,
        not any(word.startswith("*") for word in words[:2]),
        zone,
    )
    if (
        made.any_day
        and not any_day
        and not any(
            number <= (29 if month == 2 else 30 if month in (4, 6, 9, 11) else 31)
            for number in days
            for month in months
        )
    ):
        raise CronError(f'"{" ".join(words)}" never comes: no such month has that day')
    return made


def _field(
    name: str, text: str, low: int, high: int, names: tuple[str, ...] = (), *, blank: bool = False
) -> tuple[set[int], bool]:
    """The values, and whether all are meant (`*`)."""
    found: set[int] = set()
    is_all = False
    for part in text.split(","):
        span, slash, step_text = part.partition("/")
        step = _number(name, step_text, 1, 1_000_000, ()) if slash else 1
        if span == "*" or (span == "?" and blank):
            # A weekday's 7 is the 0 that is there already; stepping on to it would add a day.
            first, last = low, min(high, 6) if name == "weekday" else high
            is_all = is_all or step == 1
        else:
            start, dash, end = span.partition("-")
            first = _number(name, start, low, high, names)
            last = _number(name, end, low, high, names) if dash else first
            if slash and not dash:
                last = min(high, 6) if name == "weekday" else high
            if first > last:
                raise CronError(f'{name} "{part}": {start} is after {end or last}')
        found.update(range(first, last + 1, step))
    return found, is_all


def _number(name: str, text: str, low: int, high: int, names: tuple[str, ...]) -> int:
    if text.upper() in names:
        return low + names.index(text.upper())
    if re.fullmatch(r"\d{1,7}", text, re.ASCII) is None:
        raise CronError(f'{name}: expected a number from {low} to {high}, found "{text}"')
    number = int(text)
    if not low <= number <= high:
        raise CronError(f"{name}: expected a number from {low} to {high}, found {number}")
    return number
