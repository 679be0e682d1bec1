"""The results in an HTML report: a short row of each, and what is shown when one is opened."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

import msgspec

from muster.evals.results import EXECUTION_ERROR, OK, CaseResult
from muster.reports.overview import Overview, input_text

__all__ = ("write_data",)

_CHUNK = 256_000
"""Bytes of details that the page parses at once."""

_DETAILS = 40_000_000
"""Bytes of details of failed results, and again of good ones; the rows of all are there."""

_ONE = 200_000
_LONGEST = 20_000
_SHORTER = 2_000
_MESSAGES = 200


class _Names:
    """Names and the numbers that stand for them."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.places: dict[str, int] = {}
        for name in names:
            self.place(name)

    def place(self, name: str) -> int:
        return self.places.setdefault(name, len(self.places))


def write_data(overview: Overview, out: TextIO) -> None:
    """Write what the script reads: names, then rows and details, a chunk of each at a time."""
    views = overview.targets
    labels = _Names(views)
    suites = _Names(suite for view in views.values() for suite in view.suites)
    kinds = _Names(kind for _, kind, _ in overview.errors_by_kind)
    tags = _Names(overview.tags)
    head = {
        "labels": list(labels.places),
        "suites": list(suites.places),
        "kinds": list(kinds.places),
        "tags": list(tags.places),
        "runs": [view.run.name for view in views.values()],
    }
    out.write(f'<script type="application/json" id="head">{_safe(head)}</script>\n')
    left = {True: _DETAILS, False: _DETAILS}
    rows: list[str] = []
    details: list[str] = []
    size = begins = 0

    def flush() -> None:
        out.write(f'<script type="application/json" class="rows">[{",".join(rows)}]</script>\n')
        out.write(
            f'<script type="application/json" class="details" data-from="{begins}">'
            f"[{','.join(details)}]</script>\n"
        )

    for number, (_, result) in enumerate(overview.rows()):
        passed = result.execution_status == OK
        told = _detail(result)
        cost = len(told)
        if cost > left[passed]:
            told, cost = "null", 4
        left[passed] -= cost
        if size + cost > _CHUNK and rows:
            flush()
            rows, details, size, begins = [], [], 0, number
        rows.append(_safe(_index(result, labels, suites, kinds, tags)))
        details.append(told)
        size += cost + 200
    flush()


def _index(
    result: CaseResult, labels: _Names, suites: _Names, kinds: _Names, tags: _Names
) -> list[Any]:
    """A row, in the order that the script knows."""
    broken = result.execution_status == EXECUTION_ERROR
    usage = result.token_usage
    known = [tags.places[tag] for tag in result.tags if tag in tags.places]
    return [
        labels.place(result.target),
        suites.place(result.suite_key),
        result.test_id,
        2 if broken else 0 if result.execution_status == OK else 1,
        result.score,
        result.repeat,
        result.prompt or 0,
        known or 0,
        result.cost_usd,
        None if result.duration_ms is None else round(result.duration_ms, 3),
        None if usage is None else usage.get("input", 0) + usage.get("output", 0),
        kinds.place(result.error_kind or "unknown") if broken else None,
    ]


def _detail(result: CaseResult) -> str:
    """What the page shows of a result that is opened, as JSON of bounded size."""
    data: dict[str, Any] = {
        "input": input_text(result.input),
        "output": result.output,
        "expected_output": result.expected_output,
        "scores": result.scores,
        "threshold": result.threshold,
        "provider": result.provider,
    }
    if result.target_used not in (None, result.target):
        data["target_used"] = result.target_used
    for name in _SOMETIMES:
        if value := getattr(result, name):
            data[name] = value
    if result.attempts != 1:
        data["attempts"] = result.attempts
    if len(result.messages) > 1 or any("tool_calls" in message for message in result.messages):
        data["messages"] = result.messages[:_MESSAGES]
    return next(told for told in _smaller(data) if len(told) <= _ONE or told == "null")


_SOMETIMES = (
    "error",
    "criteria",
    "turns",
    "model",
    "finish_reason",
    "token_usage",
    "cached",
    "judge_calls",
    "judge_cost_usd",
    "started_at",
    "cluster",
    "metadata",
)


def _smaller(data: dict[str, Any]) -> Iterator[str]:
    """The detail; without its messages; with shorter texts; nothing."""
    yield _safe(_clipped(data, _LONGEST))
    data.pop("messages", None)
    yield _safe(_clipped(data, _LONGEST))
    yield _safe(_clipped(data, _SHORTER))
    yield "null"


def _clipped(value: Any, longest: int) -> Any:
    if isinstance(value, str):
        if len(value) <= longest:
            return value
        return f"{value[:longest]}\n… {len(value) - longest} characters more, in results.jsonl"
    if isinstance(value, dict):
        return {_clipped(key, longest): _clipped(item, longest) for key, item in value.items()}
    return [_clipped(item, longest) for item in value] if isinstance(value, list) else value


_ENDS = re.compile("[<>&\u2028\u2029]")


def _safe(data: Any) -> str:
    """JSON that can stand in a `script` element: nothing in it ends the element or opens
    another."""
    text = msgspec.json.encode(data, enc_hook=str).decode()
    return _ENDS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
