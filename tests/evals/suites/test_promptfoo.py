"""promptfoo's configurations as suites."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from muster.errors import ConfigError, Problem
from muster.evals.suites.dataset import PROMPTFOO, Row, rows_of
from muster.evals.suites.promptfoo import PromptfooDocument, is_promptfoo, read_promptfoo


def read(folder: Path, text: str, name: str = "promptfooconfig.yaml") -> PromptfooDocument:
    path = folder / name
    path.write_text(text)
    return read_promptfoo(path, project_root=folder)


def problems_of(folder: Path, text: str) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as caught:
        read(folder, text)
    return caught.value.problems


def rows(folder: Path, name: str, text: str) -> list[Row]:
    (folder / name).write_text(text)
    return list(rows_of(f"{PROMPTFOO}file://{name}", base_dir=folder, project_root=folder))


def test_name() -> None:
    assert is_promptfoo(Path("x/promptfooconfig.yaml"))
    assert is_promptfoo(Path("my.promptfooconfig.yml"))
    assert is_promptfoo(Path("promptfooconfig.json"))
    assert not is_promptfoo(Path("suite.eval.yaml"))
    assert not is_promptfoo(Path("promptfooconfig.js"))


def test_a_configuration_as_a_suite(tmp_path: Path) -> None:
    project = tmp_path / "geography"
    project.mkdir()
    text = """\
# yaml-language-server: $schema=https://promptfoo.dev/config-schema.json
description: Capitals
prompts:
  - 'What is the capital of {{country}}?'
  - file://prompts/chat.json
providers:
  - echo
  - id: openai:chat:gpt-4o-mini
    label: small
    config: {temperature: 0, max_tokens: 20}
defaultTest:
  assert:
    - type: latency
      threshold: 2000
evaluateOptions: {maxConcurrency: 3, timeoutMs: 0}
tests:
  - vars: {country: France}
    assert:
      - type: icontains
        value: paris
      - type: not-contains
        value: London
  - file://more.csv
"""
    document = read(project, text)
    assert document.data == {
        "name": "geography",
        "description": "Capitals",
        "threshold": 1.0,
        "prompts": ["What is the capital of {{country}}?", "file://prompts/chat.json"],
        "providers": [
            "echo",
            {
                "id": "openai:chat:gpt-4o-mini",
                "label": "small",
                "config": {"temperature": 0, "max_output_tokens": 20},
            },
        ],
        "default_test": {"assert": [{"type": "latency", "threshold": 2000}]},
        "evaluate_options": {"max_concurrency": 3},
        "tests": [
            {
                "vars": {"country": "France"},
                "assert": [
                    {"type": "icontains", "value": "paris"},
                    {"type": "not-contains", "value": "London"},
                ],
            },
            "promptfoo+file://more.csv",
        ],
    }
    assert document.notes == ()


def test_configuration_in_json_without_prompts(tmp_path: Path) -> None:
    text = json.dumps({"tests": "tests.yaml", "providers": "echo"})
    data = read(tmp_path, text, "a.promptfooconfig.json").data
    assert data == {
        "threshold": 1.0,
        "prompts": "{{prompt}}",
        "providers": ["echo"],
        "tests": "promptfoo+tests.yaml",
    }


def test_places_are_those_of_the_file(tmp_path: Path) -> None:
    text = """\
defaultTest:
  assert:
    - type: contains
      value: x
evaluateOptions:
  maxConcurrency: many
targets:
  - openai:gpt-4o:
      config:
        max_tokens: few
tests:
  - vars: {a: [1, 2], b: [3, 4]}
    assert: []
  - vars: {a: 1}
    assert:
      - $ref: '#/assertionTemplates/short'
      - {type: contains, value: x, threshold: 2}
assertionTemplates:
  short:
    type: latency
    threshold: 10
"""
    document = read(tmp_path, text)
    path = tmp_path / "promptfooconfig.yaml"

    def where(*location: str | int) -> tuple[int | None, int | None, str | None]:
        problem = document.problem(location, "x")
        assert problem.path == path
        assert document.mark(location).line == problem.line
        return problem.line, problem.column, problem.field

    assert where("default_test", "assert", 0, "value") == (4, 14, "defaultTest.assert[0].value")
    assert where("evaluate_options", "max_concurrency") == (6, 19, "evaluateOptions.maxConcurrency")
    assert where("providers", 0, "config", "max_output_tokens") == (
        *(10, 21),
        "targets[0].openai:gpt-4o.config.max_tokens",
    )
    # The first test has become four.
    assert where("tests", 3, "vars", "b") == (12, 26, "tests[0].vars.b")
    assert where("tests", 4, "vars", "a") == (14, 15, "tests[1].vars.a")
    assert where("tests", 4, "assert", 0, "threshold") == (
        *(21, 16),
        "assertionTemplates.short.threshold",
    )
    assert where("tests", 4, "assert", 1, "min_score") == (17, 47, "tests[1].assert[1].threshold")


# --- tests ----------------------------------------------------------------------------------------


def test_lists_of_values_make_a_test_each(tmp_path: Path) -> None:
    text = """\
tests:
  - description: hello
    vars: {a: [1, 2], b: x, c: [y, z]}
  - vars: {a: [1, 2]}
    options: {disableVarExpansion: true, prefix: P}
"""
    assert read(tmp_path, text).data["tests"] == [
        {"description": "hello-1", "vars": {"a": 1, "b": "x", "c": "y"}},
        {"description": "hello-2", "vars": {"a": 1, "b": "x", "c": "z"}},
        {"description": "hello-3", "vars": {"a": 2, "b": "x", "c": "y"}},
        {"description": "hello-4", "vars": {"a": 2, "b": "x", "c": "z"}},
        {"vars": {"a": [1, 2]}, "options": {"prefix": "P"}},
    ]


def test_variables_from_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n Text a \n")
    (tmp_path / "b.txt").write_text("Text b")
    (tmp_path / "d.json").write_text('{"x": [1]}')
    (tmp_path / "all.yaml").write_text("one: file://a.txt\ntwo: 2\n")
    text = """\
defaultTest: {vars: {d: file://d.json}}
tests:
  - vars: {t: file://a.txt}
  - vars: {t: 'file://*.txt'}
  - vars: all.yaml
"""
    data = read(tmp_path, text).data
    assert data["default_test"] == {"vars": {"d": {"x": [1]}}}
    assert [test["vars"] for test in data["tests"]] == [
        {"t": "Text a"},
        {"t": "Text a"},
        {"t": "Text b"},
        {"one": "Text a", "two": 2},
    ]


def test_assertions(tmp_path: Path) -> None:
    (tmp_path / "expected.txt").write_text("yes\n")
    text = """\
assertionTemplates:
  polite: {type: contains, value: please}
tests:
  - assert:
      - $ref: '#/assertionTemplates/polite'
      - {$ref: '#/assertionTemplates/polite', weight: 2}
      - {type: equals, value: file://expected.txt, metric: same}
      - {type: is-json, value: '{"type": "object"}'}
      - {type: is-json, value: file://schema.json}
      - {type: cost, threshold: 0.1}
      - {type: not-regex, value: x, threshold: 1}
      - {type: llm-rubric, value: is kind, threshold: 0.5}
      - {type: python, value: file://check.py}
      - {type: similar, value: x, threshold: 0.8}
      - {type: similar, value: x}
      - {type: bleu, value: x}
      - {type: levenshtein, value: x, threshold: 3}
      - type: assert-set
        threshold: 0.5
        assert:
          - $ref: '#/assertionTemplates/polite'
          - {type: cost, threshold: 0.1}
    options: {disableDefaultAsserts: true}
"""
    (test,) = read(tmp_path, text).data["tests"]
    assert test == {
        "assert": [
            {"type": "contains", "value": "please"},
            {"type": "contains", "value": "please", "weight": 2},
            {"type": "equals", "value": "yes", "metric": "same"},
            {"type": "is-json", "value": {"type": "object"}},
            {"type": "is-json", "value": "file://schema.json"},
            {"type": "cost", "threshold": 0.1},
            {"type": "not-regex", "value": "x", "min_score": 1},
            {"type": "llm-rubric", "value": "is kind", "threshold": 0.5},
            {"type": "python", "value": "file://check.py", "threshold": sys.float_info.epsilon},
            {"type": "similar", "value": "x", "threshold": 0.9},
            {"type": "similar", "value": "x", "threshold": 0.875},
            {"type": "bleu", "value": "x", "threshold": 0.5},
            {"type": "levenshtein", "value": "x", "threshold": 3},
            {
                "type": "assert-set",
                "threshold": 0.5,
                "assert": [
                    {"type": "contains", "value": "please"},
                    {"type": "cost", "threshold": 0.1},
                ],
            },
        ],
        "options": {},
        "execution": {"skip_defaults": True},
    }


def test_where_a_test_has_a_threshold_scores_count(tmp_path: Path) -> None:
    """Elsewhere the verdicts do: of a judge from 0.8 on, of code above 0."""
    text = """\
tests:
  - assert:
      - {type: llm-rubric, value: x}
      - {type: assert-set, assert: [{type: javascript, value: x}]}
  - threshold: 0.5
    assert: [{type: llm-rubric, value: x}]
  - assert: [{type: assert-set, threshold: 0.5, assert: [{type: llm-rubric, value: x}]}]
"""
    one, two, three = read(tmp_path, text).data["tests"]
    assert one["assert"][0]["threshold"] == 0.8
    assert one["assert"][1]["assert"][0]["threshold"] == sys.float_info.epsilon
    assert "threshold" not in two["assert"][0]
    assert "threshold" not in three["assert"][0]["assert"][0]


def test_scenarios(tmp_path: Path) -> None:
    text = """\
scenarios:
  - config:
      - vars: {language: [French, German]}
    tests:
      - vars: {word: hello}
        assert: [{type: not-contains, value: hello}]
      - file://words.csv
"""
    (scenario,) = read(tmp_path, text).data["scenarios"]
    assert scenario == {
        "config": [{"vars": {"language": "French"}}, {"vars": {"language": "German"}}],
        "tests": [
            {"vars": {"word": "hello"}, "assert": [{"type": "not-contains", "value": "hello"}]},
            "promptfoo+file://words.csv",
        ],
    }


def test_rows_of_files_are_read_as_promptfoo_has_them(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Text a")
    text = """\
- vars: {t: file://a.txt, n: [1, 2]}
  assert:
    - {type: contains, value: x, threshold: 3}
"""
    one, two = rows(tmp_path, "tests.yaml", text)
    assert one.document.data[one.location[0]] == one.data
    expected = [{"type": "contains", "value": "x", "min_score": 3}]
    assert one.data == {"vars": {"t": "Text a", "n": 1}, "assert": expected}
    assert two.data == {"vars": {"t": "Text a", "n": 2}, "assert": expected}
    problem = two.document.problem((*two.location, "assert", 0, "min_score"), "x")
    assert problem == Problem("x", tmp_path / "tests.yaml", 3, 45, "[0].assert[0].threshold")
    (row,) = rows(tmp_path, "tests.jsonl", '{"vars": {"n": 1}}\n')
    assert (row.data, row.line) == ({"vars": {"n": 1}}, 1)
    (row,) = rows(tmp_path, "tests.csv", "q,__expected\n1,contains: 2\n")
    assert row.data["assert"] == [{"type": "contains", "value": "2"}]
    assert row.document.problem((0, "assert", 0), "x").field == "__expected"


def test_rows_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    text = "- vars: {t: file://none.txt}\n- vars: {t: x}\n- vars: {t: []}\n"
    with pytest.raises(ConfigError, match=r"tests.yaml:1:13: \[0\].vars.t: .*no such file"):
        rows(tmp_path, "tests.yaml", text)
    problems: list[Problem] = []
    source = rows_of(f"{PROMPTFOO}tests.yaml", base_dir=tmp_path, project_root=tmp_path)
    assert len(list(source.read(problems.append))) == 1
    assert [problem.line for problem in problems] == [1, 3]


# --- providers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("echo", "echo"),
        ("my-target", "my-target"),
        ("openai:responses:gpt-4.1", "openai:responses:gpt-4.1"),
        ("anthropic:messages:claude-x", "anthropic:messages:claude-x"),
        ("azureopenai:chat:dep", {"id": "azure:chat:dep", "label": "azureopenai:chat:dep"}),
        ("ollama:chat:llama3", {"id": "ollama:llama3", "label": "ollama:chat:llama3"}),
        (
            "exec: python agent.py ${X}",
            {
                "id": "exec:python agent.py ${{X}} {PROMPT}",
                "label": "exec: python agent.py ${X}",
            },
        ),
        (
            {"id": "openai:gpt-4o", "config": {"apiKeyEnvar": "MINE", "apiHost": "h"}},
            {
                "id": "openai:gpt-4o",
                "label": "openai:gpt-4o",
                "config": {"api_key": "${{ MINE }}", "base_url": "https://h"},
            },
        ),
        ({"openai:gpt-4o": {"label": "x"}}, {"id": "openai:gpt-4o", "label": "x"}),
    ],
)
def test_providers(tmp_path: Path, written: Any, expected: Any) -> None:
    text = json.dumps({"providers": [written], "tests": []})
    assert read(tmp_path, text).data["providers"] == [expected]


def test_environment_goes_to_the_providers(tmp_path: Path) -> None:
    text = """\
env: {KEY: one, FLAG: true, N: 3}
providers: ['openai:gpt-4o', {id: echo, env: {KEY: own}}]
"""
    first, second = read(tmp_path, text).data["providers"]
    assert first["env"] == {"KEY": "one", "FLAG": "true", "N": "3"}
    assert first["label"] == "openai:gpt-4o"
    assert second["env"]["KEY"] == "own"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("python:agent.py", "`provider: function`"),
        ("file://agent.py", "`provider: function`"),
        ("https://example.org/chat", "`provider: http`"),
        ("openai:embedding:x", "Muster asks for chats and responses"),
    ],
)
def test_providers_without_an_equal(tmp_path: Path, spec: str, message: str) -> None:
    (problem,) = problems_of(tmp_path, f"prompts: [x]\nproviders:\n  - id: {spec}\n")
    assert (problem.line, problem.column, problem.field) == (3, 9, "providers[0].id")
    assert f'"{spec}"' in problem.message
    assert message in problem.message


# --- what is not used, and what is refused --------------------------------------------------------


def test_what_changes_no_result_is_noted(tmp_path: Path) -> None:
    text = """\
sharing: true
outputPath: out.json
evaluateOptions: {showProgressBar: false}
commandLineOptions: {verbose: true, maxConcurrency: 2}
tests:
  - vars: {a: [1, 2]}
    options: {runSerially: true}
"""
    document = read(tmp_path, text)
    notes = "\n".join(document.notes)
    assert len(document.notes) == 5
    assert "promptfooconfig.yaml:2:1: outputPath: is not used: say where with --output" in notes
    assert "commandLineOptions.verbose: is not used: say it on the command line" in notes
    assert document.data["evaluate_options"] == {"max_concurrency": 2}
    assert document.data["tests"] == [
        {"vars": {"a": 1}, "options": {}},
        {"vars": {"a": 2}, "options": {}},
    ]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("test: []", 1, 'test: unknown field "test" (did you mean "tests"?)'),
        ("extensions: [x]", 1, '"extensions" is not supported: Muster runs no hooks yet'),
        ("evaluateOptions: {maxConcurency: 1}", 1, 'did you mean "maxConcurrency"?'),
        ("evaluateOptions: {filterRange: '1:2'}", 1, "use --limit or --test-id"),
        ("prompts:\n  - exec:./make.sh", 2, 'cannot make prompts with "exec:./make.sh"'),
        ("prompts:\n  - file://make.py:fn", 2, "cannot make prompts with"),
        ("prompts:\n  - label: x\n    raw: langfuse://a", 3, "cannot make prompts with"),
        ("tests:\n  - path: gen.py\n    config: {n: 1}", 3, "generators take no config"),
        ("tests:\n  - assert:\n      - $ref: '#/assertionTemplates/x'", 3, "nothing is called"),
        ("tests:\n  - vars: {a: file://x.js}", 2, "cannot read file://x.js"),
        ("tests:\n  - vars: {a: file://../x.txt}", 2, "is outside the project"),
        ("tests:\n  - vars: {a: 'file://*.none'}", 2, "no file matches"),
        ("tests:\n  - vars: none.yaml", 2, "no such file"),
        ("tests:\n  - vars: {a: []}", 2, "an empty list gives no test"),
        ("defaultTest:\n  vars: {a: [1]}", 2, "would multiply every test"),
        ("defaultTest: none.yaml", 1, "no such file"),
        ("tests:\n  - assert:\n      - {type: is-json, value: '{'}", 3, "not valid JSON"),
        ("a: {$ref: '#/a'}\ntests: [{$ref: '#/tests/0'}]", 1, "unknown field"),
        ("providers: [3]", 1, "expected a provider"),
        ("env: x\nproviders: [echo]", 1, "expected a mapping of variables"),
        ("[]", 1, "expected a mapping with prompts and tests"),
        ("tests: [", 2, "not valid YAML"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, line: int, message: str) -> None:
    problem = problems_of(tmp_path, text)[0]
    assert problem.line == line
    assert problem.path == tmp_path / "promptfooconfig.yaml"
    assert message in str(problem)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = "a: 1\nb: 2\nproviders: ['python:x.py']\n"
    assert [problem.line for problem in problems_of(tmp_path, text)] == [1, 2, 3]


def test_reference_that_leads_to_itself(tmp_path: Path) -> None:
    text = "tests:\n  - assert:\n      - $ref: '#/assertionTemplates/a'\n"
    text += "assertionTemplates:\n  a: {$ref: '#/assertionTemplates/a'}\n"
    assert "leads to itself" in problems_of(tmp_path, text)[0].message
