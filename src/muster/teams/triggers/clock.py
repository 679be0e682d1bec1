"""Cron events: asleep until the next time, awake for those that came."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from muster.errors import MusterError
from muster.teams.definition import Event
from muster.teams.triggers.cron import Schedule
from muster.teams.triggers.dispatch import Cause, Dispatcher, Stopping
from muster.teams.triggers.log import EventLog, rfc3339
from muster.teams.triggers.missed import due
from muster.teams.triggers.state import EventState

__all__ = ("Clock", "serve_cron")

PAUSE = 5.0
"""Before what went wrong is tried again."""

_LONGEST_SLEEP = 30.0
"""The machine's clock may be set, and the machine may sleep."""


class Clock:
    """The machine's."""

    def now(self) -> datetime:
        """The time."""
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


async def serve_cron(
    event: Event,
    schedule: Schedule,
    last: datetime,
    *,
    dispatcher: Dispatcher,
    state: EventState,
    log: EventLog,
    clock: Clock,
) -> None:
    """Fire the event at its times after `last`, until the server is stopped."""
    deadline = timedelta(seconds=event.deadline_seconds)
    while True:
        found = due(schedule, last, clock.now(), missed=event.missed_runs, deadline=deadline)
        if found.dropped:
            times = "1 time or more" if found.dropped == 1 else f"{found.dropped} times"
            text = f"{times} passed while nobody looked (missedRuns: {event.missed_runs})"
            log.line("missed", event=event.name, text=text)
        try:
            for moment in found.fire:
                slot = rfc3339(moment)
                cause = Cause(data={"scheduledAt": slot}, key=f"cron:{slot}", text=f"cron {slot}")
                await dispatcher.fire(event, cause)
        except Stopping:
            return
        except MusterError as error:  # a full disk may have room again
            log.line("error", event=event.name, text=str(error))
            await clock.sleep(PAUSE)
            continue
        if found.last > last:
            last = found.last
            state.move(event.name, last)
        following = schedule.next(last)
        if following is None:
            log.line("done", event=event.name, text="its time never comes again")
            return
        left = (following - clock.now()).total_seconds()
        await clock.sleep(min(max(left, 0.001), _LONGEST_SLEEP))
