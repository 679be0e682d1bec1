"""Agreement beyond chance, against figures of the literature and direct computations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.evals.agreement import (
    VoteTally,
    cohen_kappa,
    difference_of_means,
    net_preference,
    share,
)


@pytest.mark.parametrize(
    ("table", "kappa"),
    [
        ([[20, 5], [10, 15]], 0.4),
        ([[45, 15], [25, 15]], 0.130435),
        ([[25, 35], [5, 35]], 0.259259),
        ([[10, 0], [0, 10]], 1.0),
        ([[0, 10], [10, 0]], -1.0),
        ([[5, 5], [5, 5]], 0.0),
    ],
)
def test_kappa_of_known_tables(table: list[list[int]], kappa: float) -> None:
    found = cohen_kappa(table)
    assert found is not None
    assert found.value == pytest.approx(kappa, abs=1e-6)
    assert found.interval is not None
    low, high = found.interval
    assert low <= found.value <= high


def test_the_error_of_kappa() -> None:
    """Fleiss, Cohen and Everitt's own example (1969): the diagnoses of 200 patients."""
    table = [[106, 10, 4], [22, 28, 10], [2, 12, 6]]
    plain = cohen_kappa(table)
    assert plain is not None
    assert plain.value == pytest.approx(0.429, abs=5e-4)
    assert plain.standard_error == pytest.approx(0.0537, abs=5e-4)


def test_weighted_kappa_is_that_of_the_squared_distances() -> None:
    table = [[10, 3, 1], [2, 8, 3], [0, 1, 9]]
    n = sum(map(sum, table))
    rows = [sum(row) for row in table]
    columns = [sum(row[j] for row in table) for j in range(3)]
    seen = sum(table[i][j] * (i - j) ** 2 for i in range(3) for j in range(3))
    chance = sum(rows[i] * columns[j] * (i - j) ** 2 / n for i in range(3) for j in range(3))
    found = cohen_kappa(table, "quadratic")
    assert found is not None
    assert found.value == pytest.approx(1 - seen / chance)


def test_a_perfect_sample_does_not_prove_a_perfect_judge() -> None:
    found = cohen_kappa([[5, 0], [0, 5]])
    assert found is not None
    assert found.interval is not None
    assert found.interval[0] == pytest.approx(0.445, abs=1e-3)
    assert found.interval[1] == 1.0


def test_one_sided_tables_have_no_kappa() -> None:
    assert cohen_kappa([[7, 0], [0, 0]]) is None
    assert cohen_kappa([[0, 0], [0, 0]]) is None


def test_kappa_of_one_constant_side_is_zero() -> None:
    found = cohen_kappa([[8, 0], [4, 0]])
    assert found is not None
    assert found.value == pytest.approx(0.0)


def test_shares_of_nothing_are_not_known() -> None:
    assert math.isnan(share(0, 0).value)
    assert share(3, 4).interval == pytest.approx((0.3006, 0.9544), abs=1e-4)


def test_differences_of_means() -> None:
    same = difference_of_means([0.5] * 10, [0.5] * 10, (0, 1))
    assert same is not None
    assert same.interval is not None
    assert same.interval[0] < 0 < same.interval[1]
    far = difference_of_means([1.0] * 30, [0.0] * 30, (0, 1))
    assert far is not None
    assert far.interval is not None
    assert far.interval[0] > 0.7
    assert difference_of_means([], [1.0], (0, 1)) is None


def test_net_preference() -> None:
    found = net_preference(12, 2, 40)
    assert found is not None
    # Agresti and Min: (12 - 2) / 42 and its standard error, with half a pair in each cell.
    middle, error = 10 / 42, math.sqrt(15 - 100 / 42) / 42
    assert found.value == 0.25
    assert found.interval == pytest.approx((middle - 1.96 * error, middle + 1.96 * error), abs=1e-4)
    assert net_preference(0, 0, 0) is None
    nothing = net_preference(0, 0, 10)
    assert nothing is not None
    assert nothing.interval is not None
    assert nothing.interval[0] < 0 < nothing.interval[1]


# --- many votes -----------------------------------------------------------------------------------

votes = st.lists(st.lists(st.booleans(), min_size=2, max_size=5), min_size=1, max_size=12)


def tally(answers: Sequence[Sequence[bool]]) -> VoteTally:
    found = VoteTally()
    for answer in answers:
        found.add(sum(answer), len(answer) - sum(answer))
    return found


@given(votes)
def test_alpha_is_its_definition(answers: list[list[bool]]) -> None:
    """1 - observed disagreement over that of all pairs of values, whoever gave them."""
    values = [vote for answer in answers for vote in answer]
    n = len(values)
    expected = sum(one != two for one, two in combinations(values, 2)) / (n * (n - 1) / 2)
    observed = sum(
        2 * sum(one != two for one, two in combinations(answer, 2)) / (len(answer) - 1)
        for answer in answers
    )
    found = tally(answers).alpha
    if expected == 0:
        assert found is None
    else:
        assert found is not None
        assert found.value == pytest.approx(1 - observed / n / expected)


@given(votes)
def test_raw_agreement_is_its_definition(answers: list[list[bool]]) -> None:
    shares = []
    for answer in answers:
        pairs = list(combinations(answer, 2))
        shares.append(sum(one == two for one, two in pairs) / len(pairs))
    assert tally(answers).raw == pytest.approx(sum(shares) / len(shares))


def test_fleiss_kappa() -> None:
    """Three raters; by hand: P = (1 + 1 + 1/3 + 1/3) / 4, p = 7/12."""
    found = tally([[True] * 3, [False] * 3, [True, True, False], [True, True, False]])
    chance = (7 / 12) ** 2 + (5 / 12) ** 2
    assert found.fleiss_kappa == pytest.approx((2 / 3 - chance) / (1 - chance))
    assert tally([[True] * 3, [True] * 2]).fleiss_kappa is None
    assert found.to_dict()["answers"] == 4


def test_a_single_vote_is_no_agreement() -> None:
    found = tally([[True], [False]])
    assert (found.answers, found.raw, found.alpha) == (0, None, None)
