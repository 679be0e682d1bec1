"""The statistics that summaries show: means, percentiles, and intervals of pass rates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

__all__ = ("mean", "percentile", "wilson_interval")

_Z_95 = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution."""


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
    z = _Z_95 if confidence == 0.95 else _quantile(confidence)
    rate, square = passed / n, z * z / n
    centre = (rate + square / 2) / (1 + square)
    half = z * math.sqrt(rate * (1 - rate) / n + square / (4 * n)) / (1 + square)
    # The bounds at 0 and n passes are exact; rounding would leave 1e-17 there.
    low = 0.0 if passed == 0 else max(0.0, centre - half)
    high = 1.0 if passed == n else min(1.0, centre + half)
    return low, high


def _quantile(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence lies between 0 and 1, {confidence} does not")
    from statistics import NormalDist

    return NormalDist().inv_cdf((1 + confidence) / 2)


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
