"""Team-output events: the ends of other teams' runs, of whatever process they were.

SQLite wakes nobody in another process, so the journal is glanced at; the runs themselves are asked
for only when somebody has written. What has been acted on is known by its key, so that it may be
looked at again: a run's end may come into the journal later than a run that ended after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from muster.errors import MusterError
from muster.store.journal import Journal
from muster.store.records import FAILED, SUCCEEDED, RunRecord
from muster.teams.definition import Event
from muster.teams.triggers.dispatch import Cause, Dispatcher, Stopping
from muster.teams.triggers.log import EventLog
from muster.teams.triggers.state import EventState

__all__ = ("TeamOutputs",)

INTERVAL = 0.5
"""Seconds between two glances; each costs some microseconds."""

_MARGIN = timedelta(seconds=60)
_PHASES = {SUCCEEDED: "Succeeded", FAILED: "Failed"}
_NOT_WATCHED = "eval"
"""Runs that only measure a team are nobody's output."""


class TeamOutputs:
    """Watches the journal for all team-output events of a server."""

    def __init__(
        self,
        events: Mapping[str, Event],
        since: Mapping[str, datetime],
        *,
        journal: Journal,
        state: EventState,
        dispatcher: Dispatcher,
        log: EventLog,
        interval: float = INTERVAL,
    ) -> None:
        self._events = events
        self._since = dict(since)
        self._journal = journal
        self._state = state
        self._dispatcher = dispatcher
        self._log = log
        self._interval = interval

    async def serve(self) -> None:
        """Until the server is stopped."""
        seen: int | None = None
        while True:
            version = self._journal.version()
            if version != seen or self._dispatcher.ended.is_set():
                self._dispatcher.ended.clear()
                seen = version
                try:
                    await self.look()
                except Stopping:
                    return
                except MusterError as error:  # a full disk may have room again
                    self._log.line("error", text=str(error))
                    seen = None
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._dispatcher.ended.wait()

    async def look(self) -> None:
        """Fire for each end that has not been acted on."""
        for name, event in self._events.items():
            began = datetime.now(UTC)
            for run in self._journal.runs_ended(event.watched_team or "", self._since[name]):
                phase = _PHASES.get(run.status)
                if phase is None or run.trigger == _NOT_WATCHED:
                    continue
                if event.on_phase in ("*", phase):
                    await self._dispatcher.fire(event, self._cause(run, phase))
            if began - _MARGIN > self._since[name]:
                self._since[name] = began - _MARGIN
                self._state.move(name, self._since[name])

    def _cause(self, run: RunRecord, phase: str) -> Cause:
        return Cause(
            data={
                "output": run.output or "",
                "run": run.id,
                "team": run.team,
                "phase": phase,
                "error": run.error or "",
            },
            key=f"run:{run.id}@{run.ended_at}",
            depth=self._state.depth_of(run.id) + 1,
            text=f"{run.id} {run.status}",
        )
