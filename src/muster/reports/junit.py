"""Results as JUnit XML, which every CI shows: a testsuite for each suite and target."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, TextIO
from xml.sax.saxutils import escape, quoteattr

from muster.evals.reasons import reason_of
from muster.evals.results import EXECUTION_ERROR, OK, CaseResult
from muster.evals.target_totals import TargetTotals
from muster.plain import one_line
from muster.reports.overview import Overview, labelled
from muster.reports.views import TargetView

__all__ = ("write_junit",)

_LONGEST = 10_000
"""Characters of a text; some CIs refuse a file for one long answer. All of it is in the results."""

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_junit(overview: Overview, out: TextIO) -> None:
    """Write all results: a result below its threshold is a `failure`, one without a score an
    `error`."""
    counts = {
        "tests": overview.totals.count,
        "failures": overview.totals.quality_failures,
        "errors": overview.totals.errors,
    }
    out.write('<?xml version="1.0" encoding="UTF-8"?>\n')
    seconds = sum(_seconds(totals) for _, _, totals in overview.suites)
    out.write(f"<testsuites{_attributes(name='muster', **counts, time=f'{seconds:.3f}')}>\n")
    for suite, view, totals in overview.suites:
        _write_suite(out, suite, view, totals)
    out.write("</testsuites>\n")


def _write_suite(out: TextIO, suite: str, view: TargetView, totals: TargetTotals) -> None:
    attributes = {
        "name": f"{suite} · {view.label}",
        "tests": totals.count,
        "failures": totals.failed,
        "errors": totals.errors.total(),
        "skipped": 0,
        "time": f"{_seconds(totals):.3f}",
    }
    if started := view.run.record.get("started_at"):
        attributes["timestamp"] = str(started)[:19]  # UTC, and the schema has no zone
    out.write(f"  <testsuite{_attributes(**attributes)}>\n    <properties>\n")
    for name, value in _properties(suite, view, totals):
        out.write(f"      <property{_attributes(name=name, value=value)}/>\n")
    out.write("    </properties>\n")
    for result in view.run.rows_of((suite, view.target)):
        _write_case(out, labelled(view.run, result))
    out.write("  </testsuite>\n")


def _seconds(totals: TargetTotals) -> float:
    """That answers took, one after the other; as testcases tell them."""
    return sum(totals.latencies) / 1000


def _properties(
    suite: str, view: TargetView, totals: TargetTotals
) -> Iterator[tuple[str, str | int]]:
    run = view.run
    yield "run", run.name
    yield "suite", suite
    yield "target", view.target
    for name, value in (("mean_score", totals.mean_score), ("pass_rate", totals.pass_rate)):
        if value is not None:
            yield name, f"{value:.6f}"
        interval = totals.mean_interval if name == "mean_score" else totals.interval
        if interval is not None:
            yield f"{name}_interval", f"[{interval[0]:.6f}, {interval[1]:.6f}]"
    if totals.cost_usd is not None:
        yield "cost_usd", f"{totals.cost_usd:.6f}"
    if totals.usage is not None:
        yield "tokens", totals.usage.total
    for name in ("status", "git_commit"):
        if run.record.get(name):
            yield name, str(run.record[name])
    for note in run.notes:
        yield "note", note


def _write_case(out: TextIO, result: CaseResult) -> None:
    name = one_line(result.test_id)
    if result.prompt is not None:
        name += f" [{one_line(result.prompt)}]"
    if result.repeat:
        name += f" (repeat {result.repeat})"
    seconds = 0.0 if result.score is None else (result.duration_ms or 0.0) / 1000
    attributes = {
        "classname": f"{result.suite_key}.{result.target}",
        "name": name,
        "time": f"{seconds:.3f}",
    }
    out.write(f"    <testcase{_attributes(**attributes)}")
    if result.execution_status == OK and result.output is None:
        out.write("/>\n")
        return
    out.write(">\n")
    if result.execution_status != OK:
        _write_reason(out, result)
    if result.output is not None:
        out.write(f"      <system-out>{_text(result.output)}</system-out>\n")
    out.write("    </testcase>\n")


def _write_reason(out: TextIO, result: CaseResult) -> None:
    broken = result.execution_status == EXECUTION_ERROR
    element = "error" if broken else "failure"
    kind = (result.error_kind or "error") if broken else "quality_failure"
    message = reason_of(result)
    if not broken:
        message = f"score {result.score:.3f}, {result.threshold:g} needed: {message}"
    attributes = _attributes(type=kind, message=message[:1000])
    out.write(f"      <{element}{attributes}>{_text(_told(result))}</{element}>\n")


def _told(result: CaseResult) -> str:
    """What each grader said, a line an assertion."""
    lines = [result.error] if result.error else []
    for row in result.scores:
        lines.append(f"{row.get('name')}: {row.get('verdict')}, score {row.get('score')}")
        for said in row.get("assertions") or ():
            evidence = f" ({said['evidence']})" if said.get("evidence") else ""
            lines.append(f"  {'✓' if said.get('passed') else '✗'} {said.get('text')}{evidence}")
    if result.expected_output is not None:
        lines.append(f"expected: {result.expected_output}")
    return "\n".join(lines)


def _attributes(**values: Any) -> str:
    return "".join(f" {name}={quoteattr(_legal(str(value)))}" for name, value in values.items())


def _text(text: str) -> str:
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}\n… {len(text) - _LONGEST} characters more"
    return escape(_legal(text), {"\r": "&#13;"})


def _legal(text: str) -> str:
    """Characters that XML cannot hold, escaped."""
    return _NOT_XML.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
