"""What all parts of a run share: its journal, its agents, its budgets, and who watches."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from muster.evals.budget import MoneyBudget
from muster.store.journal import Journal, arguments_hash
from muster.store.records import SUCCEEDED, CallRecord, StepRecord
from muster.teams.budget import TokenBudget
from muster.teams.cast import Cast, Member
from muster.teams.definition import Agent
from muster.teams.remembering import Memories
from muster.teams.standing import PeriodMoney, Standing
from muster.teams.state import Account
from muster.teams.watching import OnEvent, RunEvent

__all__ = ("ARROW", "NESTED", "SUBTASK", "AskApproval", "Earlier", "RunContext", "Unit")

Unit = tuple[str, int, int | None]
"""What is asked once: step, iteration, item."""

AskApproval = Callable[[str, str], Awaitable[bool | None]]
"""(step, message) to a person's answer; `None`: nobody there answers, wait for `muster approve`."""

NESTED = "nested"
"""The kind of the journal's note that says which run a team as a step is."""

ARROW = " → "
"""In the name of a row: from who handed a task on to who got it."""

SUBTASK = f"{ARROW}subtask-"
"""In the name of a subtask's row: between who submitted it, and its own id."""

BEGINNING = 8
"""Attempts that begin together, on one commit. Of a hundred that may begin at one moment the first
are then asked before the last are made ready; else they would all end at one moment again, and
nothing be done in between."""

_CUT_OFF = frozenset({"interrupted", "cancelled"})


@dataclass(slots=True)
class Earlier:
    """What an earlier part of the same run has brought."""

    done: dict[Unit, StepRecord] = field(default_factory=dict)
    """Answers that are there and are not asked for again."""
    calls: dict[Unit, dict[str, list[str]]] = field(default_factory=lambda: defaultdict(dict))
    """Tool calls of attempts that were cut off: results by name and arguments, in order. The
    same calls are not made twice."""
    nested: dict[Unit, str] = field(default_factory=dict)
    """The runs of teams that are a step, which go on too."""
    subtasks: dict[Unit, StepRecord] = field(default_factory=dict)
    """Those that were cut off. Who submitted them may be done, and does not do so again."""
    rejected: set[str] = field(default_factory=set)
    """Steps that a person has refused, and is asked again."""
    spent: dict[str, Account] = field(default_factory=dict)
    """What was used, by the name of the step."""
    account: Account = field(default_factory=Account)
    """All of it."""

    @property
    def tokens(self) -> int:
        """Tokens that were used."""
        usage = self.account.token_usage
        return usage.total if usage is not None else 0

    @property
    def cost_usd(self) -> float:
        """US dollars that were spent."""
        return self.account.cost_usd or 0.0

    def tokens_of(self, step: str) -> int:
        """Tokens that the step has used."""
        usage = self.spent[step].token_usage if step in self.spent else None
        return usage.total if usage is not None else 0

    def cost_of(self, step: str) -> float:
        """US dollars that the step has cost."""
        return (self.spent[step].cost_usd if step in self.spent else None) or 0.0

    @classmethod
    def of(cls, journal: Journal, run_id: str) -> Earlier:
        """Read what the run `run_id` has come to, and the runs of teams that are steps of it."""
        earlier = cls()
        rows = {row.id: row for row in journal.steps(run_id)}
        units = {row.id: (row.name, row.iteration, row.item) for row in rows.values()}
        for row in rows.values():
            earlier._account(_root(row, rows).name).spend(
                row.token_usage,
                row.cost_usd,
                untold=int(row.without_usage),
                unpriced=int(row.answered and row.cost_usd is None),
            )
            if row.status == SUCCEEDED:
                earlier.done[units[row.id]] = row
            elif SUBTASK in row.name and row.error_kind in _CUT_OFF:
                earlier.subtasks[units[row.id]] = row
            elif row.error_kind == "rejected":
                earlier.rejected.add(row.name)
        for unit in earlier.done.keys() & earlier.subtasks.keys():
            del earlier.subtasks[unit]
        for call in journal.calls(run_id):
            row, unit = rows[call.step_id], units[call.step_id]
            if call.status == "ok" and row.error_kind in _CUT_OFF and call.result is not None:
                earlier.calls[unit].setdefault(_key_of(call), []).append(call.result)
        for note in journal.events(run_id, NESTED):
            told = note.data
            earlier.nested[told["step"], told["iteration"], told["item"]] = told["run"]
            earlier._account(told["step"]).add(cls.of(journal, told["run"]).account)
        return earlier

    def _account(self, step: str) -> Account:
        return self.spent.setdefault(step, Account(self.account))


def _root(row: StepRecord, rows: Mapping[int, StepRecord]) -> StepRecord:
    """The step in which the row was delegated."""
    while row.parent is not None and row.parent in rows:
        row = rows[row.parent]
    return row


def call_key(name: str, arguments: Any) -> str:
    """The same for the same call."""
    return f"{name} {arguments_hash(arguments)}"


def _key_of(call: CallRecord) -> str:
    return f"{call.name} {call.arguments_hash}"


@dataclass(slots=True, kw_only=True)
class RunContext:
    """Shared by the steps of one run; nested teams have their own, with the same budgets."""

    run_id: str
    journal: Journal
    cast: Cast
    folder: Path
    """Where artifacts are kept."""
    team: str = ""
    """Its name; agents of different teams do not share what they remember."""
    memories: Memories = field(default_factory=Memories)
    """Those that last for the run."""
    inputs: Mapping[str, Any] = field(default_factory=dict)
    """The run's, for the addresses of tools that depend on them."""
    token_budgets: tuple[TokenBudget, ...] = ()
    """The run's, and those of the runs around it."""
    money_budgets: tuple[MoneyBudget, ...] = ()
    """As `token_budgets`."""
    account: Account | None = None
    """Of the step around a nested team: what its run uses is used by the step."""
    standing: Standing
    """Budgets over all runs."""
    standing_money: tuple[PeriodMoney, ...] = ()
    """Those that this team, and the teams around it, have to keep to."""
    daily_limits: Mapping[str, int] = field(default_factory=dict)
    """As `standing_money`: tokens in 24 hours, by the name of the team."""
    teams: tuple[str, ...] = ()
    """This team, behind the teams around it."""
    asked_by: tuple[str, ...] = ()
    """The teams of the run with the agent that this run answers for, if it does."""
    lenient: bool = False
    earlier: Earlier = field(default_factory=Earlier)
    on_event: OnEvent | None = None
    ask_approval: AskApproval | None = None
    beginning: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(BEGINNING))
    """Held while an attempt is written down as begun, and that is brought to disk."""
    within: str = ""
    """The step around a nested team, and a slash: before the names of its steps in events."""

    async def member(self, agent: Agent) -> Member:
        """The agent, ready to be asked in this run. Raises `MusterError` when it cannot be."""
        member = await self.cast.member(agent, self.inputs)
        for line in self.cast.take_warnings():
            self.note("warning", {"text": line})
            self.emit("warning", text=line)
        return member

    def emit(self, kind: str, *, step: str | None = None, **told: Any) -> None:
        """Tell who watches."""
        if self.on_event is not None:
            name = None if step is None else self.within + step
            self.on_event(RunEvent(kind=kind, step=name, **told))

    def note(self, kind: str, data: Mapping[str, Any], row: int | None = None) -> None:
        """Put it into the journal."""
        self.journal.event(self.run_id, kind, data, row_id=row)
