"""How large a comparison must be to see a difference: cases, repeats, or the difference itself."""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from muster.evals.stats import student_quantile

__all__ = ("PairedSpread", "cases_needed", "detectable", "power_of", "repeats_needed")

MOST_CASES = 100_000_000
MOST_REPEATS = 10_000

_MANY = 500
"""Degrees of freedom beyond which the noncentral t distribution is close to a normal one."""


class PairedSpread(msgspec.Struct, frozen=True):
    """What makes the mean difference of two targets uncertain (Miller, arXiv 2411.00640, 5).

    The variance of a case's difference, with r repeats on each side, is `between + within / r`.
    """

    between: float
    """Variance, over cases, of the true difference; no repeat lessens it."""
    within: float
    """Variance of one repeat around its case's mean, both sides added."""

    def variance(self, repeats: float) -> float:
        """Of a case's difference."""
        return self.between + self.within / repeats


def power_of(difference: float, variance: float, cases: float, alpha: float = 0.05) -> float:
    """The chance that a paired comparison of so many cases finds a true mean `difference`.

    That of the two-sided t test, by the noncentral t distribution (Cohen, Statistical Power
    Analysis for the Behavioral Sciences, 1988, section 2.5); for many degrees of freedom by the
    normal distribution that is nearest to it (Abramowitz and Stegun, Handbook of Mathematical
    Functions, 1964, 26.7.10), which is off by less than a millionth.
    """
    if cases < 2:
        return 0.0
    if variance <= 0:
        return 1.0 if difference else alpha
    from scipy.special import nctdtr, ndtr

    df, shift = cases - 1, abs(difference) * math.sqrt(cases / variance)
    bar = student_quantile(1 - alpha / 2, df)
    if df > _MANY:
        near, spread = bar * (1 - 1 / (4 * df)), math.sqrt(1 + bar**2 / (2 * df))
        return float(ndtr((shift - near) / spread) + ndtr((-shift - near) / spread))
    missed = float(nctdtr(df, shift, bar))
    # Its series gives up far out, where next to nothing is: below -bar for a large shift, and all
    # the way up to bar for a larger one.
    wrong_way = float(nctdtr(df, shift, -bar))
    return (
        1
        - (missed if math.isfinite(missed) else 0.0)
        + (wrong_way if math.isfinite(wrong_way) else 0.0)
    )


def cases_needed(
    difference: float, variance: float, power: float = 0.8, alpha: float = 0.05
) -> int | None:
    """The fewest cases with which `difference` is found with a chance of `power`; `None` when
    that is more than a hundred million.

    Raises:
        ValueError: `difference` is 0, or `power` not between alpha and 1.
    """
    _check(difference, power, alpha)
    return _fewest(lambda cases: power_of(difference, variance, cases, alpha) >= power, 2)


def repeats_needed(
    difference: float, spread: PairedSpread, cases: int, power: float = 0.8, alpha: float = 0.05
) -> int | None:
    """The fewest repeats of each case, both sides; `None` when no number of them would do: what
    differs between cases is not averaged away.

    Raises:
        ValueError: as `cases_needed`.
    """
    _check(difference, power, alpha)
    if power_of(difference, spread.variance(MOST_REPEATS), cases, alpha) < power:
        return None
    return _fewest(
        lambda repeats: power_of(difference, spread.variance(repeats), cases, alpha) >= power, 1
    )


def detectable(variance: float, cases: int, power: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest true difference that so many cases find with a chance of `power`.

    Raises:
        ValueError: fewer than two cases, or `power` not between alpha and 1.
    """
    _check(1.0, power, alpha)
    if cases < 2:
        raise ValueError("one case has no spread to measure a difference by")
    low, high = 0.0, math.sqrt(variance / cases) or 1e-12
    while power_of(high, variance, cases, alpha) < power:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        if power_of(middle, variance, cases, alpha) < power:
            low = middle
        else:
            high = middle
    return high


def _check(difference: float, power: float, alpha: float) -> None:
    if not difference:
        raise ValueError("a difference of 0 cannot be seen")
    if not alpha < power < 1:
        raise ValueError(f"a power lies between {alpha} and 1, {power} does not")


def _fewest(enough: Callable[[int], bool], least: int) -> int | None:
    """The smallest number from `least` on that is enough; `enough` does not turn back."""
    if enough(least):
        return least
    low, high = least, least * 2
    while not enough(high):
        low, high = high, high * 2
        if high > MOST_CASES:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        if enough(middle):
            high = middle
        else:
            low = middle
    return high
