"""Cron expressions: what they mean, also where the clocks change, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, reject, settings
from hypothesis import strategies as st

from muster.teams.triggers.cron import Calendar, CronError, Every, parse_cron

MINUTE = timedelta(minutes=1)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def fires(expression: str, after: str, count: int = 3) -> list[str]:
    """The next times, in UTC, without seconds where there are none."""
    schedule, moment, found = parse_cron(expression), at(after), []
    for _ in range(count):
        following = schedule.next(moment)
        if following is None:
            break
        moment = following
        found.append(moment.strftime("%Y-%m-%d %H:%M:%S").removesuffix(":00"))
    return found


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        ("0 9 * * 1-5", "2026-05-01 09:00", ["2026-05-04 09:00", "2026-05-05 09:00"]),
        ("*/20 * * * *", "2026-05-01 09:40", ["2026-05-01 10:00", "2026-05-01 10:20"]),
        ("5/20 3 * * *", "2026-05-01 03:05", ["2026-05-01 03:25", "2026-05-01 03:45"]),
        ("0 0 1,15 * *", "2026-05-01 00:00", ["2026-05-15 00:00", "2026-06-01 00:00"]),
        ("0 0 31 * *", "2026-03-31 00:00", ["2026-05-31 00:00", "2026-07-31 00:00"]),
        ("0 0 29 FEB *", "2096-03-01 00:00", ["2104-02-29 00:00", "2108-02-29 00:00"]),
        # Both fields of days: either is enough ...
        ("0 0 13 * FRI", "2026-02-01 00:00", ["2026-02-06 00:00", "2026-02-13 00:00"]),
        # ... unless one of them is a star; a star with a step is none.
        ("0 0 * * 0", "2026-05-01 00:00", ["2026-05-03 00:00", "2026-05-10 00:00"]),
        ("0 0 ? * 7", "2026-05-01 00:00", ["2026-05-03 00:00", "2026-05-10 00:00"]),
        ("0 0 */10 * MON", "2026-05-01 00:00", ["2026-05-04 00:00", "2026-05-11 00:00"]),
        ("0 0 * * 5-7", "2026-05-01 00:00", ["2026-05-02 00:00", "2026-05-03 00:00"]),
        ("0 0 * jan-mar sun", "2026-12-01 00:00", ["2027-01-03 00:00", "2027-01-10 00:00"]),
        ("@daily", "2026-12-31 00:00", ["2027-01-01 00:00", "2027-01-02 00:00"]),
        ("@midnight", "2026-12-31 00:00", ["2027-01-01 00:00", "2027-01-02 00:00"]),
        ("@hourly", "2026-05-01 23:00", ["2026-05-02 00:00", "2026-05-02 01:00"]),
        ("@weekly", "2026-05-01 00:00", ["2026-05-03 00:00", "2026-05-10 00:00"]),
        ("@monthly", "2026-05-01 00:00", ["2026-06-01 00:00", "2026-07-01 00:00"]),
        ("@yearly", "2026-05-01 00:00", ["2027-01-01 00:00", "2028-01-01 00:00"]),
        ("@annually", "2026-05-01 00:00", ["2027-01-01 00:00", "2028-01-01 00:00"]),
        ("@every 1h30m", "2026-05-01 00:00:07", ["2026-05-01 01:30:07", "2026-05-01 03:00:07"]),
        ("@every 300ms", "2026-05-01 00:00", ["2026-05-01 00:00:01", "2026-05-01 00:00:02"]),
        ("TZ=UTC 0 9 * * *", "2026-05-01 09:00", ["2026-05-02 09:00", "2026-05-03 09:00"]),
        ("TZ=Asia/Tokyo 0 9 * * *", "2026-05-01 00:00", ["2026-05-02 00:00", "2026-05-03 00:00"]),
        ("CRON_TZ=Asia/Kolkata @daily", "2026-05-01", ["2026-05-01 18:30", "2026-05-02 18:30"]),
    ],
)
def test_next_times(expression: str, after: str, expected: list[str]) -> None:
    assert fires(expression, after, len(expected)) == expected


BERLIN = "TZ=Europe/Berlin "


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        # 29 March 2026: 02:00 CET becomes 03:00 CEST at 01:00 UTC.
        ("30 2 * * *", "2026-03-28 12:00", ["2026-03-29 01:00", "2026-03-30 00:30"]),
        ("0,30 2 * * *", "2026-03-28 12:00", ["2026-03-29 01:00", "2026-03-30 00:00"]),
        ("*/30 * * * *", "2026-03-29 00:00", ["2026-03-29 00:30", "2026-03-29 01:00"]),
        ("15 * * * *", "2026-03-29 00:00", ["2026-03-29 00:15", "2026-03-29 01:15"]),
        # 25 October 2026: 03:00 CEST becomes 02:00 CET at 01:00 UTC; 02:30 comes twice.
        ("30 2 * * *", "2026-10-24 12:00", ["2026-10-25 00:30", "2026-10-26 01:30"]),
        ("30 * * * *", "2026-10-25 00:00", ["2026-10-25 00:30", "2026-10-25 01:30"]),
        ("*/30 2 * * *", "2026-10-24 23:00", ["2026-10-25 00:00", "2026-10-25 00:30"]),
        ("*/30 2 * * *", "2026-10-25 00:30", ["2026-10-25 01:00", "2026-10-25 01:30"]),
    ],
)
def test_where_the_clocks_change(expression: str, after: str, expected: list[str]) -> None:
    assert fires(BERLIN + expression, after, len(expected)) == expected


def test_odd_zones() -> None:
    # Lord Howe leaps by half an hour, at 02:00: 4 October 2026, 15:30 UTC.
    assert fires("TZ=Australia/Lord_Howe 15 2 * * *", "2026-10-03 12:00", 1) == ["2026-10-03 15:30"]
    # Samoa had no 30 December 2011: a daily time of that day falls on the moment of the leap,
    # which is when the 31st begins.
    assert fires("TZ=Pacific/Apia 0 0 30 12 *", "2011-12-29 12:00", 1) == ["2011-12-30 10:00"]
    assert fires("TZ=Pacific/Apia * * 30 12 *", "2011-12-29 12:00", 1) == ["2012-12-29 10:00"]
    # In Saint John's of 2006 the clocks went back at 00:01, to 23:01 of the day before.
    zone = "TZ=America/St_Johns "
    assert fires(zone + "0 * * * *", "2006-10-29 02:00", 3) == [
        "2006-10-29 02:30",
        "2006-10-29 03:30",
        "2006-10-29 04:30",
    ]


def naive_next(calendar: Calendar, after: datetime) -> datetime | None:
    """Minute by minute, for the schedules that follow the time that passes."""
    moment = (after + MINUTE).replace(second=0, microsecond=0)
    end = moment + timedelta(days=5)
    while moment < end:
        if calendar.matches(moment.astimezone(calendar.zone)):
            return moment
        moment += MINUTE
    return None


def field(low: int, high: int, *, star: bool = False) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    span = st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}")
    step = st.integers(1, high)
    stepped = st.tuples(st.one_of(st.just("*"), span), step).map(
        lambda pair: f"{pair[0]}/{pair[1]}"
    )
    plain = st.lists(st.one_of(number.map(str), span, stepped), min_size=1, max_size=3)
    found = st.one_of(st.just("*"), plain.map(",".join))
    return found.map(lambda text: "*/" + str(1 + len(text) % 3)) if star else found


DAYS = st.tuples(field(1, 31), field(1, 12), field(0, 7))


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(field(0, 59), field(0, 23), DAYS),
    st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)),
)
def test_in_utc_it_is_the_first_minute_that_matches(
    fields: tuple[str, str, tuple[str, str, str]], after: datetime
) -> None:
    expression = " ".join((*fields[:2], *fields[2]))
    try:
        schedule = parse_cron(expression)
    except CronError:
        reject()  # there is no such day
    assert isinstance(schedule, Calendar)
    moment = after.replace(tzinfo=UTC)
    expected = naive_next(schedule, moment)
    found = schedule.next(moment)
    if expected is None:
        assert found is None or found >= moment + timedelta(days=4)
    else:
        assert found == expected


ZONES = ("Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kathmandu")
NEAR_A_CHANGE = ("2026-03-28 20:00", "2026-10-24 20:00", "2006-10-28 20:00", "2026-10-03 08:00")


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(ZONES),
    st.sampled_from(NEAR_A_CHANGE),
    st.integers(0, 24 * 60),
    field(0, 59, star=True),
    field(0, 23),
)
@example("America/St_Johns", "2006-10-28 20:00", 390, "*/1", "23")
def test_in_a_zone_stars_follow_the_time_that_passes(
    zone: str, start: str, minutes: int, minute: str, hour: str
) -> None:
    schedule = parse_cron(f"TZ={zone} {minute} {hour} * * *")
    assert isinstance(schedule, Calendar)
    moment = at(start) + minutes * MINUTE
    assert schedule.next(moment) == naive_next(schedule, moment)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(ZONES), st.sampled_from(NEAR_A_CHANGE), st.integers(0, 23), st.integers(0, 59)
)
def test_a_fixed_time_comes_once_a_day(zone: str, start: str, hour: int, minute: int) -> None:
    schedule = parse_cron(f"TZ={zone} {minute} {hour} * * *")
    moment, days = at(start) - timedelta(days=1), []
    for _ in range(4):
        following = schedule.next(moment)
        assert following is not None
        assert following > moment
        moment = following
        days.append(moment.astimezone(ZoneInfo(zone)).date())
    assert [(day - days[0]).days for day in days] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("", "expected five fields (minute, hour, day, month, weekday), found 0"),
        ("* * * *", "expected five fields (minute, hour, day, month, weekday), found 4"),
        ("* * * * * *", "expected five fields (minute, hour, day, month, weekday), found 6"),
        ("60 * * * *", "minute: expected a number from 0 to 59, found 60"),
        ("* 24 * * *", "hour: expected a number from 0 to 23, found 24"),
        ("* * 0 * *", "day: expected a number from 1 to 31, found 0"),
        ("* * * 13 *", "month: expected a number from 1 to 12, found 13"),
        ("* * * * 8", "weekday: expected a number from 0 to 7, found 8"),
        ("* * * * MOO", 'weekday: expected a number from 0 to 7, found "MOO"'),
        ("? * * * *", 'minute: expected a number from 0 to 59, found "?"'),
        ("5-1 * * * *", 'minute "5-1": 5 is after 1'),
        ("*/0 * * * *", "minute: expected a number from 1 to 1000000, found 0"),
        ("1,,2 * * * *", 'minute: expected a number from 0 to 59, found ""'),
        ("-1 * * * *", 'minute: expected a number from 0 to 59, found ""'),
        ("٣ * * * *", 'minute: expected a number from 0 to 59, found "٣"'),
        ("0 0 31 2,4 *", '"0 0 31 2,4 *" never comes: no such month has that day'),
        ("@never", '"@never" is none of @yearly, @annually, @monthly, @weekly'),
        ("@every soon", '"soon" is not a duration such as 30s, 5m or 1h30m'),
        ("@every 0s", '"0s" must be more than 0'),
        ("TZ=Mars/Olympus 0 0 * * *", 'no time zone "Mars/Olympus" on this machine'),
        ("TZ=../../etc/passwd 0 0 * * *", 'no time zone "../../etc/passwd" on this machine'),
    ],
)
def test_what_is_refused(expression: str, told: str) -> None:
    with pytest.raises(CronError) as caught:
        parse_cron(expression)
    assert str(caught.value).startswith(f'invalid cron expression "{expression}": {told}')


def test_the_end_of_time() -> None:
    end = datetime.max.replace(tzinfo=UTC) - timedelta(seconds=1)
    assert parse_cron("* * * * *").next(end) is None
    assert Every(60).next(end) is None
