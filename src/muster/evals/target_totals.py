"""What the results of one target amount to: sums, intervals, repeats."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec

from muster.evals.budget import sum_known
from muster.evals.classification import ClassTotals
from muster.evals.reasons import turn_scores
from muster.evals.results import EXECUTION_ERROR, OK, CaseResult
from muster.evals.stats import (
    Estimate,
    VarianceSplit,
    clustered_mean,
    mean_of_sums,
    pass_at_k,
    pass_hat_k,
    percentile,
    split_variance,
)
from muster.evals.unpriced import lacks_cost
from muster.provider import TokenUsage

__all__ = ("TargetTotals",)

_TRIES = (1, 2, 3, 4, 5, 8, 10, 16, 20, 32, 50, 64, 100)
"""Numbers of tries that are told of, as far as there are repeats."""


class _CaseTally(msgspec.Struct, gc=False):
    """The repeats of one case."""

    cluster: tuple[str, str, str]
    judged: int = 0
    passed: int = 0
    score: float = 0.0
    squares: float = 0.0


class SavedTotals(msgspec.Struct):
    """What answers from the response cache would have taken; it is in no other sum."""

    hits: int = 0
    """Judges' included."""
    usage: TokenUsage | None = None
    cost_usd: float | None = None

    def add(self, saved: Mapping[str, Any]) -> None:
        """Count the `saved` of one result."""
        self.hits += saved.get("hits", 0) + saved.get("judge_hits", 0)
        for who in ("", "judge_"):
            self.cost_usd = sum_known(self.cost_usd, saved.get(f"{who}cost_usd"))
            if (usage := saved.get(f"{who}token_usage")) is not None:
                self.usage = TokenUsage.from_mapping(usage) + self.usage

    def to_dict(self) -> dict[str, Any] | None:
        """The published form; `None` without a hit."""
        if not self.hits:
            return None
        usage = self.usage.to_dict() if self.usage is not None else None
        return {"hits": self.hits, "token_usage": usage, "cost_usd": self.cost_usd}


class PassK(msgspec.Struct, frozen=True):
    """What to expect of `k` tries of a case: that one passes, and that all do."""

    k: int
    pass_at_k: Estimate
    pass_hat_k: Estimate
    cases: int
    """That have so many results, and are what is told here."""


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
    """Answered results whose cost is unknown, or that of a part of the calls only."""
    latencies: array[float] = msgspec.field(default_factory=lambda: array("d"))
    """Milliseconds, of answered results."""
    fallbacks: int = 0
    judge_calls: int = 0
    judge_usage: TokenUsage | None = None
    judge_cost_usd: float | None = None
    """What judges took, which is not in `usage` and `cost_usd`."""
    saved: SavedTotals = msgspec.field(default_factory=lambda: SavedTotals())  # noqa: PLW0108
    """What the response cache saved."""
    classes: ClassTotals = msgspec.field(default_factory=ClassTotals)
    """Of graders that classify."""
    _by_case: dict[tuple[str, str, str | None], _CaseTally] | None = None
    """Where cases are repeated."""
    _by_cluster: dict[tuple[str, str, str], list[float]] = msgspec.field(default_factory=dict)
    """Of results that are not independent of others: how many, passed, sum of scores."""
    _singles: list[float] = msgspec.field(default_factory=lambda: [0, 0, 0.0, 0.0])
    """Of the others: how many, passed, sum of scores, sum of their squares."""
    _binary: bool = True
    """All scores are 0 or 1."""
    _sequential: tuple[tuple[float, float] | None, tuple[float, float] | None] | None = None

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
        """Count by case, which what is told of repeats needs."""
        self._by_case = {}

    def set_sequential(
        self, mean_score: tuple[float, float] | None, pass_rate: tuple[float, float] | None
    ) -> None:
        """Intervals that hold however the target's suite was stopped, in place of the others."""
        self._sequential = (mean_score, pass_rate)

    @property
    def clusters(self) -> int:
        """Independent units among the judged results."""
        return len(self._by_cluster) + int(self._singles[0])

    @property
    def has_whole_scores(self) -> bool:
        """All scores are 0 or 1: their mean is a rate, and its interval that of a rate."""
        return self._binary

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the pass rate: Wilson's.

        Repeats of one case, and cases of one cluster, are not independent. With these, the number
        of results is replaced by their effective number: `stats.effective_size`.
        """
        if self._sequential is not None:
            return self._sequential[1]
        n, passed, _, _ = self._singles
        return self._estimate(1, int(n), passed, passed, binary=True)

    @property
    def mean_interval(self) -> tuple[float, float] | None:
        """95 % interval of the mean score, which knows of clusters: `stats.mean_of_sums`."""
        if self._sequential is not None:
            return self._sequential[0]
        n, _, total, squares = self._singles
        return self._estimate(2, int(n), total, squares, binary=self._binary)

    def _estimate(
        self, column: int, singles: int, total: float, squares: float, *, binary: bool
    ) -> tuple[float, float] | None:
        if not self.judged:
            return None
        found = mean_of_sums(
            ((int(tally[0]), tally[column]) for tally in self._by_cluster.values()),
            singles=singles,
            single_sum=total,
            single_squares=squares,
            binary=binary,
        )
        return found.interval

    @property
    def variance(self) -> VarianceSplit | None:
        """The variance of scores, between cases and between their repeats."""
        if self._by_case is None:
            return None
        return split_variance(
            (case.judged, case.score, case.squares) for case in self._by_case.values()
        )

    @property
    def pass_k(self) -> list[PassK]:
        """pass@k and pass^k, for several k up to the number of repeats; empty without repeats."""
        if self._by_case is None:
            return []
        most = max((case.judged for case in self._by_case.values()), default=0)
        if most < 2:
            return []
        return [self._pass_k(k) for k in (*(k for k in _TRIES if k < most), most)]

    def _pass_k(self, k: int) -> PassK:
        assert self._by_case is not None
        cases = [case for case in self._by_case.values() if case.judged >= k]
        clusters = [case.cluster for case in cases]
        one, every = (
            clustered_mean([formula(case.judged, case.passed, k) for case in cases], clusters)
            for formula in (pass_at_k, pass_hat_k)
        )
        return PassK(k, one, every, len(cases))

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
            self._add_score(result, passed)
            if result.duration_ms is not None:
                self.latencies.append(result.duration_ms)
            if result.target_used not in (None, result.target):
                self.fallbacks += 1
        if result.cost_usd is not None:
            self.cost_usd = (self.cost_usd or 0.0) + result.cost_usd
            self.without_cost += lacks_cost(result.messages)
        elif result.execution_status != EXECUTION_ERROR:
            self.without_cost += 1
        if result.token_usage is not None:
            self.usage = TokenUsage.from_mapping(result.token_usage) + self.usage
        if result.judge_calls:
            self._add_judging(result)
        if result.saved is not None:
            self.saved.add(result.saved)

    def _cluster_of(self, result: CaseResult) -> tuple[str, str, str] | None:
        """What the result is not independent of; `None` if it stands for itself."""
        if result.cluster is not None:
            return result.suite_key, "cluster", result.cluster
        if self._by_case is not None or result.prompt is not None:
            return result.suite_key, "test", result.test_id
        return None

    def _add_score(self, result: CaseResult, passed: bool) -> None:
        score = result.score or 0.0
        self._binary = self._binary and score in (0.0, 1.0)
        cluster = self._cluster_of(result)
        self.classes.add(result.scores, cluster)
        if result.turns:
            self.classes.add(turn_scores(result), cluster)
        if cluster is None:
            singles = self._singles
            singles[0] += 1
            singles[1] += passed
            singles[2] += score
            singles[3] += score * score
            return
        known = self._by_cluster.setdefault(cluster, [0, 0, 0.0])
        known[0] += 1
        known[1] += passed
        known[2] += score
        if self._by_case is not None:
            key = (result.suite_key, result.test_id, result.prompt)
            case = self._by_case.get(key)
            if case is None:
                case = self._by_case[key] = _CaseTally(cluster)
            case.judged += 1
            case.passed += passed
            case.score += score
            case.squares += score * score

    def _add_judging(self, result: CaseResult) -> None:
        self.judge_calls += result.judge_calls
        self.judge_cost_usd = sum_known(self.judge_cost_usd, result.judge_cost_usd)
        if result.judge_token_usage is not None:
            self.judge_usage = TokenUsage.from_mapping(result.judge_token_usage) + self.judge_usage

    def to_dict(self) -> dict[str, Any]:
        """The published form: part of `run.json` and of `--json`."""
        interval, mean_interval = self.interval, self.mean_interval
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
            "mean_score_interval": list(mean_interval) if mean_interval else None,
            "clusters": self.clusters,
            "pass_k": msgspec.to_builtins(self.pass_k),
            "variance": msgspec.to_builtins(self.variance),
            "token_usage": self.usage.to_dict() if self.usage else None,
            "cost_usd": self.cost_usd,
            "results_without_cost": self.without_cost,
            "latency_ms": {"p50": self.latency(0.5), "p95": self.latency(0.95)},
            "answered_by_fallback": self.fallbacks,
            "judge_calls": self.judge_calls,
            "judge_token_usage": self.judge_usage.to_dict() if self.judge_usage else None,
            "judge_cost_usd": self.judge_cost_usd,
            "saved": self.saved.to_dict(),
            "classification": self.classes.to_list(),
        }
