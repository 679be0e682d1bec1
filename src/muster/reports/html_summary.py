"""The summary of an HTML report: tables and charts that need no script."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import Any

import msgspec

from muster.evals.stats import Estimate
from muster.evals.target_totals import TargetTotals
from muster.reports.charts import cost_chart, interval_chart, spread_chart
from muster.reports.class_lines import class_lines
from muster.reports.judge_lines import judge_lines
from muster.reports.overview import Overview
from muster.reports.run_files import ReportRun
from muster.reports.sampling import repeat_lines
from muster.reports.terminal import format_milliseconds, format_money, format_tokens
from muster.reports.views import bounds

__all__ = ("SECTIONS", "counted")

_SPREADS = 12
_ROWS = 500


def counted(overview: Overview) -> str:
    """How many results there are, and how they ended."""
    totals = overview.totals
    return (
        f"{totals.count:,} results: "
        f'<span class="ok">{totals.passed:,} ok</span>, '
        f'<span class="failed">{totals.quality_failures:,} failed</span>, '
        f'<span class="error">{totals.errors:,} errors</span>'
    )


def _notes(overview: Overview) -> str:
    notes = overview.notes
    if not notes:
        return ""
    items = "".join(f"<li>{escape(note)}</li>" for note in notes[:50])
    more = f"<li>… {len(notes) - 50} notes more</li>" if len(notes) > 50 else ""
    return f'<div class="notes" role="note"><ul>{items}{more}</ul></div>\n'


def _targets(overview: Overview) -> str:
    header = [
        "target", "results", "mean score", "95 % interval", "pass rate", "95 % interval", "errors",
        "p50", "p95", "tokens", "cost",
    ]  # fmt: skip
    priced = any(view.costs.n for view in overview.targets.values())
    if priced:
        header += ["cost a result", "95 % interval"]
    rows = []
    for view in overview.targets.values():
        totals, cost = view.totals, view.cost_per_result
        more = "+" if totals.cost_usd and totals.without_cost else ""
        row = [
            *_row(view.label, totals),
            *("–" if ms is None else format_milliseconds(ms) for ms in _latencies(totals)),
            "–" if totals.usage is None else format_tokens(totals.usage.total),
            format_money(totals.cost_usd) + more,
        ]
        if priced:
            row.append(format_money(cost.value if cost else None))
            row.append(_money_bounds(None if view.sequential else cost))
        rows.append(row)
    return "<h2>Targets</h2>\n" + _table(header, rows)


def _row(name: str, totals: TargetTotals) -> list[str]:
    mean, rate = totals.mean_score, totals.pass_rate
    return [
        name,
        f"{totals.count:,}",
        "–" if mean is None else f"{mean:.3f}",
        _bounds(totals.mean_interval, "{:.3f}"),
        "–" if rate is None else f"{rate:.1%} ({totals.passed}/{totals.judged})",
        _bounds(totals.interval, "{:.1%}"),
        str(totals.errors.total()),
    ]


def _latencies(totals: TargetTotals) -> tuple[float | None, float | None]:
    return totals.latency(0.5), totals.latency(0.95)


def _bounds(interval: Sequence[float] | None, form: str) -> str:
    if interval is None:
        return "–"
    return f"[{form.format(interval[0])}, {form.format(interval[1])}]"


def _money_bounds(estimate: Estimate | None) -> str:
    found = bounds(estimate)
    return "–" if found is None else f"[{format_money(found[0])}, {format_money(found[1])}]"


def _charts(overview: Overview) -> str:
    if not overview.totals.passed + overview.totals.quality_failures:
        return ""
    views = [view for view in overview.targets.values() if view.totals.judged]
    graded = any(not view.totals.has_whole_scores for view in views)
    parts = [interval_chart(overview, "pass_rate")]
    if graded:
        parts.append(interval_chart(overview, "mean_score"))
    parts.append(cost_chart(overview))
    parts += [spread_chart(view) for view in views[:_SPREADS]]
    lines = repeat_lines(view.totals for view in views)
    told = "".join(f'<p class="soft">{escape(line)}</p>' for line in lines)
    return f'<h2>Distributions</h2>\n<div class="charts">{"".join(parts)}</div>{told}\n'


def _suites(overview: Overview) -> str:
    header = ("suite", "target", "results", "mean score", "95 % interval", "pass rate",
              "95 % interval", "errors")  # fmt: skip
    rows = [[suite, *_row(view.label, totals)] for suite, view, totals in overview.suites]
    if len(rows) <= len(overview.targets):
        return ""
    return "<h2>Suites</h2>\n" + _table(header, rows, texts=2)


def _graders(overview: Overview) -> str:
    header = ("grader", "target", "verdicts", "mean score", "95 % interval", "passed",
              "95 % interval", "not judged")  # fmt: skip
    rows = []
    for view in overview.targets.values():
        for grader in view.graders.values():
            mean, rate = grader.mean, grader.pass_rate
            fixed = not view.sequential
            rows.append(
                [
                    grader.name,
                    view.label,
                    f"{grader.tally.n:,}",
                    "–" if mean is None else f"{mean.value:.3f}",
                    _bounds(bounds(mean) if fixed else None, "{:.3f}"),
                    "–" if rate is None else f"{rate.value:.1%}",
                    _bounds(bounds(rate) if fixed else None, "{:.1%}"),
                    str(grader.skipped),
                ]
            )
    if not rows:
        return ""
    lines = class_lines(overview.totals.targets.values())
    lines += judge_lines(overview.totals.judges.to_list())
    told = "".join(f"<p>{escape(line)}</p>" for line in lines)
    return "<h2>Graders</h2>\n" + _table(header, rows, texts=2) + told


def _errors(overview: Overview) -> str:
    rows = [[kind, label, f"{count:,}"] for label, kind, count in overview.errors_by_kind]
    if not rows:
        return ""
    return "<h2>Errors by kind</h2>\n" + _table(("kind", "target", "results"), rows, texts=2)


def _runs(overview: Overview) -> str:
    parts = [_run(run) for run in overview.runs]
    return "<h2>Runs</h2>\n" + "".join(parts)


def _run(run: ReportRun) -> str:
    record = run.record
    versions = record.get("versions")
    facts: dict[str, Any] = {
        "status": record.get("status"),
        "started": record.get("started_at"),
        "ended": record.get("ended_at"),
        "resumed": ", ".join(map(str, record.get("resumed_at") or ())),
        "results": f"{run.count:,}" + (f" of {run.planned:,}" if run.planned is not None else ""),
        "not needed": f"{run.saved:,}" if run.saved else None,
        "versions": versions if isinstance(versions, dict) else None,
        "commit": record.get("git_commit"),
    }
    for suite in run.recorded("suites"):
        path = suite.get("eval_path") or suite.get("name")
        facts[f"suite {path}"] = f"{suite.get('cases')} cases, {suite.get('content_hash')}"
    for target in run.recorded("targets"):
        facts[f"target {target.get('name')}"] = {
            name: target[name] for name in ("provider", "config", "fallback_targets")
            if target.get(name)
        }  # fmt: skip
    options = record.get("options")
    if isinstance(options, dict):
        facts["options"] = {name: value for name, value in options.items() if value}
    told = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(_fact(value))}</dd>"
        for name, value in facts.items()
        if value
    )
    summary = f"<summary>{escape(run.name)}</summary>"
    return f"<details>{summary}<dl>{told}</dl></details>\n"


def _fact(value: Any) -> str:
    if isinstance(value, dict) and all(isinstance(item, str) for item in value.values()):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    return value if isinstance(value, str) else msgspec.json.encode(value, enc_hook=str).decode()


SECTIONS: tuple[Callable[[Overview], str], ...] = (
    _notes,
    _targets,
    _charts,
    _errors,
    _suites,
    _graders,
    _runs,
)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int = 1) -> str:
    """The first `texts` columns hold text, the others numbers."""

    def cells(row: Sequence[str]) -> Iterator[str]:
        for column, text in enumerate(row):
            if column == 0:
                yield f'<th scope="row" class="text">{escape(text)}</th>'
            else:
                yield f"<td{_TEXT if column < texts else ''}>{escape(text)}</td>"

    head = "".join(
        f'<th scope="col"{_TEXT if column < texts else ""}>{escape(name)}</th>'
        for column, name in enumerate(header)
    )
    body = "".join(f"<tr>{''.join(cells(row))}</tr>\n" for row in rows[:_ROWS])
    more = f"<p>… {len(rows) - _ROWS} rows more</p>" if len(rows) > _ROWS else ""
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{escape(header[0])} table">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{more}\n"
    )


_TEXT = ' class="text"'
