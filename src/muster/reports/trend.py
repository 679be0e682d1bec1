"""Trends and plans of size, as text."""

from __future__ import annotations

from collections.abc import Sequence

from muster.evals.sizing import Sizing
from muster.evals.trend import Trend
from muster.plain import one_line
from muster.reports.compare import shown_interval
from muster.reports.terminal import format_table

__all__ = ("render_sizing", "render_trends")


def render_trends(trends: Sequence[Trend]) -> str:
    """What `muster trend` prints."""
    return "\n\n\n".join(_trend(trend) for trend in trends)


def _trend(trend: Trend) -> str:
    rows = [
        (
            one_line(point.run),
            f"{point.mean_score.value:.4f}",
            shown_interval(point.mean_score, ".4f"),
            str(point.errors),
        )
        for point in trend.points
    ]
    cases = f"{trend.cases} cases that have a score in every run"
    if trend.left_out:
        cases += f"; {trend.left_out} others left out"
    slope = trend.slope
    parts = [
        f"{one_line(trend.suite)} on {one_line(trend.target)}: {cases}",
        format_table(("run", "mean", "95 % interval", "errors"), rows, right_from=1),
        f"slope {slope.value:+.4f} a run, 95 % interval {shown_interval(slope, '+.4f')}: "
        + trend.direction,
        *(f"note: {one_line(note)}" for note in trend.notes),
    ]
    return "\n\n".join(parts)


def render_sizing(sizing: Sizing) -> str:
    """What `muster power` prints."""
    how = (
        "by how the two differ from case to case"
        if sizing.paired
        else "against another that goes its own way on every case, which is the worst there is"
    )
    head = f"{one_line(sizing.about)}: {sizing.cases} cases, {sizing.repeats:g} repeats, {how}"
    parts = [head, _variance(sizing)]
    counts = list(sizing.rows[0].cases)
    header = [
        "power",
        *(f"cases at {count} {'repeat' if count == 1 else 'repeats'}" for count in counts),
        "repeats of these cases",
        "these show",
    ]
    rows = [
        [
            f"{row.power:.0%}",
            *(_count(row.cases[count]) for count in counts),
            _count(row.repeats) if sizing.within is not None else "–",
            "–" if row.detectable is None else f"{row.detectable:.4f}",
        ]
        for row in sizing.rows
    ]
    parts.append(f"to see a difference of {sizing.difference:g}")
    parts.append(format_table(header, rows, right_from=0))
    parts += [f"note: {one_line(note)}" for note in sizing.notes]
    return "\n\n".join(parts)


def _variance(sizing: Sizing) -> str:
    text = f"variance of a case's difference {sizing.variance:.4f}"
    if sizing.between is None or sizing.within is None:
        return text
    return (
        f"{text}: between cases {sizing.between:.4f}, between repeats {sizing.within:.4f} "
        f"over {sizing.repeats:g}"
    )


def _count(number: int | None) -> str:
    return "none do" if number is None else f"{number:,}"
