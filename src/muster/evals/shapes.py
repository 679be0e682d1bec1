"""The published shapes of what goes out: `run.json`, which `muster eval --json` prints too, and the
summary of `muster report --json`. New fields may come at any time; what is here keeps its meaning.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

__all__ = ("ReportSummary", "RunRecord")

Interval: TypeAlias = tuple[float, float] | None
"""The bounds of a 95 % interval; `null` where the data allow none."""


class Estimated(msgspec.Struct):
    """A number with its interval."""

    value: float
    low: float | None
    high: float | None
    standard_error: float | None
    clusters: int
    n: int


class PassK(msgspec.Struct):
    """What to expect of `k` tries of a case."""

    k: int
    pass_at_k: Estimated
    pass_hat_k: Estimated
    cases: int


class Variance(msgspec.Struct):
    """The variance of scores, between cases and between repeats of one."""

    between: float
    within: float
    cases: int
    n: int


class Latency(msgspec.Struct):
    """Milliseconds that half, and 95 % of the answers took at most."""

    p50: float | None
    p95: float | None


class Saved(msgspec.Struct):
    """What the response cache saved."""

    hits: int
    token_usage: dict[str, int] | None
    cost_usd: float | None


class ClassCounts(msgspec.Struct):
    """Hits and misses of a class, and what they come to: `value` and `interval`."""

    tp: float
    fp: float
    fn: float
    tn: float
    precision: dict[str, Any] | None
    recall: dict[str, Any] | None
    f1: dict[str, Any] | None


class Classification(msgspec.Struct):
    """What a grader that classifies found."""

    grader: str
    cases: int
    micro: ClassCounts
    """All classes together."""
    macro_f1: float | None
    """The mean over classes."""
    classes: dict[str, ClassCounts]
    left_out: int
    """Classes beyond the thousandth, in `micro` alone."""


class Totals(msgspec.Struct, kw_only=True):
    """The sums over the results of a target. Money in US dollars."""

    target: str
    count: int
    passed: int
    quality_failures: int
    execution_errors: int
    errors_by_kind: dict[str, int]
    mean_score: float | None
    """Over results that have a score."""
    pass_rate: float | None
    pass_rate_interval: Interval
    mean_score_interval: Interval
    clusters: int
    """Independent units among the results that have a score."""
    pass_k: list[PassK]
    variance: Variance | None
    token_usage: dict[str, int] | None
    cost_usd: float | None
    results_without_cost: int
    latency_ms: Latency
    answered_by_fallback: int
    judge_calls: int
    judge_token_usage: dict[str, int] | None
    judge_cost_usd: float | None
    saved: Saved | None = None
    classification: list[Classification] = []
    """Of graders that classify."""


class SuiteSums(msgspec.Struct):
    """How one suite went on one target."""

    suite: str
    target: str
    count: int
    passed: int
    quality_failures: int
    execution_errors: int
    mean_score: float | None


class RunTotals(msgspec.Struct):
    """The sums of a run."""

    results: int
    passed: int
    quality_failures: int
    execution_errors: int
    cost_usd: float | None
    targets: list[Totals]
    suites: list[SuiteSums]


class RunSuite(msgspec.Struct):
    """A suite of a run."""

    name: str
    path: str | None
    eval_path: str | None
    cases: int | None
    content_hash: str
    skipped: list[Any]


class RunTarget(msgspec.Struct):
    """A target of a run, its secrets masked."""

    name: str
    provider: str
    config: dict[str, Any]
    fallback_targets: list[str]
    judge_target: str | None = None


class Stopping(msgspec.Struct):
    """How a rule to stop early went."""

    suite: str
    targets: list[str]
    rule: str
    confidence: float
    stopped: bool
    cases: int
    of: int
    results_saved: int
    mean_score: float | None
    interval: Interval
    p_value: float | None
    seed: int


class Judge(msgspec.Struct):
    """Who judged, and what is known of it."""

    target: str
    model: str | None
    prompt_hash: str
    graders: list[str]
    judged: list[str]
    """The targets whose answers it judged."""
    verdicts: int
    pairs: dict[str, Any] | None
    """What the order of two answers did, of a judge that compared such."""
    agreement: dict[str, Any] | None
    check: dict[str, Any] | None


class RunRecord(msgspec.Struct, kw_only=True):
    """`run.json`."""

    schema_version: int
    run_id: str
    status: str
    """`running`, `complete`, `interrupted`, `timed_out`, `budget_exceeded` or `failed`."""
    started_at: str
    ended_at: str | None
    versions: dict[str, str]
    git_commit: str | None
    suites: list[RunSuite]
    targets: list[RunTarget]
    resumed_at: list[str]
    spent_on_retried_usd: dict[str, float]
    cwd: str
    options: dict[str, Any]
    planned: int
    not_run: int | None
    stopping: list[Stopping]
    totals: RunTotals | None
    """`null` while the run is under way."""
    judges: list[Judge]
    graded_from: dict[str, Any] | None = None
    """The run whose answers were graded again."""
    folder: str | msgspec.UnsetType = msgspec.UNSET
    """In what `muster eval --json` prints."""


# --- muster report --json -------------------------------------------------------------------------


class ReportedRun(msgspec.Struct):
    """A run that the report is of."""

    run_id: str
    folder: str
    status: str | None
    started_at: str | None
    ended_at: str | None
    resumed: int
    """How often it was gone on with."""
    git_commit: str | None
    results: int
    planned: int | None
    missing: int
    saved: int
    """Results that were not needed, for enough was known before."""
    unreadable_lines: int
    """Torn or otherwise broken, and not counted."""
    duplicates: int
    """Results that stand there again, and are counted once."""


class ScoreBin(msgspec.Struct, rename={"low": "from", "high": "to"}):
    """A tenth of the scores from 0 to 1."""

    low: float
    high: float
    count: int
    share: float | None
    interval: Interval


class ReportedGrader(msgspec.Struct):
    """What one grader said."""

    name: str
    type: str
    count: int
    skipped: int
    """Results that it could not judge."""
    mean_score: float | None
    mean_score_interval: Interval
    pass_rate: float | None
    pass_rate_interval: Interval


class ReportedTarget(Totals, kw_only=True):
    """A target of one run. `target` is what the report calls it, `name` what the run does."""

    run: str
    name: str
    cost_per_result_usd: float | None
    """Over answers whose cost is known; judges are not in it."""
    cost_per_result_interval: Interval
    score_distribution: list[ScoreBin]
    graders: list[ReportedGrader]


class ReportedSuite(Totals, kw_only=True):
    """One suite on one target."""

    run: str
    suite: str


class Bad(msgspec.Struct):
    """A result that is not `ok`."""

    run: str
    suite: str
    test_id: str
    prompt: str | None
    target: str
    repeat: int
    execution_status: str
    error_kind: str | None
    score: float | None
    reason: str


class ReportSummary(msgspec.Struct, kw_only=True):
    """What `muster report --json` prints."""

    schema_version: int
    muster: str
    """The version that made the report."""
    runs: list[ReportedRun]
    notes: list[str]
    """What a reader of the numbers must know."""
    results: int
    passed: int
    quality_failures: int
    execution_errors: int
    cost_usd: float | None
    targets: list[ReportedTarget]
    suites: list[ReportedSuite]
    judges: list[Judge]
    worst: list[Bad]
    """An error of each kind and target first, then the lowest scores."""
