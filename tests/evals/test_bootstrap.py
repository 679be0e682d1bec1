from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.stats

from muster.evals.bootstrap import bootstrap_interval, resampled_sums


def mean(sums: Any) -> Any:
    return sums[..., 0] / sums[..., 1]


def with_sizes(values: Any) -> Any:
    return np.column_stack((values, np.ones(len(values))))


@pytest.mark.parametrize("method", ["bca", "percentile"])
@pytest.mark.parametrize("n", [12, 60, 300])
def test_it_is_scipys(method: str, n: int) -> None:
    """Skewed values: the bounds agree within the noise of the draws."""
    values = np.random.default_rng(n).gamma(0.5, 2, n)
    found = bootstrap_interval(with_sizes(values), mean, draws=20_000, method=method)
    wanted = scipy.stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=20_000,
        method="BCa" if method == "bca" else "percentile",
        vectorized=True,
        rng=1,
    )
    assert found is not None
    width = wanted.confidence_interval.high - wanted.confidence_interval.low
    assert found.low == pytest.approx(wanted.confidence_interval.low, abs=0.04 * width)
    assert found.high == pytest.approx(wanted.confidence_interval.high, abs=0.04 * width)
    assert found.standard_error == pytest.approx(wanted.standard_error, rel=0.03)


def test_a_ratio_of_means_is_scipys() -> None:
    rng = np.random.default_rng(2)
    below = rng.uniform(0.2, 1, 80)
    above = below * rng.uniform(0, 1, 80)
    found = bootstrap_interval(np.column_stack((above, below)), mean, draws=20_000)
    wanted = scipy.stats.bootstrap(
        (above, below),
        lambda x, y, axis: x.sum(axis=axis) / y.sum(axis=axis),
        paired=True,
        n_resamples=20_000,
        vectorized=True,
        rng=3,
    ).confidence_interval
    assert found is not None
    assert found.interval == pytest.approx((wanted.low, wanted.high), abs=0.004)


def test_many_values_are_binned_and_stay_the_same_distribution() -> None:
    """Above two thousand distinct values, draws are of bins: against plain resampling."""
    rng = np.random.default_rng(4)
    a = rng.pareto(2.5, 5_000)
    units = np.column_stack((a, a * rng.uniform(0, 2, 5_000)))
    fast = resampled_sums(units, 4_000, seed=1)
    plain = np.array([units[rng.integers(5_000, size=5_000)].sum(axis=0) for _ in range(4_000)])
    assert fast.mean(axis=0) == pytest.approx(plain.mean(axis=0), rel=0.005)
    assert np.cov(fast.T) == pytest.approx(np.cov(plain.T), rel=0.12)
    assert np.cov(fast.T) == pytest.approx(np.cov(units.T) * 5_000, rel=0.08)
    for column in range(2):
        same = scipy.stats.ks_2samp(fast[:, column], plain[:, column])
        assert same.pvalue > 0.001
        skew = scipy.stats.skew(plain[:, column])
        assert scipy.stats.skew(fast[:, column]) == pytest.approx(skew, abs=0.2)


def test_few_kinds_are_exact_whatever_their_number() -> None:
    """A hundred thousand zeros and ones: the draws are a binomial distribution."""
    ones = np.repeat([0.0, 1.0], [70_000, 30_000])
    sums = resampled_sums(with_sizes(ones), 5_000)
    assert set(sums[:, 1]) == {100_000}
    binomial = scipy.stats.binom(100_000, 0.3)
    assert sums[:, 0].mean() == pytest.approx(30_000, abs=10)
    assert sums[:, 0].std() == pytest.approx(binomial.std(), rel=0.05)


def test_a_seed_gives_the_same() -> None:
    units = with_sizes(np.random.default_rng(5).normal(size=50))
    first = bootstrap_interval(units, mean, seed=3)
    assert first == bootstrap_interval(units, mean, seed=3)
    assert first != bootstrap_interval(units, mean, seed=4)


def test_what_cannot_be_resampled_has_no_interval() -> None:
    assert bootstrap_interval(with_sizes(np.array([1.0])), mean) is None
    same = bootstrap_interval(with_sizes(np.full(9, 2.0)), mean)
    assert same is not None
    assert (same.value, same.interval) == (2.0, None)
    zeros = np.zeros((5, 2))
    assert bootstrap_interval(zeros, mean) is None
    with pytest.raises(ValueError, match="bca"):
        bootstrap_interval(zeros, mean, method="basic")


def test_it_covers_a_skewed_mean() -> None:
    rng = np.random.default_rng(6)
    rounds = 300
    hits = 0
    for _ in range(rounds):
        found = bootstrap_interval(with_sizes(rng.exponential(1, 60)), mean, draws=1_000)
        assert found is not None
        hits += found.low <= 1 <= found.high  # type: ignore[operator]
    assert 0.90 <= hits / rounds <= 0.98
