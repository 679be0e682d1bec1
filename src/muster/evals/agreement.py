"""How far two judges agree, or one judge with people's labels, and what draws a judge aside.

Agreement alone says little: two who say yes to nine of ten answers agree on 82 % by chance. Kappa
and alpha are what is left of it beyond chance.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from muster.evals.stats import Estimate, clustered_mean, wilson_interval

__all__ = (
    "VoteTally",
    "cohen_kappa",
    "difference_of_means",
    "net_preference",
    "share",
)

_Z = 1.959963984540054


def share(hits: int, n: int) -> Estimate:
    """`hits` of `n` with Wilson's interval."""
    low, high = wilson_interval(hits, n)
    return Estimate(hits / n if n else math.nan, low, high, None, n, n)


def cohen_kappa(table: Sequence[Sequence[int]], weights: str = "none") -> Estimate | None:
    """Cohen's kappa of a square table of counts, rows by one judge, columns by the other.

    `weights` is `none` (J. Cohen, Educational and Psychological Measurement 20 (1960) 37-46), or
    for ordered categories `linear` or `quadratic` (Cohen, Psychological Bulletin 70 (1968)
    213-220). The error is the asymptotic one of J. Fleiss, J. Cohen and B. Everitt, Psychological
    Bulletin 72 (1969) 323-327. It is 0 where nobody disagreed, which is no proof that nobody
    would: then the lower bound is the kappa of the least agreement in Wilson's interval.

    Returns:
        `None` where both always say the same one thing: nothing is left beyond chance.
    """
    size = len(table)
    n = sum(map(sum, table))
    if not n:
        return None
    agree = [[_weight(i, j, size, weights) for j in range(size)] for i in range(size)]
    rows = [sum(row) / n for row in table]
    columns = [sum(row[j] for row in table) / n for j in range(size)]
    cells = [
        (i, j, count / n) for i, row in enumerate(table) for j, count in enumerate(row) if count
    ]
    observed = math.fsum(p * agree[i][j] for i, j, p in cells)
    row_mean = [math.fsum(columns[j] * agree[i][j] for j in range(size)) for i in range(size)]
    column_mean = [math.fsum(rows[i] * agree[i][j] for i in range(size)) for j in range(size)]
    chance = math.fsum(rows[i] * row_mean[i] for i in range(size))
    if 1 - chance < 1e-12:
        return None
    kappa = (observed - chance) / (1 - chance)
    spread = math.fsum(
        p * (agree[i][j] - (row_mean[i] + column_mean[j]) * (1 - kappa)) ** 2 for i, j, p in cells
    )
    variance = (spread - (kappa - chance * (1 - kappa)) ** 2) / (n * (1 - chance) ** 2)
    error = math.sqrt(max(variance, 0.0))
    low, high = kappa - _Z * error, kappa + _Z * error
    if error < 1e-9:
        least, most = wilson_interval(min(observed, 1.0) * n, n)
        low, high = ((bound - chance) / (1 - chance) for bound in (least, most))
    return Estimate(kappa, max(low, -1.0), min(max(high, kappa), 1.0), error, n, n)


def _weight(i: int, j: int, size: int, weights: str) -> float:
    if weights == "none" or size < 2:
        return float(i == j)
    distance = abs(i - j) / (size - 1)
    return 1 - (distance if weights == "linear" else distance**2)


def difference_of_means(
    first: Sequence[float], second: Sequence[float], bounds: tuple[float, float]
) -> Estimate | None:
    """The mean of `first` minus that of `second`, which have nothing to do with each other.

    The interval is made of those of both means (G. Zou and A. Donner, Statistics in Medicine 27
    (2008) 1693-1702), which holds where one of them shows no spread at all.

    Returns:
        `None` if one of them is empty.
    """
    if not first or not second:
        return None
    one, two = clustered_mean(first, bounds=bounds), clustered_mean(second, bounds=bounds)
    if one.interval is None or two.interval is None:
        return None
    value = one.value - two.value
    (low1, high1), (low2, high2) = one.interval, two.interval
    low = value - math.hypot(one.value - low1, high2 - two.value)
    high = value + math.hypot(high1 - one.value, two.value - low2)
    n = len(first) + len(second)
    return Estimate(value, low, high, None, n, n)


def net_preference(one: int, other: int, n: int) -> Estimate | None:
    """How much more often of `n` pairs it was `one` than the `other`: (one - other) / n.

    The interval is A. Agresti's and Y. Min's for matched proportions, with half a pair added to
    each cell: Statistics in Medicine 24 (2005) 729-740.
    """
    if not n:
        return None
    size = n + 2
    net = one - other
    half = _Z * math.sqrt(max(one + other + 1 - net**2 / size, 0.0)) / size
    value = net / n
    low, high = max(net / size - half, -1.0), min(net / size + half, 1.0)
    return Estimate(value, min(low, value), max(high, value), None, n, n)


# --- several votes on each of many answers --------------------------------------------------------

_DRAWS = 2_000


class VoteTally(msgspec.Struct):
    """Passes and fails that judges gave to each of many answers; only their kinds are kept."""

    kinds: Counter[tuple[int, int]] = msgspec.field(default_factory=Counter)
    """(passes, fails) of an answer, and how many answers had them."""

    def add(self, passes: int, fails: int) -> None:
        """One more answer. Of a single vote nothing can be learnt."""
        if passes + fails > 1:
            self.kinds[passes, fails] += 1

    @property
    def answers(self) -> int:
        """With two votes or more."""
        return self.kinds.total()

    @property
    def raw(self) -> float | None:
        """The mean over answers of the share of pairs of votes that are the same."""
        if not self.kinds:
            return None
        return (
            math.fsum(count * _agreeing(*kind) for kind, count in self.kinds.items()) / self.answers
        )

    @property
    def fleiss_kappa(self) -> float | None:
        """J. Fleiss, Psychological Bulletin 76 (1971) 378-382; where every answer has as many
        votes, and the votes are not all the same."""
        if len({sum(kind) for kind in self.kinds}) != 1:
            return None
        votes = sum(sum(kind) * count for kind, count in self.kinds.items())
        passes = sum(kind[0] * count for kind, count in self.kinds.items()) / votes
        chance = passes**2 + (1 - passes) ** 2
        observed = self.raw
        if observed is None or 1 - chance < 1e-12:
            return None
        return (observed - chance) / (1 - chance)

    @property
    def alpha(self) -> Estimate | None:
        """Krippendorff's alpha for names (K. Krippendorff, Content Analysis, 2004, chapter 11),
        with the interval of the bootstrap over answers, by percentiles."""
        value = _alpha(self.kinds)
        if value is None:
            return None
        low, high = self._resampled()
        return Estimate(value, low, high, None, self.answers, self.answers)

    def _resampled(self) -> tuple[float | None, float | None]:
        import numpy as np

        if self.answers < 2 or len(self.kinds) < 2:
            return None, None
        kinds = np.array(list(self.kinds), dtype=float)
        counts = np.array(list(self.kinds.values()), dtype=float)
        draws = np.random.default_rng(0).multinomial(
            self.answers, counts / counts.sum(), size=_DRAWS
        )
        passes, fails = kinds[:, 0], kinds[:, 1]
        votes = passes + fails
        differing = draws @ (2 * passes * fails / (votes - 1))
        all_passes, all_fails, n = draws @ passes, draws @ fails, draws @ votes
        with np.errstate(divide="ignore", invalid="ignore"):
            values = 1 - differing / n / (2 * all_passes * all_fails / (n * (n - 1)))
        values = values[np.isfinite(values)]
        if len(values) < _DRAWS // 2:
            return None, None
        low, high = np.quantile(values, [0.025, 0.975])
        return float(low), float(high)

    def to_dict(self) -> dict[str, object]:
        """For `run.json`."""
        alpha = self.alpha
        return {
            "answers": self.answers,
            "raw": self.raw,
            "fleiss_kappa": self.fleiss_kappa,
            "krippendorff_alpha": alpha.value if alpha else None,
            "krippendorff_alpha_interval": list(alpha.interval)
            if alpha and alpha.interval
            else None,
        }


def _agreeing(passes: int, fails: int) -> float:
    votes = passes + fails
    return (passes * (passes - 1) + fails * (fails - 1)) / (votes * (votes - 1))


def _alpha(kinds: Mapping[tuple[int, int], int]) -> float | None:
    n = sum(sum(kind) * count for kind, count in kinds.items())
    passes = sum(kind[0] * count for kind, count in kinds.items())
    expected = 2 * passes * (n - passes)
    if not expected:
        return None
    differing = math.fsum(
        count * 2 * kind[0] * kind[1] / (sum(kind) - 1) for kind, count in kinds.items()
    )
    return 1 - differing / n / (expected / (n * (n - 1)))
