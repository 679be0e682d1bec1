from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.evals.stats import mean, percentile, wilson_interval


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
