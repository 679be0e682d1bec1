"""From what sets an event off to runs of its teams: rules, inputs, runs, and how they end."""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from muster.errors import MusterError
from muster.store.journal import Journal
from muster.store.processes import state_of
from muster.store.records import CANCELLED, ENDED, FAILED, INTERRUPTED, RunRecord, new_run_id
from muster.tasks import stop_tasks
from muster.teams.context import Earlier
from muster.teams.definition import Event
from muster.teams.inputs import check_inputs
from muster.teams.launch import carry_out, mark_ended, run_context
from muster.teams.preparing import Prepared, stored_options
from muster.teams.records import begin_run
from muster.teams.standing import Standing
from muster.teams.triggers import state as states
from muster.teams.triggers.loaded import Loaded
from muster.teams.triggers.log import EventLog, rfc3339
from muster.teams.triggers.state import EventState, Fire, PlannedRun

__all__ = ("MAX_DEPTH", "MAX_TRIES", "Cause", "Dispatcher", "Stopping")

MAX_DEPTH = 10
"""How many events may set each other off in a row."""

MAX_TRIES = 3
"""How often a run is gone on with of which the server dies."""


class Stopping(MusterError):
    """The server is being stopped and starts nothing any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """What set an event off."""

    data: Mapping[str, Any] = field(default_factory=dict)
    """For `.trigger` of the inputs, beside `name` and `firedAt`."""
    key: str | None = None
    """The same key fires once."""
    may_come_again: bool = False
    """When nothing was started, the same key may try again; else it is through."""
    body_hash: str | None = None
    depth: int = 0
    text: str = ""
    """For the log."""


@dataclass(slots=True)
class _UnderWay:
    event: str
    task: asyncio.Task[None]
    done: asyncio.Event = field(default_factory=asyncio.Event)
    replaced: bool = False


class Dispatcher:
    """Starts runs and watches them to their ends. One for a server."""

    def __init__(
        self,
        loaded: Loaded,
        journal: Journal,
        state: EventState,
        log: EventLog,
        *,
        max_runs: int = 100,
        on_end: Callable[[Prepared, RunRecord], Awaitable[None]] | None = None,
    ) -> None:
        self._loaded = loaded
        self._journal = journal
        self._standing = Standing(journal)
        self._state = state
        self._log = log
        self._max_runs = max_runs
        self._on_end = on_end
        self._running: dict[str, _UnderWay] = {}
        self._unwritten: set[str] = set()
        """Runs of whose end the journal could not be told."""
        self._telling: set[asyncio.Task[None]] = set()
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._stop = asyncio.Event()
        self._closed = False
        self.ended = asyncio.Event()
        """Set whenever a run has ended; who waits for it clears it."""

    def use(self, loaded: Loaded) -> None:
        """What is set off from now on is read from here; what is under way stays as it was."""
        self._loaded = loaded

    # --- starting ---

    async def fire(self, event: Event, cause: Cause) -> Fire:
        """Start the event's teams, if its rules allow it.

        The answer says what has come of it: runs that were started, now or earlier under the same
        key; or why there are none (`status` is `skipped` or `failed`).

        Raises:
            Stopping: nothing is started any more.
            MusterError: it cannot be written down.
        """
        async with self._locks[event.name]:
            if self._closed:
                raise Stopping("the server is being stopped")
            if cause.key is not None:
                known = self._state.fire_of(event.name, cause.key)
                if known is not None:
                    return known
            self._recover()
            loaded, now = self._loaded, rfc3339(datetime.now(UTC))
            current = loaded.events.get(event.name)
            if current is None:
                gone = "the event is no longer in the file"
                return self._nothing(event, cause, now, states.SKIPPED, gone)
            with loaded.used():
                return await self._fire(loaded, current, cause, now)

    async def _fire(self, loaded: Loaded, event: Event, cause: Cause, now: str) -> Fire:
        refused = self._refusal(event, cause)
        if refused is not None:
            return self._nothing(event, cause, now, states.SKIPPED, refused)
        try:
            inputs = self._inputs(loaded, event, cause, now)
        except MusterError as error:
            return self._nothing(event, cause, now, states.FAILED, str(error))
        if event.concurrency == "Replace":
            await self._replace(event)
        return self._begin(loaded, event, cause, now, inputs)

    def _refusal(self, event: Event, cause: Cause) -> str | None:
        if cause.depth > MAX_DEPTH:
            return f"{MAX_DEPTH} events have set each other off in a row; here the chain ends"
        busy = [run_id for run_id, each in self._running.items() if each.event == event.name]
        if event.concurrency == "Forbid" and busy:
            return f"concurrencyPolicy is Forbid, and {', '.join(busy)} is under way"
        freed = len(busy) if event.concurrency == "Replace" else 0
        if len(self._running) - freed + len(event.targets) > self._max_runs:
            return f"{len(self._running)} runs are under way, of {self._max_runs} at most"
        return None

    def _nothing(self, event: Event, cause: Cause, now: str, status: str, reason: str) -> Fire:
        """Write down that nothing was started."""
        reason = self._journal.masked(reason)
        fire = Fire(event.name, status, now, reason, depth=cause.depth)
        self._state.record(fire, None if cause.may_come_again else cause.key)
        self._log.line(status, event=event.name, text=reason)
        return fire

    def _inputs(self, loaded: Loaded, event: Event, cause: Cause, now: str) -> list[dict[str, Any]]:
        """The inputs of all targets. Raises `MusterError`: nothing was started."""
        trigger = {"body": {}, "output": "", **cause.data, "name": event.name, "firedAt": now}
        found = []
        for target in event.targets:
            prepared = loaded.teams[target.team]
            lenient = prepared.options.lenient
            given = {
                name: template.evaluate({"trigger": trigger}, lenient=lenient)
                for name, template in target.inputs.items()
            }
            found.append(check_inputs(prepared.team, given))
        return found

    def _recover(self) -> None:
        """After the disk was full: what goes on then fails, and what begins later must not."""
        if self._running:
            return
        if self._journal.has_lost:
            self._journal.forget_loss()
        for run_id in tuple(self._unwritten):
            why = "the journal could not be written"
            mark_ended(self._journal, run_id, INTERRUPTED, "Interrupted", why)
            self._unwritten.discard(run_id)

    def _begin(
        self,
        loaded: Loaded,
        event: Event,
        cause: Cause,
        now: str,
        inputs: Sequence[Mapping[str, Any]],
    ) -> Fire:
        planned = [
            PlannedRun(self._new_name(target.team), event.name, number, target.team, given)
            for number, (target, given) in enumerate(zip(event.targets, inputs, strict=True))
        ]
        names = tuple(run.run_id for run in planned)
        fire = Fire(
            event.name,
            states.STARTED,
            now,
            runs=names,
            body_hash=cause.body_hash,
            depth=cause.depth,
        )
        number = self._state.record(fire, cause.key, planned)
        for place, run in enumerate(planned):
            try:
                self._start(loaded, run, cause.text)
            except MusterError as error:
                if not place:
                    self._state.take_back(number, str(error))
                raise
        return fire

    def _new_name(self, team: str) -> str:
        """A name that no run has."""
        while True:
            name = new_run_id(team)
            if not self._state.has_run(name) and self._record_of(name) is None:
                return name

    def _record_of(self, run_id: str) -> RunRecord | None:
        with suppress(MusterError):
            run = self._journal.run(run_id)
            return run if run.id == run_id else None
        return None

    def _start(self, loaded: Loaded, planned: PlannedRun, text: str) -> None:
        prepared = loaded.teams[planned.team]
        source = loaded.events[planned.event].source
        begin_run(
            self._journal,
            prepared.team,
            planned.inputs,
            options=stored_options(prepared.options),
            trigger=f"{source}:{planned.event}",
            shares_process=True,
            run_id=planned.run_id,
        )
        self._log.line("started", event=planned.event, run=planned.run_id, text=text)
        self._carry(loaded, planned, Earlier())

    def _carry(self, loaded: Loaded, planned: PlannedRun, earlier: Earlier) -> None:
        needs = ExitStack()
        needs.enter_context(loaded.used())
        task = asyncio.ensure_future(self._run(loaded.teams[planned.team], planned, earlier))
        entry = self._running[planned.run_id] = _UnderWay(planned.event, task)

        def on_end(_: object) -> None:  # also of a task that was ended before it could begin
            self._running.pop(planned.run_id, None)
            needs.close()
            entry.done.set()
            self.ended.set()

        task.add_done_callback(on_end)

    # --- running ---

    async def _run(self, prepared: Prepared, planned: PlannedRun, earlier: Earlier) -> None:
        """One run to its end. Nothing that goes wrong in it leaves here."""
        run_id = planned.run_id
        try:
            run = self._journal.run(run_id)
            context = run_context(prepared, self._journal, run, earlier, self._standing)
            context.inputs = planned.inputs
            await carry_out(prepared.team, planned.inputs, context, self._stop)
        except asyncio.CancelledError:
            self._cut_off(planned)
        except Exception as error:  # a defect must not end the server
            self._failed(run_id, error)
        self._after(planned, prepared)

    def _cut_off(self, planned: PlannedRun) -> None:
        entry = self._running.get(planned.run_id)
        with suppress(MusterError):
            if entry is not None and entry.replaced:
                why = f"replaced by a newer fire of {planned.event}"
                mark_ended(self._journal, planned.run_id, CANCELLED, "Cancelled", why)
            else:
                mark_ended(self._journal, planned.run_id, INTERRUPTED, "Interrupted", "interrupted")

    def _failed(self, run_id: str, error: Exception) -> None:
        try:
            if self._journal.run(run_id).status not in ENDED:
                told = str(error) or type(error).__name__
                mark_ended(self._journal, run_id, FAILED, "Error", told)
        except MusterError as unwritten:
            self._unwritten.add(run_id)
            self._log.line("error", run=run_id, text=f"its end is not written: {unwritten}")

    def _after(self, planned: PlannedRun, prepared: Prepared) -> None:
        if planned.run_id in self._unwritten:
            return  # it goes on when the server starts again
        try:
            run = self._journal.run(planned.run_id)
            if run.status != INTERRUPTED:
                self._state.ended(run.id)
            text = run.error or ""
            if run.status == INTERRUPTED:
                text = f"goes on when the server starts again, or: muster run --resume {run.id}"
            self._log.line(run.status, event=planned.event, run=run.id, text=text)
            if self._on_end is not None:
                task = asyncio.ensure_future(self._on_end(prepared, run))
                self._telling.add(task)
                task.add_done_callback(self._telling.discard)
        except MusterError as error:
            self._log.line("error", event=planned.event, run=planned.run_id, text=str(error))

    async def _replace(self, event: Event) -> None:
        old = [each for each in self._running.values() if each.event == event.name]
        for each in old:
            each.replaced = True
        await stop_tasks([each.task for each in old])

    # --- waiting ---

    async def outcome(self, run_id: str, timeout: float) -> RunRecord | None:
        """The run once it has ended; `None`: that took too long.

        Raises:
            Stopping: the server was stopped first.
        """
        entry = self._running.get(run_id)
        if entry is not None:
            try:
                async with asyncio.timeout(timeout):
                    await entry.done.wait()
            except TimeoutError:
                return None
        run = self._journal.run(run_id)
        if run.status == INTERRUPTED and self._closed:
            raise Stopping(
                f"the server is being stopped; run {run_id} goes on when it starts again"
            )
        return run if run.status in ENDED else None

    # --- across restarts ---

    def go_on(self) -> None:
        """Begin, or go on with, what an earlier server has left."""
        for planned in self._state.unfinished():
            try:
                self._go_on_with(planned)
            except MusterError as error:
                self._state.ended(planned.run_id)
                self._log.line(
                    "not resumed", event=planned.event, run=planned.run_id, text=str(error)
                )

    def _go_on_with(self, planned: PlannedRun) -> None:
        loaded = self._loaded
        if planned.event not in loaded.events or planned.team not in loaded.teams:
            raise MusterError("its event or its team is no longer there")
        if self._record_of(planned.run_id) is None:
            self._start(loaded, planned, "the server was ended before it could begin")
            return
        run = self._journal.settle(planned.run_id)
        where = state_of(run.pid, run.process)
        if run.status not in ENDED and where == "alive":
            told = f"it is under way in process {run.pid}"
            self._log.line("left", event=planned.event, run=run.id, text=told)
            return
        if run.status not in ENDED:
            # This server alone serves the manifest: what is said to run elsewhere is gone.
            self._journal.end_abandoned(run.id)
            run = self._journal.run(run.id)
        if run.status in ENDED and run.status != INTERRUPTED:
            self._state.ended(run.id)
            return
        if planned.tries >= MAX_TRIES:
            raise MusterError(f"the server was ended {MAX_TRIES} times while it was under way")
        if run.definition_hash != loaded.teams[planned.team].team.definition_hash:
            raise MusterError("the manifest is not what it was when the run began")
        self._journal.claim(run.id, os.getpid())
        self._state.tried(run.id)
        self._log.line("resumed", event=planned.event, run=run.id)
        self._carry(loaded, planned, Earlier.of(self._journal, run.id))

    # --- stopping ---

    @property
    def running(self) -> list[str]:
        """The runs that are under way."""
        return list(self._running)

    def close(self) -> None:
        """Start nothing any more."""
        self._closed = True

    async def drain(self, grace: float, hurry: asyncio.Event) -> int:
        """Give the runs under way `grace` seconds, less if there is a `hurry`; then interrupt
        them. How many that were."""
        self.close()
        tasks = [each.task for each in self._running.values()]
        if not tasks:
            return 0
        waiting = asyncio.ensure_future(hurry.wait())
        everything = asyncio.ensure_future(asyncio.wait(tasks))
        await asyncio.wait(
            (everything, waiting), timeout=grace, return_when=asyncio.FIRST_COMPLETED
        )
        await stop_tasks((waiting, everything))
        left = [task for task in tasks if not task.done()]
        self._stop.set()
        await stop_tasks(left)
        return len(left)

    async def tell_all(self, seconds: float) -> None:
        """Wait for the notices that are under way, so long."""
        if self._telling:
            await asyncio.wait(self._telling, timeout=seconds)
            await stop_tasks(self._telling)
