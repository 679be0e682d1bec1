"""What a run has said, as messages: one for each step, and the answer at the end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from typing import Any

from muster.evals.unpriced import CALLS_WITHOUT_COST
from muster.provider import Message, ToolCall
from muster.store.journal import Journal
from muster.store.records import SUCCEEDED, CallRecord, StepRecord
from muster.teams.context import NESTED
from muster.teams.engine import RunOutcome
from muster.teams.state import Account, StepState

__all__ = ("is_of_team", "transcript")

_MARK = "step"
"""In the metadata of a message: it is what a step said, not the team."""


def is_of_team(message: Message) -> bool:
    """Whether a step of a team said it, to another step; nobody outside was told."""
    return bool(message.metadata) and _MARK in (message.metadata or {})


def transcript(
    journal: Journal, run_id: str, outcome: RunOutcome, mask: Callable[[str], str]
) -> tuple[Message, ...]:
    """The steps in the order of the file, what was delegated and what teams did as steps behind
    them, then the answer.

    A message has its step's tool calls, tokens and time; its metadata say who it was, how often
    it was asked, and what that cost. Nothing counts twice: the sums are those of the run. How many
    calls are in no sum, for they did not tell, stands beside the answer.
    """
    rows: dict[str, list[StepRecord]] = defaultdict(list)
    calls: dict[int, list[CallRecord]] = defaultdict(list)
    _read(journal, run_id, "", rows, calls)
    states = {state.name: state for state in outcome.steps}
    names = [*states, *(name for name in rows if name not in states)]
    said = [_message(name, states.get(name), rows[name], calls, mask) for name in names]
    left_out = {"calls_without_usage": outcome.untold, CALLS_WITHOUT_COST: outcome.unpriced}
    metadata = {name: count for name, count in left_out.items() if count}
    return (*said, Message("assistant", mask(outcome.output), metadata=metadata or None))


def _read(
    journal: Journal,
    run_id: str,
    within: str,
    rows: dict[str, list[StepRecord]],
    calls: dict[int, list[CallRecord]],
) -> None:
    """The run's attempts by the names of their steps, and their calls; those of the runs in it."""
    for row in journal.steps(run_id):
        rows[within + row.name].append(row)
    for call in journal.calls(run_id):
        calls[call.step_id].append(call)
    for note in journal.events(run_id, NESTED):
        _read(journal, note.data["run"], f"{within}{note.data['step']}/", rows, calls)


def _message(
    name: str,
    state: StepState | None,
    rows: list[StepRecord],
    calls: dict[int, list[CallRecord]],
    mask: Callable[[str], str],
) -> Message:
    spent = Account()
    for row in rows:
        spent.spend(row.token_usage, row.cost_usd)
    told: dict[str, Any] = {_MARK: name, "status": state.status if state else rows[-1].status}
    optional = {
        "agent": state.agent if state is not None else rows[-1].agent,
        "model": next((row.model for row in reversed(rows) if row.model), None),
        "cost_usd": spent.cost_usd,
        "reason": state.reason if state is not None else None,
    }
    told |= {key: value for key, value in optional.items() if value is not None}
    if len(rows) > 1:
        told["asked"] = len(rows)
    return Message(
        "assistant",
        mask(_output(state, rows)),
        name=name,
        tool_calls=tuple(_tool_call(call, mask) for row in rows for call in calls[row.id]),
        start_time=rows[0].started_at if rows else None,
        duration_ms=_milliseconds(state, rows),
        token_usage=spent.token_usage,
        metadata=told,
    )


def _output(state: StepState | None, rows: list[StepRecord]) -> str:
    if state is not None:
        return state.output
    return next((row.output or "" for row in reversed(rows) if row.status == SUCCEEDED), "")


def _milliseconds(state: StepState | None, rows: list[StepRecord]) -> float | None:
    if state is not None:
        return round(state.seconds * 1000, 3)
    ends = [row.ended_at for row in rows if row.ended_at is not None]
    if not ends:
        return None
    took = datetime.fromisoformat(max(ends)) - datetime.fromisoformat(rows[0].started_at)
    return took.total_seconds() * 1000


def _tool_call(call: CallRecord, mask: Callable[[str], str]) -> ToolCall:
    return ToolCall(
        call.name,
        call.arguments,
        output=None if call.result is None else mask(call.result),
        status=call.status,
        start_time=call.started_at,
        duration_ms=call.duration_ms,
    )
