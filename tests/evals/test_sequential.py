from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats

from muster.evals.sequential import DifferenceTest, MeanSequence


def rejected(hits: float, n: int, worth: float, p: float) -> bool:
    """By SciPy: the Beta-Bernoulli mixture against `p`, at 95 %."""
    a, b = worth * p + 0.5, worth * (1 - p) + 0.5
    mixed = scipy.special.betaln(hits + a, n - hits + b) - scipy.special.betaln(a, b)
    against = scipy.special.xlogy(hits, p) + scipy.special.xlogy(n - hits, 1 - p)
    return bool(mixed - against > math.log(20))


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (5, 5), (3, 5), (0.3, 5), (40, 50), (1.5, 900)])
def test_the_bounds_are_where_the_evidence_ends(hits: float, n: int) -> None:
    sequence = MeanSequence(tightest_at=830)
    for _ in range(n):
        sequence.add(hits / n)
    low, high = sequence.interval()
    for p in np.linspace(0.0005, 0.9995, 1000):
        assert rejected(hits, n, 100, float(p)) == (not low <= p <= high), p


def test_of_nothing_nothing_is_known() -> None:
    sequence = MeanSequence()
    assert (sequence.interval(), sequence.width, sequence.mean) == ((0.0, 1.0), 1.0, None)
    test = DifferenceTest()
    assert (test.mean, test.p_value, test.decided) == (None, 1.0, False)


def test_what_is_no_score_is_refused() -> None:
    with pytest.raises(ValueError, match=r"lies in \[0, 1\]"):
        MeanSequence().add(1.01)
    with pytest.raises(ValueError, match=r"lies in \[-1, 1\]"):
        DifferenceTest().add(-1.2)
    for kind in (MeanSequence, DifferenceTest):
        with pytest.raises(ValueError, match="between 0 and 1"):
            kind(1.0)


@pytest.mark.parametrize("scores", ["0 or 1", "graded"])
@pytest.mark.parametrize("mean", [0.1, 0.5, 0.9])
def test_the_bounds_hold_at_all_times_at_once(mean: float, scores: str) -> None:
    """In at most one of twenty runs do they ever leave the truth out; the usual interval, looked
    at as often, does in a third."""
    rng = np.random.default_rng(1)
    rounds, n = 200, 500
    ever = usual = 0
    for _ in range(rounds):
        if scores == "0 or 1":
            drawn = (rng.random(n) < mean).astype(float)
        else:
            drawn = rng.beta(4 * mean, 4 * (1 - mean), n)
        sequence = MeanSequence(tightest_at=300)
        out = usual_out = False
        sums, squares = np.cumsum(drawn), np.cumsum(drawn**2)
        for at, value in enumerate(drawn, 1):
            sequence.add(min(float(value), 1.0))
            if at % 15 == 0:
                low, high = sequence.interval()
                out = out or not low <= mean <= high
                centre = sums[at - 1] / at
                error = math.sqrt(max(squares[at - 1] / at - centre**2, 0) / at)
                usual_out = usual_out or abs(centre - mean) > 1.96 * error
        ever += out
        usual += usual_out
    assert ever / rounds <= 0.05
    assert usual / rounds > 0.2


def test_a_difference_of_nothing_is_rarely_found_at_any_time() -> None:
    rng = np.random.default_rng(2)
    rounds = 300
    wrong = 0
    for _ in range(rounds):
        test = DifferenceTest()
        for value in rng.choice([-1.0, -0.5, 0.0, 0.5, 1.0], size=400):
            test.add(float(value))
        wrong += test.decided
        assert test.decided == (test.p_value <= 0.05)
    assert wrong / rounds <= 0.05


def test_a_real_difference_is_found_early() -> None:
    rng = np.random.default_rng(3)
    took = []
    for _ in range(50):
        test = DifferenceTest()
        while not test.decided:
            test.add(float(rng.choice([-1.0, 0.0, 1.0], p=[0.05, 0.65, 0.3])))
        took.append(test.n)
        assert test.mean is not None
        assert test.mean > 0
    assert max(took) < 600
    assert np.median(took) < 120


def test_a_loss_is_found_like_a_gain() -> None:
    one, other = DifferenceTest(), DifferenceTest()
    for value in (0.4, -0.1, 0.9, 0.3, 0.0, 0.8):
        one.add(value)
        other.add(-value)
    assert one.p_value == pytest.approx(other.p_value)
    # By hand: the mean capital of bets of 5 %, 10 %, … 95 % on either side.
    shares = [sign * at / 20 for at in range(1, 20) for sign in (1, -1)]
    capital = [1.0] * len(shares)
    most = 1.0
    for value in (0.4, -0.1, 0.9, 0.3, 0.0, 0.8):
        capital = [c * (1 + s * value) for c, s in zip(capital, shares, strict=True)]
        most = max(most, sum(capital) / len(capital))
    assert one.p_value == pytest.approx(1 / most)
