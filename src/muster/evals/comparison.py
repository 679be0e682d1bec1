"""Two targets, or two runs of one, on the cases that both have: what differs, and how sure it is.

Side a is what is judged, side b what it is measured against: a win is a case where a scores
higher, a difference is a - b.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from muster.errors import UsageError
from muster.evals.bootstrap import DRAWS, bootstrap_interval
from muster.evals.comparison_notes import notes_of
from muster.evals.paired import cluster_sums, holm, mcnemar, mean_difference, sign_flip
from muster.evals.pairing import CaseKey, Pairs, Side, Tally, pair, shown_case
from muster.evals.scored import first_words
from muster.evals.stats import (
    Estimate,
    clustered_mean,
    mean_of_sums,
    student_quantile,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = (
    "Comparison",
    "Comparisons",
    "Gate",
    "Settings",
    "compare",
    "compare_all",
    "describe_unpaired",
    "gate",
    "shown_p",
    "verdict",
)

_TIE = 1e-9
"""Scores that differ by less are the same: means of repeats are rounded."""

_FEWEST = 5
"""Units that a bootstrap needs."""

SCHEMA_VERSION = 1


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How comparisons are made."""

    confidence: float = 0.95
    draws: int = DRAWS
    """Of each bootstrap and Monte Carlo test."""
    seed: int = 0
    most_changed: int = 10
    """Cases that are told one by one."""


DEFAULTS = Settings()


class SideSummary(msgspec.Struct, frozen=True):
    """One side, over the cases that are compared."""

    run: str
    target: str
    label: str
    mean_score: Estimate
    passed: int
    results: int
    pass_rate: float
    pass_rate_interval: tuple[float, float]


class Measure(msgspec.Struct, frozen=True):
    """Cost or latency of an answer: means over the cases where both are known."""

    a: float
    b: float
    difference: Estimate
    """With a bootstrap interval; without one of fewer than five cases."""
    cases: int


class Change(msgspec.Struct, frozen=True):
    """A case that one side scores higher."""

    test_id: str
    suite: str
    prompt: str | None
    a: float
    b: float
    difference: float


class CaseName(msgspec.Struct, frozen=True):
    """A case that was not compared."""

    suite: str
    """Its file, or its name."""
    test_id: str
    prompt: str | None


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """All that is told of a against b."""

    verdict: str
    """In a word, by the interval: see `verdict`."""
    a: SideSummary
    b: SideSummary
    cases: int
    clusters: int
    wins: int
    losses: int
    ties: int
    difference: Estimate
    confidence: float
    only_a_passed: int | None
    """Cases that passed on side a alone; `None` with repeats."""
    only_b_passed: int | None
    mcnemar_p: float | None
    mcnemar_why_not: str | None
    permutation_p: float
    permutation_exact: bool
    p_holm: float | None
    """`permutation_p`, adjusted for the number of comparisons; `None` of one."""
    gain: Estimate | None
    """Normalised; `None` where b has nothing left to gain."""
    cost_usd: Measure | None
    duration_ms: Measure | None
    changed: list[Change]
    only_a: list[CaseName]
    only_b: list[CaseName]
    errored_a: list[CaseName]
    """Both have it, but a has no score."""
    errored_b: list[CaseName]
    error_results_a: int
    """Results without a score, of all cases that both have."""
    error_results_b: int
    draws: int
    seed: int
    notes: list[str]


def verdict(difference: Estimate, margin: float = 0.0) -> str:
    """`better`, `worse` (by more than `margin`), `not worse` (but for `margin`), `inconclusive`;
    `unknown` where there is no interval."""
    if difference.low is None or difference.high is None:
        return "unknown"
    if difference.high < -margin:
        return "worse"
    if difference.low > 0:
        return "better"
    return "not worse" if difference.low >= -margin and margin > 0 else "inconclusive"


class Gate(msgspec.Struct, frozen=True):
    """Whether a may pass for no worse than b."""

    fail_if: str
    """`worse`: the interval lies below -margin. `possibly-worse`: it reaches below -margin."""
    margin: float
    confidence: float
    """Of the intervals that decide: of several comparisons, each is wider (Bonferroni)."""
    failed: bool
    verdicts: list[str]


class Comparisons(msgspec.Struct, frozen=True):
    """What `muster compare --json` prints; its schema is published."""

    comparisons: list[Comparison]
    gate: Gate | None
    """What `--fail-if` said; without it `null`."""
    schema_version: int = SCHEMA_VERSION


def gate(
    comparisons: Sequence[Comparison], fail_if: str, margin: float, confidence: float = 0.95
) -> Gate:
    """Judge by the intervals, all of them true together with `confidence`."""
    level = 1 - (1 - confidence) / len(comparisons)
    verdicts = [verdict(_widened(each, level), margin) for each in comparisons]
    good = ("better", "not worse")
    if fail_if == "worse":
        failed = "worse" in verdicts
    else:
        failed = any(found not in good for found in verdicts)
    return Gate(fail_if, margin, level, failed, verdicts)


def _widened(comparison: Comparison, level: float) -> Estimate:
    """The difference with an interval of another confidence."""
    found = comparison.difference
    if level == comparison.confidence or found.low is None or not found.standard_error:
        return found
    half = student_quantile((1 + level) / 2, found.clusters - 1) * found.standard_error
    return replace(found, low=found.value - half, high=found.value + half)


def compare_all(
    sides: Sequence[tuple[Side, Side]], settings: Settings = DEFAULTS
) -> list[Comparison]:
    """Several comparisons, their p-values adjusted for their number (Holm).

    Raises:
        UsageError: two sides share no case.
    """
    found = [compare(a, b, settings) for a, b in sides]
    if len(found) == 1:
        return found
    adjusted = holm([each.permutation_p for each in found])
    return [replace(each, p_holm=p) for each, p in zip(found, adjusted, strict=True)]


def compare(a: Side, b: Side, settings: Settings = DEFAULTS) -> Comparison:
    """a against b, on the cases that have a score on both sides.

    Raises:
        UsageError: there is none.
    """
    import numpy as np

    confidence = settings.confidence
    pairs = pair(a, b)
    if not pairs.n:
        raise UsageError(
            f"{a.label} and {b.label} share {len({*pairs.errored_a, *pairs.errored_b})} cases, but "
            "none has a score on both sides: the others ended in execution errors"
        )
    score_a = pairs.column(pairs.a, lambda tally: tally.score / tally.judged)
    score_b = pairs.column(pairs.b, lambda tally: tally.score / tally.judged)
    clusters = pairs.clusters()
    differences = score_a - score_b
    differences[np.abs(differences) < _TIE] = 0.0
    p, exact = sign_flip(differences, clusters, draws=settings.draws, seed=settings.seed)
    only_a, only_b, p_mcnemar, why_not = _binary(pairs, clusters is not None)
    count = pairs.n if clusters is None else int(clusters.max()) + 1
    difference = mean_difference(differences, clusters, confidence)
    return Comparison(
        verdict=verdict(difference),
        a=_summary(a, pairs, pairs.a, confidence),
        b=_summary(b, pairs, pairs.b, confidence),
        cases=pairs.n,
        clusters=count,
        wins=int(np.count_nonzero(differences > 0)),
        losses=int(np.count_nonzero(differences < 0)),
        ties=int(np.count_nonzero(differences == 0)),
        difference=difference,
        confidence=confidence,
        only_a_passed=only_a,
        only_b_passed=only_b,
        mcnemar_p=p_mcnemar,
        mcnemar_why_not=why_not,
        permutation_p=p,
        permutation_exact=exact,
        p_holm=None,
        gain=_gain(score_a, score_b, clusters, settings),
        cost_usd=_measure(pairs, ("cost", "costed"), clusters, settings),
        duration_ms=_measure(pairs, ("duration", "timed"), clusters, settings),
        changed=_changes(pairs, score_a, score_b, differences, settings.most_changed),
        only_a=_named(pairs.only_a),
        only_b=_named(pairs.only_b),
        errored_a=_named(pairs.errored_a),
        errored_b=_named(pairs.errored_b),
        error_results_a=pairs.errors_a,
        error_results_b=pairs.errors_b,
        draws=settings.draws,
        seed=settings.seed,
        notes=notes_of(a, b, pairs),
    )


def _summary(side: Side, pairs: Pairs, tallies: list[Tally], confidence: float) -> SideSummary:
    clusters = pairs.clusters()
    scores = [tally.score / tally.judged for tally in tallies]
    passed = sum(tally.passed for tally in tallies)
    judged = sum(tally.judged for tally in tallies)
    names = range(len(tallies)) if clusters is None else clusters.tolist()
    sums: dict[int, list[int]] = {}
    for at, tally in zip(names, tallies, strict=True):
        known = sums.setdefault(at, [0, 0])
        known[0] += tally.judged
        known[1] += tally.passed
    if len(sums) == judged:  # each result stands for itself
        rate = mean_of_sums(
            [],
            singles=judged,
            single_sum=passed,
            single_squares=passed,
            confidence=confidence,
            binary=True,
        )
    else:
        counts = ((size, total) for size, total in sums.values())
        rate = mean_of_sums(counts, confidence=confidence, binary=True)
    whole = all(score in (0.0, 1.0) for score in scores)
    if whole and [tally.passed for tally in tallies] == [tally.score for tally in tallies]:
        found = rate
    else:
        groups = None if clusters is None else names
        found = clustered_mean(scores, groups, confidence)
    return SideSummary(
        run=side.run.name,
        target=side.target,
        label=side.label,
        mean_score=found,
        passed=passed,
        results=judged,
        pass_rate=passed / judged,
        pass_rate_interval=rate.interval or (0.0, 1.0),
    )


def _binary(
    pairs: Pairs, clustered: bool
) -> tuple[int | None, int | None, float | None, str | None]:
    """Cases that passed on one side alone, and McNemar's p where it may be had."""
    if pairs.repeated:
        return None, None, None, "cases are repeated, and may pass now and then"
    only_a = only_b = 0
    for a, b in zip(pairs.a, pairs.b, strict=True):
        only_a += a.passed > b.passed
        only_b += b.passed > a.passed
    if clustered:
        return only_a, only_b, None, "cases of one cluster are not independent"
    if pairs.thresholds is not None:
        return only_a, only_b, None, "the two sides do not pass from the same score"
    return only_a, only_b, mcnemar(only_a, only_b), None


def _gain(a: Floats, b: Floats, clusters: Any, settings: Settings) -> Estimate | None:
    """(mean a - mean b) / (1 - mean b), with a bootstrap interval."""
    import numpy as np

    left = float(np.sum(1 - b))
    gained = float(np.sum(a - b))
    if left <= _TIE:
        return None
    columns = [cluster_sums(values, clusters)[0] for values in (a - b, 1 - b)]
    found = _resampled(columns[0], columns[1], settings)
    # A draw in which nothing is left to gain has no gain; without it an interval is too short.
    if found is None or _may_vanish(columns[1]):
        return Estimate(gained / left, None, None, None, len(columns[0]), len(a))
    return replace(found, n=len(a))


def _resampled(above: Floats, below: Floats, settings: Settings) -> Estimate | None:
    """The ratio of two sums over independent units; `None` of so few that resampling them says
    little."""
    import numpy as np

    if len(above) < _FEWEST:
        return None
    return bootstrap_interval(
        np.column_stack((above, below)),
        lambda sums: sums[..., 0] / sums[..., 1],
        confidence=settings.confidence,
        draws=settings.draws,
        seed=settings.seed,
    )


def _may_vanish(units: Floats) -> bool:
    """Whether a draw of these units may well have the sum 0: more than one in a million."""
    n = len(units)
    zeros = int((units <= _TIE).sum())
    return bool(zeros and (zeros / n) ** n > 1e-6)


def _measure(
    pairs: Pairs, fields: tuple[str, str], clusters: Any, settings: Settings
) -> Measure | None:
    """The mean of a cost or a time, per answer, on both sides; `fields` of a tally are its sum and
    how many answers it is known of."""
    import numpy as np

    total, count = fields
    known = [
        at
        for at, (a, b) in enumerate(zip(pairs.a, pairs.b, strict=True))
        if getattr(a, count) and getattr(b, count)
    ]
    if not known:
        return None
    a, b = (
        np.array([getattr(side[at], total) / getattr(side[at], count) for at in known])
        for side in (pairs.a, pairs.b)
    )
    numbers = None
    if clusters is not None:
        numbers = np.unique(clusters[known], return_inverse=True)[1]
    sums, sizes = cluster_sums(a - b, numbers)
    found = _resampled(sums, sizes, settings)
    mean_a, mean_b = float(a.mean()), float(b.mean())
    if found is None:
        found = Estimate(mean_a - mean_b, None, None, None, len(sums), len(known))
    return Measure(mean_a, mean_b, replace(found, n=len(known)), len(known))


def _changes(pairs: Pairs, a: Floats, b: Floats, differences: Floats, most: int) -> list[Change]:
    """The cases that differ most, those that were lost before those that were won."""
    import numpy as np

    order = np.lexsort((differences, -np.abs(differences)))[:most]
    return [
        Change(
            pairs.keys[at][1],
            pairs.a[at].suite,
            pairs.keys[at][2],
            float(a[at]),
            float(b[at]),
            float(differences[at]),
        )
        for at in order.tolist()
        if differences[at]
    ]


def _named(keys: Sequence[CaseKey]) -> list[CaseName]:
    return [CaseName(*key) for key in keys]


def describe_unpaired(comparison: Comparison, shown: int = 5) -> list[str]:
    """What could not be compared, counted and named."""
    found = (
        (comparison.only_a, f"only in {comparison.a.label}"),
        (comparison.only_b, f"only in {comparison.b.label}"),
        (comparison.errored_a, f"execution error in {comparison.a.label}"),
        (comparison.errored_b, f"execution error in {comparison.b.label}"),
    )
    return [
        f"{len(names)} {what}: {first_words(map(_shown, names), shown)}"
        for names, what in found
        if names
    ]


def _shown(name: CaseName) -> str:
    return shown_case((name.suite, name.test_id, name.prompt))


def shown_p(p: float) -> str:
    """A p-value as it is printed: `1.2e-46`, `0.0312`, `below 1e-300`."""
    if p == 0:
        return "below 1e-300"
    if p >= 0.0001:
        return f"{p:.4f}"
    return f"{p:.1e}"
