"""The class that an answer names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from muster.errors import ConfigError
from muster.evals.scoring import Graded, ScoreRow

Judged = Callable[..., ScoreRow]

LABELS = {"type": "label", "labels": ["spam", "not spam", "ham/other"]}


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("spam", "spam"),
        (" **Not  SPAM**. ", "not spam"),
        ("I think that it is not spam.", "not spam"),
        ("It is ham/other, clearly.", "ham/other"),
        ("spammy", None),
        ("spam, or ham/other?", None),
        ("Spam. Really: spam!", "spam"),
        ("", None),
    ],
)
def test_the_label_that_an_answer_names(judged: Judged, answer: str, found: str | None) -> None:
    row = judged(LABELS, answer, "not spam")
    assert row.details is not None
    assert row.details["found"] == found
    assert row.score == float(found == "not spam")
    right = {"tp": 1, "fp": 0, "fn": 0, "tn": 0}
    missed = {"tp": 0, "fp": 0, "fn": 1, "tn": 0}
    wrong = {"tp": 0, "fp": 1, "fn": 0, "tn": 0}
    confusion: dict[str, Any] = {"not spam": right if row.score else missed}
    if found not in (None, "not spam"):
        confusion[str(found)] = wrong
    assert row.details["confusion"] == confusion


def test_without_a_list_the_whole_answer_is_the_class(judged: Judged) -> None:
    assert judged({"type": "label", "value": "Refund"}, " refund. ").score == 1
    assert judged({"type": "label", "value": "refund"}, "it is a refund").score == 0
    assert judged({"type": "label", "value": 3}, "3").score == 1


def test_a_pattern_says_where_it_is(judged: Judged) -> None:
    entry = {"type": "label", "value": "b", "extract": r"class: (\w+)"}
    assert judged(entry, "class: a\nno, class: B").score == 1
    assert judged(entry, "b").score == 0


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"type": "label", "labels": ["a", "A"]}, "labels: two labels are the same"),
        (LABELS | {"value": "egg"}, r'value: the right class, "egg", is none of the labels'),
        ({"type": "label", "extract": "("}, "extract: "),
    ],
)
def test_mistakes(judged: Judged, entry: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        judged(entry, "x", "y")


@pytest.mark.parametrize(
    ("expected", "told"),
    [(None, "there is no right class"), ("egg", '"egg", is none of the labels')],
)
def test_nothing_right_is_an_error(
    graded: Callable[..., Graded], expected: str | None, told: str
) -> None:
    assert told in str(graded(LABELS, "spam", expected).error)
