"""`muster up`: serves the events of a manifest until it is stopped."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

from muster.config.secrets import Masker
from muster.errors import MusterError, UsageError
from muster.store.journal import Journal, journal_path
from muster.store.records import RunRecord
from muster.tasks import stop_tasks
from muster.teams.definition import Event
from muster.teams.notify import announce
from muster.teams.preparing import Prepared
from muster.teams.triggers.changes import stamp_of
from muster.teams.triggers.clock import Clock, serve_cron
from muster.teams.triggers.dispatch import Dispatcher
from muster.teams.triggers.loaded import Loaded
from muster.teams.triggers.log import EventLog, rfc3339
from muster.teams.triggers.outputs import TeamOutputs
from muster.teams.triggers.served import Served, Tokens, UpOptions, read_events, tokens_of
from muster.teams.triggers.state import EventState, open_state, scope_of

__all__ = ("serve",)

NOTICE_SECONDS = 10.0
"""How long notices may take when everything else has ended."""

GLANCE_SECONDS = 0.5
"""Between two looks at the files; each costs some microseconds."""


async def serve(
    served: Served,
    write: Callable[[str], None],
    *,
    stop: asyncio.Event,
    hurry: asyncio.Event,
    clock: Clock | None = None,
) -> int:
    """Serve until `stop` is set; then the runs under way have their grace, until there is a
    `hurry`. How many runs were interrupted.

    Raises:
        MusterError: the port, the journal or the record of events cannot be used, or another
            server serves the manifest.
    """
    async with AsyncExitStack() as stack:
        server = await _Server.open(served, write, clock or Clock(), stack)
        try:
            await server.begin(stop)
            await stop.wait()
        finally:
            left = await server.end(hurry)
        server.check()
        return left


class _Server:
    def __init__(
        self,
        served: Served,
        state: EventState,
        journal: Journal,
        *,
        log: EventLog,
        masker: Masker,
        clock: Clock,
    ) -> None:
        self._served = served
        self._loaded = Loaded(served.events, served.teams)
        self._state = state
        self._journal = journal
        self._log = log
        self._masker = masker
        self._tokens: dict[str, str] = {}
        self._clock = clock
        self._dispatcher = Dispatcher(
            self._loaded,
            journal,
            state,
            log,
            max_runs=served.options.max_runs,
            on_end=self._tell,
        )
        self._watching: list[asyncio.Task[None]] = []
        """Look for what sets events off; ended and begun anew when the file changes."""
        self._tasks: list[asyncio.Task[None]] = []
        self._retired: list[asyncio.Task[None]] = []
        self._web: Any = None
        self._base = ""
        self._has_begun = False
        self._stop = asyncio.Event()

    @classmethod
    async def open(
        cls, served: Served, write: Callable[[str], None], clock: Clock, stack: AsyncExitStack
    ) -> _Server:
        """With its files, which the stack closes."""
        file, root = served.options.launch.file, served.root
        stack.callback(os.close, _lock(root, file))
        masker = Masker(())
        state = open_state(file, root)
        stack.callback(state.close)
        journal = Journal.open(journal_path(root), masker=masker)
        stack.callback(journal.close)
        log = EventLog(write, as_json=served.options.as_json, masker=masker)
        server = cls(served, state, journal, log=log, masker=masker, clock=clock)
        stack.push_async_callback(server.let_go)
        return server

    async def begin(self, stop: asyncio.Event) -> None:
        """Listen, watch, and go on with what an earlier server has left. Sets `stop` when
        something that watches breaks."""
        self._stop = stop
        self._state.forget_old(self._clock.now())
        await self._serve(self._served, tokens_of(self._served))
        self._has_begun = True
        self._dispatcher.go_on()
        self._tasks.append(self._spawn(self._follow_changes()))

    async def _serve(self, served: Served, tokens: Tokens) -> None:
        """Act on these events from now on."""
        self._masker.add(tokens.known.values())
        for prepared in served.teams.values():
            self._masker.add(prepared.secrets())
        for line in served.warnings:
            self._log.line("warning", text=line)
        for name, path in tokens.kept.items():
            self._log.line("token", event=name, text=f"in {path}")
        self._served, self._tokens = served, tokens.known
        now = self._clock.now()
        positions = {
            name: self._state.served(name, _source(event), suspended=event.suspended, now=now).at
            for name, event in served.events.items()
        }
        base = await self._listen()
        for name, event in served.events.items():
            self._log.line("serving", event=name, text=self._described(event, base, positions))
        self._watch(served, positions)

    def _watch(self, served: Served, positions: Mapping[str, datetime]) -> None:
        for name, event in served.of("cron", live=True).items():
            work = serve_cron(
                event,
                served.schedules[name],
                positions[name],
                dispatcher=self._dispatcher,
                state=self._state,
                log=self._log,
                clock=self._clock,
            )
            self._watching.append(self._spawn(work))
        watched = served.of("team-output", live=True)
        if watched:
            outputs = TeamOutputs(
                watched,
                positions,
                journal=self._journal,
                state=self._state,
                dispatcher=self._dispatcher,
                log=self._log,
            )
            self._watching.append(self._spawn(outputs.serve()))

    # --- when the file changes ---

    async def _follow_changes(self) -> None:
        """Read the files anew when they have changed, and rest after that."""
        options, files = self._served.options, self._served.files
        seen = tried = self._served.stamp
        while True:
            await asyncio.sleep(GLANCE_SECONDS)
            before, seen = seen, stamp_of(files, options.launch.values)
            if seen != tried and seen == before:  # an editor may still be writing
                reads: set[Path] = set()
                good = await self._reload(options, reads)
                # What could not be read may be mended in any file that it names, or that was good.
                files = self._served.files if good else self._served.files | reads
                seen = tried = self._served.stamp if good else seen | stamp_of(reads)

    async def _reload(self, options: UpOptions, reads: set[Path]) -> bool:
        """Serve what the files say now; if that is not good (false), go on with what they said
        before. Runs under way keep the teams they began with."""
        try:
            served = read_events(options, reads)
            tokens = tokens_of(served)
        except MusterError as error:
            told = "; ".join(str(error).splitlines())
            self._log.line("not reloaded", text=f"as before: {told}")
            return False
        await stop_tasks(self._watching)
        self._watching.clear()
        self._log.line("reloaded", text=str(options.launch.file))
        old, self._loaded = self._loaded, Loaded(served.events, served.teams)
        self._dispatcher.use(self._loaded)
        self._retired.append(asyncio.ensure_future(old.aclose()))
        await self._serve(served, tokens)
        return True

    async def let_go(self) -> None:
        """Close what was loaded, now and before. Nothing is under way any more."""
        await self._loaded.aclose()
        for task in self._retired:
            await task

    async def end(self, hurry: asyncio.Event) -> int:
        """Start nothing any more, let end what is under way, close. How many runs were cut off."""
        self._dispatcher.close()
        running = self._dispatcher.running
        if self._has_begun:
            text = f"{', '.join(running)} under way" if running else ""
            self._log.line("stopping", text=text)
        if self._web is not None:
            await self._web.stop_listening()
        await stop_tasks(self._tasks)
        await stop_tasks(self._watching)
        left = await self._dispatcher.drain(self._served.options.grace, hurry)
        await self._dispatcher.tell_all(NOTICE_SECONDS)
        if self._web is not None:
            await self._web.close()
        if self._has_begun:
            self._log.line("stopped")
        return left

    def check(self) -> None:
        """Raises what something that watches broke by: a server that is half dead would only
        look alive."""
        for task in (*self._tasks, *self._watching):
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)

        def on_end(_: object) -> None:
            if not task.cancelled() and task.exception() is not None:
                self._stop.set()

        task.add_done_callback(on_end)
        return task

    async def _listen(self) -> str:
        """Where webhooks are answered; nothing is opened when there are none."""
        webhooks, options = self._served.of("webhook"), self._served.options
        if self._web is not None:
            self._web.use(webhooks, self._tokens)
            return self._base
        if not webhooks:
            return ""
        from muster.teams.triggers.webhook import WebhookServer

        server = WebhookServer(
            webhooks,
            self._tokens,
            self._dispatcher,
            self._log,
            host=options.host,
            allow_hosts=options.allow_hosts,
        )
        port = await server.start(options.port)
        self._web = server
        host = f"[{options.host}]" if ":" in options.host else options.host
        self._base = f"http://{host}:{port}"
        self._log.line("listening", text=self._base)
        return self._base

    def _described(self, event: Event, base: str, positions: Mapping[str, datetime]) -> str:
        if event.suspended:
            return f"{event.source}, suspended"
        if event.source == "webhook":
            return f"POST {base}/triggers/default/{event.name}/fire"
        if event.source == "team-output":
            return f"runs of {event.watched_team} that end ({event.on_phase})"
        following = self._served.schedules[event.name].next(
            max(positions[event.name], self._clock.now())
        )
        shown = rfc3339(following) if following is not None else "never"
        return f'cron "{event.cron}", next fire at {shown}'

    async def _tell(self, prepared: Prepared, run: RunRecord) -> None:
        await announce(
            prepared,
            self._journal,
            run,
            lambda outcome, text: self._log.line(outcome, run=run.id, text=text),
        )


def _source(event: Event) -> str:
    """What an event is set off by: when that is changed, it begins anew."""
    if event.source == "cron":
        return f"cron {event.cron}"
    if event.source == "team-output":
        return f"team-output {event.watched_team} {event.on_phase}"
    return event.source


def _lock(root: Path, file: Path) -> int:
    """Nobody else serves this manifest while the descriptor is open. The system lets go of the
    lock however the process ends. Raises `UsageError`."""
    folder = root / ".muster"
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / "events.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    scope = hashlib.sha256(scope_of(file, root).encode()).digest()
    try:
        # One byte for each manifest, far beyond the end of the file, which stays empty.
        place = int.from_bytes(scope[:7], "big") >> 1
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
    except OSError:
        os.close(handle)
        raise UsageError(f"{file}: another `muster up` serves it already") from None
    return handle
