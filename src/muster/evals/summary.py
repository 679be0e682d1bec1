"""What a run amounts to, added up as results come: nothing but sums and latencies is kept."""

from __future__ import annotations

import math
import re
from array import array
from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec

from muster.evals.results import EXECUTION_ERROR, OK, CaseResult
from muster.evals.stats import percentile, wilson_interval
from muster.provider import TokenUsage

__all__ = ("Failure", "RunTotals", "SuiteTotals", "TargetTotals", "one_line", "reason_of")

FAILURES_KEPT = 5


class Failure(msgspec.Struct, frozen=True):
    """A result worth looking at, with the reason in one line."""

    test_id: str
    target: str
    repeat: int
    score: float | None
    reason: str


class TargetTotals(msgspec.Struct):
    """Sums over the results of one target."""

    target: str
    count: int = 0
    passed: int = 0
    failed: int = 0
    errors: Counter[str] = msgspec.field(default_factory=Counter)
    """Execution errors by kind."""
    score_sum: float = 0.0
    usage: TokenUsage | None = None
    cost_usd: float | None = None
    without_cost: int = 0
    """Answered results whose cost is unknown."""
    latencies: array[float] = msgspec.field(default_factory=lambda: array("d"))
    """Milliseconds, of answered results."""
    fallbacks: int = 0
    _by_case: dict[tuple[str, str, str | None], list[int]] | None = None

    @property
    def judged(self) -> int:
        """Results that have a score."""
        return self.passed + self.failed

    @property
    def mean_score(self) -> float | None:
        """Over judged results; errors are not scores of 0."""
        return self.score_sum / self.judged if self.judged else None

    @property
    def pass_rate(self) -> float | None:
        """Over judged results."""
        return self.passed / self.judged if self.judged else None

    def track_repeats(self) -> None:
        """Count passes by case, which `interval` needs when cases are repeated."""
        self._by_case = {}

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the pass rate (Wilson).

        Repeats of one case are not independent. With repeats, the number of results is replaced
        by the effective sample size n·p(1-p)/(n·SE²), SE being the cluster-robust standard error
        with cases as clusters (Kish, Survey Sampling, 1965, 8.2; Miller, arXiv 2411.00640, 2.2).
        """
        if not self.judged:
            return None
        if self._by_case is None:
            return wilson_interval(self.passed, self.judged)
        p = self.passed / self.judged
        clusters = list(self._by_case.values())
        spread = sum((passed - p * judged) ** 2 for passed, judged in clusters)
        k = len(clusters)
        if p in (0.0, 1.0) or spread == 0.0 or k < 2:
            size = float(k)
        else:
            variance = spread / self.judged**2 * k / (k - 1)
            size = min(p * (1 - p) / variance, float(self.judged))
        return wilson_interval(p * size, size)

    def latency(self, fraction: float) -> float | None:
        """The latency that `fraction` of the answers stay within, in milliseconds."""
        return percentile(self.latencies, fraction) if self.latencies else None

    def add(self, result: CaseResult) -> None:
        """Count one result."""
        self.count += 1
        if result.execution_status == EXECUTION_ERROR:
            self.errors[result.error_kind or "unknown"] += 1
        else:
            passed = result.execution_status == OK
            self.passed += passed
            self.failed += not passed
            self.score_sum += result.score or 0.0
            if self._by_case is not None:
                key = (result.eval_path or result.suite, result.test_id, result.prompt)
                tally = self._by_case.setdefault(key, [0, 0])
                tally[0] += passed
                tally[1] += 1
            if result.duration_ms is not None:
                self.latencies.append(result.duration_ms)
            if result.cost_usd is None:
                self.without_cost += 1
            if result.target_used not in (None, result.target):
                self.fallbacks += 1
        if result.cost_usd is not None:
            self.cost_usd = (self.cost_usd or 0.0) + result.cost_usd
        if result.token_usage is not None:
            self.usage = TokenUsage.from_mapping(result.token_usage) + self.usage

    def to_dict(self) -> dict[str, Any]:
        """The published form: part of `run.json` and of `--json`."""
        interval = self.interval
        return {
            "target": self.target,
            "count": self.count,
            "passed": self.passed,
            "quality_failures": self.failed,
            "execution_errors": self.errors.total(),
            "errors_by_kind": dict(self.errors),
            "mean_score": self.mean_score,
            "pass_rate": self.pass_rate,
            "pass_rate_interval": list(interval) if interval else None,
            "token_usage": self.usage.to_dict() if self.usage else None,
            "cost_usd": self.cost_usd,
            "results_without_cost": self.without_cost,
            "latency_ms": {"p50": self.latency(0.5), "p95": self.latency(0.95)},
            "answered_by_fallback": self.fallbacks,
        }


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
        self.count = 0
        self._kinds_shown: set[tuple[str, str]] = set()
        self._errors: list[Failure] = []
        self._lowest: list[Failure] = []

    def add(self, result: CaseResult) -> None:
        """Count one result."""
        self.count += 1
        self.targets[result.target].add(result)
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


def reason_of(result: CaseResult) -> str:
    """Why a result is not `ok`, in one line that a terminal can be given."""
    return one_line(_reason_of(result))


def one_line(text: str) -> str:
    """`text` with white space folded and control characters escaped: what a target says must not
    drive the terminal."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", " ".join(text.split()))


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def _reason_of(result: CaseResult) -> str:
    if result.error is not None:
        return result.error
    failed = [
        str(assertion.get("text", ""))
        for score in [*result.scores, *_turn_scores(result)]
        if score.get("verdict") == "fail"
        for assertion in score.get("assertions", ())
        if not assertion.get("passed")
    ]
    return "; ".join(" ".join(text.split()) for text in failed[:2]) or "below the threshold"


def _turn_scores(result: CaseResult) -> list[dict[str, Any]]:
    return [score for turn in result.turns or () for score in turn.get("scores", ())]
