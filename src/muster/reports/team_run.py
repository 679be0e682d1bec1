"""A team's run as text: a line for each thing that happens, and how it all went."""

from __future__ import annotations

from typing import Any

from muster.plain import harmless, one_line
from muster.reports.terminal import format_money, tokens_text
from muster.store.records import RunRecord
from muster.teams.engine import RunOutcome
from muster.teams.state import StepState
from muster.teams.watching import RunEvent

__all__ = (
    "approval_text",
    "event_lines",
    "outcome_json",
    "outcome_text",
    "preview",
    "tokens_of",
)

_PREVIEW = 120


def preview(text: str) -> str:
    """The beginning of an output, in one line."""
    line = one_line(text)
    return line if len(line) <= _PREVIEW else line[:_PREVIEW] + "..."


def tokens_of(step: StepState) -> int:
    """Tokens that the step has used, as far as they are known."""
    usage = step.account.token_usage
    return usage.total if usage is not None else 0


def event_lines(event: RunEvent) -> list[str]:
    """What `--watch` prints for an event where there is no terminal; most print nothing."""
    name = f"  {event.step or '':<20}"
    if event.kind == "step_started":
        return [f"{name} [running]"]
    if event.kind == "step_done":
        told = event.data
        tokens = tokens_text(told["tokens"], told["untold"])
        done = f"{name} [done]    {tokens}  {told['seconds']:.1f}s"
        return [done, f"    └─ {preview(event.text)}"] if event.text else [done]
    mark = {
        "step_failed": "[failed] ",
        "step_skipped": "[skipped]",
        "retry": "[retry]  ",
        "invalid": "[invalid]",
        "delegated": "[asks]   ",
        "routed": "[routed] ",
        "tool_call": "[tool]   ",
        "approval": "[waiting]",
        "warning": "[warning]",
    }.get(event.kind)
    if mark is None:
        return []
    text = approval_text(event) if event.kind == "approval" else one_line(event.text)
    return [f"{name} {mark} {'' if event.kind == 'step_skipped' else text}".rstrip()]


def approval_text(event: RunEvent) -> str:
    """What a person is asked, and how to answer from elsewhere."""
    step = (event.step or "").rpartition("/")[2]
    return f"{one_line(event.text)}  (muster approve {event.data['run']} {step})"


def outcome_text(run: RunRecord, outcome: RunOutcome) -> str:
    """The end of a run, as a person reads it."""
    phase = run.status.capitalize()
    total = outcome.token_usage.total if outcome.token_usage is not None else 0
    tokens = tokens_text(total, outcome.untold)
    cost = f", {format_money(outcome.cost_usd)}" if outcome.cost_usd else ""
    lines = ["", f"Flow {phase} in {outcome.seconds:.1f}s — total: {tokens}{cost}"]
    lines += _not_counted(outcome)
    if outcome.error is not None:
        lines += ["", f"reason: {outcome.reason}", f"error:  {harmless(outcome.error)}"]
        lines += [f"run:    {run.id} (muster run --resume {run.id}, muster runs show {run.id})"]
    if outcome.output:
        lines += ["", "Output:", harmless(outcome.output)]
    return "\n".join(lines)


def _not_counted(outcome: RunOutcome) -> list[str]:
    """What the totals leave out."""
    lines = []
    if outcome.untold:
        lines.append(f"  {_calls(outcome.untold)} told no usage")
    if outcome.unpriced and outcome.cost_usd is not None:
        lines.append(f"  the cost of {_calls(outcome.unpriced)} is not known, and not in the total")
    return lines


def _calls(count: int) -> str:
    return f"{count} call{'s' if count > 1 else ''}"


def outcome_json(run: RunRecord, outcome: RunOutcome) -> dict[str, Any]:
    """The end of a run for programs."""
    data: dict[str, Any] = {
        "run": run.id,
        "team": run.team,
        "status": run.status.capitalize(),
        "reason": outcome.reason,
        "duration_ms": round(outcome.seconds * 1000),
        "total_tokens": outcome.token_usage.total if outcome.token_usage is not None else 0,
        "token_usage": outcome.token_usage.to_dict() if outcome.token_usage is not None else None,
        "cost_usd": _exact(outcome.cost_usd),
        "calls_without_usage": outcome.untold,
        "calls_without_cost": outcome.unpriced,
        "steps": [_step_json(step) for step in outcome.steps],
    }
    if outcome.output:
        data["output"] = outcome.output
    if outcome.error is not None:
        data["error"] = outcome.error
    return data


def _exact(cost: float | None) -> float | None:
    """Without what adding up in binary leaves at the end: 0.06, not 0.060000000000000005."""
    return None if cost is None else round(cost, 12)


def _step_json(step: StepState) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": step.name,
        "status": step.status.capitalize(),
        "tokens": tokens_of(step),
    }
    told = {
        "output": step.output or None,
        "agent": step.agent,
        "error": step.error,
        "error_kind": step.error_kind,
        "message": step.message,
        "cost_usd": _exact(step.account.cost_usd),
        "iterations": step.iterations if step.iterations > 1 else None,
        "attempts": step.attempts if step.attempts > 1 else None,
        "routing_reason": step.reason,
    }
    return row | {name: value for name, value in told.items() if value is not None}
