"""The summary of a run as text: one table, the failures worth looking at, where the results are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path

from muster.evals.runner import Outcome
from muster.evals.summary import RunTotals, SuiteTotals
from muster.evals.target_totals import TargetTotals
from muster.plain import one_line
from muster.reports.class_lines import class_lines
from muster.reports.judge_lines import judge_lines
from muster.reports.sampling import repeat_lines, stopping_lines

__all__ = (
    "WHY_NOT",
    "format_milliseconds",
    "format_money",
    "format_table",
    "format_tokens",
    "render_summary",
    "tokens_text",
)


def render_summary(outcome: Outcome, *, folder: Path | None, planned: int) -> str:
    """What `muster eval` prints when it is through."""
    totals = outcome.totals
    # The interval of a mean of zeros and ones is that of the pass rate.
    graded = any(not target.has_whole_scores for target in totals.targets.values())
    rows = [_row(target, graded) for target in totals.targets.values()]
    header = [
        "target", "results", "mean", *(["95 % interval"] if graded else []),
        "pass rate", "95 % interval", "errors", "tokens", "cost", "p50", "p95",
    ]  # fmt: skip
    parts = [format_table(header, rows, right_from=1)]
    if len({suite.suite for suite in totals.suites.values()}) > 1:
        parts.append(_suite_table(totals.suites.values()))
    kinds = [
        f"  {target.target}: {count} × {kind}"
        for target in totals.targets.values()
        for kind, count in target.errors.most_common()
    ]
    if kinds:
        parts.append("errors by kind\n" + "\n".join(kinds))
    if totals.failures:
        shown = [
            f"  {one_line(failure.test_id)} · {failure.target}"
            + (f" · repeat {failure.repeat}" if failure.repeat else "")
            + (" · ERROR" if failure.score is None else f" · {failure.score:.2f}")
            + f"\n      {_clip(failure.reason, 300)}"
            for failure in totals.failures
        ]
        parts.append("worth a look\n" + "\n".join(shown))
    fallbacks = [
        f"note: answers of {target.target} that came from a fallback target: {target.fallbacks}"
        for target in totals.targets.values()
        if target.fallbacks
    ]
    parts.extend(fallbacks)
    parts.extend(repeat_lines(totals.targets.values()))
    parts.extend(stopping_lines(outcome.stopping))
    if classes := class_lines(totals.targets.values()):
        parts.append("\n".join(classes))
    parts.extend(_cache_lines(totals))
    if judging := _judging(totals):
        parts.append(judging)
    if totals.count + outcome.saved < planned:
        missing = planned - totals.count - outcome.saved
        parts.append(f"not run: {missing} of {planned} results ({WHY_NOT[outcome.status]})")
    if folder is not None:
        parts.append(f"results: {folder}")
    return "\n\n".join(parts)


def _cache_lines(totals: RunTotals) -> list[str]:
    """What the response cache saved."""
    lines = []
    for target in totals.targets.values():
        saved = target.saved
        if saved.hits:
            line = f"cache: {saved.hits} answers for {target.target} were there"
            told = []
            if saved.usage is not None:
                told.append(f"{format_tokens(saved.usage.total)} tokens")
            if saved.cost_usd is not None:
                told.append(format_money(saved.cost_usd))
            lines.append(line + (f"; saved {', '.join(told)}" if told else ""))
    return ["\n".join(lines)] if lines else []


def _judging(totals: RunTotals) -> str:
    """What judges took, and what is known of them; nothing when none was asked."""
    lines = [
        f"judging {target.target}: {target.judge_calls} calls"
        + (f", {format_tokens(target.judge_usage.total)} tokens" if target.judge_usage else "")
        + (f", {format_money(target.judge_cost_usd)}" if target.judge_cost_usd is not None else "")
        for target in totals.targets.values()
        if target.judge_calls
    ]
    return "\n".join([*lines, *judge_lines(totals.judges.to_list())]) if lines else ""


def _suite_table(suites: Iterable[SuiteTotals]) -> str:
    rows = [
        (
            suite.suite,
            suite.target,
            str(suite.judged + suite.errors),
            "–" if suite.mean_score is None else f"{suite.mean_score:.3f}",
            f"{suite.passed}/{suite.judged}",
            str(suite.errors),
        )
        for suite in suites
    ]
    header = ("suite", "target", "results", "mean", "passed", "errors")
    return format_table(header, rows, right_from=2)


WHY_NOT = {
    "complete": "the run ended early",
    "interrupted": "interrupted",
    "timed_out": "the time for the run was up",
    "budget_exceeded": "the budget is spent",
    "failed": "stopped at the first error",
}
"""By a run's status: why results are missing."""


def _row(target: TargetTotals, graded: bool) -> tuple[str, ...]:
    interval = target.interval
    mean_interval = _bounds(target) if graded else ()
    p50, p95 = target.latency(0.5), target.latency(0.95)
    return (
        target.target,
        str(target.count),
        "–" if target.mean_score is None else f"{target.mean_score:.3f}",
        *mean_interval,
        "–"
        if target.pass_rate is None
        else f"{target.pass_rate:.1%} ({target.passed}/{target.judged})",
        "–" if interval is None else f"[{interval[0]:.1%}, {interval[1]:.1%}]",
        str(target.errors.total()),
        "–" if target.usage is None else format_tokens(target.usage.total),
        format_money(target.cost_usd) + ("+" if target.cost_usd and target.without_cost else ""),
        "–" if p50 is None else format_milliseconds(p50),
        "–" if p95 is None else format_milliseconds(p95),
    )


def _bounds(target: TargetTotals) -> tuple[str]:
    interval = target.mean_interval
    return ("–" if interval is None else f"[{interval[0]:.3f}, {interval[1]:.3f}]",)


def format_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, right_from: int | None = None
) -> str:
    """Columns aligned by two spaces; from column `right_from` on, to the right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = []
    for row in [header, *rows]:
        cells = [
            text.rjust(width)
            if right_from is not None and column >= right_from
            else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join(lines)


def format_money(cost_usd: float | None) -> str:
    """US dollars with the digits that matter; a dash when the cost is not known."""
    if cost_usd is None:
        return "–"
    if cost_usd == 0:
        return "$0"
    if cost_usd >= 0.99995:
        return f"${cost_usd:,.2f}"
    return f"${Decimal(f'{cost_usd:.4g}'):f}"


def format_tokens(count: int) -> str:
    """`950`, `12.3k`, `4.56M`."""
    if count < 10_000:
        return str(count)
    return f"{count / 1000:.1f}k" if count < 999_950 else f"{count / 1_000_000:.2f}M"


def tokens_text(tokens: int | str, untold: int) -> str:
    """`34 tokens`; where some calls did not tell theirs, `34+ tokens` or `unknown tokens`."""
    if not untold:
        return f"{tokens} tokens"
    return f"{tokens}+ tokens" if tokens not in (0, "0") else "unknown tokens"


def format_milliseconds(value: float) -> str:
    """`3.1 ms`, `310 ms`, `31.0 s`."""
    if value < 9.95:
        return f"{value:.1f} ms"
    return f"{value:.0f} ms" if value < 9_999.5 else f"{value / 1000:.1f} s"


def _clip(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
