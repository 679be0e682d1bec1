from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from muster.evals.stats import (
    clustered_mean,
    effective_size,
    mean,
    mean_of_sums,
    pass_at_k,
    pass_hat_k,
    percentile,
    split_variance,
    student_quantile,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("passed", "n", "low", "high"),
    [
        # Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in
        # Medicine 17 (1998) 857-872, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_matches_published_intervals(passed: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(passed, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_at_other_confidences() -> None:
    assert wilson_interval(5, 10, 0.95) == pytest.approx(wilson_interval(5, 10, 0.9500001), 1e-5)
    narrow, wide = wilson_interval(5, 10, 0.8), wilson_interval(5, 10, 0.99)
    assert wide[0] < narrow[0] < 0.5 < narrow[1] < wide[1]


def test_wilson_of_no_tries_knows_nothing() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("passed", "n", "confidence"), [(3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1.0)])
def test_wilson_refuses_what_cannot_be(passed: int, n: int, confidence: float) -> None:
    with pytest.raises(ValueError, match=r"cannot have passed|between 0 and 1"):
        wilson_interval(passed, n, confidence)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_rate_and_mirrors(counts: tuple[int, int]) -> None:
    passed, n = counts
    low, high = wilson_interval(passed, n)
    assert 0 <= low <= passed / n <= high <= 1
    assert wilson_interval(n - passed, n) == pytest.approx((1 - high, 1 - low), abs=1e-9)


def test_mean() -> None:
    assert mean([0.1] * 10) == 0.1
    assert mean([]) is None


@pytest.mark.parametrize(
    ("fraction", "value"), [(0, 1.0), (0.25, 1.75), (0.5, 2.5), (0.95, 3.85), (1, 4.0)]
)
def test_percentile_is_linear_between_values(fraction: float, value: float) -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], fraction) == pytest.approx(value)


def test_percentile_of_one_value_or_none() -> None:
    assert percentile([7.0], 0.95) == 7.0
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)
    with pytest.raises(ValueError, match="a fraction"):
        percentile([1.0], 95)


# --- the mean of values that belong together ------------------------------------------------------


def sandwich(values: list[float], clusters: list[int]) -> tuple[float, float, float]:
    """The cluster-robust error of an intercept, by the matrices of the textbook."""
    y = np.array(values)
    x = np.ones((len(y), 1))
    bread = np.linalg.inv(x.T @ x)
    residuals = y - y.mean()
    names = sorted(set(clusters))
    meat = np.zeros((1, 1))
    for name in names:
        mine = np.array(clusters) == name
        score = x[mine].T @ residuals[mine]
        meat += np.outer(score, score)
    k = len(names)
    error = float(np.sqrt(bread @ meat @ bread * k / (k - 1))[0, 0])
    half = float(scipy.stats.t.ppf(0.975, k - 1)) * error
    return error, float(y.mean()) - half, float(y.mean()) + half


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 5), st.integers(0, 4)), min_size=2, max_size=30))
def test_clustered_mean_is_the_sandwich(drawn: list[tuple[float, int]]) -> None:
    values, clusters = [value for value, _ in drawn], [cluster for _, cluster in drawn]
    if len(set(clusters)) < 2:
        return
    found = clustered_mean(values, clusters, bounds=None)
    error, low, high = sandwich(values, clusters)
    assert found.standard_error == pytest.approx(error, rel=1e-6, abs=1e-9)
    assert found.interval == pytest.approx((low, high), rel=1e-6, abs=1e-7)
    assert (found.clusters, found.n) == (len(set(clusters)), len(values))


def test_without_clusters_it_is_students() -> None:
    values = [0.2, 0.4, 0.9, 0.7, 0.5]
    low, high = scipy.stats.t.interval(0.9, 4, np.mean(values), scipy.stats.sem(values))
    assert clustered_mean(values, confidence=0.9).interval == pytest.approx((low, high))


def test_a_single_cluster_says_what_it_can() -> None:
    assert clustered_mean([0.5, 0.7], ["a", "a"], bounds=None).interval is None
    found = clustered_mean([0.5, 0.7], ["a", "a"])
    assert found.standard_error is None
    assert found.interval == pytest.approx(wilson_interval(0.6, 1))


def test_values_that_are_all_the_same_are_not_certain() -> None:
    assert clustered_mean([1.0] * 5).interval == pytest.approx(wilson_interval(5, 5))
    low, high = clustered_mean([0.7] * 5).interval or (0, 0)
    assert low < 0.4
    assert high > 0.9


def test_few_clusters_widen_the_interval_of_a_rate_by_its_confidence() -> None:
    clusters = [cluster for cluster in range(5) for _ in range(20)]
    values = [float(at % 20 < 4 * cluster + 2) for at, cluster in enumerate(clusters)]
    wide = clustered_mean(values, clusters, 0.99, binary=True)
    assert wide.standard_error is not None
    t = scipy.stats.t.ppf(0.995, 4) / scipy.stats.norm.ppf(0.995)
    size = wide.value * (1 - wide.value) / wide.standard_error**2
    size = max(size / t**2, min(size, 5.0))
    assert wide.interval == pytest.approx(wilson_interval(wide.value * size, size, 0.99))


@pytest.mark.parametrize(("value", "n"), [(0.7, 3), (0.9, 5), (0.9, 300), (0.1, 1000), (1 / 3, 50)])
def test_rounding_is_no_spread(value: float, n: int) -> None:
    found = clustered_mean([value] * n)
    assert found.standard_error == 0.0
    low, high = wilson_interval(value * n, n)
    assert found.interval == pytest.approx((low, high), abs=1e-9)


def test_bad_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        clustered_mean([])
    with pytest.raises(ValueError, match="2 values, but 1 clusters"):
        clustered_mean([0.1, 0.2], ["a"])


@pytest.mark.parametrize("clustered", [False, True])
def test_the_interval_covers_the_mean(clustered: bool) -> None:
    """95 of 100 intervals hold the truth, also where values of a cluster are alike."""
    rng = np.random.default_rng(7)
    rounds, k, size = 1000, 15, 4
    hits = naive = 0
    for _ in range(rounds):
        shared = rng.normal(0.5, 0.1, k) if clustered else np.full(k, 0.5)
        values = (np.repeat(shared, size) + rng.uniform(-0.2, 0.2, k * size)).tolist()
        names = np.repeat(np.arange(k), size).tolist()
        low, high = clustered_mean(values, names, bounds=None).interval or (0, 0)
        hits += low <= 0.5 <= high
        low, high = clustered_mean(values, bounds=None).interval or (0, 0)
        naive += low <= 0.5 <= high
    assert 0.93 <= hits / rounds <= 0.97
    assert not clustered or naive / rounds < 0.85


def test_the_rate_of_clustered_passes_is_covered() -> None:
    rng = np.random.default_rng(8)
    hits = rounds = 0
    for _ in range(1500):
        chances = rng.beta(2, 2, 10)
        passes = rng.binomial(5, chances)
        found = mean_of_sums([(5, int(passed)) for passed in passes], binary=True)
        low, high = found.interval or (1, 0)
        hits += low <= 0.5 <= high
        rounds += 1
    assert 0.935 <= hits / rounds <= 0.985


def test_an_effective_size_is_that_of_independent_tries() -> None:
    rate, n = 0.3, 400
    error = (rate * (1 - rate) / n) ** 0.5
    assert effective_size(rate, error, n, 400) == pytest.approx(400, rel=0.02)
    assert effective_size(rate, 2 * error, n, 400) == pytest.approx(100, rel=0.02)
    assert effective_size(1.0, 0.0, 50, 10) == 10


@pytest.mark.parametrize("df", [1, 2, 7, 199, 200, 1318, 99_999])
@pytest.mark.parametrize("probability", [0.025, 0.9, 0.975, 0.9999])
def test_students_quantile(df: int, probability: float) -> None:
    wanted = scipy.stats.t.ppf(probability, df)
    assert student_quantile(probability, df) == pytest.approx(wanted, rel=1e-9)


# --- repeats --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "passed"), [(1, 0), (1, 1), (5, 0), (5, 2), (5, 5), (7, 3)])
def test_pass_at_k_and_pass_hat_k_count_the_draws(n: int, passed: int) -> None:
    tries = [1] * passed + [0] * (n - passed)
    for k in range(1, n + 1):
        draws = list(itertools.combinations(tries, k))
        some = sum(any(draw) for draw in draws) / len(draws)
        every = sum(all(draw) for draw in draws) / len(draws)
        assert pass_at_k(n, passed, k) == pytest.approx(some)
        assert pass_hat_k(n, passed, k) == pytest.approx(every)


def test_tries_that_cannot_be() -> None:
    for formula in (pass_at_k, pass_hat_k):
        with pytest.raises(ValueError, match="of 3 tries, 4 cannot be drawn"):
            formula(3, 1, 4)
        with pytest.raises(ValueError, match="4 of 3 cannot have passed"):
            formula(3, 4, 1)


def test_the_variance_is_split_as_anova_splits_it() -> None:
    rows = [[0.1, 0.3, 0.2], [0.6, 0.9, 0.9], [0.4, 0.4, 0.7], [1.0, 0.8, 0.9]]
    found = split_variance((3, sum(row), sum(x * x for x in row)) for row in rows)
    assert found is not None
    f = scipy.stats.f_oneway(*rows).statistic
    within = float(np.mean([np.var(row, ddof=1) for row in rows]))
    assert found.within == pytest.approx(within)
    assert found.between == pytest.approx((f - 1) * within / 3)


def test_the_split_finds_planted_variances() -> None:
    rng = np.random.default_rng(3)
    cases = []
    for centre in rng.normal(0, 0.3, 3000):
        row = rng.normal(centre, 0.2, rng.integers(1, 6))
        cases.append((len(row), float(row.sum()), float((row**2).sum())))
    found = split_variance(cases)
    assert found is not None
    assert found.between == pytest.approx(0.09, rel=0.08)
    assert found.within == pytest.approx(0.04, rel=0.08)
    assert found.repeats_share == pytest.approx(0.04 / 0.13, rel=0.1)


def test_a_split_needs_two_cases_and_a_repeat() -> None:
    assert split_variance([(5, 2.0, 2.0)]) is None
    assert split_variance([(1, 1.0, 1.0), (1, 0.0, 0.0)]) is None
    same = split_variance([(2, 2.0, 2.0), (2, 2.0, 2.0)])
    assert same is not None
    assert (same.between, same.within, same.repeats_share) == (0.0, 0.0, None)
