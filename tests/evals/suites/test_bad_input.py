"""Each mistake in a suite: one clear message with its place, before anything is run."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from muster.errors import ConfigError, MusterError
from muster.evals.suites.load import load_suite

JUDGED = "assertions: [{type: contains, value: x}]"


def write(folder: Path, text: str, name: str = "demo.eval.yaml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text).lstrip("\n"))
    return path


def problems(path: Path, **options: Any) -> list[str]:
    """What is told, each problem without the folder that the file is in."""
    options.setdefault("project_root", path.parent)
    with pytest.raises(MusterError) as caught:
        load_suite(path, env={}, **options)
    found = getattr(caught.value, "problems", (caught.value,))
    return [str(one).replace(f"{path.parent}/", "") for one in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "name: [a\ntests: []\n",
            "demo.eval.yaml:2:6: not valid YAML: did not find expected ',' or ']' "
            "(while parsing a flow sequence)",
        ),
        (
            "tests:\n\t- id: a\n",
            "demo.eval.yaml:2:1: not valid YAML: a tab is used to indent; YAML allows only "
            "spaces there",
        ),
        (
            "tests:\n  - id: a\n    input: q\n    id: b\n",
            'demo.eval.yaml:4:5: duplicate key "id"',
        ),
        ("just text\n", "demo.eval.yaml:1:1: expected a suite: a mapping with `tests`"),
        (
            "name: empty\n",
            "demo.eval.yaml:1:1: has no tests; add `tests`, a list or a file of them",
        ),
        ("tests: []\n", "demo.eval.yaml:1:8: tests: is empty; a suite needs a test"),
        (
            f"{JUDGED}\ntestss: []\ntests: [{{id: a, input: q}}]\n",
            'demo.eval.yaml:2:1: testss: unknown field "testss" (did you mean "tests"?)',
        ),
        (
            f"{JUDGED}\ntests:\n  - id: a\n    imput: q\n",
            'demo.eval.yaml:4:5: tests[0].imput: unknown field "imput" (did you mean "input"?)',
        ),
        (
            f"{JUDGED}\ntests:\n  - just text: {{}}\n    id: a\n    input: q\n",
            "demo.eval.yaml:3:5: tests[0].just text: unknown field",
        ),
        (
            f"{JUDGED}\ntests:\n  - 3\n",
            "demo.eval.yaml:3:5: tests[0]: expected a test (a mapping), found 3",
        ),
        (
            f"{JUDGED}\nthreshold: high\ntests: [{{id: a, input: q}}]\n",
            'demo.eval.yaml:2:12: threshold: expected number, found "high"',
        ),
        (
            f"{JUDGED}\ntests: [{{id: a, input: q, threshold: 1.5}}]\n",
            "demo.eval.yaml:2:38: tests[0].threshold: expected less than or equal to 1, found 1.5",
        ),
        (
            f"{JUDGED}\ntests: [{{id: a, input: [{{role: robot, content: q}}]}}]\n",
            'demo.eval.yaml:2:32: tests[0].input[0].role: unknown role "robot" (known: system,',
        ),
        (
            f"{JUDGED}\ntests: [{{id: a, input: [{{role: user, contents: q}}]}}]\n",
            'demo.eval.yaml:2:38: tests[0].input[0].contents: unknown field "contents" (did you',
        ),
        (
            f"{JUDGED}\ntests: [{{id: a, input: [{{type: txt, value: q}}]}}]\n",
            'demo.eval.yaml:2:32: tests[0].input[0].type: unknown block "txt" (did you mean "text"',
        ),
        (
            f"{JUDGED}\ntests: [{{id: a}}]\n",
            "demo.eval.yaml:2:9: tests[0]: a: has no `input` (nor `prompts`, `vars.input`, or a "
            "PROMPT.md beside it)",
        ),
        (
            "tests: [{id: a, input: q}]\n",
            "demo.eval.yaml:1:9: tests[0]: a: has nothing that judges the answer; add `assertions`",
        ),
        (
            "tests: [{id: a, input: q, criteria: good, judge_target: [x]}]\n",
            "demo.eval.yaml:1:57: tests[0].judge_target: expected string, found a list",
        ),
        (
            "tests: [{id: a, input: q, rubrics: [good, {outcom: x}]}]\n",
            'demo.eval.yaml:1:44: tests[0].rubrics[1].outcom: unknown field "outcom"',
        ),
        (
            f"{JUDGED}\ntests: [{{id: a, input: q, mode: conversation}}]\n",
            "demo.eval.yaml:2:33: tests[0].mode: a conversation needs `turns`",
        ),
        (
            f"{JUDGED}\ntests: [{{id: a, turns: []}}]\n",
            "demo.eval.yaml:2:24: tests[0].turns: ",
        ),
        (
            f"{JUDGED}\nassert: []\ntests: [{{id: a, input: q}}]\n",
            'demo.eval.yaml:2:1: assert: "assert" and "assertions" mean the same; keep one',
        ),
        (
            f"{JUDGED}\nexecution: {{assertions: []}}\ntests: [{{id: a, input: q}}]\n",
            "demo.eval.yaml:2:13: execution.assertions: the suite has `assertions` beside",
        ),
        (
            "tests:\n  - id: a\n    input: q\n    assertions:\n      - type: contians\n"
            "        value: x\n",
            'demo.eval.yaml:5:15: tests[0].assertions[0].type: unknown grader "contians"',
        ),
        (
            "tests:\n  - id: a\n    input: q\n    assertions:\n      - {type: regex, value: '('}\n",
            "demo.eval.yaml:5:30: tests[0].assertions[0].value: ",
        ),
        (
            "assertions:\n  - {type: contians, value: x}\ntests: [{id: a, input: q}]\n",
            'demo.eval.yaml:2:12: assertions[0].type: unknown grader "contians"',
        ),
        (
            f"{JUDGED}\ntests: [{{id: a, input: q, input_files: [gone.txt]}}]\n",
            'demo.eval.yaml:2:41: tests[0].input_files[0]: no such file "gone.txt" (looked in',
        ),
        (
            f"{JUDGED}\ntests: cases.jsonl\n",
            "demo.eval.yaml:2:8: tests: cases.jsonl: no such file",
        ),
        (
            f"{JUDGED}\ntests:\n  - {{id: a, input: q}}\n  - file://gone/*.yaml\n",
            "demo.eval.yaml:4:5: tests[1]: gone/*.yaml: no file matches",
        ),
        (
            f"{JUDGED}\ntests: [{{include: other.yaml, type: suite}}]\n",
            "demo.eval.yaml:2:31: tests[0].type: suites are not included in each other",
        ),
        (
            f"{JUDGED}\nprompts: 'x'\ntests: [{{vars: {{}}, prompts: [y]}}]\n",
            'demo.eval.yaml:3:29: tests[0].prompts: no prompt is called "y"',
        ),
        (
            f"{JUDGED}\ntargets: [{{provider: mock}}]\ntests: [{{id: a, input: q}}]\n",
            "demo.eval.yaml:2:11: targets[0]: a target needs a `name`",
        ),
        (
            f"{JUDGED}\nscenarios: [{{config: [3], tests: [{{id: a, input: q}}]}}]\n",
            "demo.eval.yaml:2:23: scenarios[0].config[0]: expected a mapping",
        ),
        (
            f"{JUDGED}\ndefault_test: ref://base\ntests: [{{id: a, input: q}}]\n",
            "demo.eval.yaml:2:15: default_test: references are not supported",
        ),
    ],
)
def test_one_mistake_one_message(tmp_path: Path, text: str, expected: str) -> None:
    (found,) = problems(write(tmp_path, text))
    assert found.startswith(expected)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = """
    tests:
      - {id: a, input: q}
      - {id: b, imput: q, threshold: 2}
      - id: c
        input: q
        input_files: [gone.txt]
        assertions: [{type: nope}]
    """
    found = problems(write(tmp_path, text))
    assert [one.split(": ")[1] for one in found] == [
        "tests[0]",
        "tests[1].threshold",
        "tests[1].imput",
        "tests[2].assertions[0].type",
        "tests[2].input_files[0]",
    ]


def test_many_mistakes_are_counted(tmp_path: Path) -> None:
    rows = "".join(f"  - {{id: t{n}, imput: q}}\n" for n in range(30))
    found = problems(write(tmp_path, f"{JUDGED}\ntests:\n{rows}"))
    assert len(found) == 21
    assert found[-1] == "… and 10 more problems"


def test_a_mistake_in_what_all_tests_share_is_told_once(tmp_path: Path) -> None:
    text = """
    prompts: "{{ a }} {{ b.c | upper }}{% for x in a %}{{ x.y.z }}{% endfor %}"
    assertions: [{type: contains, value: "{{ a }}", nope: 1}]
    tests: [{vars: {a: 1}}, {vars: {a: 2}}]
    """
    found = problems(write(tmp_path, text))
    assert sum("has no field" in one for one in found) == 1


def test_duplicate_ids_name_both_places(tmp_path: Path) -> None:
    text = f"""
    {JUDGED}
    tests:
      - {{id: a, input: q}}
      - {{id: b, input: q}}
      - {{id: a, input: r}}
    """
    (found,) = problems(write(tmp_path, text))
    assert found.startswith('demo.eval.yaml:5:10: tests[2].id: two tests have the id "a"; ')
    assert found.endswith("the first is at demo.eval.yaml:3:5: tests[0]")


def test_duplicate_ids_over_files(tmp_path: Path) -> None:
    (tmp_path / "one.jsonl").write_text('{"id": "x", "input": "q"}\n{"id": "y", "input": "q"}\n')
    (tmp_path / "two.jsonl").write_text('\n{"id": "x", "input": "q"}\n')
    path = write(tmp_path, f"{JUDGED}\ntests: [one.jsonl, two.jsonl]\n")
    (found,) = problems(path)
    assert found == ('two.jsonl:2:8: id: two tests have the id "x"; the first is at one.jsonl:1:1')


def test_unknown_dependency_names_the_nearest(tmp_path: Path) -> None:
    text = f"""
    {JUDGED}
    tests:
      - {{id: setup, input: q}}
      - {{id: use, input: q, depends_on: [setpu]}}
    """
    (found,) = problems(write(tmp_path, text))
    assert found == (
        'demo.eval.yaml:4:37: tests[1].depends_on: use: depends on "setpu", but no test has that '
        'id (did you mean "setup"?)'
    )


def test_cyclic_dependencies(tmp_path: Path) -> None:
    text = f"""
    {JUDGED}
    tests:
      - {{id: a, input: q, depends_on: [b]}}
      - {{id: b, input: q, depends_on: [c]}}
      - {{id: c, input: q, depends_on: [b]}}
      - {{id: d, input: q, depends_on: [a]}}
    """
    (found,) = problems(write(tmp_path, text))
    assert found.startswith("demo.eval.yaml:4:35: tests[1].depends_on: b: depends on itself: ")
    assert found.endswith("b -> c -> b")


def test_jsonl_mistakes_name_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text(
        '{"id": "a", "input": "q", "assert": [{"type": "contains", "value": "x"}]}\n'
        '{"id": "b", "input": }\n'
        '{"id": "c", "input": "q", "assert": [{"type": "contians", "value": "x"}]}\n'
        '{"id": "d", "inptu": "q"}\n'
    )
    found = problems(path)
    assert found[0].startswith("cases.jsonl:2:22: not valid JSON")
    assert found[1].startswith('cases.jsonl:3:47: assert[0].type: unknown grader "contians"')
    assert found[2].startswith('cases.jsonl:4:13: inptu: unknown field "inptu"')
    assert len(found) == 3


@pytest.mark.parametrize(
    "field", ["tests: ../out.jsonl", "input_files: [../out.jsonl]", "prompts: file://../out.txt"]
)
def test_files_outside_the_project(tmp_path: Path, field: str) -> None:
    (tmp_path / "out.jsonl").write_text('{"id": "a", "input": "q"}\n')
    (tmp_path / "out.txt").write_text("p")
    rest = "" if field.startswith("tests") else "tests: [{id: a, vars: {input: q}}]"
    path = write(tmp_path / "project", f"{JUDGED}\n{field}\n{rest}\n")
    (found,) = problems(path)
    assert found.startswith("demo.eval.yaml:2:")
    assert "is outside the project" in found
    assert load_suite(path, env={}, project_root=path.parent, allow_outside=True).count == 1
    assert problems(path, allow_outside=True, safe=True) == [found]


def test_a_link_out_of_the_project(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("s")
    path = write(
        tmp_path / "project", f"{JUDGED}\ntests: [{{id: a, input: q, input_files: [link.txt]}}]\n"
    )
    (path.parent / "link.txt").symlink_to(tmp_path / "secret.txt")
    (found,) = problems(path)
    assert '"link.txt" is outside the project' in found


def test_a_prompt_file_that_links_out_of_the_project(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("s")
    path = write(tmp_path / "project", f"{JUDGED}\ntests: [{{id: a}}]\n")
    (path.parent / "PROMPT.md").symlink_to(tmp_path / "secret.txt")
    (found,) = problems(path)
    assert "is outside the project" in found


def test_safe_refuses_code(tmp_path: Path) -> None:
    (tmp_path / "make.py").write_text("def cases(): return [{'id': 'a', 'input': 'q'}]\n")
    path = write(tmp_path, f"{JUDGED}\ntests: make.py:cases\n")
    assert load_suite(path, env={}, project_root=tmp_path).count == 1
    (found,) = problems(path, safe=True)
    assert "--safe refuses" in found


def test_mistakes_in_agent_skills_evals_are_told_where_they_stand(tmp_path: Path) -> None:
    text = """{
  "skill_name": "pdf",
  "evals": [
    {"id": 1, "prompt": "p", "expectations": ["good", {"outcom": "x"}]},
    {"id": 2, "prmpt": "p", "expectations": ["good"]}
  ]
}"""
    found = problems(write(tmp_path, text, "evals.json"))
    assert found == [
        'evals.json:5:15: evals[1].prmpt: unknown field "prmpt" (did you mean "prompt"?)',
        'evals.json:5:5: evals[1]: "prompt" is required, as text',
    ]
    text = text.replace("prmpt", "prompt")
    (problem,) = problems(write(tmp_path, text, "evals.json"))
    assert problem.startswith('evals.json:4:55: evals[0].expectations[1]: "type" is required')


@pytest.mark.parametrize("name", ["demo.eval.ts", "demo.txt"])
def test_other_files_are_no_suites(tmp_path: Path, name: str) -> None:
    (found,) = problems(write(tmp_path, "x", name))
    assert "a suite is YAML, JSON, JSONL, CSV" in found
    assert ("JavaScript" in found) == name.endswith(".ts")


def test_a_data_set_without_a_test(tmp_path: Path) -> None:
    (tmp_path / "cases.jsonl").write_text("\n\n")
    (found,) = problems(tmp_path / "cases.jsonl")
    assert found == "cases.jsonl:1:1: holds no test"


# --- --skip-invalid -------------------------------------------------------------------------------


def test_skip_invalid_leaves_out_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "more.jsonl").write_text('{"id": "x", \n{"id": "y", "input": "q"}\n[1]\n')
    text = f"""
    {JUDGED}
    tests:
      - {{id: a, input: q}}
      - {{id: b, imput: q, threshold: 3}}
      - {{id: a, input: again}}
      - more.jsonl
      - {{id: c, input: q, depends_on: [b]}}
      - {{id: d, input: q, depends_on: [c]}}
      - {{id: e, input: q, depends_on: [y]}}
      - {{id: f, input: q, depends_on: [f]}}
    """
    suite = load_suite(write(tmp_path, text), env={}, project_root=tmp_path, skip_invalid=True)
    assert [case.id for case in suite.cases()] == ["a", "y", "e"]
    assert (suite.count, suite.repeats) == (3, 3)
    assert suite.dependencies == {"y"}
    said = [line.replace(f"{tmp_path}/", "") for line in suite.skipped]
    assert len(said) == 7
    assert said[0].startswith("demo.eval.yaml:4:34: tests[1].threshold: ")
    assert said[0].endswith("(and 1 more)")
    assert said[1].startswith("more.jsonl:1:")
    assert said[2].startswith("more.jsonl:3:1: expected an object")
    assert 'two tests have the id "a"' in said[3]
    assert 'c: depends on "b", but no test has that id' in said[4]
    assert "f: depends on itself: f -> f" in "".join(said[5:])
    assert 'd: depends on "c"' in "".join(said[5:])


def test_skip_invalid_does_not_skip_a_whole_file(tmp_path: Path) -> None:
    path = write(tmp_path, f"{JUDGED}\ntests: [{{id: a, input: q}}, gone.jsonl]\n")
    with pytest.raises(ConfigError, match="no such file"):
        load_suite(path, env={}, project_root=tmp_path, skip_invalid=True)
