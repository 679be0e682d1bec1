"""Telling people what came of a run: what there is to tell, to whom, how often, in which words."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from muster.store.journal import Journal
from muster.store.records import FAILED, SUCCEEDED, RunRecord, StepRecord
from muster.teams.context import NESTED
from muster.teams.definition import Agent, Notice, Notify, NotifyChannel, Team
from muster.teams.notify_send import Sender, SendFailed
from muster.teams.standing import DAY
from muster.teams.template import Template, TemplateError
from muster.teams.triggers.state import EventState, open_state

if TYPE_CHECKING:
    from muster.teams.preparing import Prepared

__all__ = ("Happening", "announce", "happenings")

ALL_SECONDS = 25.0
"""How long all notices of a run may take together."""

_USUAL = Template.compile("{{ .Event }}: team {{ .TeamName }}, run {{ .RunName }}: {{ .Message }}")
_FAILURES = {"TimedOut": "TeamTimedOut", "BudgetExceeded": "BudgetExceeded"}
_DAILY = "daily token usage "
_DEGRADED = frozenset(
    {"provider_unavailable", "authentication_failed", "quota_exhausted", "rate_limited"}
)
"""Kinds of error that say that an agent's provider is out of order, not that its answer was bad."""

Tell = Callable[[str, str], None]
"""(outcome, text): for the log of who runs the team."""


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that people may want to be told about."""

    notify: str
    """The Notify that is attached to the team, or to the agent."""
    names: tuple[str, ...]
    """What it is called, the most telling name first; the first that is subscribed to counts."""
    message: str
    agent: Agent | None = None


async def announce(prepared: Prepared, journal: Journal, run: RunRecord, tell: Tell) -> None:
    """Tell those who want to know how the run ended. Whatever goes wrong is told to `tell` alone,
    and it takes `ALL_SECONDS` at most."""
    try:
        found = list(happenings(prepared.team, journal, run))
        if not found:
            return
        async with asyncio.timeout(ALL_SECONDS):
            await _Announcer(prepared, journal, run, tell).all(found)
    except TimeoutError:
        tell("not notified", f"notices took more than {ALL_SECONDS:g} s")
    except Exception as error:  # a run must not fail because nobody could be told of it
        tell("not notified", journal.masked(str(error) or type(error).__name__))


def happenings(team: Team, journal: Journal, run: RunRecord) -> Iterator[Happening]:
    """What there is to tell of a run that has ended. Nothing of one that was cancelled or
    interrupted: who did that knows."""
    if run.status == SUCCEEDED:
        if team.notify is not None:
            yield Happening(team.notify, ("TeamSucceeded",), "succeeded")
        return
    if run.status != FAILED:
        return
    agents = _agents(team)
    reached = _DAILY in (run.error or "")
    if team.notify is not None:
        names = tuple(name for name in (_FAILURES.get(run.reason or ""), "TeamFailed") if name)
        names = ("DailyLimitReached", *names) if reached else names
        agent = _of_daily_limit(journal, run, agents) if reached else None
        yield Happening(team.notify, names, run.error or run.reason or "failed", agent)
    told = set()
    for row in _failed_steps(journal, run):
        agent = agents.get(row.agent or "")
        if agent is None or agent.name in told:
            continue
        name = None
        if row.error_kind in _DEGRADED:
            name = "AgentDegraded"
        elif _DAILY in (row.error or "") and agent.notify not in (None, team.notify):
            name = "DailyLimitReached"
        notify = agent.notify or team.notify
        if name is not None and notify is not None:
            told.add(agent.name)
            yield Happening(notify, (name,), f"agent {agent.name}: {row.error}", agent)


def _of_daily_limit(journal: Journal, run: RunRecord, agents: Mapping[str, Agent]) -> Agent | None:
    for row in _failed_steps(journal, run):
        agent = agents.get(row.agent or "")
        if _DAILY in (row.error or "") and agent is not None:
            return agent
    return None


def _agents(team: Team) -> dict[str, Agent]:
    """Of the team, its registry and the teams in it, by name."""
    found: dict[str, Agent] = {}
    for role in team.roles.values():
        if role.team is not None:
            found |= _agents(role.team)
        if role.agent is not None:
            found[role.agent.name] = role.agent
    for registry in (team.registry, team.routing.registry if team.routing else None):
        for agent in registry.agents if registry is not None else ():
            found.setdefault(agent.name, agent)
    return found


def _failed_steps(journal: Journal, run: RunRecord) -> Iterator[StepRecord]:
    """The last attempts that failed, of the run and the runs that are steps of it."""
    last = {(row.name, row.iteration, row.item): row for row in journal.steps(run.id)}
    yield from (row for row in last.values() if row.status == FAILED)
    for note in journal.events(run.id, NESTED):
        inner = journal.run(note.data["run"])
        if inner.status == FAILED:
            yield from _failed_steps(journal, inner)


class _Announcer:
    """The notices of one run."""

    def __init__(self, prepared: Prepared, journal: Journal, run: RunRecord, tell: Tell) -> None:
        self._notifies = prepared.bundle.notifies
        self._options = prepared.options
        self._root = prepared.project.root
        self._team = prepared.team
        self._journal = journal
        self._run = run
        self._tell = tell

    async def all(self, found: list[Happening]) -> None:
        """Send them all at the same time."""
        state = open_state(self._options.file, self._root)
        try:
            async with Sender() as sender:
                await asyncio.gather(*(self._one(each, state, sender) for each in found))
        finally:
            state.close()

    async def _one(self, happening: Happening, state: EventState, sender: Sender) -> None:
        notify = self._notifies.get(happening.notify)
        notice = _notice(notify, happening)
        if notify is None or notice is None:
            return
        subject = happening.agent.name if notice.type == "AgentDegraded" and happening.agent else ""
        place = state.may_tell(
            notify.name,
            f"{self._team.name}\n{subject}",
            notice.type,
            window=notify.window_seconds,
            most=notify.max_per_window,
            now=datetime.now(UTC),
        )
        if place is None:
            self._tell("not notified", f"{notice.type}: told within {notify.window_seconds:g} s")
            return
        sent = await asyncio.gather(
            *(self._send(channel, notice, happening, sender) for channel in notify.channels)
        )
        if not any(sent):
            state.not_told(place)

    async def _send(
        self, channel: NotifyChannel, notice: Notice, happening: Happening, sender: Sender
    ) -> bool:
        data = self._data(notice.type, happening)
        text = self._text(notice, _escaped(data) if channel.type == "slack" else data)
        body: dict[str, Any] = {"text": text}
        if channel.type == "webhook":
            body = self._body(notice.type, happening, text)
        try:
            await sender.send(channel, body)
        except SendFailed as error:
            self._tell("not notified", f"{notice.type} to {channel.type}: {error}")
            return False
        self._tell("notified", f"{notice.type} to {channel.type}")
        return True

    def _text(self, notice: Notice, data: Mapping[str, Any]) -> str:
        """The message; in the usual words, when its template cannot be filled in."""
        if notice.template is not None:
            try:
                return self._journal.masked(notice.template.render(data))
            except TemplateError as error:
                self._tell("warning", f"the usual text is sent, for: {error}")
        return self._journal.masked(_USUAL.render(data))

    def _body(self, event: str, happening: Happening, text: str) -> dict[str, Any]:
        """For a webhook: what a program may want to know."""
        run = self._run
        usage = run.token_usage
        totals = self._journal.totals([run.id])[run.id]
        return {
            "event": event,
            "team": self._team.name,
            "run": run.id,
            "status": run.status,
            "reason": run.reason,
            "message": self._journal.masked(happening.message),
            "text": text,
            "agent": happening.agent.name if happening.agent is not None else None,
            "trigger": run.trigger,
            "startedAt": run.started_at,
            "endedAt": run.ended_at,
            "durationSeconds": _seconds(run),
            "totalTokens": usage.total if usage is not None else 0,
            "costUsd": run.cost_usd,
            "callsWithoutUsage": totals.without_usage,
            "callsWithoutCost": totals.without_cost,
        }

    def _data(self, event: str, happening: Happening) -> dict[str, Any]:
        """What templates see, under the names of both forms."""
        run = self._run
        usage = run.token_usage
        total = usage.total if usage is not None else 0
        failed = next(iter(_failed_steps(self._journal, run)), None)
        return {
            "Event": event,
            "TeamName": self._team.name,
            "RunName": run.id,
            "Message": happening.message,
            "team": {"name": self._team.name},
            "run": {
                "name": run.id,
                "dashboardUrl": "",
                "spec": {"input": run.input},
                "status": {
                    "phase": run.status.capitalize(),
                    "reason": run.reason or "",
                    "message": happening.message,
                    "failedStep": failed.name if failed is not None else "",
                    "output": run.output or "",
                    "durationSeconds": _seconds(run),
                    "totalTokenUsage": {"totalTokens": total},
                    "costUsd": run.cost_usd or 0.0,
                },
            },
            "agent": self._agent(happening.agent),
        }

    def _agent(self, agent: Agent | None) -> dict[str, Any]:
        """The agent that it is about; else the team's own count and limit stand there."""
        day = datetime.now(UTC) - DAY
        limit = agent.limits.max_daily_tokens if agent is not None else self._team.max_daily_tokens
        spent = [
            each
            for each in self._journal.spending(day)
            if (each.counts_for((self._team.name,)) if agent is None else each.agent == agent.name)
        ]
        first = min((each.moment for each in spent if each.tokens), default=day)
        return {
            "name": agent.name if agent is not None else "",
            "spec": {"limits": {"maxDailyTokens": limit or 0}},
            "status": {
                "dailyTokensUsed": sum(each.tokens for each in spent),
                "budgetResetsInMinutes": round((first - day).total_seconds() / 60),
            },
        }


def _notice(notify: Notify | None, happening: Happening) -> Notice | None:
    """What the Notify has to say about it; `None`: it does not want to know."""
    by_type = {notice.type: notice for notice in notify.notices} if notify is not None else {}
    return next((by_type[name] for name in happening.names if name in by_type), None)


def _escaped(value: Any) -> Any:
    """Texts as Slack shows them: what a model wrote must not call everybody in the channel."""
    if isinstance(value, str):
        return value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    if isinstance(value, Mapping):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_escaped(item) for item in value]
    return value


def _seconds(run: RunRecord) -> float:
    if run.ended_at is None:
        return 0.0
    ended, started = (datetime.fromisoformat(each) for each in (run.ended_at, run.started_at))
    return round((ended - started).total_seconds(), 3)
