"""What a run amounts to, added up as results come: nothing but sums and latencies is kept."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec

from muster.evals.judge_records import JudgeTotals
from muster.evals.reasons import reason_of
from muster.evals.results import EXECUTION_ERROR, OK, CaseResult
from muster.evals.target_totals import TargetTotals

__all__ = ("Failure", "RunTotals", "SuiteTotals")

FAILURES_KEPT = 5


class Failure(msgspec.Struct, frozen=True):
    """A result worth looking at, with the reason in one line."""

    test_id: str
    target: str
    repeat: int
    score: float | None
    reason: str


class SuiteTotals(msgspec.Struct):
    """How one suite went on one target; the full account is the target's."""

    suite: str
    target: str
    passed: int = 0
    failed: int = 0
    errors: int = 0
    score_sum: float = 0.0

    @property
    def judged(self) -> int:
        """Results that have a score."""
        return self.passed + self.failed

    @property
    def mean_score(self) -> float | None:
        """Over judged results."""
        return self.score_sum / self.judged if self.judged else None

    def add(self, result: CaseResult) -> None:
        """Count one result."""
        if result.execution_status == EXECUTION_ERROR:
            self.errors += 1
            return
        passed = result.execution_status == OK
        self.passed += passed
        self.failed += not passed
        self.score_sum += result.score or 0.0

    def to_dict(self) -> dict[str, Any]:
        """The published form."""
        return {
            "suite": self.suite,
            "target": self.target,
            "count": self.judged + self.errors,
            "passed": self.passed,
            "quality_failures": self.failed,
            "execution_errors": self.errors,
            "mean_score": self.mean_score,
        }


class RunTotals:
    """All targets of a run, its suites, and the failures worth looking at."""

    def __init__(self, targets: Iterable[str], *, repeated: bool) -> None:
        self.targets = {name: TargetTotals(name) for name in targets}
        if repeated:
            for totals in self.targets.values():
                totals.track_repeats()
        self.suites: dict[tuple[str, str], SuiteTotals] = {}
        """By suite key and target."""
        self.judges = JudgeTotals()
        self.count = 0
        self._kinds_shown: set[tuple[str, str]] = set()
        self._errors: list[Failure] = []
        self._lowest: list[Failure] = []

    def add(self, result: CaseResult) -> None:
        """Count one result."""
        self.count += 1
        self.targets[result.target].add(result)
        self.judges.add(result)
        self._of_suite(result).add(result)
        if result.execution_status == EXECUTION_ERROR:
            shown = (result.target, result.error_kind or "")
            if shown not in self._kinds_shown and len(self._errors) < FAILURES_KEPT:
                self._kinds_shown.add(shown)
                self._errors.append(_failure(result))
        elif result.execution_status != OK:
            self._keep_low(result)

    def _of_suite(self, result: CaseResult) -> SuiteTotals:
        key = (result.suite_key, result.target)
        found = self.suites.get(key)
        if found is None:
            found = self.suites[key] = SuiteTotals(*key)
        return found

    def _keep_low(self, result: CaseResult) -> None:
        low = self._lowest
        score = result.score or 0.0
        if len(low) == FAILURES_KEPT and score >= (low[-1].score or 0.0):
            return
        low.append(_failure(result))
        low.sort(key=lambda failure: failure.score or 0.0)
        del low[FAILURES_KEPT:]

    @property
    def failures(self) -> list[Failure]:
        """One error of each kind first, then the lowest scores."""
        return [*self._errors, *self._lowest]

    @property
    def passed(self) -> int:
        """Results that reached their threshold, all targets."""
        return sum(totals.passed for totals in self.targets.values())

    @property
    def errors(self) -> int:
        """Execution errors, all targets."""
        return sum(totals.errors.total() for totals in self.targets.values())

    @property
    def errors_by_kind(self) -> Counter[str]:
        """Execution errors, all targets."""
        return sum((totals.errors for totals in self.targets.values()), Counter())

    @property
    def quality_failures(self) -> int:
        """Results below their threshold, all targets."""
        return sum(totals.failed for totals in self.targets.values())

    @property
    def cost_usd(self) -> float | None:
        """Money spent, as far as it is known."""
        known = [t.cost_usd for t in self.targets.values() if t.cost_usd is not None]
        return math.fsum(known) if known else None

    @property
    def tokens(self) -> int:
        """Tokens used, as far as they are known."""
        return sum(t.usage.total for t in self.targets.values() if t.usage)

    def to_dict(self) -> dict[str, Any]:
        """The published form."""
        return {
            "results": self.count,
            "passed": self.passed,
            "quality_failures": self.quality_failures,
            "execution_errors": self.errors,
            "cost_usd": self.cost_usd,
            "targets": [totals.to_dict() for totals in self.targets.values()],
            "suites": [totals.to_dict() for totals in self.suites.values()],
        }


def _failure(result: CaseResult) -> Failure:
    return Failure(result.test_id, result.target, result.repeat, result.score, reason_of(result))
