"""What all parts of a run share: its journal, its agents, its budgets, and who watches."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from muster.evals.budget import MoneyBudget
from muster.store.journal import Journal
from muster.store.records import StepRecord
from muster.teams.budget import TokenBudget
from muster.teams.cast import Cast, Member
from muster.teams.definition import Agent
from muster.teams.watching import OnEvent, RunEvent

__all__ = ("AskApproval", "Earlier", "RunContext", "Unit")

Unit = tuple[str, int, int | None]
"""What is asked once: step, iteration, item."""

AskApproval = Callable[[str, str], Awaitable[bool | None]]
"""(step, message) to a person's answer; `None`: nobody there answers, wait for `muster approve`."""


@dataclass(slots=True)
class Earlier:
    """What an earlier part of the same run has brought."""

    done: dict[Unit, StepRecord] = field(default_factory=dict)
    """Answers that are there and are not asked for again."""
    calls: dict[Unit, dict[str, list[str]]] = field(default_factory=lambda: defaultdict(dict))
    """Tool calls of attempts that were cut off: results by name and arguments, in order. The
    same calls are not made twice."""
    tokens: int = 0
    cost_usd: float = 0.0

    @classmethod
    def of(cls, journal: Journal, run_id: str) -> Earlier:
        """Read what the run `run_id` has come to."""
        earlier = cls()
        units: dict[int, Unit] = {}
        for row in journal.steps(run_id):
            unit = units[row.id] = (row.name, row.iteration, row.item)
            if row.token_usage is not None:
                earlier.tokens += row.token_usage.total
            earlier.cost_usd += row.cost_usd or 0.0
            if row.status == "succeeded":
                earlier.done[unit] = row
        for call in journal.calls(run_id):
            unit = units[call.step_id]
            if call.status == "ok" and unit not in earlier.done and call.result is not None:
                key = call_key(call.name, call.arguments)
                earlier.calls[unit].setdefault(key, []).append(call.result)
        return earlier


def call_key(name: str, arguments: Any) -> str:
    """The same for the same call."""
    return json.dumps([name, arguments], sort_keys=True, default=str)


@dataclass(slots=True, kw_only=True)
class RunContext:
    """Shared by the steps of one run; nested teams have their own, with the same budgets."""

    run_id: str
    journal: Journal
    cast: Cast
    folder: Path
    """Where artifacts are kept."""
    inputs: Mapping[str, Any] = field(default_factory=dict)
    """The run's, for the addresses of tools that depend on them."""
    token_budgets: tuple[TokenBudget, ...] = ()
    """The run's, and those of the runs around it."""
    money: MoneyBudget | None = None
    lenient: bool = False
    earlier: Earlier = field(default_factory=Earlier)
    on_event: OnEvent | None = None
    ask_approval: AskApproval | None = None
    chain: tuple[str, ...] = ()
    """Roles that the task was handed through, for delegation and nested teams."""

    async def member(self, agent: Agent) -> Member:
        """The agent, ready to be asked in this run. Raises `MusterError` when it cannot be."""
        return await self.cast.member(agent, self.inputs)

    def emit(self, kind: str, **told: Any) -> None:
        """Tell who watches."""
        if self.on_event is not None:
            self.on_event(RunEvent(kind=kind, **told))

    def note(self, kind: str, data: Mapping[str, Any], row: int | None = None) -> None:
        """Put it into the journal."""
        self.journal.event(self.run_id, kind, data, row_id=row)
