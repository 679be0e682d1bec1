from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.errors import ConfigError
from muster.evals.graders.dates import read_date
from muster.evals.graders.json_values import answer_json
from muster.evals.scoring import Graded, ScoreRow

Judged = Callable[..., ScoreRow]


def fields(*given: Any, **more: Any) -> dict[str, Any]:
    made = [{"path": one} if isinstance(one, str) else one for one in given]
    return {"type": "field-accuracy", "fields": made} | more


EXPECTED = json.dumps({"a": 1, "b": {"c": [{"d": "x"}]}, "when": "2025-06-05", "n": 100})


@pytest.mark.parametrize(
    ("entry", "output", "score"),
    [
        (fields("a", "b.c[0].d"), '{"a": 1, "b": {"c": [{"d": "x"}]}}', 1.0),
        (fields("a", "b.c[0].d"), '{"a": 1.0, "b": {"c": []}}', 0.5),
        (fields("a"), '{"a": "1"}', 0.0),
        (fields("a"), '{"a": true}', 0.0),
        (fields("b"), '{"b": {"c": [{"d": "x"}]}}', 1.0),
        (fields("a", "n"), 'Here: ```json\n{"a": 1, "n": 2}\n``` ok', 0.5),
        (fields("a"), 'It is {"a": 1}, I think {not more}', 1.0),
        (fields("a"), "no json", 0.0),
        (fields("a"), "[" * 5000 + "]" * 5000, 0.0),
        (fields("a", "zz"), '{"a": 2}', 0.5),
        (fields("a", {"path": "n", "required": False}), '{"a": 1}', 1.0),
        (fields("a", {"path": "n", "required": False}), '{"a": 1, "n": 0}', 0.5),
        (fields({"path": "n", "required": False}), "{}", 0.0),
        (fields({"path": "a", "weight": 3}, "n"), '{"a": 1, "n": 0}', 0.75),
        (fields("a", "n", aggregation="all_or_nothing"), '{"a": 1, "n": 0}', 0.0),
        (fields("a", "n", aggregation="all_or_nothing"), '{"a": 1, "n": 100}', 1.0),
    ],
)
def test_scores(judged: Judged, entry: dict[str, Any], output: str, score: float) -> None:
    assert judged(entry, output, EXPECTED).score == score


@pytest.mark.parametrize(
    ("wanted", "given", "outcome"),
    [
        ("x", "x", {"tp"}),
        ("x", "y", {"fp", "fn"}),
        ("x", None, {"fn"}),
        ("x", " ", {"fn"}),
        ("", "y", {"fp"}),
        (None, None, {"tn"}),
    ],
)
def test_what_a_field_is(judged: Judged, wanted: Any, given: Any, outcome: set[str]) -> None:
    row = judged(fields("f", "g"), json.dumps({"f": given}), json.dumps({"f": wanted, "g": 1}))
    counts = {kind: int(kind in outcome) for kind in ("tp", "fp", "fn", "tn")}
    assert row.details is not None
    assert row.details["confusion"] == {
        "f": counts,
        "g": {"tp": 0, "fp": 0, "fn": 1, "tn": 0},
    }


def test_f1_of_fields(judged: Judged) -> None:
    expected = json.dumps({"a": 1, "b": 2, "c": 3, "d": ""})
    entry = fields("a", "b", "c", {"path": "d", "weight": 2}, aggregation="f1")
    # a is right; b is wrong, which is one too many and one missing; c is missing.
    assert judged(entry, '{"a": 1, "b": 9}', expected).score == pytest.approx(2 / (2 + 1 + 2))
    # d was not asked for, and weighs 2.
    made = '{"a": 1, "b": 2, "c": 3, "d": "x"}'
    assert judged(entry, made, expected).score == pytest.approx(6 / (6 + 2))
    assert judged(entry, "no JSON", expected).score == 0
    missing = judged(entry, "no JSON", expected).details
    assert missing is not None
    assert missing["confusion"]["a"] == {"tp": 0, "fp": 0, "fn": 1, "tn": 0}


@pytest.mark.parametrize(
    ("given", "wanted", "more", "hit"),
    [
        (1.1, 1, {"tolerance": 0.1}, True),
        (0.3, 0.1, {"tolerance": 0.2}, True),
        (1.11, 1, {"tolerance": 0.1}, False),
        (110, 100, {"tolerance": 0.1, "relative": True}, True),
        (111, 100, {"tolerance": 0.1, "relative": True}, False),
        (0.05, 0, {"tolerance": 0.1, "relative": True}, True),
        (-110, -100, {"tolerance": 0.1, "relative": True}, True),
        ("$1,234.50", 1234.5, {}, True),
        ("1,234", 1, {}, False),
        ("about", 1, {"tolerance": 9}, False),
        (True, 1, {}, False),
        (None, 1, {}, False),
        (10**30, 10**30 + 1, {}, False),
        (10**30, 10**30 + 1, {"tolerance": 1}, True),
        ("1e999999999", 1, {"tolerance": 1}, False),
    ],
)
def test_numbers(judged: Judged, given: Any, wanted: Any, more: dict[str, Any], hit: bool) -> None:
    entry = fields({"path": "v", "match": "numeric_tolerance"} | more)
    row = judged(entry, json.dumps({"v": given}), json.dumps({"v": wanted}))
    assert row.score == float(hit)


@pytest.mark.parametrize(
    ("text", "formats", "day"),
    [
        ("05/06/2025", ["DD/MM/YYYY"], date(2025, 6, 5)),
        ("05/06/2025", ["MM/DD/YYYY"], date(2025, 5, 6)),
        ("05/06/2025", ["YYYY-MM-DD", "DD/MM/YYYY"], date(2025, 6, 5)),
        ("05/06/2025", ["MM/DD/YYYY", "DD/MM/YYYY"], date(2025, 5, 6)),
        ("05-06-2025", ["DD/MM/YYYY"], date(2025, 6, 5)),
        ("05/06/2025", [], date(2025, 5, 6)),
        ("25/06/2025", [], date(2025, 6, 25)),
        ("06/25/2025", [], date(2025, 6, 25)),
        ("06/25/2025", ["DD/MM/YYYY"], date(2025, 6, 25)),
        ("5.6.25", ["D.M.YY"], date(2025, 6, 5)),
        ("5.6.70", ["D.M.YY"], date(1970, 6, 5)),
        ("2025-06-05", ["DD/MM/YYYY"], date(2025, 6, 5)),
        ("2025-06-05T23:30:00-08:00", [], date(2025, 6, 5)),
        ("2025-06-05T00:30:00Z", [], date(2025, 6, 5)),
        ("2025-06-05 12:30", [], date(2025, 6, 5)),
        ("15-JAN-2025", [], date(2025, 1, 15)),
        ("15 Sept 2025", ["DD-MMM-YYYY"], date(2025, 9, 15)),
        ("June 5, 2025", [], date(2025, 6, 5)),
        ("Thu, 5 June 2025 10:00:00 GMT", [], date(2025, 6, 5)),
        ("5th of June", [], None),
        ("5 Junk 2025", [], None),
        ("31/02/2025", ["DD/MM/YYYY"], None),
        ("2025-13-01", [], None),
        ("20250605", ["YYYYMMDD"], date(2025, 6, 5)),
        ("", [], None),
        ("9" * 10_000, [], None),
    ],
)
def test_dates(text: str, formats: list[str], day: date | None) -> None:
    assert read_date(text, formats) == day


DAYS = st.dates(min_value=date(1000, 1, 1))


@given(DAYS, st.sampled_from(["%d/%m/%Y", "%m/%d/%Y", "%Y-%m-%d", "%d.%m.%Y", "%d %B %Y"]))
def test_a_format_that_is_named_reads_what_it_writes(day: date, form: str) -> None:
    ours = form.replace("%d", "DD").replace("%m", "MM").replace("%Y", "YYYY").replace("%B", "MMMM")
    written = day.strftime(form).replace(day.strftime("%Y"), f"{day.year:04}")
    assert read_date(written, [ours]) == day
    assert read_date(day.isoformat(), [ours]) == day


def test_a_date_that_formats_would_misread_is_right(judged: Judged) -> None:
    entry = fields({"path": "when", "match": "date", "formats": ["DD/MM/YYYY"]})
    assert judged(entry, '{"when": "05/06/2025"}', EXPECTED).score == 1
    guessed = fields({"path": "when", "match": "date"})
    assert judged(guessed, '{"when": "05/06/2025"}', EXPECTED).score == 0


def test_fuzzy_texts(judged: Judged) -> None:
    pytest.importorskip("rapidfuzz")
    expected = json.dumps({"name": "Ada Lovelace"})
    entry = fields({"path": "name", "match": "fuzzy"})
    assert judged(entry, '{"name": "ada  lovelace"}', expected).score == 1
    assert judged(entry, '{"name": "Ada Lovelase"}', expected).score == 1
    assert judged(entry, '{"name": "Charles Babbage"}', expected).score == 0
    assert judged(entry, '{"name": 5}', expected).score == 0
    strict = fields({"path": "name", "match": "fuzzy", "threshold": 0.95})
    row = judged(strict, '{"name": "Ada Lovelase"}', expected)
    assert row.score == 0
    assert row.assertions[0].text == "name is not as expected: 92% alike"


@pytest.mark.parametrize("expected", [None, "prose", '{"b": 1}', "18"])
def test_nothing_to_compare_with_is_an_error(
    graded: Callable[..., Graded], expected: str | None
) -> None:
    found = graded(fields("a", "c"), '{"a": 1}', expected)
    assert found.error is not None
    assert "expected_output" in found.error


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (fields(), "fields"),
        (fields({"path": "a", "match": "about"}), "match"),
        (fields({"path": "a", "formats": ["MM/DD"]}), '"MM/DD" names no day'),
        (fields({"path": "a", "formats": ["DD/DD/MM/YYYY"]}), "has D twice"),
        (fields({"path": "a", "tolerance": -1}), "tolerance"),
    ],
)
def test_settings_that_are_wrong(
    bind: Callable[..., Any], entry: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        bind([entry])
    assert message in str(raised.value)


# --- json-diff ------------------------------------------------------------------------------------


def diff(**more: Any) -> dict[str, Any]:
    return {"type": "json-diff"} | more


@pytest.mark.parametrize(
    ("entry", "wanted", "given", "score"),
    [
        (diff(), {"a": 1, "b": [1, 2]}, {"b": [1, 2], "a": 1.0}, 1.0),
        (diff(), {"a": 1, "b": [1, 2]}, {"a": 1, "b": [1, 3]}, 2 / 3),
        (diff(), {"a": 1}, {"a": 1, "b": {"c": 1, "d": 2}}, 1 / 3),
        (diff(), {"a": 1, "b": {"c": 1, "d": 2}}, {"a": 1}, 1 / 3),
        (diff(), {"a": {}}, {"a": []}, 0.0),
        (diff(), {"a": {}}, {}, 0.0),
        (diff(), {}, {"a": []}, 0.0),
        (diff(), {"a": []}, {"a": []}, 1.0),
        (diff(), [], [], 1.0),
        (diff(), {"a": True}, {"a": 1}, 0.0),
        (diff(), {"a": None}, {}, 0.0),
        (diff(), {"a": [1]}, {"a": {"0": 1}}, 0.0),
        (diff(), [1, 2, 3], [3, 2, 1], 1 / 3),
        (diff(ignore_order=True), [1, 2, 3], [3, 2, 1], 1.0),
        (diff(ignore_order=True), [1, 1, 2], [1, 2, 2], 2 / 3),
        (diff(ignore_order=True), {"a": [{"k": [1, 2]}]}, {"a": [{"k": [2, 1]}]}, 1.0),
        (diff(tolerance=0.1), {"a": 0.3, "b": 1}, {"a": 0.4, "b": 1.2}, 0.5),
        (diff(ignore=["id"]), {"id": 1, "a": 1}, {"id": 2, "a": 1}, 1.0),
        (diff(ignore=["[*].id"]), [{"id": 1, "a": 1}], [{"id": 2, "a": 1}], 1.0),
        (diff(ignore=["x"]), {"x": {"deep": 1}, "X": 1}, {"X": 2}, 0.0),
        (diff(value={"a": 1}), {"b": 1}, {"a": 1}, 1.0),
        (diff(value='{"a": 1}'), {"b": 1}, {"a": 1}, 1.0),
        (diff(value={1: "x"}), {}, {"1": "x"}, 1.0),
    ],
)
def test_json_diff(
    judged: Judged, entry: dict[str, Any], wanted: Any, given: Any, score: float
) -> None:
    assert judged(entry, json.dumps(given), json.dumps(wanted)).score == score


def test_what_differs_is_told(judged: Judged) -> None:
    row = judged(diff(), '{"a": 2, "c": 3}', '{"a": 1, "b": [true]}')
    assert [(one.text, one.evidence) for one in row.assertions] == [
        ("0 of 3 values are as expected", None),
        ("a differs", "expected 1, found 2"),
        ("b[0] is missing", "expected true"),
        ("c is not expected", "found 3"),
    ]
    assert row.details == {"differences": 3}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab", max_size=2),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(JSON, JSON)
def test_the_share_is_one_only_for_equal_values(judged_twice: Any, one: Any, other: Any) -> None:
    there, back = judged_twice(one, other), judged_twice(other, one)
    assert (there == 1) == (json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True))
    assert there == back
    assert 0 <= there <= 1
    assert judged_twice(one, one) == 1


@pytest.fixture(scope="module")
def judged_twice() -> Callable[[Any, Any], float]:
    from muster.evals.case import Case
    from muster.evals.graders.base import GradeContext, GraderSpec
    from muster.evals.graders.json_diff import JsonDiff
    from muster.provider import Message, ProviderResponse

    grade = JsonDiff(GraderSpec(type="json-diff"))

    def share(wanted: Any, given: Any) -> float:
        text = json.dumps(given)
        return grade(
            GradeContext(
                output=text,
                case=Case(id="c", suite="s", input=()),
                response=ProviderResponse(text),
                expected_output=(Message("assistant", json.dumps(wanted)),),
            )
        ).score

    return share


@given(JSON)
def test_json_is_found_in_prose(value: Any) -> None:
    text = json.dumps(value)
    assert answer_json(text) == value
    assert answer_json(f"So:\n```json\n{text}\n```\nthat is it") == value
    if isinstance(value, dict):
        assert answer_json(f"So {text} it is") == value


def test_what_looks_like_json_does_not_hold_up_the_run() -> None:
    for text in ("```\n" + " " * 200_000, "{" * 200_000, "[1, " * 50_000, '{"a": ' * 50_000):
        begin = time.perf_counter()
        with pytest.raises(ValueError, match=r"no JSON|deeply"):
            answer_json(text)
        assert time.perf_counter() - begin < 5
