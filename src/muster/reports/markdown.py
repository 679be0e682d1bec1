"""A run as GitHub's Markdown, of bounded size: the summary of a step, or a comment."""

from __future__ import annotations

import re
from collections.abc import Iterator

from muster.evals.target_totals import TargetTotals
from muster.reports.class_lines import class_lines
from muster.reports.judge_lines import judge_lines
from muster.reports.overview import Overview
from muster.reports.terminal import format_milliseconds, format_money, format_tokens
from muster.reports.views import Bad, TargetView

__all__ = ("LIMIT", "render_markdown")

LIMIT = 1_000_000
"""Bytes. GitHub shows a step's summary up to 1 MiB, and nothing of a longer one."""

_ROWS = 100
_NOTES = 50
_CELL = 300


def render_markdown(overview: Overview, *, limit: int = LIMIT) -> str:
    """The summary in at most `limit` bytes: what comes last is left out first, and that is said.

    Whatever a model, a file or a server has said stands in it escaped: no markup of theirs, no
    link, no picture, no mention comes through.
    """
    parts = _Bounded(limit)
    parts.add(_head(overview))
    parts.add(_notes(overview))
    parts.add(_targets(overview))
    parts.add(_errors(overview))
    parts.add(_suites(overview))
    parts.add(_remarks(overview))
    parts.add(_graders(overview))
    parts.add_rows(_WORST_HEAD, [_bad(bad) for bad in overview.worst], _WORST_MORE)
    return parts.text


class _Bounded:
    """Text that grows up to a limit of bytes."""

    _RESERVE = 200

    def __init__(self, limit: int) -> None:
        self.text = ""
        self._left = limit
        self._cut = False

    def add(self, lines: list[str]) -> None:
        """Add a section, whole or not at all."""
        if lines:
            self._take("\n".join(lines) + "\n\n")

    def add_rows(self, head: list[str], rows: list[str], more: str) -> None:
        """Add a table with as many rows as go in."""
        if not rows or not self._take("\n".join(head) + "\n"):
            return
        shown = 0
        for row in rows:
            if not self._take(row + "\n"):
                break
            shown += 1
        if shown < len(rows):
            self.text += f"\n{more.format(len(rows) - shown)}\n"

    def _take(self, text: str) -> bool:
        size = len(text.encode())
        if self._cut or size > self._left - self._RESERVE:
            if not self._cut:
                self._cut = True
                self.text += "\n… cut here: the summary would be too long.\n"
            return False
        self.text += text
        self._left -= size
        return True


def _head(overview: Overview) -> list[str]:
    totals = overview.totals
    passed, failed, errors = totals.passed, totals.quality_failures, totals.errors
    mark = "✅" if not failed and not errors and not overview.notes else "❌"
    if mark == "❌" and not failed and not errors:
        mark = "⚠️"
    counted = f"{passed} passed, {failed} failed, {errors} errors"
    return [f"### {mark} {_inline(overview.title)}: {counted}"]


def _notes(overview: Overview) -> list[str]:
    lines = [f"- note: {_inline(note)}" for note in overview.notes[:_NOTES]]
    if len(overview.notes) > _NOTES:
        lines.append(f"- … {len(overview.notes) - _NOTES} notes more")
    return lines


def _targets(overview: Overview) -> list[str]:
    rows = [_row(_inline(view.label), view.totals) for view in overview.targets.values()]
    header = [
        "target",
        "results",
        "mean score",
        "pass rate",
        "errors",
        "tokens",
        "cost",
        "p50",
        "p95",
    ]
    return _table(header, rows)


def _row(name: str, totals: TargetTotals) -> list[str]:
    p50, p95 = totals.latency(0.5), totals.latency(0.95)
    return [
        name,
        str(totals.count),
        _share(totals.mean_score, totals.mean_interval, "{:.3f}"),
        _share(totals.pass_rate, totals.interval, "{:.1%}"),
        str(totals.errors.total()),
        "–" if totals.usage is None else format_tokens(totals.usage.total),
        format_money(totals.cost_usd) + ("+" if totals.cost_usd and totals.without_cost else ""),
        "–" if p50 is None else format_milliseconds(p50),
        "–" if p95 is None else format_milliseconds(p95),
    ]


def _share(value: float | None, interval: tuple[float, float] | None, form: str) -> str:
    if value is None:
        return "–"
    text = form.format(value)
    if interval is None:
        return text
    return f"{text} [{form.format(interval[0])}, {form.format(interval[1])}]"


def _errors(overview: Overview) -> list[str]:
    rows = [[_inline(label), _inline(kind), str(n)] for label, kind, n in overview.errors_by_kind]
    return _table(["target", "kind of error", "results"], rows)


def _suites(overview: Overview) -> list[str]:
    rows = [
        [_inline(suite), *_row(_inline(view.label), totals)[:5]]
        for suite, view, totals in overview.suites
    ]
    if len(rows) <= len(overview.targets):
        return []
    return _table(["suite", "target", "results", "mean score", "pass rate", "errors"], rows)


def _remarks(overview: Overview) -> list[str]:
    lines = [
        *class_lines(overview.totals.targets.values()),
        *judge_lines(overview.totals.judges.to_list()),
    ]
    return [f"- {_inline(line)}" for line in lines]


def _graders(overview: Overview) -> list[str]:
    rows = [row for view in overview.targets.values() for row in _grader_rows(view)]
    if len(rows) <= len(overview.targets):
        return []
    return _table(["grader", "target", "verdicts", "mean score", "passed"], rows)


def _grader_rows(view: TargetView) -> Iterator[list[str]]:
    for grader in view.graders.values():
        mean, rate = grader.mean, grader.pass_rate
        fixed = not view.sequential
        yield [
            _inline(grader.name),
            _inline(view.label),
            str(grader.tally.n),
            "–" if mean is None else _share(mean.value, mean.interval if fixed else None, "{:.3f}"),
            "–" if rate is None else _share(rate.value, rate.interval if fixed else None, "{:.1%}"),
        ]


_WORST_HEAD = [
    "#### Worth a look",
    "",
    "| case | target | score | reason |",
    "| --- | --- | --: | --- |",
]
_WORST_MORE = "… and {} more."


def _bad(bad: Bad) -> str:
    name = f"<code>{_inline(bad.test_id)}</code>"
    if bad.prompt is not None:
        name += f" {_inline(bad.prompt)}"
    if bad.repeat:
        name += f", repeat {bad.repeat}"
    kind = _inline(bad.error_kind or "error")
    score = f"{bad.score:.3f}" if bad.score is not None else kind
    return f"| {name} | {_inline(bad.target)} | {score} | {_inline(bad.reason)} |"


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    if not rows:
        return []
    lines = [
        "| " + " | ".join(header) + " |",
        "| " + " | ".join(["---", *["--:"] * (len(header) - 1)]) + " |",
        *("| " + " | ".join(row) + " |" for row in rows[:_ROWS]),
    ]
    if len(rows) > _ROWS:
        lines += ["", f"… and {len(rows) - _ROWS} rows more."]
    return lines


_MARKUP = re.compile(
    r"[&<>\\`*{}\[\]()#+!|~$:@^=]|(?<![^\W_])_|_(?![^\W_])|(?<=www)\."
    r"|[\x00-\x1f\x7f-\x9f\u2028\u2029]",
    re.IGNORECASE,
)
_BIDI = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def _inline(text: str) -> str:
    """Any text as itself, within a line of Markdown."""
    text = _BIDI.sub("", " ".join(text.split()))
    if len(text) > _CELL:
        text = text[: _CELL - 1] + "…"
    return _MARKUP.sub(_entity, text)


def _entity(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 32 or 127 <= code < 160 else f"&#{code};"
