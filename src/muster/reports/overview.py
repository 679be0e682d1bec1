"""What one or several runs came to: the numbers that every form of report tells."""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from muster import __version__
from muster.config.project import find_project
from muster.evals.results import EXECUTION_ERROR, OK, CaseResult
from muster.evals.stats import Estimate
from muster.evals.summary import RunTotals, TargetTotals, reason_of
from muster.reports.run_files import ReportRun
from muster.reports.tallies import BINS, Cluster, Tally, bin_of, cluster_of, named_scores

__all__ = (
    "SCHEMA_VERSION",
    "Bad",
    "GraderView",
    "Overview",
    "TargetView",
    "bounds",
    "input_text",
    "labelled",
)

SCHEMA_VERSION = 1

WORST_KEPT = 50
GRADERS_KEPT = 200
"""Graders of a target that are told of; a suite that names more has other worries."""

TAGS_KEPT = 500


class Bad(msgspec.Struct, frozen=True, kw_only=True):
    """A result that is not `ok`, as far as a list of them tells it."""

    run: str
    suite: str
    test_id: str
    prompt: str | None
    target: str
    """What the target is called in the report."""
    repeat: int
    execution_status: str
    error_kind: str | None
    score: float | None
    reason: str


class GraderView(msgspec.Struct):
    """What one grader said of one target's answers."""

    name: str
    type: str
    skipped: int = 0
    tally: Tally = msgspec.field(default_factory=lambda: Tally(2))
    """Of score and verdict."""
    whole: bool = True
    """All scores are 0 or 1."""

    def add(self, row: dict[str, Any], cluster: Cluster | None) -> None:
        """Count one row of `scores`; a grader that could not judge gave no score."""
        score = row.get("score")
        if row.get("verdict") == "skip" or not isinstance(score, int | float):
            self.skipped += 1
            return
        self.whole = self.whole and score in (0, 1)
        self.tally.add(cluster, (min(max(float(score), 0.0), 1.0), row.get("verdict") == "pass"))

    @property
    def mean(self) -> Estimate | None:
        """Of its scores."""
        return self.tally.estimate(0, binary=self.whole)

    @property
    def pass_rate(self) -> Estimate | None:
        """Of its verdicts."""
        return self.tally.estimate(1, binary=True)


class TargetView(msgspec.Struct):
    """One target of one run."""

    label: str
    target: str
    run: ReportRun
    totals: TargetTotals
    suites: dict[str, TargetTotals] = msgspec.field(default_factory=dict)
    graders: dict[str, GraderView] = msgspec.field(default_factory=dict)
    spread: Tally = msgspec.field(default_factory=lambda: Tally(BINS))
    """How scores are distributed: in which of the bins each one lies."""
    costs: Tally = msgspec.field(default_factory=lambda: Tally(1))
    """Of answers whose cost is known."""
    sequential: bool = False
    """It was stopped, or could have been, when enough was known: intervals for a number of results
    that was fixed beforehand do not hold."""

    def add(self, result: CaseResult) -> None:
        """Count one result, whose `target` is the label; `totals` are counted elsewhere."""
        repeated = self.run.has_repeats
        self.of_suite(result.suite_key).add(result)
        cluster = cluster_of(result, repeated=repeated)
        for name, row in named_scores(result):
            known = self.graders.get(name)
            if known is None:
                if len(self.graders) == GRADERS_KEPT:
                    continue
                known = self.graders[name] = GraderView(name, str(row.get("type") or ""))
            known.add(row, cluster)
        if result.score is None:
            return
        place = bin_of(result.score)
        self.spread.add(cluster, [float(place == column) for column in range(BINS)])
        if result.cost_usd is not None:
            self.costs.add(cluster, (result.cost_usd,))

    def of_suite(self, suite: str) -> TargetTotals:
        """The sums of one suite."""
        found = self.suites.get(suite)
        if found is None:
            found = self.suites[suite] = TargetTotals(suite)
            if self.run.has_repeats:
                found.track_repeats()
        return found

    @property
    def cost_per_result(self) -> Estimate | None:
        """US dollars an answer, of those whose cost is known; judges are not in it."""
        found = self.costs.estimate(0, bounds=None)
        if found is None or found.low is None:
            return found
        return msgspec.structs.replace(found, low=max(found.low, 0.0))

    def bins(self) -> list[dict[str, Any]]:
        """The distribution of scores: in each bin the share of the scores with its interval."""
        rows = []
        for column in range(BINS):
            share = self.spread.estimate(column, binary=True)
            rows.append(
                {
                    "from": column / BINS,
                    "to": (column + 1) / BINS,
                    "count": round(self.spread.total(column)),
                    "share": share.value if share else None,
                    "interval": None if self.sequential else bounds(share),
                }
            )
        return rows


class Overview:
    """All runs of a report, added up."""

    def __init__(self, runs: Sequence[ReportRun]) -> None:
        self.runs = list(runs)
        names = [label for run in self.runs for label in run.labels.values()]
        self.totals = RunTotals(names, repeated=False)
        self.totals.judges.root = find_project(self.runs[0].folder).root
        self.targets: dict[str, TargetView] = {}
        self.worst: list[Bad] = []
        """Lowest scores first; errors, one of each kind and target, before them."""
        self.tags: Counter[str] = Counter()
        self._low: list[tuple[float, int, Bad]] = []
        self._kinds: dict[tuple[str, str], None] = {}
        self._errors: list[Bad] = []
        self._bad_count = 0
        for run in self.runs:
            for target in run.targets:
                label = run.labels[target]
                view = TargetView(label, target, run, self.totals.targets[label])
                if run.has_repeats:
                    view.totals.track_repeats()
                self.targets[label] = view
        for run, result in self.rows():
            self._add(run, result)
        self.worst = [*self._errors, *(bad for _, _, bad in self._low)][:WORST_KEPT]
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
        self.targets[result.target].add(result)
        for tag in result.tags:
            if tag in self.tags or len(self.tags) < TAGS_KEPT:
                self.tags[tag] += 1
        if result.execution_status == OK:
            return
        self._bad_count += 1
        if result.execution_status == EXECUTION_ERROR:
            kind = (result.target, result.error_kind or "")
            if kind not in self._kinds and len(self._errors) < WORST_KEPT // 2:
                self._kinds[kind] = None
                self._errors.append(_bad(run, result))
            return
        score = result.score or 0.0
        if len(self._low) < WORST_KEPT or score < self._low[-1][0]:
            insort(self._low, (score, self._bad_count, _bad(run, result)), key=lambda row: row[:2])
            del self._low[WORST_KEPT:]

    def _take_sequential(self) -> None:
        """A run that stopped when enough was known has intervals that allow for that, and no
        others may be told of it. They are in its record, and hold for the results it counted."""
        for view in self.targets.values():
            stopping = view.run.record.get("stopping") or []
            rules = [rule for rule in stopping if view.target in rule.get("targets", ())]
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


def bounds(estimate: Estimate | None) -> list[float] | None:
    """The interval of an estimate, where it has one."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return None
    return [estimate.low, estimate.high]


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
