"""Which of the times that have come are acted on: those just now, and those that were missed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from muster.teams.triggers.cron import Every, Schedule

__all__ = ("GRACE", "Due", "due")

GRACE = timedelta(seconds=30)
"""A time that came less than this ago was not missed."""

MOST = 100
"""Of missed times that are made up for at once."""

_MOST_COUNTED = 1000


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be done now."""

    fire: tuple[datetime, ...]
    """Times that fire, the earliest first."""
    dropped: int
    """Times that came and do not; all those before the deadline count as one."""
    last: datetime
    """From here it goes on."""


def due(
    schedule: Schedule,
    last: datetime,
    now: datetime,
    *,
    missed: Literal["once", "skip", "all"],
    deadline: timedelta,
) -> Due:
    """The times of `schedule` after `last` up to `now`: each just now, or missed.

    `skip` drops what was missed; `once` fires the latest of all, once; `all` fires each, `MOST` at
    most. What was missed longer ago than `deadline` is dropped always.
    """
    times, passed = _times(schedule, last, now, now - max(deadline, GRACE))
    oldest = now - (GRACE if missed == "skip" else max(deadline, GRACE))
    kept = [each for each in times if each >= oldest]
    if missed == "all":
        kept = kept[-MOST:]
    elif kept:
        # Of several that are on time, none was missed; but a single fire covers them all.
        kept = kept[-1:]
    count = passed + len(times)
    return Due(tuple(kept), count - len(kept), times[-1] if times else last)


def _times(
    schedule: Schedule, last: datetime, now: datetime, oldest: datetime
) -> tuple[list[datetime], int]:
    """Those since `oldest`, and whether there were others before: 1 or 0."""
    first = schedule.next(last)
    passed = int(first is not None and first < oldest)
    if passed and isinstance(schedule, Every):
        steps = (oldest - last).total_seconds() // schedule.seconds
        last += timedelta(seconds=steps * schedule.seconds)
    elif passed:
        last = oldest - timedelta(microseconds=1)
    times: list[datetime] = []
    following = schedule.next(last)
    while following is not None and following <= now:
        times.append(following)
        following = schedule.next(following)
    return times[-_MOST_COUNTED:], passed
