"""Which times fire when somebody looks only now."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest

from muster.teams.triggers.cron import parse_cron
from muster.teams.triggers.missed import due

DAY = timedelta(days=1)
Policy = Literal["once", "skip", "all"]


def looked(
    last: str, now: str, missed: Policy, expression: str = "0 * * * *", deadline: timedelta = DAY
) -> tuple[list[str], int, str]:
    """Hours and minutes that fire, how many do not, and from where it goes on."""
    moments = (datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (last, now))
    found = due(parse_cron(expression), *moments, missed=missed, deadline=deadline)
    assert list(found.fire) == sorted(found.fire)
    return (
        [each.strftime("%H:%M") for each in found.fire],
        found.dropped,
        found.last.strftime("%d %H:%M"),
    )


@pytest.mark.parametrize("missed", ["once", "skip", "all"])
def test_a_time_that_came_just_now_fires(missed: Policy) -> None:
    assert looked("2026-05-01 08:00", "2026-05-01 09:00:01", missed) == (["09:00"], 0, "01 09:00")
    assert looked("2026-05-01 09:00", "2026-05-01 09:59:59", missed) == ([], 0, "01 09:00")


@pytest.mark.parametrize(
    ("missed", "fired", "dropped"),
    [("once", ["11:00"], 2), ("skip", [], 3), ("all", ["09:00", "10:00", "11:00"], 0)],
)
def test_missed_times(missed: Policy, fired: list[str], dropped: int) -> None:
    found = looked("2026-05-01 08:00", "2026-05-01 11:30", missed)
    assert found == (fired, dropped, "01 11:00")


@pytest.mark.parametrize(
    ("missed", "fired", "dropped"),
    [("once", ["11:00"], 2), ("skip", ["11:00"], 2), ("all", ["09:00", "10:00", "11:00"], 0)],
)
def test_missed_times_and_one_just_now(missed: Policy, fired: list[str], dropped: int) -> None:
    assert looked("2026-05-01 08:00", "2026-05-01 11:00:10", missed) == (fired, dropped, "01 11:00")


@pytest.mark.parametrize(("missed", "fired"), [("once", ["11:00"]), ("all", ["10:00", "11:00"])])
def test_the_deadline(missed: Policy, fired: list[str]) -> None:
    hours = timedelta(hours=2)
    found = looked("2026-05-01 00:00", "2026-05-01 11:30", missed, deadline=hours)
    assert found == (fired, 1 + (missed == "once"), "01 11:00")
    assert looked("2026-05-01 00:00", "2026-05-01 11:30", missed, deadline=hours / 8)[0] == []


def test_all_is_bounded_by_a_hundred() -> None:
    fired, dropped, last = looked("2026-05-01 00:00", "2026-05-01 10:00:01", "all", "* * * * *")
    assert (len(fired), fired[0], fired[-1], dropped, last) == (
        100,
        "08:21",
        "10:00",
        500,
        "01 10:00",
    )


@pytest.mark.parametrize("expression", ["* * * * *", "@every 1s", "TZ=Europe/Berlin * * * * *"])
def test_ten_years_of_sleep_take_no_time(expression: str) -> None:
    began = time.perf_counter()
    fired, dropped, _ = looked("2016-05-01 00:00", "2026-05-01 09:00:30", "once", expression)
    assert time.perf_counter() - began < 2
    assert fired == ["09:00"]
    assert dropped > 900


def test_a_clock_that_was_set_back() -> None:
    assert looked("2026-05-01 09:00", "2026-05-01 07:30", "all") == ([], 0, "01 09:00")
