from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from muster.evals.power import PairedSpread, cases_needed, detectable, power_of, repeats_needed


def exact(difference: float, variance: float, n: int, alpha: float = 0.05) -> float:
    """By the noncentral t distribution of scipy.stats."""
    shift = difference * np.sqrt(n / variance)
    bar = scipy.stats.t.ppf(1 - alpha / 2, n - 1)
    both = [scipy.stats.nct.cdf(at, n - 1, shift) for at in (bar, -bar)]
    # Far out, where next to nothing is, its series ends in NaN.
    high, low = np.nan_to_num(both)
    return float(1 - high + low)


@pytest.mark.parametrize(
    ("difference", "variance", "n"),
    [
        (0.9, 0.5, 60),
        (0.9, 0.01, 4),
        (0.9, 0.5, 2),
        (0.5, 1.0, 10),
        (0.1, 0.25, 100),
        (-0.1, 0.25, 100),
        (0.03, 0.28, 1319),
        (0.03, 0.28, 400),
    ],
)
def test_power(difference: float, variance: float, n: int) -> None:
    wanted = exact(abs(difference), variance, n)
    assert power_of(difference, variance, n) == pytest.approx(wanted, abs=1e-6)


def test_cases_needed_is_the_first_number_that_does() -> None:
    for difference, variance, power in ((0.5, 1.0, 0.8), (0.1, 0.3, 0.9), (0.9, 0.1, 0.8)):
        n = cases_needed(difference, variance, power)
        assert n is not None
        assert exact(difference, variance, n) >= power
        assert n == 2 or exact(difference, variance, n - 1) < power
    # Cohen's table 2.4.1 for one sample: d = 0.5, 80 %, two-sided 5 %: 34.
    assert cases_needed(0.5, 1.0) == 34
    # Where a normal distribution would say 863: statsmodels' TTestPower finds 863.0997.
    assert cases_needed(0.05, 0.2743) == 864
    assert cases_needed(1e-6, 1.0) is None


def test_power_is_what_happens() -> None:
    rng = np.random.default_rng(1)
    n = cases_needed(0.2, 0.36)
    assert n is not None
    rounds = 2000
    samples = rng.normal(0.2, 0.6, (rounds, n))
    found = np.mean(scipy.stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05)
    assert found == pytest.approx(0.8, abs=0.03)


def test_repeats_lessen_only_their_part() -> None:
    spread = PairedSpread(between=0.1, within=0.5)
    assert spread.variance(1) == pytest.approx(0.6)
    assert spread.variance(5) == pytest.approx(0.2)
    few = repeats_needed(0.1, spread, 200)
    assert few is not None
    assert power_of(0.1, spread.variance(few), 200) >= 0.8
    assert few > 1
    assert power_of(0.1, spread.variance(few - 1), 200) < 0.8
    assert repeats_needed(0.01, spread, 200) is None


def test_detectable_is_the_other_way_round() -> None:
    found = detectable(0.28, 1319)
    assert power_of(found, 0.28, 1319) == pytest.approx(0.8, abs=1e-6)
    assert cases_needed(found, 0.28) == pytest.approx(1319, abs=1)


def test_what_cannot_be_planned() -> None:
    with pytest.raises(ValueError, match="a difference of 0"):
        cases_needed(0.0, 1.0)
    with pytest.raises(ValueError, match="a power lies between"):
        cases_needed(0.1, 1.0, power=1.0)
    with pytest.raises(ValueError, match="one case"):
        detectable(1.0, 1)
    assert power_of(0.1, 1.0, 1) == 0.0
