"""Looking at results while they come, without inflating the error.

A 95 % interval that is looked at after every case, until it says what one hopes for, is wrong far
more often than in 5 % of the runs. The bounds here hold at all times at once, however one stops.
Observations must be independent, and come in an order that has nothing to do with their values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

__all__ = ("DifferenceTest", "MeanSequence")

_STEPS = 40
"""Bisections of [0, 1], to twelve digits."""

_PEAK = 8.3
"""A mixture over a normal prior is tightest when there are so many times as many observations as
the prior is worth, for a confidence of 95 % (Howard et al., section 3.5; flat around it)."""


class MeanSequence:
    """A confidence sequence for the mean of observations in [0, 1].

    The method of mixtures: the likelihood ratio of a Bernoulli model, mixed over a prior, against
    each mean `p` is a supermartingale not only for zeros and ones, but for everything in [0, 1]
    with that mean (Robbins, Ann. Math. Stat. 41 (1970) 1397-1409; sub-Bernoulli: Howard, Ramdas,
    McAuliffe, Sekhon, Ann. Stat. 49 (2021) 1055-1080). By Ville's inequality the means that it
    does not reject at any time hold the true one with the confidence asked for.

    The prior may be another one for each `p`; here it is Beta(κp + ½, κ(1-p) + ½), around `p`
    itself, which makes the bounds tightest when there are about 8 κ observations.
    """

    def __init__(self, confidence: float = 0.95, *, tightest_at: float = 500.0) -> None:
        """Raises `ValueError` unless `confidence` lies between 0 and 1."""
        if not 0 < confidence < 1:
            raise ValueError(f"a confidence lies between 0 and 1, {confidence} does not")
        self._bar = -math.log(1 - confidence)
        self._worth = max(tightest_at / _PEAK, 1.0)
        self._sum = 0.0
        self.n = 0

    def add(self, value: float) -> None:
        """One more observation. Raises `ValueError` if it is not in [0, 1]."""
        if not 0 <= value <= 1:
            raise ValueError(f"an observation lies in [0, 1], {value} does not")
        self.n += 1
        self._sum += value

    @property
    def mean(self) -> float | None:
        """Of what came so far."""
        return self._sum / self.n if self.n else None

    def interval(self) -> tuple[float, float]:
        """Bounds that hold now and at every other time; of nothing, (0, 1)."""
        if not self.n:
            return 0.0, 1.0
        centre = min(max(self._sum / self.n, 0.0), 1.0)
        low = _root(self._excess, 0.0, centre) if centre > 0 else 0.0
        high = _root(self._excess, 1.0, centre) if centre < 1 else 1.0
        return low, high

    @property
    def width(self) -> float:
        """How far apart the bounds are."""
        low, high = self.interval()
        return high - low

    def _excess(self, p: float) -> float:
        """The log of the evidence against the mean `p`, above what it takes to reject it."""
        hits, misses = self._sum, max(self.n - self._sum, 0.0)
        a, b = self._worth * p + 0.5, self._worth * (1 - p) + 0.5
        mixed = _log_beta(hits + a, misses + b) - _log_beta(a, b)
        return mixed - _times_log(hits, p) - _times_log(misses, 1 - p) - self._bar


class DifferenceTest:
    """Whether paired differences in [-1, 1] have a mean other than 0, looked at at any time.

    A bet of a share `s` of the capital on each difference multiplies it by `1 + s·d`; when the
    mean is 0, nobody's capital grows in expectation. The mean capital over many shares of both
    signs is an e-value: it passes 1/alpha with a probability of at most alpha, ever
    (Waudby-Smith and Ramdas, J. R. Stat. Soc. B 86 (2024) 1-27; Ville 1939).
    """

    _SHARES = tuple(sign * share / 20 for share in range(1, 20) for sign in (-1, 1))

    def __init__(self, confidence: float = 0.95) -> None:
        """Raises `ValueError` unless `confidence` lies between 0 and 1."""
        if not 0 < confidence < 1:
            raise ValueError(f"a confidence lies between 0 and 1, {confidence} does not")
        self._bar = -math.log(1 - confidence)
        self._capital = [0.0] * len(self._SHARES)
        """Logarithms, one a share."""
        self._most = 0.0
        """Before the first pair the capital is 1."""
        self._sum = 0.0
        self.n = 0

    def add(self, difference: float) -> None:
        """One more pair. Raises `ValueError` if it is not in [-1, 1]."""
        if not -1 <= difference <= 1:
            raise ValueError(f"a difference of scores lies in [-1, 1], {difference} does not")
        self.n += 1
        self._sum += difference
        if difference:
            for at, share in enumerate(self._SHARES):
                self._capital[at] += math.log1p(share * difference)
            self._most = max(self._most, _log_mean_exp(self._capital))

    @property
    def mean(self) -> float | None:
        """Of the differences so far."""
        return self._sum / self.n if self.n else None

    @property
    def p_value(self) -> float:
        """Valid at any time: 1 over the most evidence that there was."""
        return math.exp(-self._most)

    @property
    def decided(self) -> bool:
        """The mean is not 0."""
        return self._most >= self._bar


def _times_log(factor: float, value: float) -> float:
    """`factor · log(value)`, 0 when the factor is."""
    if factor <= 0:
        return 0.0
    return factor * math.log(value) if value > 0 else -math.inf


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _root(excess: Callable[[float], float], outer: float, inner: float) -> float:
    """Where `excess` falls through 0 between a bound that is rejected and the mean."""
    if excess(outer) <= 0:
        return outer
    for _ in range(_STEPS):
        middle = (outer + inner) / 2
        if excess(middle) > 0:
            outer = middle
        else:
            inner = middle
    return outer


def _log_mean_exp(logs: Iterable[float]) -> float:
    values = list(logs)
    top = max(values)
    return top + math.log(math.fsum(math.exp(value - top) for value in values) / len(values))
