"""Charts of an overview as SVG, made of nothing but its numbers; labels are escaped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from muster.evals.stats import Estimate
from muster.reports.overview import Overview
from muster.reports.terminal import format_money
from muster.reports.views import TargetView

__all__ = ("cost_chart", "interval_chart", "spread_chart")

_SHOWN = 30
_LABEL = 190
_WIDTH = 360


def interval_chart(overview: Overview, measure: str) -> str:
    """`pass_rate` or `mean_score` of each target, as a dot in its 95 % interval."""
    views = _with_scores(overview)
    height = 26 * len(views) + 24
    parts = [_axis(height - 20)]
    for number, view in enumerate(views):
        totals = view.totals
        if measure == "pass_rate":
            value, interval = totals.pass_rate, totals.interval
        else:
            value, interval = totals.mean_score, totals.mean_interval
        y = 26 * number + 14
        parts.append(f'<text x="0" y="{y + 4}">{_name(view.label)}</text>')
        if interval is not None:
            parts.append(
                f'<line class="range" x1="{_x(interval[0])}" x2="{_x(interval[1])}" '
                f'y1="{y}" y2="{y}"/>'
            )
        parts.append(f'<circle class="dot" cx="{_x(value or 0.0)}" cy="{y}" r="4"/>')
    name = measure.replace("_", " ")
    return _figure(name.capitalize() + ", 95 % intervals", parts, _LABEL + _WIDTH + 20, height)


def _axis(height: int) -> str:
    parts = []
    for tenth in (0, 2, 4, 6, 8, 10):
        x = _x(tenth / 10)
        parts.append(f'<line class="axis" x1="{x}" x2="{x}" y1="0" y2="{height}"/>')
        parts.append(
            f'<text class="soft" x="{x}" y="{height + 15}" text-anchor="middle">'
            f"{tenth / 10:g}</text>"
        )
    return "".join(parts)


def _x(share: float) -> str:
    return _n(_LABEL + share * _WIDTH)


def spread_chart(view: TargetView) -> str:
    """How the scores of a target are distributed: the share in each tenth, with its interval."""
    bins = view.bins()
    top = max([row["share"] or 0.0 for row in bins] + [row["interval"][1] for row in bins
              if row["interval"]])  # fmt: skip
    scale = 90 / (top or 1.0)
    parts = [
        '<line class="axis" x1="30" x2="290" y1="100" y2="100"/>',
        f'<text class="soft" x="26" y="14" text-anchor="end">{top:.0%}</text>',
    ]
    for number, row in enumerate(bins):
        left, share = 30 + 26 * number, row["share"] or 0.0
        y = 100 - share * scale
        told = f"{row['from']:g} to {row['to']:g}: {row['count']} ({share:.1%}"
        if row["interval"]:
            told += f", 95 % interval {row['interval'][0]:.1%} to {row['interval'][1]:.1%}"
        parts.append(
            f'<rect class="bar" x="{left + 2}" width="22" y="{_n(y)}" '
            f'height="{_n(100 - y)}"><title>{told})</title></rect>'
        )
        if row["interval"] and row["count"]:
            low, high = (_n(100 - bound * scale) for bound in row["interval"])
            x = left + 13
            parts.append(f'<line class="whisker" x1="{x}" x2="{x}" y1="{high}" y2="{low}"/>')
    parts += [
        f'<text class="soft" x="{30 + 26 * number}" y="115" text-anchor="middle">'
        f"{number / 10:g}</text>"
        for number in (0, 5, 10)
    ]
    return _figure(f"Scores of {view.label}", parts, 310, 122)


def cost_chart(overview: Overview) -> str:
    """Mean score over cost, a dot a target; nothing where no cost is known."""
    known = [
        (view, cost, view.totals.mean_score)
        for view in _with_scores(overview)
        if (cost := view.cost_per_result) is not None
    ]
    if not known:
        return ""
    most = max(cost.high or cost.value for _, cost, _ in known) or 1.0
    parts = [
        '<line class="axis" x1="46" x2="420" y1="210" y2="210"/>',
        '<line class="axis" x1="46" x2="46" y1="10" y2="210"/>',
        '<text class="soft" x="46" y="226">$0</text>',
        f'<text class="soft" x="420" y="226" text-anchor="end">{format_money(most)}</text>',
        '<text class="soft" x="233" y="242" text-anchor="middle">US dollars a result</text>',
    ]
    parts += [
        f'<text class="soft" x="40" y="{214 - 20 * tenth}" text-anchor="end">{tenth / 10:g}</text>'
        for tenth in (0, 5, 10)
    ]
    for view, cost, score in known:
        parts += _cost_dot(view, cost, score or 0.0, most)
    return _figure("Mean score over cost, 95 % intervals", parts, 560, 250)


def _cost_dot(view: TargetView, cost: Estimate, score: float, most: float) -> Sequence[str]:
    x, y = 46 + 374 * cost.value / most, 210 - 200 * score
    parts = []
    interval = view.totals.mean_interval
    if interval is not None:
        parts.append(
            f'<line class="range" x1="{_n(x)}" x2="{_n(x)}" y1="{_n(210 - 200 * interval[0])}" '
            f'y2="{_n(210 - 200 * interval[1])}"/>'
        )
    if cost.low is not None and cost.high is not None and not view.sequential:
        parts.append(
            f'<line class="range" x1="{_n(46 + 374 * cost.low / most)}" '
            f'x2="{_n(46 + 374 * min(cost.high / most, 1.0))}" y1="{_n(y)}" y2="{_n(y)}"/>'
        )
    told = escape(f"{view.label}: mean score {score:.3f}, {format_money(cost.value)} a result")
    parts.append(
        f'<circle class="dot" cx="{_n(x)}" cy="{_n(y)}" r="5"><title>{told}</title></circle>'
    )
    parts.append(f'<text x="{_n(x + 8)}" y="{_n(y - 7)}">{_name(view.label)}</text>')
    return parts


def _with_scores(overview: Overview) -> list[TargetView]:
    return [view for view in overview.targets.values() if view.totals.judged][:_SHOWN]


def _name(label: str) -> str:
    return escape(label if len(label) <= 26 else label[:25] + "…")


def _n(value: float) -> str:
    return f"{value:.1f}" if math.isfinite(value) else "0"


def _figure(title: str, parts: Sequence[str], width: int, height: int) -> str:
    told = escape(title, quote=True)
    return (
        f'<figure><figcaption>{told}</figcaption><svg role="img" aria-label="{told}" '
        f'width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f"{''.join(parts)}</svg></figure>\n"
    )
