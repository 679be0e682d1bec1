"""The statistics of one sample: pass rates, means, percentiles, repeats, each with its interval.

Nothing heavy is imported before a formula needs it; what compares two samples is in `paired`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec

__all__ = (
    "Estimate",
    "VarianceSplit",
    "clustered_mean",
    "effective_size",
    "mean",
    "mean_of_sums",
    "normal_quantile",
    "pass_at_k",
    "pass_hat_k",
    "percentile",
    "split_variance",
    "student_quantile",
    "wilson_interval",
)

_Z_95 = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution."""

_MANY = 200
"""Degrees of freedom from which on a series gives Student's quantile to ten digits."""

_NOTHING = 1e-12
"""A spread of scores in [0, 1] that is rounding and nothing else."""

_ROUNDING = 1e-10
"""A spread that is so small a part of the sum of squares it was taken from is rounding, too."""


class Estimate(msgspec.Struct, frozen=True):
    """A number with the interval that says how sure it is.

    `low` and `high` are `None` where the data do not allow one: a single cluster has no spread.
    """

    value: float
    low: float | None
    high: float | None
    standard_error: float | None
    clusters: int
    """Independent units behind it."""
    n: int
    """Observations behind it."""

    @property
    def interval(self) -> tuple[float, float] | None:
        """The bounds, where there are any."""
        return None if self.low is None or self.high is None else (self.low, self.high)


def wilson_interval(passed: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Bounds of the pass rate behind `passed` passes in `n` tries, as shares in [0, 1].

    Wilson's score interval: E. B. Wilson, "Probable inference, the law of succession, and
    statistical inference", JASA 22 (1927) 209-212. It holds near 0 and 1 and for few tries, where
    the textbook interval fails (Brown, Cai, DasGupta, Statistical Science 16 (2001) 101-133).
    Both may be fractions, for an effective number of tries. Of no tries nothing is known: (0, 1).

    Raises:
        ValueError: `passed` is not in [0, n], or `confidence` not between 0 and 1.
    """
    if not 0 <= passed <= n:
        raise ValueError(f"{passed} of {n} cannot have passed")
    if n == 0:
        return 0.0, 1.0
    z = _Z_95 if confidence == 0.95 else normal_quantile(_upper(confidence))
    rate, square = passed / n, z * z / n
    centre = (rate + square / 2) / (1 + square)
    half = z * math.sqrt(rate * (1 - rate) / n + square / (4 * n)) / (1 + square)
    # The bounds at 0 and n passes are exact; rounding would leave 1e-17 there.
    low = 0.0 if passed == 0 else max(0.0, centre - half)
    high = 1.0 if passed == n else min(1.0, centre + half)
    return low, high


def _upper(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence lies between 0 and 1, {confidence} does not")
    return (1 + confidence) / 2


def normal_quantile(probability: float) -> float:
    """Of the standard normal distribution."""
    from statistics import NormalDist

    return NormalDist().inv_cdf(probability)


def student_quantile(probability: float, df: float) -> float:
    """Of Student's t distribution with `df` degrees of freedom.

    For many degrees of freedom by the series in 1/df around the normal quantile (Abramowitz and
    Stegun, Handbook of Mathematical Functions, 1964, 26.7.5), which needs no library.
    """
    if df < _MANY:
        from scipy.special import stdtrit

        return float(stdtrit(df, probability))
    z = normal_quantile(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / df**power for power, term in enumerate(terms, 1))


def clustered_mean(
    values: Sequence[float],
    clusters: Sequence[object] | None = None,
    confidence: float = 0.95,
    *,
    bounds: tuple[float, float] | None = (0.0, 1.0),
    binary: bool = False,
) -> Estimate:
    """The mean of `values` with an interval that knows which of them belong together.

    Values of one cluster (repeats of a case, questions on one text) are not independent; clusters
    are. The standard error is the cluster-robust one with the factor k/(k-1) for k clusters
    (Liang and Zeger, Biometrika 73 (1986) 13-22; for evaluations Miller, arXiv 2411.00640,
    section 2.2), the interval Student's with k-1 degrees of freedom (Cameron and Miller, J. Human
    Resources 50 (2015) 317-372, section VI). Without clusters it is the textbook's.

    Args:
        clusters: what each value belongs to; `None`: each stands for itself.
        bounds: what the values lie between, so that the interval does as well.
        binary: the values are zeros and ones, and the interval is Wilson's.

    Raises:
        ValueError: there are no values, or not as many clusters as values.
    """
    if not values:
        raise ValueError("no values have no mean")
    if clusters is None:
        return mean_of_sums(
            [], singles=len(values), single_sum=math.fsum(values),
            single_squares=math.fsum(value * value for value in values),
            confidence=confidence, bounds=bounds, binary=binary,
        )  # fmt: skip
    if len(clusters) != len(values):
        raise ValueError(f"{len(values)} values, but {len(clusters)} clusters")
    sums: dict[object, list[float]] = {}
    for cluster, value in zip(clusters, values, strict=True):
        tally = sums.setdefault(cluster, [0, 0.0])
        tally[0] += 1
        tally[1] += value
    return mean_of_sums(
        [(int(size), total) for size, total in sums.values()],
        confidence=confidence,
        bounds=bounds,
        binary=binary,
    )


def mean_of_sums(
    clusters: Iterable[tuple[int, float]],
    *,
    singles: int = 0,
    single_sum: float = 0.0,
    single_squares: float = 0.0,
    confidence: float = 0.95,
    bounds: tuple[float, float] | None = (0.0, 1.0),
    binary: bool = False,
) -> Estimate:
    """`clustered_mean` from sums: (size, sum) of each cluster; of the values that stand for
    themselves their number, sum and sum of squares.

    Of zeros and ones, `binary`, the mean is a rate, and the interval Wilson's: for as many tries as
    there are values, with clusters for their `effective_size`.

    Where all clusters have one mean, no spread was seen, which does not mean that there is none.
    With `bounds`, the interval is then the widest that bounded values can have: Wilson's, for as
    many tries as there are clusters.
    """
    _upper(confidence)
    known = list(clusters)
    n = singles + sum(size for size, _ in known)
    total = single_sum + math.fsum(part for _, part in known)
    k = singles + len(known)
    value = total / n
    if k < 2:
        if bounds is None:
            return Estimate(value, None, None, None, k, n)
        return _unspread(value, k, n, confidence, bounds)
    spread = single_squares - 2 * value * single_sum + singles * value * value
    if spread <= _ROUNDING * single_squares:
        spread = 0.0
    spread += math.fsum((part - value * size) ** 2 for size, part in known)
    error = math.sqrt(spread / n**2 * k / (k - 1))
    if binary:
        size = effective_size(value, error, n, k, confidence) if known else float(n)
        low, high = wilson_interval(min(value * size, size), size, confidence)
        return Estimate(value, low, high, error, k, n)
    scale = 1.0 if bounds is None else bounds[1] - bounds[0]
    if error <= _NOTHING * scale:
        if bounds is None:
            return Estimate(value, value, value, 0.0, k, n)
        return _unspread(value, k, n, confidence, bounds)
    half = student_quantile(_upper(confidence), k - 1) * error
    low, high = value - half, value + half
    if bounds is not None:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return Estimate(value, low, high, error, k, n)


def _unspread(
    value: float, k: int, n: int, confidence: float, bounds: tuple[float, float]
) -> Estimate:
    width = bounds[1] - bounds[0]
    share = min(max((value - bounds[0]) / width, 0.0), 1.0)
    low, high = wilson_interval(share * k, k, confidence)
    low, high = bounds[0] + low * width, bounds[0] + high * width
    return Estimate(value, min(low, value), max(high, value), 0.0 if k > 1 else None, k, n)


def effective_size(
    rate: float, error: float, n: int, clusters: int, confidence: float = 0.95
) -> float:
    """How many independent tries would know a pass rate as well as clustered ones do.

    That number is p(1-p)/SE² (Kish, Survey Sampling, 1965, 8.2), at most `n`. The error is itself
    estimated, from few clusters badly: the size shrinks by (z/t)², quantiles for `confidence`, t
    having a degree of freedom less than there are clusters (Korn and Graubard, Survey Methodology
    24 (1998) 193-201); but not below one try a cluster, unless the error alone says so.
    """
    if clusters < 2 or rate in (0.0, 1.0) or error <= _NOTHING:
        return float(clusters)
    size = rate * (1 - rate) / error**2
    upper = _upper(confidence)
    z = _Z_95 if confidence == 0.95 else normal_quantile(upper)
    shrunk = size * (z / student_quantile(upper, clusters - 1)) ** 2
    return max(min(shrunk, float(n)), min(size, float(clusters)))


def pass_at_k(n: int, passed: int, k: int) -> float:
    """The chance that at least one of `k` tries passes, where `passed` of `n` did.

    The unbiased estimator 1 - C(n-c, k)/C(n, k): Chen et al., "Evaluating large language models
    trained on code", arXiv 2107.03374 (2021), section 2.1. (1 - (1 - c/n)^k would be too low.)

    Raises:
        ValueError: `k` is not in [1, n], or `passed` not in [0, n].
    """
    _check_tries(n, passed, k)
    return 1.0 - math.comb(n - passed, k) / math.comb(n, k)


def pass_hat_k(n: int, passed: int, k: int) -> float:
    """The chance that all of `k` tries pass, where `passed` of `n` did: pass^k.

    The unbiased estimator C(c, k)/C(n, k): Yao et al., "tau-bench", arXiv 2406.12045 (2024),
    section 3. What is done once must often be done every time.

    Raises:
        ValueError: `k` is not in [1, n], or `passed` not in [0, n].
    """
    _check_tries(n, passed, k)
    return math.comb(passed, k) / math.comb(n, k)


def _check_tries(n: int, passed: int, k: int) -> None:
    if not 1 <= k <= n:
        raise ValueError(f"of {n} tries, {k} cannot be drawn")
    if not 0 <= passed <= n:
        raise ValueError(f"{passed} of {n} cannot have passed")


class VarianceSplit(msgspec.Struct, frozen=True):
    """Where scores differ: from case to case, or from repeat to repeat of one case."""

    between: float
    """Variance of the cases' true means."""
    within: float
    """Variance of repeats around their case's mean."""
    cases: int
    n: int

    @property
    def repeats_share(self) -> float | None:
        """The part of the variance that more repeats could average away."""
        total = self.between + self.within
        return self.within / total if total else None


def split_variance(cases: Iterable[tuple[int, float, float]]) -> VarianceSplit | None:
    """The variance of scores, split into that between cases and that between repeats.

    One-way analysis of variance with random effects, cases of unequal numbers of repeats allowed
    (Searle, Casella, McCulloch, Variance Components, 1992, section 3.6). A negative estimate of
    the part between cases is told as 0, as is usual.

    Args:
        cases: number, sum, and sum of squares of each case's scores.

    Returns:
        `None` with fewer than two cases, or without a repeat.
    """
    known = [case for case in cases if case[0]]
    k = len(known)
    n = sum(count for count, _, _ in known)
    if k < 2 or n <= k:
        return None
    grand = math.fsum(total for _, total, _ in known) / n
    inside = math.fsum(max(squares - total**2 / count, 0.0) for count, total, squares in known)
    outside = math.fsum(count * (total / count - grand) ** 2 for count, total, _ in known)
    within = inside / (n - k)
    size = (n - sum(count**2 for count, _, _ in known) / n) / (k - 1)
    between = max((outside / (k - 1) - within) / size, 0.0)
    return VarianceSplit(between, within, k, n)


def mean(values: Iterable[float]) -> float | None:
    """The arithmetic mean, summed without rounding on the way; `None` of nothing."""
    known = list(values)
    return math.fsum(known) / len(known) if known else None


def percentile(values: Sequence[float], fraction: float) -> float:
    """The value below which `fraction` (0 to 1) of `values` lies; they need not be sorted.

    Linear between the two nearest values: type 7 of R. J. Hyndman and Y. Fan, "Sample quantiles
    in statistical packages", The American Statistician 50 (1996) 361-365, as in NumPy and Excel.

    Raises:
        ValueError: there are no values, or `fraction` is not in [0, 1].
    """
    if not values:
        raise ValueError("no values have no percentile")
    if not 0 <= fraction <= 1:
        raise ValueError(f"a fraction lies in [0, 1], {fraction} does not")
    ordered = sorted(values)
    position = fraction * (len(ordered) - 1)
    below = math.floor(position)
    low = ordered[below]
    part = position - below
    return low if part == 0 else low + part * (ordered[below + 1] - low)
