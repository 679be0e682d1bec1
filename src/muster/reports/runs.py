"""Runs of teams as text: the table, the tree of one run, and its lines as they come."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from muster.plain import harmless, one_line
from muster.provider import TokenUsage
from muster.reports.terminal import format_money, format_table, format_tokens, tokens_text
from muster.store.records import (
    FAILED,
    RUNNING,
    SKIPPED,
    SUCCEEDED,
    WAITING,
    ApprovalRecord,
    CallRecord,
    EventRecord,
    RunRecord,
    RunTotals,
    RunView,
    StepRecord,
)

__all__ = ("RunLines", "format_duration", "render_run", "render_runs")

_PREVIEW = 120


# --- the table ----------------------------------------------------------------------------------


def render_runs(runs: Sequence[RunRecord], totals: Mapping[str, RunTotals]) -> str:
    """A line for each run."""
    header = ("id", "team", "status", "started", "duration", "steps", "tokens", "cost")
    return format_table(header, [_row(run, totals[run.id]) for run in runs], right_from=4)


def _row(run: RunRecord, totals: RunTotals) -> tuple[str, ...]:
    usage = run.token_usage or totals.token_usage
    cost = run.cost_usd if run.cost_usd is not None else totals.cost_usd
    return (
        one_line(run.id),
        one_line(run.team),
        run.status,
        _local(run.started_at),
        format_duration(run.started_at, run.ended_at),
        str(totals.steps),
        "–" if usage is None else format_tokens(usage.total) + _more(totals.without_usage),
        format_money(cost) + (_more(totals.without_cost) if cost else ""),
    )


def _more(left_out: int) -> str:
    """Behind a sum that not all is in."""
    return "+" if left_out else ""


def _local(moment: str) -> str:
    return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def format_duration(started: str, ended: str | None) -> str:
    """How long something took, or has been going on."""
    end = datetime.now(UTC) if ended is None else datetime.fromisoformat(ended)
    seconds = (end - datetime.fromisoformat(started)).total_seconds()
    if seconds < 120:
        return f"{max(seconds, 0):.1f} s"
    minutes = int(seconds) // 60
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


# --- one run as a tree --------------------------------------------------------------------------


@dataclass(slots=True)
class _Node:
    text: str
    children: list[_Node] = field(default_factory=list)


def render_run(view: RunView) -> str:
    """All of a run that a person wants to see; the view is best without chunks."""
    parts = [_head(view)]
    roots = _Forest(view).roots()
    if roots:
        parts.append("\n".join(["steps", *_drawn(roots)]))
    told = [_event(event) for event in view.events if event.step_id is None]
    if told:
        parts.append("\n".join(["events", *(f"  {line}" for line in told)]))
    if view.approvals:
        lines = [_approval(view.run, each) for each in view.approvals]
        parts.append("\n".join(["approvals", *(f"  {line}" for line in lines)]))
    if view.run.output:
        parts.append(f"output\n{harmless(view.run.output)}")
    return "\n\n".join(parts)


def _head(view: RunView) -> str:
    run, usage, cost = view.run, view.token_usage, view.cost_usd
    rows = {
        "run": run.id,
        "team": run.team + (f" ({run.file})" if run.file else ""),
        "status": run.status + (f" ({run.reason})" if run.reason else ""),
        "error": run.error,
        "started": f"{_local(run.started_at)}, {_took(run)}",
        "trigger": run.trigger,
        "parent": run.parent,
        "input": json.dumps(run.input, ensure_ascii=False) if run.input else None,
        "tokens": None if usage is None else _tokens(usage, view.totals.without_usage),
        "cost": None
        if cost is None
        else format_money(cost) + (_more(view.totals.without_cost) if cost else ""),
    }
    return "\n".join(f"{name:<8} {one_line(text)}" for name, text in rows.items() if text)


def _took(run: RunRecord) -> str:
    duration = format_duration(run.started_at, run.ended_at)
    return f"for {duration} now" if run.ended_at is None else f"took {duration}"


def _tokens(usage: TokenUsage, left_out: int) -> str:
    return f"{usage.total}{_more(left_out)} ({usage.input} in, {usage.output} out)"


class _Forest:
    """The steps by name, each with its attempts, their tools, and what they delegated."""

    def __init__(self, view: RunView) -> None:
        known = {step.id for step in view.steps}
        self._delegated: dict[int | None, list[StepRecord]] = {}
        for step in view.steps:
            parent = step.parent if step.parent in known else None
            self._delegated.setdefault(parent, []).append(step)
        self._calls: dict[int, list[CallRecord]] = {}
        for call in view.calls:
            self._calls.setdefault(call.step_id, []).append(call)
        self._events: dict[int | None, list[EventRecord]] = {}
        for event in view.events:
            self._events.setdefault(event.step_id, []).append(event)

    def roots(self) -> list[_Node]:
        return self._below(None)

    def _below(self, parent: int | None) -> list[_Node]:
        groups: dict[str, list[StepRecord]] = {}
        for step in self._delegated.get(parent, ()):
            groups.setdefault(step.name, []).append(step)
        return [self._group(rows) for rows in groups.values()]

    def _group(self, rows: list[StepRecord]) -> _Node:
        if len(rows) == 1:
            return _Node(_step(rows[0], rows[0].name), self._inside(rows[0]))
        children = [_Node(_step(row, _which(row)), self._inside(row)) for row in rows]
        return _Node(_sum(rows), children)

    def _inside(self, row: StepRecord) -> list[_Node]:
        nodes = [_Node(_call(call)) for call in self._calls.get(row.id, ())]
        nodes += [_Node(_event(event)) for event in self._events.get(row.id, ())]
        return nodes + self._below(row.id)


def _which(row: StepRecord) -> str:
    parts = []
    if row.item is not None:
        parts.append(f"item {row.item}")
    if row.iteration:
        parts.append(f"iteration {row.iteration}")
    if row.attempt or not parts:
        parts.append(f"attempt {row.attempt}")
    return ", ".join(parts)


def _sum(rows: list[StepRecord]) -> str:
    usage: TokenUsage | None = None
    for row in rows:
        usage = row.token_usage if usage is None else usage + row.token_usage
    costs = [row.cost_usd for row in rows if row.cost_usd is not None]
    parts = [one_line(rows[0].name), _common_status(rows)]
    if usage is not None:
        parts.append(f"{format_tokens(usage.total)} tokens")
    if costs:
        parts.append(format_money(sum(costs)))
    return "  ".join(parts)


def _common_status(rows: list[StepRecord]) -> str:
    """That of the last attempts: of each item, what became of it in the end."""
    last = {row.item: row.status for row in rows}
    for status in (RUNNING, WAITING, FAILED):
        if status in last.values():
            return status
    return rows[-1].status


def _step(row: StepRecord, label: str) -> str:
    parts = [one_line(label), row.status]
    if row.status not in (SKIPPED, WAITING):
        parts.append(format_duration(row.started_at, row.ended_at))
    if row.token_usage is not None:
        parts.append(f"{format_tokens(row.token_usage.total)} tokens")
    if row.cost_usd is not None:
        parts.append(format_money(row.cost_usd))
    if row.agent is not None:
        parts.append(one_line(row.agent + (f" ({row.model})" if row.model else "")))
    why = ": ".join(part for part in (row.error_kind, row.error or row.message) if part)
    if why:
        parts.append(_clip(one_line(why), 2 * _PREVIEW))
    elif row.output:
        parts.append(_clip(one_line(f"→ {row.output}"), _PREVIEW))
    return "  ".join(parts)


def _call(call: CallRecord) -> str:
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    took = "" if call.duration_ms is None else f"  {call.duration_ms:.0f} ms"
    result = f"  → {_clip(one_line(call.result), 60)}" if call.result else ""
    head = _clip(one_line(f"{call.kind} {call.name} {arguments}"), _PREVIEW)
    return f"{head}  {call.status}{took}{result}"


def _event(event: EventRecord) -> str:
    return _clip(one_line(f"{event.kind}: {_compact(event.data)}"), 2 * _PREVIEW)


def _compact(data: Any) -> str:
    if not isinstance(data, dict):
        return json.dumps(data, ensure_ascii=False)
    texts = {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in data.items()
    }
    return ", ".join(f"{key}={value}" for key, value in texts.items())


def _approval(run: RunRecord, approval: ApprovalRecord) -> str:
    name = approval.step + ("" if approval.item is None else f" item {approval.item}")
    if approval.status == WAITING:
        told = f"waiting: {approval.message}  (muster approve {run.id} {approval.step})"
    else:
        told = f"{approval.status} by {approval.by}"
        if approval.comment:
            told += f": {approval.comment}"
    return one_line(f"{name}: {told}")


def _drawn(nodes: Sequence[_Node], indent: str = "") -> Iterator[str]:
    for number, node in enumerate(nodes, 1):
        last = number == len(nodes)
        yield f"{indent}{'└─' if last else '├─'} {node.text}"
        yield from _drawn(node.children, indent + ("   " if last else "│  "))


def _clip(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


# --- lines as they come -------------------------------------------------------------------------


class RunLines:
    """What there is to say of a run since it was last looked at."""

    def __init__(self, run_id: str) -> None:
        self._id = run_id
        self._shown: dict[int, str] = {}
        self._events = 0

    def news(self, view: RunView) -> list[str]:
        """Lines for the steps whose status is new, and for new events."""
        lines = []
        asked = {(each.step, each.item): each.message for each in view.approvals}
        for event in view.events:
            if event.id > self._events:
                self._events = event.id
                lines.append(f"  {_event(event)}")
        for step in view.steps:
            before = self._shown.get(step.id)
            if before == step.status:
                continue
            if before is None and step.status not in (RUNNING, SKIPPED, WAITING):
                lines += self._of(step, RUNNING, asked)
            lines += self._of(step, step.status, asked)
            self._shown[step.id] = step.status
        return lines

    def _of(
        self, step: StepRecord, status: str, asked: Mapping[tuple[str, int | None], str]
    ) -> list[str]:
        name = f"  {_name(step):<20} "
        if status == SUCCEEDED:
            tokens = step.token_usage.total if step.token_usage is not None else 0
            seconds = _seconds(step.started_at, step.ended_at)
            lines = [f"{name}[done]    {tokens_text(tokens, step.without_usage)}  {seconds:.1f}s"]
            if step.output:
                lines.append(f"    └─ {_clip(one_line(step.output), _PREVIEW)}")
            return lines
        if status == FAILED:
            return [f"{name}[failed]  {one_line(step.error or step.error_kind or '')}".rstrip()]
        if status == SKIPPED:
            return [f"{name}[skipped]  {one_line(step.message or '')}".rstrip()]
        if status == WAITING:
            message = asked.get((step.name, step.item)) or step.message or "an approval"
            hint = f"muster approve {self._id} {step.name}"
            return [f"{name}[waiting]  {one_line(message)}  ({hint})"]
        return [f"{name}[{status}]"]

    @staticmethod
    def end(view: RunView) -> list[str]:
        """How it ended."""
        run, usage = view.run, view.token_usage
        head = f"Team {run.status.capitalize()} in {_seconds(run.started_at, run.ended_at):.1f}s"
        if run.error:
            head += f" — {one_line(run.error)}"
        tokens = tokens_text(0 if usage is None else usage.total, view.totals.without_usage)
        lines = ["", f"{head} — total: {tokens}"]
        return [*lines, "", "Output:", harmless(run.output)] if run.output else lines


def _name(step: StepRecord) -> str:
    name = one_line(step.name)
    if step.item is not None:
        name += f"[{step.item}]"
    if step.iteration:
        name += f" (iteration {step.iteration})"
    return name + (f" (attempt {step.attempt})" if step.attempt else "")


def _seconds(started: str, ended: str | None) -> float:
    end = datetime.now(UTC) if ended is None else datetime.fromisoformat(ended)
    return max((end - datetime.fromisoformat(started)).total_seconds(), 0.0)
