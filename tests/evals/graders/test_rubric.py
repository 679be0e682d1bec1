"""Rubrics: how checks become a score, and what is wrong with one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from judge_parts import Scripted, judge_with
from muster.errors import ConfigError
from muster.evals.graders.base import BoundGrader

Bind = Callable[..., tuple[BoundGrader, ...]]

RANGES = {0: "poor", 4: "fair", 8: "good"}


def checked(*answers: bool | int, **more: Any) -> dict[str, Any]:
    checks = []
    for number, answer in enumerate(answers, 1):
        key = "satisfied" if isinstance(answer, bool) else "score"
        checks.append({"id": f"rubric-{number}", key: answer, "reasoning": f"why {number}"})
    return {"checks": checks, "overall_reasoning": "so", **more}


def score_of(items: list[Any], *answers: bool | int) -> float:
    graded, _ = judge_with({"type": "rubrics", "rubrics": items}, Scripted(checked(*answers)))
    assert graded.error is None, graded.error
    return graded.rows[0].score


@pytest.mark.parametrize(
    ("items", "answers", "score"),
    [
        (["a", "b"], (True, False), 0.5),
        ([{"outcome": "a", "weight": 3}, "b"], (True, False), 0.75),
        ([{"outcome": "a", "weight": 0}, "b"], (False, True), 1.0),
        ([{"outcome": "a", "required": True}, "b"], (True, False), 0.5),
        # AgentV counts a required criterion as any other: nine of ten would pass.
        ([{"outcome": "a", "required": True}, *"bcdefghij"], (False, *[True] * 9), 0.0),
        ([{"outcome": "a", "score_ranges": RANGES}], (7,), 0.7),
        ([{"outcome": "a", "score_ranges": RANGES}, "b"], (5, True), 0.75),
        ([{"outcome": "a", "score_ranges": RANGES, "required": True}], (9,), 0.0),
        ([{"outcome": "a", "score_ranges": RANGES, "required": True}], (10,), 1.0),
        (
            [{"outcome": "a", "score_ranges": RANGES, "required": True, "min_score": 0.6}],
            (6,),
            0.6,
        ),
    ],
)
def test_scores(items: list[Any], answers: tuple[bool | int, ...], score: float) -> None:
    assert score_of(items, *answers) == pytest.approx(score)


def test_what_is_told_of_a_rubric() -> None:
    items = ["It is true.", {"outcome": "It is short.", "score_ranges": RANGES}]
    graded, _ = judge_with({"type": "rubrics", "rubrics": items}, Scripted(checked(False, 8)))
    row = graded.rows[0]
    assert [a.to_dict() for a in row.assertions] == [
        {"text": "It is true.", "passed": False, "evidence": "why 1"},
        {"text": "It is short. (8/10)", "passed": True, "evidence": "why 2"},
        {"text": "so", "passed": False},
    ]
    assert row.details is not None
    assert row.details["checks"] == {"rubric-1": 0.0, "rubric-2": 0.8}


def test_the_question_of_a_rubric() -> None:
    judge = Scripted(checked(True, True, 3), structured=True)
    items = [
        "It is true.",
        {"outcome": "Paris is in France.", "operator": "contradiction"},
        {"outcome": "It is short.", "score_ranges": RANGES},
    ]
    judge_with({"type": "rubrics", "rubrics": items}, judge)
    request = judge.requests[0]
    assert request.question.startswith(
        "[[ ## rubrics ## ]]\n"
        "- id: rubric-1\n  satisfied when this holds: It is true.\n"
        "- id: rubric-2\n  satisfied unless the answer contradicts this: Paris is in France.\n"
        "- id: rubric-3\n  It is short.\n"
        "  score 0 to 3: poor\n  score 4 to 7: fair\n  score 8 to 10: good\n"
    )
    assert request.response_schema is not None
    kinds = request.response_schema["properties"]["checks"]["items"]["anyOf"]
    assert [kind["properties"]["id"]["enum"] for kind in kinds] == [
        ["rubric-1", "rubric-2"],
        ["rubric-3"],
    ]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (checked(True), "it leaves out rubric-2"),
        ({"checks": []}, "it leaves out rubric-1, rubric-2"),
        (checked(True, True, True), 'no criterion has the id "rubric-3"'),
        ({"checks": [{"id": "rubric-1", "satisfied": True}] * 2}, 'it checks "rubric-1" twice'),
        ({"checks": [{"id": "rubric-1"}]}, '"satisfied" of "rubric-1" is null'),
        ({"checks": [{"id": "rubric-1", "satisfied": "maybe"}]}, 'is "maybe", neither true nor'),
        ({"score": 1}, 'its JSON has no list "checks"'),
        ({"checks": [5]}, "a check has no id"),
    ],
)
def test_checks_that_cannot_be_read(said: Any, why: str) -> None:
    graded, asked = judge_with({"type": "rubrics", "rubrics": ["a", "b"]}, Scripted(said))
    assert why in str(graded.error)
    assert asked.calls == 3


def test_a_criterion_that_was_left_out_is_asked_for_again() -> None:
    judge = Scripted(checked(True), checked(True, False))
    graded, _ = judge_with({"type": "rubrics", "rubrics": ["a", "b"]}, judge)
    assert graded.rows[0].score == 0.5
    assert "it leaves out rubric-2" in judge.requests[1].question


@pytest.mark.parametrize("points", [11, -1, 7.5, True, "7", None])
def test_points_off_the_scale(points: Any) -> None:
    entry = {"type": "rubrics", "rubrics": [{"outcome": "a", "score_ranges": RANGES}]}
    said = {"checks": [{"id": "rubric-1", "score": points}]}
    graded, _ = judge_with(entry, Scripted(said))
    assert "not a whole number from 0 to 10" in str(graded.error)


# --- rubrics that are wrong -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            """
assertions:
  - type: rubrics
    criteria:
      - outcome: x
        score_ranges:
          - {score_range: [0, 5], outcome: bad}
          - {score_range: [5, 10], outcome: ok}
""",
            "8:27: assertions[0].criteria[0].score_ranges[1].score_range: Overlapping "
            "score_ranges: [5, 10] and [0, 5] both hold 5",
        ),
        (
            """
assertions:
  - type: rubrics
    rubrics:
      - a
      - outcome: x
        score_ranges:
          - {score_range: [0, 5], outcome: bad}
          - {score_range: [8, 10], outcome: ok}
""",
            "8:11: assertions[0].rubrics[1].score_ranges: Incomplete score_ranges coverage: they "
            "reach from 0 to 10; missing coverage for scores: 6, 7",
        ),
        (
            "assertions: [{type: rubrics, rubrics: [{outcome: x, score_ranges: {3: a, 7: b}}]}]",
            "1:67: assertions[0].rubrics[0].score_ranges: Incomplete score_ranges coverage: they "
            "reach from 0 to 10; missing coverage for scores: 0, 1, 2",
        ),
        (
            "assertions: [{type: rubrics, rubrics: [{id: a, outcome: x}, {id: a, outcome: y}]}]",
            '1:66: assertions[0].rubrics[1].id: two criteria have the id "a"',
        ),
        (
            "assertions: [{type: rubrics, rubrics: [{outcome: x, weight: 0}]}]",
            "1:39: assertions[0].rubrics: all weights are 0; nothing would count",
        ),
        (
            "assertions: [{type: rubrics, rubrics: [{outcom: x}]}]",
            '1:41: assertions[0].rubrics[0].outcom: unknown field "outcom" '
            '(did you mean "outcome"?)',
        ),
        (
            "assertions: [{type: rubrics}]",
            '1:14: assertions[0]: a rubric needs "rubrics", or a list of "criteria"',
        ),
        (
            "assertions: [{type: llm-grader, criteria: a, value: b}]",
            '1:53: assertions[0].value: "criteria" and "value" say the same; keep one',
        ),
        (
            "assertions: [{type: llm-grader, panel: [a, a]}]",
            '1:40: assertions[0].panel: "a" is in the panel twice; `repeat` asks everybody '
            "several times",
        ),
        (
            "assertions: [{type: llm-grader, prompt: '{{ criteria }}'}]",
            "1:41: assertions[0].prompt: the judge would not see the answer; the template needs "
            "{{ output }}",
        ),
        (
            "assertions: [{type: llm-grader, prompt: '{{ output'}]",
            "1:41: assertions[0].prompt: the template does not compile: line 1: unexpected end of "
            "template, expected 'end of print statement'.",
        ),
        (
            "assertions: [{type: llm-grader, prompt: 'file://../x.md'}]",
            'assertions[0].prompt: "../x.md" is outside the project',
        ),
    ],
)
def test_mistakes_have_their_place(bind: Bind, text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        bind(text)
    (problem,) = caught.value.problems
    assert told in str(problem)


def test_old_forms_are_read_with_a_warning(bind: Bind) -> None:
    warnings: list[str] = []
    (grader,) = bind(
        """
assertions:
  - type: llm-judge
    model: gpt-x
    rubrics: [{outcome: x, required_min_score: 6, score_ranges: {0: a}}]
""",
        warnings=warnings,
    )
    assert grader.type == "llm-grader"
    assert [line.split(": ", 1)[1] for line in warnings] == [
        'assertions[0].type: "llm-judge" is an old name; write "llm-grader"',
        "assertions[0].model: not used: it is a setting of the target that judges",
        "assertions[0].rubrics[0].required_min_score: an old form; write required: true and "
        "min_score: 0.6",
    ]


def test_texts_of_a_list_are_one_rubric_where_the_first_stands(bind: Bind) -> None:
    found = bind(
        [{"type": "contains", "value": "a"}, "It is kind.", {"type": "is-json"}, "It is true."]
    )
    assert [(grader.name, grader.weight) for grader in found] == [
        ("contains-a", 1.0),
        ("rubrics", 2),
        ("is-json", 1.0),
    ]
    assert found[1].judges == (None,)


def test_a_panel_is_declared(bind: Bind) -> None:
    (grader,) = bind([{"type": "llm-grader", "criteria": "x", "panel": ["a", "b"], "repeat": 2}])
    assert grader.judges == ("a", "b")


def test_a_criterion_by_itself_is_a_rubric() -> None:
    entry = {"type": "llm-rubric", "value": {"outcome": "It is kind."}}
    graded, _ = judge_with(entry, Scripted(checked(True)))
    assert graded.error is None
    assert graded.rows[0].score == 1.0
