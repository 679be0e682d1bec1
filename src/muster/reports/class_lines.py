"""What graders that classify found over a run, in a line each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from muster.evals.target_totals import TargetTotals
from muster.plain import one_line
from muster.reports.judge_lines import bounds_text

__all__ = ("class_lines",)

MOST_CLASSES = 10
"""Told one by one; `run.json` has all."""


def class_lines(targets: Iterable[TargetTotals]) -> list[str]:
    """Precision, recall and F1 of each grader that classifies, and of its classes: the worst first
    where there are many."""
    lines = []
    for target in targets:
        for found in target.classes.to_list():
            classes = found["classes"]
            head = (
                f"{one_line(found['grader'])} on {one_line(target.target)}, {found['cases']} cases"
            )
            macro = found["macro_f1"]
            told = "" if macro is None else f", mean F1 of the classes {macro:.3f}"
            lines.append(f"{head}: {_measures(found['micro'])}{told}")
            shown = classes
            if len(classes) > MOST_CLASSES:
                worst = sorted(classes, key=lambda label: _value(classes[label]["f1"]))
                shown = worst[:MOST_CLASSES]
            if len(classes) > 1:
                lines += [f"  {one_line(label)}: {_measures(classes[label])}" for label in shown]
            if len(shown) < len(classes):
                lines.append(f"  and {len(classes) - len(shown)} more")
    return lines


def _value(found: Mapping[str, Any] | None) -> float:
    return 2.0 if found is None else float(found["value"])


def _measures(counts: Mapping[str, Any]) -> str:
    told = [
        f"{name} {_told(counts[key])}"
        for name, key in (("precision", "precision"), ("recall", "recall"), ("F1", "f1"))
    ]
    hits = f"{counts['tp']:g} right, {counts['fp']:g} wrong, {counts['fn']:g} missed"
    return f"{', '.join(told)} ({hits})"


def _told(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "–"
    return f"{found['value']:.3f}" + bounds_text(found["interval"], "{:.3f}")
