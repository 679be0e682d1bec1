"""What the scores of two targets on the same cases tell: differences, tests, gain.

All take `a` and `b`, the scores of the same cases in the same order; a difference is a - b.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from muster.evals.stats import Estimate, student_quantile, wilson_interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Numbers = NDArray[np.intp]

__all__ = (
    "cluster_sums",
    "holm",
    "mcnemar",
    "mean_difference",
    "normalised_gain",
    "sign_flip",
)

_EXACT_UP_TO = 16
"""Differences whose signs are flipped in every way there is, 65,536 of them."""

_BITS = 8
"""Differences that are flipped together: all their 256 sums are looked up in a table."""


def cluster_sums(values: Floats, clusters: Numbers | None) -> tuple[Floats, Floats]:
    """Sum and size of each cluster; `clusters` numbers them from 0, `None`: each for itself."""
    import numpy as np

    if clusters is None:
        return values, np.ones(len(values))
    sums: Floats = np.bincount(clusters, weights=values).astype(np.float64)
    return sums, np.bincount(clusters).astype(np.float64)


def mean_difference(
    differences: Floats, clusters: Numbers | None = None, confidence: float = 0.95
) -> Estimate:
    """The mean of paired differences of scores, each in [-1, 1], with its interval.

    Pairing takes out what makes cases easy or hard for both (Miller, arXiv 2411.00640, section
    4.2). The error is cluster-robust and the interval Student's, as in `stats.clustered_mean`.

    Where all differences are the same, c, no spread was seen. Then at most a share u of all cases
    differs otherwise, u being Wilson's upper bound for 0 of k, and by no more than the scale
    allows: the mean lies between c - u(1 + c) and c + u(1 - c).

    Raises:
        ValueError: there are no differences.
    """
    import numpy as np

    n = len(differences)
    if not n:
        raise ValueError("no case is shared: there is no difference to tell")
    sums, sizes = cluster_sums(differences, clusters)
    k = len(sums)
    value = float(math.fsum(differences) / n)
    if k < 2:
        return Estimate(value, None, None, None, k, n)
    spread = float(np.sum((sums - value * sizes) ** 2))
    error = math.sqrt(spread / n**2 * k / (k - 1))
    if error <= 1e-12:
        u = wilson_interval(0, k, confidence)[1]
        return Estimate(value, value - u * (1 + value), value + u * (1 - value), 0.0, k, n)
    half = student_quantile((1 + confidence) / 2, k - 1) * error
    return Estimate(value, max(value - half, -1.0), min(value + half, 1.0), error, k, n)


def mcnemar(only_a: int, only_b: int) -> float:
    """The p-value of McNemar's test, exact and two-sided: is a pass as likely for both?

    `only_a` cases passed for a alone, `only_b` for b alone; if both are as good, each of these is
    a toss of a coin (McNemar, Psychometrika 12 (1947) 153-157; exact by the binomial
    distribution, e.g. Agresti, Categorical Data Analysis, 2002, section 10.1).

    Raises:
        ValueError: a count is negative.
    """
    if only_a < 0 or only_b < 0:
        raise ValueError("counts are not negative")
    n, fewer = only_a + only_b, min(only_a, only_b)
    if 2 * fewer == n:
        return 1.0
    from scipy.special import bdtr

    return min(1.0, 2.0 * float(bdtr(fewer, n, 0.5)))


def sign_flip(
    differences: Floats,
    clusters: Numbers | None = None,
    *,
    draws: int = 10_000,
    seed: int = 0,
) -> tuple[float, bool]:
    """The p-value of the paired permutation test, two-sided, and whether it is exact.

    If a and b are exchangeable, each cluster's difference could as well have the other sign
    (Fisher, The Design of Experiments, 1935, section 21). All ways are counted when they are few,
    or when all differences are of one size, which makes their number binomial. Else `draws` of
    them are drawn, and p is (k+1)/(draws+1), which is never 0 and never too small (Phipson and
    Smyth, Stat. Appl. Genet. Mol. Biol. 9 (2010) article 39).

    Raises:
        ValueError: there are no differences, or no draws.
    """
    import numpy as np

    if not len(differences) or draws < 1:
        raise ValueError("a test needs differences, and a draw at least")
    sums, _ = cluster_sums(differences, clusters)
    scale = float(np.max(np.abs(sums)))
    sizes = np.abs(sums[np.abs(sums) > 1e-12 * max(scale, 1.0)])
    if not len(sizes):
        return 1.0, True
    observed = abs(float(np.sum(sums)))
    # What differs by rounding alone is as extreme as what was seen.
    bar = observed - 1e-9 * float(np.sum(sizes))
    if float(np.ptp(sizes)) <= 1e-9 * scale:
        positive = int(np.count_nonzero(sums > 1e-12 * max(scale, 1.0)))
        return mcnemar(positive, len(sizes) - positive), True
    if len(sizes) <= _EXACT_UP_TO:
        sums_of_all = _table(sizes)
        return float(np.count_nonzero(np.abs(sums_of_all) >= bar) / len(sums_of_all)), True
    extreme = np.count_nonzero(np.abs(_flipped(sizes, draws, seed)) >= bar)
    return (int(extreme) + 1) / (draws + 1), False


def _table(sizes: Floats) -> Floats:
    """The sums of `sizes` with each choice of signs."""
    import numpy as np

    sums = np.zeros(1)
    for size in sizes:
        sums = np.concatenate((sums - size, sums + size))
    return sums


def _flipped(sizes: Floats, draws: int, seed: int) -> Floats:
    """`draws` sums with random signs. A random byte chooses the signs of eight at once."""
    import numpy as np

    rng = np.random.default_rng(seed)
    choices = np.arange(1 << _BITS)[:, None] >> np.arange(_BITS) & 1
    signs = (2 * choices - 1).astype(np.float64)
    padded = np.zeros(-(-len(sizes) // _BITS) * _BITS)
    padded[: len(sizes)] = sizes
    sums, part = np.zeros(draws), np.empty(draws)
    for eight in padded.reshape(-1, _BITS):
        chosen = np.frombuffer(rng.bytes(draws), dtype=np.uint8)
        np.take(signs @ eight, chosen, out=part, mode="clip")
        sums += part
    return sums


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number, in the order given: those below alpha may be believed
    together, with an error of at most alpha for all of them.

    Holm, Scandinavian Journal of Statistics 6 (1979) 65-70.
    """
    m = len(p_values)
    adjusted = [1.0] * m
    highest = 0.0
    for rank, at in enumerate(sorted(range(m), key=lambda at: p_values[at])):
        highest = max(highest, min(1.0, (m - rank) * p_values[at]))
        adjusted[at] = highest
    return adjusted


def normalised_gain(a: float, b: float) -> float | None:
    """What a gained over b, as a share of what there was to gain: (a - b) / (1 - b).

    Hake, American Journal of Physics 66 (1998) 64-74, of the average scores. `None` when b = 1:
    nothing was left. Losing is negative, and not bounded by -1.
    """
    return None if b >= 1 else (a - b) / (1 - b)
