from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from muster.errors import ConfigError
from muster.evals.scoring import ScoreRow

Judged = Callable[..., ScoreRow]

OUTPUT = "The quick brown Fox\njumps over Straße."


@pytest.mark.parametrize(
    ("kind", "value", "passes", "sentence"),
    [
        ("contains", "brown Fox", True, 'Output contains "brown Fox"'),
        ("contains", "brown fox", False, 'Output does not contain "brown fox"'),
        ("icontains", "BROWN fox", True, 'Output contains "BROWN fox" (case-insensitive)'),
        ("icontains", "dog", False, 'Output does not contain "dog" (case-insensitive)'),
        ("contains-any", ["dog", "Fox"], True, 'Output contains "Fox"'),
        ("contains-any", ["dog", "fox"], False, 'Output contains none of: "dog", "fox"'),
        ("contains-any", 'dog, "brown Fox"', True, 'Output contains "brown Fox"'),
        ("contains-all", ["quick", "Fox"], True, "Output contains all 2 expected strings"),
        ("contains-all", ["quick", "dog", "cat"], False, 'Output missing: "dog", "cat"'),
        ("icontains-any", ["DOG", "FOX"], True, 'Output contains "FOX" (case-insensitive)'),
        (
            "icontains-all",
            ["QUICK", "DOG"],
            False,
            'Output missing: "DOG" (case-insensitive)',
        ),
        (
            "icontains-all",
            ["QUICK", "FOX"],
            True,
            "Output contains all 2 expected strings (case-insensitive)",
        ),
        ("starts-with", " The quick", True, 'Output starts with "The quick"'),
        ("starts-with", "the", False, 'Output does not start with "the"'),
        ("ends-with", "Straße. ", True, 'Output ends with "Straße."'),
        ("ends-with", "Fox", False, 'Output does not end with "Fox"'),
        ("equals", f"\n{OUTPUT} ", True, f'Output equals "{OUTPUT}"'),
        ("equals", "The quick", False, 'Output does not equal "The quick"'),
    ],
)
def test_verdicts_and_sentences(
    judged: Judged, kind: str, value: Any, passes: bool, sentence: str
) -> None:
    row = judged({"type": kind, "value": value}, f" {OUTPUT}\n")
    assert row.score == float(passes)
    assert row.verdict == ("pass" if passes else "fail")
    assert [assertion.text for assertion in row.assertions] == [sentence]
    assert row.assertions[0].passed is passes


def test_evidence_shows_what_the_answer_was_instead(judged: Judged) -> None:
    assert judged({"type": "equals", "value": "no"}, "yes").assertions[0].evidence == 'it is "yes"'
    starts = judged({"type": "starts-with", "value": "no"}, "yes, of course").assertions[0]
    assert starts.evidence == 'it starts with "yes, of course"'
    ends = judged({"type": "ends-with", "value": "no"}, "yes, of course").assertions[0]
    assert ends.evidence == 'it ends with "yes, of course"'


@pytest.mark.parametrize(("value", "output"), [(18, "it is 18"), (1.5, "1.5 l"), (True, "true")])
def test_numbers_and_booleans_are_taken_as_written(judged: Judged, value: Any, output: str) -> None:
    assert judged({"type": "contains", "value": value}, output).score == 1.0


def test_an_empty_answer_can_be_expected(judged: Judged) -> None:
    assert judged({"type": "equals", "value": ""}, " \n").score == 1.0


def test_long_texts_are_cut_in_sentences_not_in_the_comparison(judged: Judged) -> None:
    row = judged({"type": "contains", "value": "x" * 5000}, "x" * 4999)
    assert row.score == 0.0
    assert len(row.assertions[0].text) < 300


@pytest.mark.parametrize(
    ("entry", "passes", "wanted"),
    [
        ({"value": 4}, True, "4"),
        ({"value": "5"}, False, "5"),
        ({"min": 4}, True, "at least 4"),
        ({"max": 3}, False, "at most 3"),
        ({"value": {"min": 2, "max": 4}}, True, "at least 2 and at most 4"),
    ],
)
def test_word_count(judged: Judged, entry: dict[str, Any], passes: bool, wanted: str) -> None:
    row = judged({"type": "word-count", **entry}, " one  two\nthree four ")
    assert row.score == float(passes)
    assert row.assertions[0].text == f"Output has 4 words, wanted {wanted}"


@pytest.mark.parametrize("entry", [{}, {"value": 3, "max": 4}, {"min": 4, "max": 3}, {"value": {}}])
def test_a_count_without_sense(judged: Judged, entry: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"needs either value, or min|min is above max"):
        judged({"type": "word-count", **entry}, "")
