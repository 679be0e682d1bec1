"""What suites say of judges: criteria, rubrics, `judge_target`, Agent Skills' evals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from muster.errors import ConfigError
from muster.evals.case import Case
from muster.evals.suites.load import load_suite


def cases_of(folder: Path, text: str, name: str = "s.eval.yaml") -> list[Case]:
    (folder / name).write_text(text)
    return list(load_suite(folder / name, env={}, project_root=folder).cases())


def graders_of(case: Case) -> list[tuple[str, str, float]]:
    return [(grader.name, grader.type, grader.weight) for grader in case.graders]


def test_criteria_alone_are_judged(tmp_path: Path) -> None:
    (case,) = cases_of(tmp_path, "tests: [{id: a, input: q, criteria: It is kind.}]\n")
    assert graders_of(case) == [("llm-grader", "llm-grader", 1.0)]
    assert case.criteria == "It is kind."
    assert case.graders[0].judges == (None,)


def test_criteria_beside_assertions_are_not_judged_by_themselves(tmp_path: Path) -> None:
    text = "assertions: [{type: is-json}]\ntests: [{id: a, input: q, criteria: It is kind.}]\n"
    (case,) = cases_of(tmp_path, text)
    assert graders_of(case) == [("is-json", "is-json", 1.0)]


def test_inline_rubrics_come_first(tmp_path: Path) -> None:
    text = """
tests:
  - id: a
    input: q
    vars: {city: Rome}
    rubrics: ["Names {{ city }}", {outcome: It is kind, weight: 2}]
    assertions: [{type: is-json}, It is true.]
"""
    (case,) = cases_of(tmp_path, text)
    assert graders_of(case) == [
        ("rubrics", "rubrics", 1.0),
        ("is-json", "is-json", 1.0),
        ("rubrics", "rubrics", 1),
    ]
    rubric: Any = case.graders[0].grade
    assert [item.outcome for item in rubric.prompt.rubrics] == ["Names Rome", "It is kind"]


def test_texts_judge_turns(tmp_path: Path) -> None:
    text = "tests: [{id: a, turns: [{input: q, assertions: [kind, polite]}]}]\n"
    (case,) = cases_of(tmp_path, text)
    (grader,) = case.turns[0].graders
    assert (grader.name, grader.weight) == ("rubrics", 2)


def test_a_prompt_keeps_its_variables_until_it_is_asked(tmp_path: Path) -> None:
    text = """
assertions: [{type: llm-grader, criteria: c, prompt: "{{ criteria }} {{ output }} {{ tone }}"}]
tests: [{id: a, input: q, vars: {tone: dry, output: mine}}]
"""
    (tmp_path / "s.eval.yaml").write_text(text)
    suite = load_suite(tmp_path / "s.eval.yaml", env={}, project_root=tmp_path)
    (case,) = suite.cases()
    grade: Any = case.graders[0].grade
    assert grade.prompt.source == "{{ criteria }} {{ output }} {{ tone }}"
    assert suite.warnings == ()


def test_files_of_prompts_are_part_of_what_a_run_is_made_of(tmp_path: Path) -> None:
    (tmp_path / "judge.md").write_text("{{ output }}?")
    text = "tests: [{id: a, input: q, assertions: [{type: llm-grader, prompt: 'file://judge.md'}]}]"
    (tmp_path / "s.eval.yaml").write_text(text)

    def hashed() -> str:
        return load_suite(tmp_path / "s.eval.yaml", env={}, project_root=tmp_path).content_hash

    before = hashed()
    assert hashed() == before
    (tmp_path / "judge.md").write_text("{{ output }}!")
    assert hashed() != before


# --- who judges -----------------------------------------------------------------------------------


def test_the_nearest_judge_counts(tmp_path: Path) -> None:
    text = """
judge_target: suite
default_test: {judge_target: default}
scenarios:
  - config: [{grader_target: scenario}]
    tests: [{id: in-scenario, input: q}]
assertions: [It is kind.]
tests:
  - {id: plain, input: q}
  - {id: own, input: q, judge_target: test}
  - {id: v5, input: q, options: {provider: options}}
  - {id: both, input: q, judge_target: test, options: {provider: options}}
"""
    found = {case.id: case.judge_target for case in cases_of(tmp_path, text)}
    assert found == {
        "plain": "default",
        "own": "test",
        "v5": "options",
        "both": "test",
        "in-scenario": "scenario",
    }
    text = "judge_target: suite\nassertions: [kind]\ntests: [{id: a, input: q}]\n"
    (case,) = cases_of(tmp_path, text)
    assert case.judge_target == "suite"


def test_all_judges_of_a_suite_are_known(tmp_path: Path) -> None:
    text = """
tests:
  - {id: a, input: q, judge_target: one, assertions: [kind]}
  - {id: b, input: q, assertions: [{type: rubrics, rubrics: [x], target: two}]}
  - {id: c, input: q, assertions: [{type: rubrics, rubrics: [x], panel: [three, four]}]}
  - {id: d, input: q, criteria: x}
"""
    (tmp_path / "s.eval.yaml").write_text(text)
    suite = load_suite(tmp_path / "s.eval.yaml", env={}, project_root=tmp_path)
    assert suite.judges == {"one", "two", "three", "four", None}


def test_a_judge_may_be_defined_where_it_is_named(tmp_path: Path) -> None:
    text = """
default_test: {options: {provider: {id: mock, label: inline, config: {response: x}}}}
tests: [{id: a, vars: {q: q}, assert: [kind]}]
prompts: ["{{ q }}"]
"""
    (tmp_path / "s.eval.yaml").write_text(text)
    suite = load_suite(tmp_path / "s.eval.yaml", env={}, project_root=tmp_path)
    (case,) = suite.cases()
    assert case.judge_target == "inline"
    assert list(suite.inline_targets) == ["inline"]


def test_rubric_prompt_is_the_template_of_judges(tmp_path: Path) -> None:
    (tmp_path / "j.md").write_text("{{ rubric }} {{ output }}")
    text = (
        "default_test: {options: {rubric_prompt: 'file://j.md'}}\n"
        "tests: [{id: a, input: q, criteria: x}]\n"
    )
    (case,) = cases_of(tmp_path, text)
    assert case.judge_prompt == "{{ rubric }} {{ output }}"


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("Is it good?", "a template shows the judge the answer: it needs {{ output }}"),
        ("{{ rubric }}", "the judge would not see the answer"),
        ("[1]", "expected a template, as text or file://…"),
        ("'{{ output'", "the template does not compile"),
    ],
)
def test_rubric_prompts_that_do_not_do(tmp_path: Path, value: str, told: str) -> None:
    quoted = f'"{value}"' if "{" in value and "'" not in value else value
    text = f"tests: [{{id: a, input: q, criteria: x, options: {{rubric_prompt: {quoted}}}}}]"
    with pytest.raises(ConfigError) as caught:
        cases_of(tmp_path, text)
    (problem,) = caught.value.problems
    assert told in str(problem)
    assert "tests[0].options.rubric_prompt" in str(problem)


# --- Agent Skills ---------------------------------------------------------------------------------


def test_agent_skills_evals(tmp_path: Path) -> None:
    (tmp_path / "form.txt").write_text("a form")
    data = {
        "skill_name": "pdf",
        "evals": [
            {
                "id": 1,
                "prompt": "Fill in the form.",
                "expected_output": "A form that is filled in.",
                "files": ["form.txt"],
                "expectations": ["The name is there.", "The date is there."],
            },
            {"id": 2, "prompt": "Merge.", "expected_output": "One file."},
            {"prompt": "Split.", "assertions": ["Two files."]},
        ],
    }
    first, second, third = cases_of(tmp_path, json.dumps(data), "evals.json")
    assert (first.id, first.suite, first.criteria) == ("1", "pdf", "A form that is filled in.")
    assert graders_of(first) == [("rubrics", "rubrics", 2)]
    assert [path.name for path in first.input_files] == ["form.txt"]
    assert first.tags == ("skill=pdf",)
    assert graders_of(second) == [("llm-grader", "llm-grader", 1.0)]
    assert (third.id, graders_of(third)) == ("3", [("rubrics", "rubrics", 1)])
