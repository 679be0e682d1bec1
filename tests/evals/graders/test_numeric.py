from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.evals.graders.numeric import last_number
from muster.evals.scoring import Graded, ScoreRow


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("18", "18"),
        ("The answer is 18.", "18"),
        ("first 3, then 18!", "18"),
        ("$18", "18"),
        ("18 dollars", "18"),
        ("18km", "18"),
        ("5 %", "5"),
        ("50%", "50"),
        ("USD18", "18"),
        ("18th", "18"),
        ("**18**", "18"),
        (r"\boxed{18}", "18"),
        ("#### 1,450,000", "1450000"),
        ("1,234.5", "1234.5"),
        ("1 234", "1234"),
        ("1\u00a0234\u202f567.25", "1234567.25"),
        ("1_234", "1234"),
        ("12,34,567", "1234567"),
        ("1.2e3", "1200"),
        ("1.2E-3", "0.0012"),
        ("1e\u22122", "0.01"),
        ("3/4", "0.75"),
        ("3 / 4", "0.75"),
        ("1 3/4 cups", "1.75"),
        ("1,000/4", "250"),
        (".5", "0.5"),
        ("-5", "-5"),
        ("\u22125", "-5"),
        ("\u22121,234.5", "-1234.5"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        ("\u2212€ 5", "-5"),
        ("(-5)", "-5"),
        ("x=-5", "-5"),
        ("16-5", "5"),
        ("3\u20135", "5"),
        ("2 \u2013 5", "5"),
        ("No.5", "5"),
        ("it is...42", "42"),
        ("Rs.500", "500"),
        ("2020 345", "345"),
        ("1,2345", "2345"),
        ("2 millions", "2000000"),
        ("-1.8 Billion", "-1800000000"),
        ("5 on 12/25/2024", "5"),
        ("version 1.2.3", "1.2"),
        ("7\nor so", "7"),
        ("1 234\n567", "567"),
    ],
)
def test_reading(text: str, value: str) -> None:
    reading = last_number(text)
    assert reading is not None
    assert reading.value == Decimal(value)


@pytest.mark.parametrize(
    "text", ["", "none", "H2O", "x1", "12/25/2024", "NaN", "inf", "٣", "-", "."]
)
def test_texts_without_a_number(text: str) -> None:
    assert last_number(text) is None


@pytest.mark.parametrize(
    "text", ["3/0", "0/0", "1e99999999999999999999", "1e-99999999999999999999"]
)
def test_what_is_no_finite_number_equals_nothing(
    judged: Callable[..., ScoreRow], text: str
) -> None:
    assert judged({"type": "numeric", "value": 0, "tolerance": 1}, text).score == 0.0


def test_a_number_at_the_end_of_a_very_long_line() -> None:
    line = "the 3 ducks ate 14 eggs, " * 400
    reading = last_number(f"{line}so 1,234.5 remain")
    assert reading is not None
    assert reading.value == Decimal("1234.5")
    digits = "7" * 900
    reading = last_number(line + digits)
    assert reading is not None
    assert reading.value == Decimal(digits)
    reading = last_number("so 12 it is, " + "H2O " * 200)
    assert reading is not None
    assert reading.value == 12


NUMBERS = st.decimals(
    min_value=-(10**12), max_value=10**12, allow_nan=False, allow_infinity=False, places=3
)


@given(NUMBERS, st.sampled_from([",", "_", " ", "\u00a0", ""]), st.sampled_from(["-", "\u2212"]))
def test_every_number_is_read_however_it_is_written(
    number: Decimal, separator: str, minus: str
) -> None:
    digits = f"{abs(number):,.3f}".replace(",", separator)
    text = f"In all: {minus if number < 0 else ''}{digits} litres."
    reading = last_number(text)
    assert reading is not None
    assert reading.value == number


@given(st.text(max_size=300))
def test_no_text_breaks_the_reader(text: str) -> None:
    reading = last_number(text)
    assert reading is None or reading.text in text


@pytest.mark.parametrize(
    ("settings", "output", "passes"),
    [
        ({"value": 18}, "it is 18", True),
        ({"value": 18}, "it is 18.0 dollars", True),
        ({"value": 18}, "it is 18.01", False),
        ({"value": 0.75}, "3/4", True),
        ({"value": "$1,200"}, "1200 USD", True),
        ({"value": 100}, "101", False),
        ({"value": 100, "tolerance": 1}, "101", True),
        ({"value": 100, "tolerance": 1}, "101.001", False),
        ({"value": 0.3, "tolerance": 0.1}, "0.4", True),  # 0.4 - 0.3 > 0.1 in binary
        ({"value": 200, "tolerance": "1%"}, "198", True),
        ({"value": 200, "tolerance": "1 %"}, "197.99", False),
        ({"value": -200, "tolerance": 0.01, "relative": True}, "-202", True),
        ({"value": -200, "tolerance": 0.01, "relative": True}, "200", False),
        ({"value": 0, "tolerance": "10%"}, "0.001", False),
        ({"value": 10**20}, f"{10**20 + 1}", False),  # equal as floats
        ({"value": 18, "extract": r"A:\s*(.+)"}, "A: 3\nA: 18\nfor 2 eggs", True),
        ({"value": 18, "extract": r"A:\s*(.+)"}, "A: 18\nA: 3", False),
        ({"value": 18, "extract": "answer is .*"}, "The answer is 18 dollars", True),
        ({"value": 18, "extract": r"(?<n>\d+) eggs"}, "18 eggs of 20", True),
        ({"value": 18, "extract": r"A: (.*)"}, "it is 18", False),
        ({"value": 0, "extract": r"(\d)?x"}, "x", False),
    ],
)
def test_verdicts(
    judged: Callable[..., ScoreRow], settings: dict[str, Any], output: str, passes: bool
) -> None:
    assert judged({"type": "numeric", **settings}, output).score == float(passes)


def test_the_right_number_is_in_the_expected_output_read_by_the_same_rules(
    judged: Callable[..., ScoreRow],
) -> None:
    entry = {"type": "numeric", "extract": "A: (.*)"}
    expected = "16 - 3 - 4 = 9, 9 * 2 = 18\nA: 1,018"
    assert judged(entry, "A: $1018", expected).score == 1.0
    assert judged(entry, "A: 18", expected).score == 0.0
    assert judged({"type": "numeric"}, "so 5", "5 or\n5.0").score == 1.0


@pytest.mark.parametrize(
    ("settings", "output", "sentence"),
    [
        ({"value": 18}, "$18", "Number 18 equals 18"),
        ({"value": 18}, "\u221226 %", "Number \u221226 does not equal 18"),
        ({"value": 18, "tolerance": 0.5}, "18.2", "Number 18.2 is within 0.5 of 18"),
        ({"value": 18, "tolerance": "1%"}, "20", "Number 20 is not within 1 % of 18"),
        ({"value": 18}, "none", "Output has no number"),
        (
            {"value": 18, "extract": "A: (.*)"},
            "18",
            "Output has no number where /A: (.*)/ looks for it",
        ),
    ],
)
def test_sentences(
    judged: Callable[..., ScoreRow], settings: dict[str, Any], output: str, sentence: str
) -> None:
    assert judged({"type": "numeric", **settings}, output).assertions[0].text == sentence


def test_details_are_numbers(judged: Callable[..., ScoreRow]) -> None:
    entry = {"type": "numeric", "value": 18}
    assert judged(entry, "18.5").details == {"found": 18.5, "expected": 18}
    assert judged(entry, "1e5000").details == {"found": "1E+5000", "expected": 18}
    assert judged(entry, str(2**60 + 1)).details == {"found": str(2**60 + 1), "expected": 18}


def test_without_a_right_number_the_case_is_an_error(graded: Callable[..., Graded]) -> None:
    missing = graded({"type": "numeric"}, "18")
    assert missing.error == 'grader "numeric": has no value, and the test has no expected output'
    malformed = graded({"type": "numeric"}, "18", "eighteen")
    assert malformed.error == ('grader "numeric": the expected output "eighteen" has no number')
    infinite = graded({"type": "numeric"}, "18", "1/0")
    assert infinite.error is not None
    assert "is not a finite number" in infinite.error
