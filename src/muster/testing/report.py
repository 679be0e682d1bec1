"""What came of a check: as text for a terminal, as JSON for programs, as Markdown for a manual."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from muster.testing.outcome import Result, Rule
from muster.testing.running import Run
from muster.testing.subject import Way

__all__ = ("as_json", "as_markdown", "as_text", "line_of", "rules_as_markdown")

FORMAT = "muster.check/1"
WIDTH = 100
MARKS: Mapping[str, str] = {"passed": "ok  ", "failed": "FAIL", "not applicable": "–   "}

WAYS: Mapping[Way, str] = {
    "itself": "it calls the environment itself",
    "behind": "what is behind it calls the environment",
    "never": "it calls no service",
}


def line_of(result: Result) -> str:
    """A result in one line."""
    text = result.outcome.text.replace("\n", " ")
    return f"{MARKS[result.outcome.status]}  {result.rule.id}" + (f"  {text}" if text else "")


def as_text(run: Run) -> str:
    """Every rule, what is broken with the way to mend it, and the sum."""
    lines = [line_of(result) for result in run.results]
    for result in run.failed:
        lines += ["", f"{result.rule.id}: {result.rule.title}"]
        parts = (
            ("evidence", result.outcome.text),
            ("why", result.rule.why),
            ("mend", result.rule.mend),
        )
        for name, text in parts:
            lines += textwrap.wrap(
                f"{name}: {text}", WIDTH, initial_indent="  ", subsequent_indent="    "
            )
    return "\n".join([*lines, "", summary(run)])


def summary(run: Run) -> str:
    """One line: how many rules ended how."""
    return f"{run.subject.name}: {_counted(run)} in {run.seconds:.1f} s ({WAYS[_way(run)]})"


def as_json(run: Run) -> dict[str, Any]:
    """The report as plain data."""
    return {
        "format": FORMAT,
        "provider": run.subject.name,
        "way": _way(run),
        "passed": run.count("passed"),
        "failed": run.count("failed"),
        "not_applicable": run.count("not applicable"),
        "seconds": round(run.seconds, 3),
        "rules": [_row(result) for result in run.results],
    }


def as_markdown(run: Run) -> str:
    """A section on one provider: what is broken, and what does not apply, with reasons."""
    lines = [f"## {run.subject.name}", "", f"{_counted(run)}; {WAYS[_way(run)]}.", ""]
    if run.failed:
        lines += ["| broken rule | evidence | how to mend it |", "| --- | --- | --- |"]
        lines += [
            f"| `{r.rule.id}` | {_cell(r.outcome.text)} | {_cell(r.rule.mend)} |"
            for r in run.failed
        ]
        lines.append("")
    reasons: dict[str, list[str]] = {}
    for result in run.results:
        if result.outcome.status == "not applicable":
            reasons.setdefault(result.outcome.text, []).append(f"`{result.rule.id}`")
    if reasons:
        lines += ["| why not applicable | rules |", "| --- | --- |"]
        lines += [f"| {_cell(reason)} | {', '.join(ids)} |" for reason, ids in reasons.items()]
        lines.append("")
    return "\n".join(lines)


def rules_as_markdown(rules: Iterable[Rule]) -> str:
    """A table of the rules: what each wants, why, and how to mend what breaks it."""
    lines = ["| rule | what it wants | why | how to mend it |", "| --- | --- | --- | --- |"]
    lines += [
        f"| `{rule.id}` | {_cell(rule.title)} | {_cell(rule.why)} | {_cell(rule.mend)} |"
        for rule in rules
    ]
    return "\n".join(lines) + "\n"


def _way(run: Run) -> Way:
    return run.subject.way or "never"


def _counted(run: Run) -> str:
    return (
        f"{run.count('passed')} passed, {run.count('failed')} failed, "
        f"{run.count('not applicable')} not applicable"
    )


def _row(result: Result) -> dict[str, Any]:
    rule, outcome = result.rule, result.outcome
    row: dict[str, Any] = {
        "id": rule.id,
        "title": rule.title,
        "status": outcome.status,
        "seconds": round(result.seconds, 3),
    }
    if outcome.text:
        row["reason" if outcome.status == "not applicable" else "evidence"] = outcome.text
    if outcome.status == "failed":
        row |= {"why": rule.why, "mend": rule.mend}
    return row


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
