"""`muster up`: serves the events of a manifest until it is stopped."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from muster.config.environment import load_environment
from muster.config.project import find_project
from muster.config.secrets import Masker
from muster.errors import UsageError
from muster.store.journal import Journal, journal_path
from muster.store.records import RunRecord
from muster.tasks import stop_tasks
from muster.teams.definition import Event
from muster.teams.launch import LaunchOptions, Prepared, assemble
from muster.teams.manifests import load_manifests
from muster.teams.notify import announce
from muster.teams.triggers.clock import Clock, serve_cron
from muster.teams.triggers.cron import Schedule, parse_cron
from muster.teams.triggers.dispatch import Dispatcher
from muster.teams.triggers.log import EventLog, rfc3339
from muster.teams.triggers.outputs import TeamOutputs
from muster.teams.triggers.state import EventState, open_state, scope_of
from muster.teams.triggers.tokens import kept_token

__all__ = ("Served", "UpOptions", "read_events", "serve")

NOTICE_SECONDS = 10.0
"""How long notices may take when everything else has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions:
    """What is asked for."""

    launch: LaunchOptions
    """Without a team and inputs, which events have."""
    host: str = "127.0.0.1"
    port: int = 8092
    allow_hosts: tuple[str, ...] = ()
    """Names under which requests may come, beside `host`, `localhost` and addresses."""
    grace: float = 10.0
    """How long runs under way may take when the server is stopped."""
    max_runs: int = 100
    as_json: bool = False


@dataclass(slots=True)
class Served:
    """Checked and ready: nothing was begun."""

    options: UpOptions
    root: Path
    events: dict[str, Event]
    schedules: dict[str, Schedule]
    teams: dict[str, Prepared]
    warnings: list[str]

    def of(self, source: str, *, live: bool = False) -> dict[str, Event]:
        """The events with this source; those that are `live` are not suspended."""
        return {
            name: event
            for name, event in self.events.items()
            if event.source == source and not (live and event.suspended)
        }


def read_events(options: UpOptions) -> Served:
    """Read and check the manifest, the schedules and the teams that are started.

    Raises:
        MusterError: what is wrong with them.
    """
    launch = options.launch
    if str(launch.file) == "-":
        raise UsageError("events are served from a file, not from the standard input")
    path = launch.file.resolve()
    start = path if path.is_dir() else path.parent
    bundle = load_manifests(
        launch.file,
        values=launch.values,
        env=load_environment(start),
        safe=launch.safe,
        lenient_templates=launch.lenient,
    )
    if not bundle.events:
        raise UsageError(f"{launch.file}: there is no ArkEvent in it to serve")
    schedules = {
        name: parse_cron(event.cron) for name, event in bundle.events.items() if event.cron
    }
    names = {target.team for event in bundle.events.values() for target in event.targets}
    teams = {name: assemble(replace(launch, team=name)) for name in sorted(names)}
    told = [*bundle.warnings, *(line for team in teams.values() for line in team.warnings)]
    root = find_project(start).root
    return Served(options, root, bundle.events, schedules, teams, list(dict.fromkeys(told)))


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
        tokens: dict[str, str],
        clock: Clock,
    ) -> None:
        self._served = served
        self._state = state
        self._journal = journal
        self._log = log
        self._tokens = tokens
        self._clock = clock
        self._dispatcher = Dispatcher(
            served.events,
            served.teams,
            journal,
            state,
            log,
            max_runs=served.options.max_runs,
            on_end=self._tell,
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._web: Any = None
        self._has_begun = False
        self._stop = asyncio.Event()

    @classmethod
    async def open(
        cls, served: Served, write: Callable[[str], None], clock: Clock, stack: AsyncExitStack
    ) -> _Server:
        """With its files, which the stack closes."""
        file, root = served.options.launch.file, served.root
        for prepared in served.teams.values():
            stack.push_async_callback(prepared.cast.aclose)
        stack.callback(os.close, _lock(root, file))
        tokens, kept = _tokens(served)
        secrets = set(tokens.values()).union(*(t.secrets() for t in served.teams.values()))
        masker = Masker(secrets)
        state = open_state(file, root)
        stack.callback(state.close)
        journal = Journal.open(journal_path(root), masker=masker)
        stack.callback(journal.close)
        log = EventLog(write, as_json=served.options.as_json, masker=masker)
        for line in served.warnings:
            log.line("warning", text=line)
        for name, path in kept.items():
            log.line("token", event=name, text=f"in {path}")
        return cls(served, state, journal, log=log, tokens=tokens, clock=clock)

    async def begin(self, stop: asyncio.Event) -> None:
        """Listen, watch, and go on with what an earlier server has left. Sets `stop` when
        something that watches breaks."""
        served, self._stop = self._served, stop
        now = self._clock.now()
        self._state.forget_old(now)
        positions = {
            name: self._state.served(name, _source(event), suspended=event.suspended, now=now).at
            for name, event in served.events.items()
        }
        base = await self._listen()
        self._has_begun = True
        for name, event in served.events.items():
            self._log.line("serving", event=name, text=self._described(event, base, positions))
        self._dispatcher.go_on()
        for name, event in served.of("cron", live=True).items():
            self._spawn(
                serve_cron(
                    event,
                    served.schedules[name],
                    positions[name],
                    dispatcher=self._dispatcher,
                    state=self._state,
                    log=self._log,
                    clock=self._clock,
                )
            )
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
            self._spawn(outputs.serve())

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
        for task in self._tasks:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.append(task)

        def on_end(_: object) -> None:
            if not task.cancelled() and task.exception() is not None:
                self._stop.set()

        task.add_done_callback(on_end)

    async def _listen(self) -> str:
        """Where webhooks are answered; nothing is opened when there are none."""
        webhooks, options = self._served.of("webhook"), self._served.options
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
        self._log.line("listening", text=f"http://{host}:{port}")
        return f"http://{host}:{port}"

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


def _tokens(served: Served) -> tuple[dict[str, str], dict[str, Path]]:
    """The webhooks' tokens, and the files of those that were made up."""
    found: dict[str, str] = {}
    kept: dict[str, Path] = {}
    for name, event in served.of("webhook").items():
        if event.token is not None:
            if not event.token.strip():
                raise UsageError(f'event "{name}": its token is empty')
            found[name] = event.token.strip()
        elif event.signature is None:
            found[name], kept[name] = kept_token(served.root, name)
    return found, kept


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
