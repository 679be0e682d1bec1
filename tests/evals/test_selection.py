from __future__ import annotations

from typing import Any

import pytest

from eval_parts import make_case, make_suite
from muster.errors import UsageError
from muster.evals.case import Case
from muster.evals.selection import Selection

CASES = (
    make_case("math-1", tags=("fast", "math"), metadata={"level": 1, "area": "algebra"}),
    make_case("math-2", tags=("slow", "math"), metadata={"level": 2, "area": ["sets", "logic"]}),
    make_case("text-1", tags=("fast",), category="words/short", vars={"lang": "de", "level": "1"}),
    make_case("Text-10", category="words/long", conversation_id="talk-7", vars={"lang": "den"}),
)
ALL = [case.id for case in CASES]


def selected(*cases: Case, suite_tags: tuple[str, ...] = (), **asked: Any) -> list[str]:
    given = {name: (value,) if isinstance(value, str) else value for name, value in asked.items()}
    matches = Selection(**given).predicate(make_suite(tags=suite_tags))
    return [case.id for case in cases or CASES if matches(case)]


def test_nothing_asked_selects_all() -> None:
    assert not Selection()
    assert selected() == ALL
    assert Selection().describe() == ""


@pytest.mark.parametrize(
    ("tags", "exclude", "ids"),
    [
        (("fast",), (), ["math-1", "text-1"]),
        (("fast", "math"), (), ["math-1"]),
        ((), ("fast",), ["math-2", "Text-10"]),
        ((), ("fast", "slow"), ["Text-10"]),
        (("math",), ("slow",), ["math-1"]),
        (("mat",), (), []),
        ((), ("none",), ALL),
    ],
)
def test_tags(tags: tuple[str, ...], exclude: tuple[str, ...], ids: list[str]) -> None:
    assert selected(tags=tags, exclude_tags=exclude) == ids


def test_tags_of_the_suite_are_every_cases() -> None:
    assert selected(tags="nightly", suite_tags=("nightly",)) == ALL
    assert selected(tags=("nightly", "slow"), suite_tags=("nightly",)) == ["math-2"]
    assert selected(exclude_tags="nightly", suite_tags=("nightly",)) == []


@pytest.mark.parametrize(
    ("globs", "ids"),
    [
        ("math-1", ["math-1"]),
        ("math-*", ["math-1", "math-2"]),
        ("*-1", ["math-1", "text-1"]),
        ("[mt]*-1", ["math-1", "text-1"]),
        ("text-1?", []),  # the case of letters counts
        (("text-1", "math-2"), ["math-2", "text-1"]),
        ("math", []),
    ],
)
def test_ids_are_globs_of_which_one_matches(globs: Any, ids: list[str]) -> None:
    assert selected(test_ids=globs) == ids


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        ("level=1", ["math-1", "text-1"]),
        ("area=logic", ["math-2"]),
        ("area=*", ["math-1", "math-2"]),
        ("lang=de*", ["text-1", "Text-10"]),
        ("lang=de", ["text-1"]),
        ("category=words/*", ["text-1", "Text-10"]),
        ("conversation_id=talk-?", ["Text-10"]),
        ("id=*1*", ["math-1", "text-1", "Text-10"]),
        ("unknown=*", []),
        ("^math", ["math-1", "math-2"]),
        ("1", ["math-1", "text-1", "Text-10"]),
        ("(?i)^text", ["text-1", "Text-10"]),
        ("-[12]$", ["math-1", "math-2", "text-1"]),
        (("level=1", "^math"), ["math-1"]),
    ],
)
def test_filters_all_match(filters: Any, ids: list[str]) -> None:
    assert selected(filters=filters) == ids


def test_an_equals_sign_within_a_pattern_is_a_pattern() -> None:
    cases = (make_case("a=b"), make_case("ab"))
    assert selected(*cases, filters="[a]=b") == ["a=b"]
    assert selected(*cases, filters="id=a=b") == ["a=b"]


def test_a_case_without_a_category_matches_no_glob_of_it() -> None:
    assert selected(filters="category=None") == []
    assert selected(filters="category=*") == ["text-1", "Text-10"]
    assert selected(make_case(metadata={"x": None}), filters="x=*") == []


def test_values_are_compared_as_they_are_written_in_yaml() -> None:
    cases = (
        make_case("yes", metadata={"hard": True, "share": 0.5, "tries": [1, False]}),
        make_case("no", metadata={"hard": False}),
    )
    assert selected(*cases, filters="hard=true") == ["yes"]
    assert selected(*cases, filters="hard=false") == ["no"]
    assert selected(*cases, filters="share=0.5") == ["yes"]
    assert selected(*cases, filters="tries=false") == ["yes"]


def test_all_kinds_together() -> None:
    asked = {"tags": "fast", "exclude_tags": "math", "test_ids": "*1", "filters": "lang=de"}
    assert selected(**asked) == ["text-1"]
    assert Selection(tags=("a", "b"), exclude_tags=("c",), filters=("x=1",)).describe() == (
        '--tag "a" --tag "b" --exclude-tag "c" --filter "x=1"'
    )


def test_a_pattern_that_is_none() -> None:
    with pytest.raises(UsageError) as caught:
        selected(filters="a(b")
    assert str(caught.value) == (
        '--filter "a(b" is not a regular expression: missing ), unterminated subpattern '
        "at position 1"
    )
