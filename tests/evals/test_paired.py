from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from muster.evals.paired import holm, mcnemar, mean_difference, normalised_gain, sign_flip
from muster.evals.stats import clustered_mean, wilson_interval


def test_the_difference_is_the_paired_t_test() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.uniform(size=40), rng.uniform(size=40)
    wanted = scipy.stats.ttest_rel(a, b).confidence_interval(0.9)
    found = mean_difference(a - b, confidence=0.9)
    assert found.value == pytest.approx(a.mean() - b.mean())
    assert found.interval == pytest.approx((wanted.low, wanted.high))


def test_clusters_are_those_of_one_sample() -> None:
    rng = np.random.default_rng(2)
    differences, clusters = rng.uniform(-1, 1, 30), rng.permutation(np.arange(30) % 7)
    found = mean_difference(differences, clusters)
    wanted = clustered_mean(differences.tolist(), clusters.tolist(), bounds=(-1, 1))
    assert found.interval == pytest.approx(wanted.interval)
    assert found.clusters == 7


@pytest.mark.parametrize("same", [0.0, 1.0, -0.5])
def test_differences_that_are_all_the_same_are_not_certain(same: float) -> None:
    found = mean_difference(np.full(20, same))
    most = wilson_interval(0, 20)[1]
    # A share `most` of all cases may differ, by as much as differences can.
    assert found.low == pytest.approx((1 - most) * same - most)
    assert found.high == pytest.approx((1 - most) * same + most)


def test_one_case_has_no_interval() -> None:
    found = mean_difference(np.array([0.5]))
    assert (found.value, found.interval) == (0.5, None)
    assert mean_difference(np.array([0.1, 0.3]), np.array([0, 0])).interval is None
    with pytest.raises(ValueError, match="no case is shared"):
        mean_difference(np.array([]))


@pytest.mark.parametrize("counts", [(0, 0), (1, 0), (5, 5), (3, 9), (30, 12), (360, 76), (0, 40)])
def test_mcnemar_is_the_binomial_test(counts: tuple[int, int]) -> None:
    wanted = scipy.stats.binomtest(counts[0], sum(counts)).pvalue if sum(counts) else 1.0
    assert mcnemar(*counts) == pytest.approx(wanted, rel=1e-9)
    assert mcnemar(*counts[::-1]) == mcnemar(*counts)


def test_mcnemar_of_very_many() -> None:
    assert mcnemar(100_000, 0) == 0.0  # 2^-99999, below what a float can be
    with pytest.raises(ValueError, match="not negative"):
        mcnemar(-1, 2)


def by_hand(differences: list[float]) -> float:
    seen = abs(sum(differences))
    sums = [
        abs(sum(sign * value for sign, value in zip(signs, differences, strict=True)))
        for signs in itertools.product((-1, 1), repeat=len(differences))
    ]
    return sum(value >= seen - 1e-9 for value in sums) / len(sums)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([-1.0, -0.5, -0.25, 0.0, 0.1, 0.3, 1.0]), min_size=1, max_size=9))
def test_few_signs_are_flipped_in_every_way(differences: list[float]) -> None:
    p, exact = sign_flip(np.array(differences))
    assert exact
    assert p == pytest.approx(by_hand(differences))


def test_clusters_are_flipped_as_one() -> None:
    values, clusters = [0.5, 0.2, -0.1, 0.4, 0.3], [0, 0, 1, 1, 2]
    p, exact = sign_flip(np.array(values), np.array(clusters))
    assert exact
    assert p == pytest.approx(by_hand([0.7, 0.3, 0.3]))


def test_equal_sizes_are_a_binomial() -> None:
    differences = np.concatenate((np.full(60, 0.5), np.full(35, -0.5), np.zeros(1000)))
    p, exact = sign_flip(differences)
    assert exact
    assert p == pytest.approx(scipy.stats.binomtest(60, 95).pvalue)


def test_many_are_drawn_and_p_is_never_0() -> None:
    rng = np.random.default_rng(4)
    differences = rng.normal(0.2, 1, 60).clip(-1, 1)
    p, exact = sign_flip(differences, draws=20_000)
    wanted = scipy.stats.permutation_test(
        (differences,),
        lambda x, axis: x.sum(axis=axis),
        permutation_type="samples",
        n_resamples=20_000,
        vectorized=True,
        rng=5,
    ).pvalue
    assert not exact
    assert p == pytest.approx(wanted, abs=0.02)
    assert sign_flip(differences, draws=20_000) == (p, exact)
    certain = rng.uniform(0.5, 1, 60)
    assert sign_flip(certain, draws=999) == (1 / 1000, False)


def test_drawn_signs_keep_their_error() -> None:
    """Of differences without a direction, p is below 0.05 in one of twenty samples."""
    rng = np.random.default_rng(5)
    rounds = 400
    low = sum(sign_flip(rng.uniform(-1, 1, 25), draws=399)[0] <= 0.05 for _ in range(rounds))
    assert 0.02 <= low / rounds <= 0.085


def test_no_differences_have_no_test() -> None:
    with pytest.raises(ValueError, match="needs differences"):
        sign_flip(np.array([]))
    assert sign_flip(np.zeros(5)) == (1.0, True)


def test_holm() -> None:
    # By hand: 4 x 0.01, 3 x 0.015, 2 x 0.04, then 0.2; each at least its predecessor.
    assert holm([0.2, 0.01, 0.04, 0.015]) == pytest.approx([0.2, 0.04, 0.08, 0.045])
    assert holm([0.03, 0.02]) == pytest.approx([0.04, 0.04])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_holds_for_all_together() -> None:
    rng = np.random.default_rng(6)
    rounds = 2000
    wrong = sum(min(holm(rng.uniform(size=5).tolist())) <= 0.05 for _ in range(rounds))
    assert wrong / rounds == pytest.approx(0.05, abs=0.015)


def test_normalised_gain() -> None:
    assert normalised_gain(0.9, 0.8) == pytest.approx(0.5)
    assert normalised_gain(0.7, 0.8) == pytest.approx(-0.5)
    assert normalised_gain(1.0, 1.0) is None


def test_the_interval_covers_small_binary_differences() -> None:
    """Also where few cases change at all."""
    rng = np.random.default_rng(9)
    rounds = 1500
    hits = 0
    for _ in range(rounds):
        differences = rng.choice([-1.0, 0.0, 1.0], p=[0.06, 0.84, 0.10], size=80)
        low, high = mean_difference(differences).interval or (1, 0)
        hits += low <= 0.04 <= high
    assert 0.93 <= hits / rounds <= 0.975
