"""What a report tells of each target, each grader, and each result that went wrong."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from muster.evals.budget import sum_known
from muster.evals.results import CaseResult
from muster.evals.stats import Estimate
from muster.evals.target_totals import TargetTotals
from muster.reports.run_files import ReportRun
from muster.reports.tallies import BINS, Cluster, Tally, bin_of, cluster_of, named_scores

__all__ = ("Bad", "GraderView", "TargetView", "bounds")

GRADERS_KEPT = 200
"""Graders of a target that are told of; a suite that names more has other worries."""


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
    low: list[tuple[float, Bad]] = msgspec.field(default_factory=list)
    """The results with the lowest scores, the lowest first."""
    sequential: bool = False
    """It was stopped, or could have been, when enough was known: intervals for a number of results
    that was fixed beforehand do not hold."""

    def add(self, result: CaseResult, grouped: Collection[str]) -> None:
        """Count one result, whose `target` is the label; `totals` are counted elsewhere."""
        repeated = self.run.has_repeats
        self.of_suite(result.suite_key).add(result)
        cluster = cluster_of(result, repeated=repeated)
        for name, row in named_scores(result, grouped):
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
        if (cost := _cost_of(result)) is not None:
            self.costs.add(cluster, (cost,))

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


def _cost_of(result: CaseResult) -> float | None:
    """What the answer costs, whether it was paid for or came from the cache."""
    if result.saved is None or not result.saved.get("hits"):
        return result.cost_usd
    return sum_known(result.cost_usd, result.saved.get("cost_usd"))


def bounds(estimate: Estimate | None) -> list[float] | None:
    """The interval of an estimate, where it has one."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return None
    return [estimate.low, estimate.high]
