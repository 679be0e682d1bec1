"""What a run amounts to, added up as results come: nothing but sums and latencies is kept."""

from __future__ import annotations

import math
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from muster.evals.budget import sum_known
from muster.evals.classification import ClassTotals
from muster.evals.judge_records import JudgeTotals
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
from muster.provider import TokenUsage

__all__ = ("Failure", "RunTotals", "SuiteTotals", "TargetTotals", "one_line", "reason_of")

FAILURES_KEPT = 5

_TRIES = (1, 2, 3, 4, 5, 8, 10, 16, 20, 32, 50, 64, 100)
"""Numbers of tries that are told of, as far as there are repeats."""


class Failure(msgspec.Struct, frozen=True):
    """A result worth looking at, with the reason in one line."""

    test_id: str
    target: str
    repeat: int
    score: float | None
    reason: str


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
    """Answered results whose cost is unknown."""
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
            if result.cost_usd is None:
                self.without_cost += 1
            if result.target_used not in (None, result.target):
                self.fallbacks += 1
        if result.cost_usd is not None:
            self.cost_usd = (self.cost_usd or 0.0) + result.cost_usd
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
            self.classes.add(_turn_scores(result), cluster)
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


def reason_of(result: CaseResult) -> str:
    """Why a result is not `ok`, in one line that a terminal can be given."""
    return one_line(_reason_of(result))


def one_line(text: str) -> str:
    """`text` with white space folded, and characters escaped that drive a terminal or turn text
    round: what a target says must do neither."""
    return _CONTROL.sub(_escaped, " ".join(text.split()))


_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


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
