"""What one or several runs came to: the numbers that every form of report tells."""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from muster import __version__
from muster.config.project import find_project
from muster.evals.reasons import reason_of
from muster.evals.results import EXECUTION_ERROR, OK, CaseResult
from muster.evals.summary import RunTotals
from muster.evals.target_totals import TargetTotals
from muster.reports.run_files import NAMES_APART, ReportRun
from muster.reports.views import Bad, GraderView, TargetView, bounds

__all__ = ("SCHEMA_VERSION", "Overview", "input_text", "labelled")

SCHEMA_VERSION = 1

WORST_KEPT = 50

TAGS_KEPT = 500


class Overview:
    """All runs of a report, added up."""

    def __init__(self, runs: Sequence[ReportRun]) -> None:
        self.runs = list(runs)
        names = [label for run in self.runs for label in run.labels.values()]
        self.totals = RunTotals(names, repeated=False)
        self.totals.judges.root = _project_of(self.runs[0])
        self.targets: dict[str, TargetView] = {}
        self.worst: list[Bad] = []
        """Lowest scores first; errors, one of each kind and target, before them."""
        self.grouped = _grouped(self.runs)
        """Types of graders that are told of together: they look for another thing in each case."""
        self.tags: Counter[str] = Counter()
        self._kinds: dict[tuple[str, str], None] = {}
        self._errors: list[Bad] = []
        for run in self.runs:
            for target in run.targets:
                label = run.labels[target]
                view = TargetView(label, target, run, self.totals.targets[label])
                if run.has_repeats:
                    view.totals.track_repeats()
                self.targets[label] = view
        for run, result in self.rows():
            self._add(run, result)
        self.worst = [*self._errors, *self._lowest()][:WORST_KEPT]
        self._take_sequential()

    @property
    def notes(self) -> list[str]:
        """What a reader of the numbers must know."""
        return [note for run in self.runs for note in run.notes]

    @property
    def title(self) -> str:
        """What the report is of."""
        suites = dict.fromkeys(suite for view in self.targets.values() for suite in view.suites)
        names = list(suites) or [run.name for run in self.runs]
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

    @property
    def suites(self) -> Iterator[tuple[str, TargetView, TargetTotals]]:
        """Each suite on each target."""
        for view in self.targets.values():
            for suite, totals in view.suites.items():
                yield suite, view, totals

    @property
    def errors_by_kind(self) -> list[tuple[str, str, int]]:
        """Target, kind, how many."""
        return [
            (view.label, kind, count)
            for view in self.targets.values()
            for kind, count in view.totals.errors.most_common()
        ]

    def rows(self) -> Iterator[tuple[ReportRun, CaseResult]]:
        """All results, those of the first run first, their `target` being what the report calls
        it."""
        for run in self.runs:
            for result in run.rows():
                yield run, labelled(run, result)

    def _add(self, run: ReportRun, result: CaseResult) -> None:
        self.totals.add(result)
        self.targets[result.target].add(result, self.grouped)
        for tag in result.tags:
            if tag in self.tags or len(self.tags) < TAGS_KEPT:
                self.tags[tag] += 1
        if result.execution_status == OK:
            return
        if result.execution_status == EXECUTION_ERROR:
            kind = (result.target, result.error_kind or "")
            if kind not in self._kinds and len(self._errors) < WORST_KEPT // 2:
                self._kinds[kind] = None
                self._errors.append(_bad(run, result))
            return
        low, score = self.targets[result.target].low, result.score or 0.0
        if len(low) < WORST_KEPT or score < low[-1][0]:
            insort(low, (score, _bad(run, result)), key=lambda row: row[0])
            del low[WORST_KEPT:]

    def _lowest(self) -> list[Bad]:
        """Of equal scores, one of each target in turn."""
        rows = []
        for view in self.targets.values():
            ranks: Counter[float] = Counter()
            for score, bad in view.low:
                rows.append((score, ranks[score], bad))
                ranks[score] += 1
        rows.sort(key=lambda row: row[:2])
        return [bad for _, _, bad in rows]

    def _take_sequential(self) -> None:
        """A run that stopped when enough was known has intervals that allow for that, and no
        others may be told of it. They are in its record, and hold for the results it counted."""
        for view in self.targets.values():
            rules = [
                rule
                for rule in view.run.recorded("stopping")
                if view.target in rule.get("targets", ())
            ]
            if not rules:
                continue
            view.sequential = True
            recorded = _recorded(view)
            pair: tuple[tuple[float, float] | None, tuple[float, float] | None] = (None, None)
            if recorded is None:
                view.run.notes.append(
                    f"{view.run.name}: {view.target} had a rule when to stop, and other results "
                    "than the run counted: no interval would hold"
                )
            else:
                pair = (
                    _pair(recorded, "mean_score_interval"),
                    _pair(recorded, "pass_rate_interval"),
                )
            view.totals.set_sequential(*pair)
            ruled = {rule.get("suite") for rule in rules}
            for suite, totals in view.suites.items():
                if len(view.suites) == 1:
                    totals.set_sequential(*pair)
                elif suite in ruled or not ruled <= set(view.suites):
                    totals.set_sequential(None, None)

    def to_dict(self) -> dict[str, Any]:
        """The published form: what `muster report --json` prints."""
        totals = self.totals
        return {
            "schema_version": SCHEMA_VERSION,
            "muster": __version__,
            "runs": [_run(run) for run in self.runs],
            "notes": self.notes,
            "results": totals.count,
            "passed": totals.passed,
            "quality_failures": totals.quality_failures,
            "execution_errors": totals.errors,
            "cost_usd": totals.cost_usd,
            "targets": [_target(view) for view in self.targets.values()],
            "suites": [
                {"run": view.run.name, "suite": suite, **totals.to_dict(), "target": view.label}
                for suite, view, totals in self.suites
            ],
            "judges": totals.judges.to_list(),
            "worst": msgspec.to_builtins(self.worst),
        }


def _grouped(runs: Sequence[ReportRun]) -> frozenset[str]:
    names: dict[str, set[str]] = {}
    for run in runs:
        for kind, known in run.grader_names.items():
            names.setdefault(kind, set()).update(known)
    return frozenset(kind for kind, known in names.items() if len(known) > NAMES_APART)


def _project_of(run: ReportRun) -> Path:
    """Where what is known of judges is kept: the run may lie elsewhere."""
    started = Path(str(run.record.get("cwd") or run.folder))
    return find_project(started if started.is_dir() else run.folder).root


def labelled(run: ReportRun, result: CaseResult) -> CaseResult:
    """The result with its target as the report calls it."""
    label = run.labels[result.target]
    if label != result.target:
        if result.target_used == result.target:
            result.target_used = label
        result.target = label
    return result


def _bad(run: ReportRun, result: CaseResult) -> Bad:
    """The result as a list of failures tells it."""
    return Bad(
        run=run.name,
        suite=result.suite_key,
        test_id=result.test_id,
        prompt=result.prompt,
        target=result.target,
        repeat=result.repeat,
        execution_status=result.execution_status,
        error_kind=result.error_kind,
        score=result.score,
        reason=reason_of(result)[:1000],
    )


def input_text(value: Any) -> str:
    """An input as text: a question as it is, messages each after its role."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(part, dict) for part in value):
        return "\n\n".join(f"{part.get('role', '')}: {_content(part)}" for part in value)
    return msgspec.json.encode(value).decode()


def _content(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    return msgspec.json.encode({k: v for k, v in message.items() if k != "role"}).decode()


def _run(run: ReportRun) -> dict[str, Any]:
    record = run.record
    return {
        "run_id": run.name,
        "folder": str(run.folder),
        "status": record.get("status"),
        "started_at": record.get("started_at"),
        "ended_at": record.get("ended_at"),
        "resumed": len(record.get("resumed_at") or ()),
        "git_commit": record.get("git_commit"),
        "results": run.count,
        "planned": run.planned,
        "missing": run.missing,
        "saved": run.saved,
        "unreadable_lines": run.unreadable,
        "duplicates": run.duplicates,
    }


def _target(view: TargetView) -> dict[str, Any]:
    cost = view.cost_per_result
    return {
        "run": view.run.name,
        "name": view.target,
        **view.totals.to_dict(),
        "cost_per_result_usd": cost.value if cost else None,
        "cost_per_result_interval": None if view.sequential else bounds(cost),
        "score_distribution": view.bins(),
        "graders": [_grader(view, grader) for grader in view.graders.values()],
    }


def _grader(view: TargetView, grader: GraderView) -> dict[str, Any]:
    mean, rate = grader.mean, grader.pass_rate
    fixed = not view.sequential
    return {
        "name": grader.name,
        "type": grader.type,
        "count": grader.tally.n,
        "skipped": grader.skipped,
        "mean_score": mean.value if mean else None,
        "mean_score_interval": bounds(mean) if fixed else None,
        "pass_rate": rate.value if rate else None,
        "pass_rate_interval": bounds(rate) if fixed else None,
    }


def _recorded(view: TargetView) -> dict[str, Any] | None:
    """What the run told of the target, if it is of the results that are there."""
    totals = view.run.record.get("totals")
    rows = totals.get("targets") if isinstance(totals, dict) else None
    for row in rows or ():
        counted = (row.get("count"), row.get("passed"), row.get("quality_failures"))
        now = (view.totals.count, view.totals.passed, view.totals.failed)
        if row.get("target") == view.target and counted == now:
            return dict(row)
    return None


def _pair(row: dict[str, Any], name: str) -> tuple[float, float] | None:
    found = row.get(name)
    return (float(found[0]), float(found[1])) if isinstance(found, list) else None
