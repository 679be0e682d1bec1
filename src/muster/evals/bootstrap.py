"""Intervals by resampling, for what has no closed formula: costs, latencies, ratios of means.

What is resampled are the independent units (cases or clusters), each with the sums that a
statistic is made of. A draw of `n` units with replacement needs only how often each *kind* of unit
is in it, which is multinomial: with few distinct units that is exact and fast. Many distinct units
are put into some hundred bins of like ones; how many of a draw fall into each bin is exact, and
their sum around the bin's mean is taken as normal, with the bins' own covariance. Mean and
covariance of the draws are then exactly those of the bootstrap. Nothing of the size
units x draws is ever held.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from muster.evals.stats import Estimate, normal_quantile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ("DRAWS", "bootstrap_interval", "resampled_sums")

DRAWS = 10_000

_DIRECT = 2_000
"""Up to so many units, each is drawn by itself."""

_KINDS = 256
"""Up to so many distinct units are kinds of their own; else so many bins are made."""

_TAIL = 32
"""Units at either end that are bins of their own: there a normal sum would not do."""

_CHUNK = 4_000_000
"""Numbers that are held at a time."""


def bootstrap_interval(
    units: Floats,
    statistic: Callable[[Floats], Floats],
    *,
    confidence: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
    method: str = "bca",
) -> Estimate | None:
    """A statistic of sums, with its bootstrap interval; the same `seed` gives the same.

    `bca`, bias-corrected and accelerated: Efron, JASA 82 (1987) 171-185; the acceleration from
    the empirical influence values (DiCiccio and Efron, Statistical Science 11 (1996) 189-228,
    section 6). `percentile`: Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
    chapter 13.

    Args:
        units: a row for each independent unit, with what it adds to each sum.
        statistic: of an array of sums, the last axis being the columns of `units`; smooth, and
            not changed when all sums are multiplied by one factor.

    Returns:
        `None` with fewer than two units, or where the statistic is not defined. Without bounds
        where all draws are the same.

    Raises:
        ValueError: `method` is neither, or there is no draw.
    """
    import numpy as np

    if method not in ("bca", "percentile") or draws < 1:
        raise ValueError(f'bootstrap by "bca" or "percentile" with draws, not {method!r}, {draws}')
    n = len(units)
    if n < 2:
        return None
    total = units.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(statistic(total))
        values = statistic(resampled_sums(units, draws, seed))
    values = np.sort(values[np.isfinite(values)])
    if not math.isfinite(value) or not len(values):
        return None
    if values[0] == values[-1]:  # no spread was seen, which does not mean that there is none
        return Estimate(value, None, None, 0.0, n, n)
    shares = ((1 - confidence) / 2, (1 + confidence) / 2)
    if method == "bca":
        shares = _corrected(shares, values, value, _influence(units, total, statistic))
    low, high = (float(np.quantile(values, share)) for share in shares)
    return Estimate(value, low, high, float(values.std()), n, n)


def _influence(units: Floats, total: Floats, statistic: Callable[[Floats], Floats]) -> Floats:
    """How much each unit moves the statistic: its derivative by the sums, times the unit."""
    import numpy as np

    gradient = np.zeros(len(total))
    for at in range(len(total)):
        step = 1e-4 * max(abs(float(total[at])), float(np.abs(units[:, at]).sum()) * 1e-3, 1e-12)
        change = np.zeros(len(total))
        change[at] = step
        with np.errstate(divide="ignore", invalid="ignore"):
            above, below = float(statistic(total + change)), float(statistic(total - change))
        gradient[at] = (above - below) / (2 * step)
    influence: Floats = (units - total / len(units)) @ gradient
    return influence


def _corrected(
    shares: tuple[float, float], values: Floats, value: float, influence: Floats
) -> tuple[float, float]:
    import numpy as np
    from scipy.special import ndtr

    draws = len(values)
    below = float(np.searchsorted(values, value) + np.searchsorted(values, value, "right")) / 2
    bias = normal_quantile(min(max(below / draws, 0.5 / draws), 1 - 0.5 / draws))
    squares = float(np.sum(influence**2))
    cubes = float(np.sum(influence**3))
    skew = cubes / (6 * squares**1.5) if math.isfinite(squares) and squares > 0 else 0.0

    def corrected(share: float) -> float:
        z = bias + normal_quantile(share)
        denominator = 1 - skew * z
        return float(ndtr(bias + z / denominator)) if denominator > 0 else float(z > 0)

    return corrected(shares[0]), corrected(shares[1])


def resampled_sums(units: Floats, draws: int, seed: int = 0) -> Floats:
    """For each of `draws` draws of as many units as there are, with replacement, its sums."""
    import numpy as np

    rng = np.random.default_rng(seed)
    n, columns = units.shape
    kinds, counts = np.unique(units, axis=0, return_counts=True)
    if len(kinds) <= max(_KINDS, _DIRECT if n <= _DIRECT else 0):
        return _drawn(rng, kinds, counts / n, n, draws)
    means, shares, covariances = _bins(kinds, counts)
    within = n * np.tensordot(shares, covariances, axes=1)
    sums = _drawn(rng, means, shares, n, draws)
    sums += rng.standard_normal((draws, columns)) @ _root(within).T
    return sums


def _drawn(rng: np.random.Generator, kinds: Floats, shares: Floats, n: int, draws: int) -> Floats:
    import numpy as np

    sums = np.empty((draws, kinds.shape[1]))
    step = max(1, _CHUNK // len(kinds))
    for start in range(0, draws, step):
        stop = min(start + step, draws)
        sums[start:stop] = rng.multinomial(n, shares, size=stop - start) @ kinds
    return sums


def _bins(kinds: Floats, counts: NDArray[np.int64]) -> tuple[Floats, Floats, Floats]:
    """Mean, share and covariance of each bin of like units.

    Like are those that are near each other on the axis along which the units differ most; the
    ends of it are bins of one.
    """
    import numpy as np

    scale = kinds.std(axis=0)
    scaled = (kinds - kinds.mean(axis=0)) / np.where(scale > 0, scale, 1.0)
    axis = np.linalg.eigh(scaled.T @ scaled)[1][:, -1]
    order = np.argsort(scaled @ axis, kind="stable")
    kinds, counts = kinds[order], counts[order]
    inner = np.linspace(_TAIL, len(kinds) - _TAIL, _KINDS - 2 * _TAIL + 1).astype(int)
    edges = np.unique(
        np.concatenate((np.arange(_TAIL), inner, np.arange(len(kinds) - _TAIL, len(kinds))))
    )
    weights = np.add.reduceat(counts, edges).astype(np.float64)
    means = np.add.reduceat(kinds * counts[:, None], edges) / weights[:, None]
    sizes = np.diff(np.append(edges, len(kinds)))
    inside = kinds - np.repeat(means, sizes, axis=0)
    products = inside[:, :, None] * inside[:, None, :] * counts[:, None, None]
    covariances = np.add.reduceat(products, edges) / weights[:, None, None]
    return means, weights / weights.sum(), covariances


def _root(covariance: Floats) -> Floats:
    """A matrix whose square, with its transpose, is `covariance`."""
    import numpy as np

    values, vectors = np.linalg.eigh(covariance)
    root: Floats = vectors * np.sqrt(np.maximum(values, 0.0))
    return root
