"""What the fields of a suite come to, in both dialects and their union."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from muster.errors import ConfigError
from muster.evals.case import Case, Suite
from muster.evals.suites.load import load_suite
from muster.provider import FilePart, ImagePart, Message, TextPart

JUDGED = "assertions: [{type: contains, value: x}]"


def load(folder: Path, text: str, name: str = "demo.eval.yaml", **options: Any) -> Suite:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text))
    options.setdefault("project_root", folder)
    options.setdefault("env", {})
    return load_suite(path, **options)


def cases(folder: Path, text: str, **options: Any) -> list[Case]:
    return list(load(folder, text, **options).cases())


def only(folder: Path, test: str, suite: str = JUDGED, **options: Any) -> Case:
    """The one case of a suite with the test `test`, written as a flow mapping or a block."""
    block = dedent(test).strip().replace("\n", "\n    ")
    (case,) = cases(folder, f"{dedent(suite)}\ntests:\n  - {block}\n", **options)
    return case


def problem(folder: Path, text: str, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, text, **options)
    return str(caught.value)


def texts(case: Case) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in case.input]


# --- input and output -----------------------------------------------------------------------------


def test_a_minimal_suite(tmp_path: Path) -> None:
    suite = load(
        tmp_path,
        """
        tests:
          - id: one
            input: What is 2 + 2?
            expected_output: "4"
            criteria: It says four.
            assertions:
              - type: contains
                value: "4"
        """,
    )
    (case,) = suite.cases()
    assert (suite.name, suite.count, suite.repeats) == ("demo", 1, 1)
    assert case.input == (Message("user", "What is 2 + 2?"),)
    assert case.expected_output == (Message("assistant", "4"),)
    assert case.reference_answer == "4"
    assert case.criteria == "It says four."
    assert [(grader.name, grader.type) for grader in case.graders] == [("contains-4", "contains")]
    assert (case.threshold, case.repeat, case.suite, case.line) == (0.8, 1, "demo", 3)
    assert suite.warnings == ()


def test_input_as_messages_and_blocks(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("n")
    (tmp_path / "cat.png").write_bytes(b"p")
    case = only(
        tmp_path,
        """
        id: a
        input:
          - role: system
            content: Be brief.
          - role: user
            content:
              - {type: text, value: Look}
              - {type: file, value: notes.txt}
              - {type: image, value: cat.png}
              - {type: image, value: "https://example.org/dog.png"}
        """,
    )
    system, user = case.input
    assert system == Message("system", "Be brief.")
    assert user.content == (
        TextPart("Look"),
        ImagePart(str(tmp_path / "cat.png")),
        ImagePart("https://example.org/dog.png"),
    )
    assert case.input_files == (tmp_path / "notes.txt",)


def test_files_of_earlier_messages_stay_there(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    case = only(
        tmp_path,
        """
        id: a
        input:
          - {role: user, content: [{type: file, value: a.txt}, {type: text, value: See.}]}
          - {role: assistant, content: Yes.}
          - {role: user, content: And?}
        """,
    )
    assert case.input[0].content == (FilePart(tmp_path / "a.txt"), TextPart("See."))
    assert case.input_files == ()


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("Paris", Message("assistant", "Paris")),
        ("42", Message("assistant", "42")),
        ("true", Message("assistant", "true")),
        ("{answer: 4}", Message("assistant", {"answer": 4})),
        ("[1, 2]", Message("assistant", [1, 2])),
        ("[{type: circle, value: 3}]", Message("assistant", [{"type": "circle", "value": 3}])),
        ("[{role: assistant, content: Paris}]", Message("assistant", "Paris")),
    ],
)
def test_expected_output(tmp_path: Path, written: str, expected: Message) -> None:
    assert only(tmp_path, f"{{id: a, input: q, expected_output: {written}}}").expected_output == (
        expected,
    )


def test_structured_input_is_kept(tmp_path: Path) -> None:
    case = only(tmp_path, "{id: a, input: {city: Rome, nights: 2}}")
    assert case.input == (Message("user", {"city": "Rome", "nights": 2}),)
    assert case.input[0].text == '{"city": "Rome", "nights": 2}'


def test_suite_input_comes_first_unless_defaults_are_skipped(tmp_path: Path) -> None:
    first, second = cases(
        tmp_path,
        """
        input:
          - {role: system, content: "Answer in {{ language }}."}
        assertions: [{type: contains, value: suite}]
        tests:
          - {id: a, vars: {language: Dutch}, input: Hello,
             assertions: [{type: contains, value: own}]}
          - {id: b, input: Hello, assertions: [{type: contains, value: own}],
             execution: {skip_defaults: true}}
        """,
    )
    assert texts(first) == [("system", "Answer in Dutch."), ("user", "Hello")]
    assert [grader.name for grader in first.graders] == ["contains-own", "contains-suite"]
    assert texts(second) == [("user", "Hello")]
    assert [grader.name for grader in second.graders] == ["contains-own"]


def test_input_files_are_found_up_to_the_root(tmp_path: Path) -> None:
    (tmp_path / "shared.md").write_text("s")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "own.md").write_text("o")
    text = f"""
    input_files: [shared.md]
    {JUDGED}
    tests:
      - {{id: a, input: q}}
      - {{id: b, input: q, input_files: [own.md, "file://shared.md"]}}
    """
    suite = load(tmp_path, text, name="deep/demo.eval.yaml")
    first, second = suite.cases()
    assert first.input_files == (tmp_path / "shared.md",)
    assert second.input_files == (tmp_path / "deep" / "own.md", tmp_path / "shared.md")


def test_prompt_md_among_the_files_or_beside_the_suite(tmp_path: Path) -> None:
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "PROMPT.md").write_text("Do {{ what }}.")
    (tmp_path / "data.csv").write_text("1")
    case = only(tmp_path, "{id: a, vars: {what: it}, input_files: [task/PROMPT.md, data.csv]}")
    assert texts(case) == [("user", "Do it.")]
    assert case.input_files == (tmp_path / "data.csv",)
    (tmp_path / "PROMPT.md").write_text("Beside.")
    assert texts(only(tmp_path, "{id: a}")) == [("user", "Beside.")]


# --- variables ------------------------------------------------------------------------------------


def test_variables_everywhere(tmp_path: Path) -> None:
    case = only(
        tmp_path,
        """
        id: a
        vars: {city: Rome, trip: {nights: 2, guests: [Ann, Bob]}, limits: {max: 3}}
        criteria: "Names {{ city }}"
        input: "{{ vars.city }} for {{ trip.nights }}: {{trip.guests.1}} {{ trip.guests }}"
        expected_output: "{{ limits }}"
        assertions:
          - {type: contains, value: "{{ city }}"}
        """,
        suite="assertions: [{type: icontains, value: 'in {{ city }}'}]",
    )
    assert texts(case) == [("user", 'Rome for 2: Bob ["Ann", "Bob"]')]
    assert case.expected_output == (Message("assistant", {"max": 3}),)
    assert case.criteria == "Names Rome"
    assert [grader.name for grader in case.graders] == ["contains-Rome", "icontains-in Rome"]
    assert case.vars["city"] == "Rome"


def test_unknown_variables_stay_and_are_warned_of_once(tmp_path: Path) -> None:
    suite = load(
        tmp_path,
        f"""
        {JUDGED}
        tests:
          - {{id: a, input: "Hi {{{{ name }}}}"}}
          - {{id: b, input: "{{{{ name }}}}"}}
        """,
    )
    assert [texts(case)[0][1] for case in suite.cases()] == ["Hi {{ name }}", "{{ name }}"]
    (warning,) = suite.warnings
    assert "demo.eval.yaml:4:20: tests[0].input: there is no variable {{ name }}" in warning


def test_a_variable_does_not_bring_in_another(tmp_path: Path) -> None:
    case = only(tmp_path, '{id: a, vars: {a: "{{ b }}", b: no}, input: "{{ a }}"}')
    assert texts(case) == [("user", "{{ b }}")]


def test_environment_variables(tmp_path: Path) -> None:
    suite = load(
        tmp_path,
        """
        name: "${{ NAME }}"
        threshold: ${{ BAR }}
        assertions: [{type: contains, value: "{{ env.WORD }}"}]
        tests:
          - {id: a, input: "say ${{ WORD }} and ${{ GONE }}."}
          - {id: b, input: "keep ${{ secrets.TOKEN }}"}
        """,
        env={"NAME": "from-env", "BAR": "0.5", "WORD": "hi"},
    )
    first, second = suite.cases()
    assert (suite.name, suite.threshold, first.threshold) == ("from-env", 0.5, 0.5)
    assert texts(first) == [("user", "say hi and .")]
    assert texts(second) == [("user", "keep ${{ secrets.TOKEN }}")]
    assert first.graders[0].name == "contains-hi"
    assert len(suite.warnings) == 1
    assert "the variable GONE is not set" in suite.warnings[0]


def test_dot_env_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUITE_WORD", raising=False)
    (tmp_path / ".env").write_text("SUITE_WORD=hello\n")
    case = only(tmp_path, '{id: a, input: "${{ SUITE_WORD }}"}', env=None)
    assert texts(case) == [("user", "hello")]


# --- settings -------------------------------------------------------------------------------------


def test_metadata_tags_and_labels(tmp_path: Path) -> None:
    suite = load(
        tmp_path,
        f"""
        name: labels
        description: About labels.
        category: quality/labels
        tags: [nightly]
        metadata: {{owner: us, topics: [a, b], level: 1}}
        governance: {{risk: low}}
        {JUDGED}
        tests:
          - id: a
            input: q
            tags: [fast]
            metadata: {{topics: [b, c], level: 2}}
            conversation_id: talk
            suite: other
            description: What a is.
            category: own
          - {{id: b, input: q}}
        """,
    )
    first, second = suite.cases()
    assert first.metadata == {
        "owner": "us",
        "topics": ["a", "b", "c"],
        "level": 2,
        "governance": {"risk": "low"},
        "description": "What a is.",
    }
    assert (first.tags, first.conversation_id) == (("nightly", "fast"), "talk")
    assert (first.suite, first.category) == ("other", "own")
    assert (second.suite, second.category) == ("labels", "quality/labels")
    assert (suite.description, suite.tags) == ("About labels.", ("nightly",))
    assert suite.category == "quality/labels"


def test_tags_as_a_mapping(tmp_path: Path) -> None:
    suite = load(tmp_path, f"tags: {{experiment: base}}\n{JUDGED}\ntests: [{{id: a, input: q}}]\n")
    assert suite.tags == ("experiment=base",)
    assert suite.metadata == {"tags": {"experiment": "base"}}


@pytest.mark.parametrize(
    ("name", "category"),
    [
        ("security/network.eval.yaml", "security/network"),
        ("evals/eval.yaml", "Uncategorized"),
        ("evals/math/suite.yaml", "math"),
        ("math.yaml", "math"),
    ],
)
def test_category_from_the_path(tmp_path: Path, name: str, category: str) -> None:
    suite = load(tmp_path, f"{JUDGED}\ntests: [{{id: a, input: q}}]", name=name)
    assert suite.category == category


def test_v4_execution(tmp_path: Path) -> None:
    suite = load(
        tmp_path,
        """
        execution:
          targets: [one, two, {name: three, use_target: one}]
          workers: 4
          threshold: 0.6
          budget_usd: 1.5
          fail_on_error: true
          trials: {count: 3}
          assertions: [{type: contains, value: x}]
        timeout_seconds: 30
        tests:
          - {id: a, input: q}
          - {id: b, input: q, execution: {threshold: 0.9, trials: {count: 2}, target: solo}}
          - {id: c, input: q, threshold: 0.1, repeat: 1, timeout_seconds: 5, targets: [one]}
        """,
    )
    a, b, c = suite.cases()
    assert suite.targets == ("one", "two", "three")
    assert suite.inline_targets == {"three": {"name": "three", "use_target": "one"}}
    assert suite.case_targets == ("solo", "one")
    assert (suite.max_concurrency, suite.budget_usd, suite.fail_on_error) == (4, 1.5, True)
    assert (suite.threshold, suite.count, suite.repeats) == (0.6, 3, 6)
    assert (a.threshold, a.repeat, a.timeout_seconds, a.targets) == (0.6, 3, 30, None)
    assert (b.threshold, b.repeat, b.targets) == (0.9, 2, ("solo",))
    assert (c.threshold, c.repeat, c.timeout_seconds, c.targets) == (0.1, 1, 5, ("one",))


def test_v5_options(tmp_path: Path) -> None:
    suite = load(
        tmp_path,
        """
        providers:
          - mock
          - {id: "openai:gpt-4o", label: big, config: {temperature: 0}}
          - "openai:gpt-4o-mini": {label: small}
        prompts: "Say {{ word }}"
        evaluate_options: {max_concurrency: 3, repeat: 2, timeout_ms: 1500, budget_usd: 2}
        default_test:
          vars: {word: hi, mood: calm}
          assert: [{type: contains, value: "{{ word }}"}]
          threshold: 0.7
          metadata: {from: default}
          options: {prefix: ">> "}
        tests:
          - {}
          - {description: second, vars: {word: ho, expected_output: HO}, threshold: 1,
             options: {repeat: 5, suffix: "!"}, provider: mock}
          - {id: third, vars: {word: hey}, run: {threshold: 0.2, repeat: 1, timeout_seconds: 9},
             assert: [{type: equals, value: hey}], execution: {skip_defaults: true}}
        """,
    )
    first, second, third = suite.cases()
    assert suite.targets == ("mock", "big", "small")
    assert suite.inline_targets == {
        "big": {"id": "openai:gpt-4o", "label": "big", "config": {"temperature": 0}},
        "small": {"id": "openai:gpt-4o-mini", "label": "small"},
    }
    assert (suite.max_concurrency, suite.budget_usd, suite.repeats) == (3, 2, 8)
    assert (first.id, second.id, third.id) == ("test-1", "second", "third")
    assert [texts(case)[0][1] for case in (first, second, third)] == [
        ">> Say hi",
        ">> Say ho!",
        ">> Say hey",
    ]
    assert first.vars == {"word": "hi", "mood": "calm"}
    assert (first.threshold, first.repeat, first.timeout_seconds) == (0.7, 2, 1.5)
    assert first.metadata == {"from": "default"}
    assert [grader.name for grader in first.graders] == ["contains-hi"]
    assert (second.threshold, second.repeat, second.targets) == (1, 5, ("mock",))
    assert second.reference_answer == "HO"
    assert (third.threshold, third.repeat, third.timeout_seconds) == (0.2, 1, 9)
    assert [grader.name for grader in third.graders] == ["equals-hey"]
    assert first.prompt is None
    assert suite.warnings == ()


def test_providers_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "providers.yaml").write_text("providers: [mock, {id: echo, label: mirror}]\n")
    text = f"providers: file://providers.yaml\n{JUDGED}\ntests: [{{id: a, input: q}}]\n"
    suite = load(tmp_path, text)
    assert suite.targets == ("mock", "mirror")
    assert suite.inline_targets == {"mirror": {"id": "echo", "label": "mirror"}}
    (tmp_path / "inner").mkdir()
    outside = text.replace("file://providers", "file://../providers")
    found = problem(tmp_path / "inner", outside)
    assert 'providers: "file://../providers.yaml" is outside the project' in found


def test_the_union_of_the_dialects(tmp_path: Path) -> None:
    """A test's own input goes before the suite's prompts; `assert` and `assertions` are one."""
    first, second = cases(
        tmp_path,
        """
        prompts: ["Say {{ word }}"]
        execution: {threshold: 0.5}
        assert: [{type: contains, value: x}]
        tests:
          - {id: a, vars: {word: hi}, assertions: [{type: contains, value: y}]}
          - {id: b, input: own}
        """,
    )
    assert [texts(case)[0][1] for case in (first, second)] == ["Say hi", "own"]
    assert [grader.name for grader in first.graders] == ["contains-y", "contains-x"]


def test_prompts_times_tests(tmp_path: Path) -> None:
    suite = load(
        tmp_path,
        f"""
        prompts:
          - {{label: short, raw: "{{{{ q }}}}"}}
          - {{label: long, raw: "Please answer: {{{{ q }}}}"}}
        {JUDGED}
        tests:
          - {{id: a, vars: {{q: one}}}}
          - {{id: b, vars: {{q: two}}, prompts: [long]}}
        """,
    )
    found = [(case.id, case.prompt, case.input[0].text) for case in suite.cases()]
    assert suite.count == 3
    assert found == [
        ("a", "short", "one"),
        ("a", "long", "Please answer: one"),
        ("b", "long", "Please answer: two"),
    ]


def test_scenarios(tmp_path: Path) -> None:
    (tmp_path / "more.yaml").write_text("- {vars: {q: from file}}\n")
    suite = load(
        tmp_path,
        f"""
        prompts: "{{{{ q }}}} in {{{{ language }}}}"
        {JUDGED}
        scenarios:
          - description: Languages
            config:
              - vars: {{language: Dutch}}
                assert: [{{type: contains, value: nl}}]
              - vars: {{language: Greek}}
                threshold: 0.3
            tests:
              - {{id: hello, vars: {{q: Hello}}}}
              - file://more.yaml
        """,
    )
    found = [(case.id, case.input[0].text, case.threshold) for case in suite.cases()]
    assert found == [
        ("hello-1", "Hello in Dutch", 0.8),
        ("test-2", "from file in Dutch", 0.8),
        ("hello-2", "Hello in Greek", 0.3),
        ("test-4", "from file in Greek", 0.3),
    ]
    assert [len(case.graders) for case in suite.cases()] == [2, 2, 1, 1]


def test_v5_variables_from_files(tmp_path: Path) -> None:
    (tmp_path / "article.txt").write_text("Long text")
    (tmp_path / "facts.json").write_text('{"year": 1984}')
    text = """
    prompts: "{{ article }} {{ facts.year }}"
    assert: [{type: contains, value: x}]
    tests: [{vars: {article: "file://article.txt", facts: "file://facts.json"}}]
    """
    (case,) = cases(tmp_path, text)
    assert texts(case) == [("user", "Long text 1984")]


def test_default_test_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "defaults.yaml").write_text("assert: [{type: contains, value: d}]\n")
    text = "default_test: file://defaults.yaml\ntests: [{id: a, input: q}]\n"
    suite = load(tmp_path, text)
    before = suite.content_hash
    assert [grader.name for case in suite.cases() for grader in case.graders] == ["contains-d"]
    (tmp_path / "defaults.yaml").write_text("assert: [{type: contains, value: e}]\n")
    assert load(tmp_path, text).content_hash != before


# --- conversations and dependencies ---------------------------------------------------------------


def test_turns(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    case = only(
        tmp_path,
        """
        id: talk
        mode: conversation
        vars: {name: Ann}
        input: [{role: system, content: Remember.}]
        turns:
          - input: "I am {{ name }}."
            expected_output: "Hi {{ name }}"
            assertions: [{type: contains, value: "{{ name }}"}]
          - input: [{role: user, content: [{type: text, value: Who am I?},
                                           {type: file, value: a.txt}]}]
            assert: [{type: icontains, value: ann}]
        aggregation: min
        on_turn_failure: stop
        window_size: 2
        """,
    )
    first, second = case.turns
    assert texts(case) == [("system", "Remember.")]
    assert (first.input[0].text, first.expected_output[0].text) == ("I am Ann.", "Hi Ann")
    assert [grader.name for grader in first.graders] == ["contains-Ann"]
    assert second.input == (Message("user", "Who am I?"),)
    assert [grader.name for grader in second.graders] == ["icontains-ann"]
    assert case.input_files == (tmp_path / "a.txt",)
    assert (case.aggregation, case.on_turn_failure, case.window_size) == ("min", "stop", 2)


def test_a_conversation_needs_a_grader_in_a_turn_only(tmp_path: Path) -> None:
    text = """
    tests:
      - id: talk
        turns: [{input: hi, assertions: [{type: contains, value: hi}]}, {input: bye}]
    """
    suite = load(tmp_path, text)
    assert suite.has_turns
    assert [len(turn.graders) for case in suite.cases() for turn in case.turns] == [1, 0]


def test_dependencies(tmp_path: Path) -> None:
    suite = load(
        tmp_path,
        f"""
        {JUDGED}
        tests:
          - {{id: late, input: q, depends_on: [early, other], on_dependency_failure: fail}}
          - {{id: early, input: q}}
          - {{id: other, input: q, depends_on: [early]}}
        """,
    )
    late, early, _ = suite.cases()
    assert (late.depends_on, late.on_dependency_failure) == (("early", "other"), "fail")
    assert early.on_dependency_failure == "skip"
    assert suite.dependencies == {"early", "other"}


# --- old names and what is not there yet ----------------------------------------------------------


def test_old_names_are_read_with_one_warning_each(tmp_path: Path) -> None:
    suite = load(
        tmp_path,
        """
        execution: {evaluators: [{type: contains, value: x}], failOnError: true}
        timeoutSeconds: 4
        eval_cases:
          - {id: a, input: q, expected_outcome: good, evaluators: [{type: contains, value: y}]}
          - {id: b, input: q, expectedOutput: z, evaluators: [{type: contains, value: z}]}
        """,
    )
    first, second = suite.cases()
    assert first.criteria == "good"
    assert second.reference_answer == "z"
    assert [len(case.graders) for case in (first, second)] == [2, 2]
    assert (first.timeout_seconds, suite.fail_on_error) == (4, True)
    said = [line.split(": ", 1)[1] for line in suite.warnings]
    assert said == [
        'execution.evaluators: "evaluators" is an old name; write "assertions"',
        'execution.failOnError: "failOnError" is an old name; write "fail_on_error"',
        'timeoutSeconds: "timeoutSeconds" is an old name; write "timeout_seconds"',
        'eval_cases: "eval_cases" is an old name; write "tests"',
        'eval_cases[0].expected_outcome: "expected_outcome" is an old name; write "criteria"',
        'eval_cases[1].expectedOutput: "expectedOutput" is an old name; write "expected_output"',
    ]


def test_a_problem_names_the_field_as_it_is_written(tmp_path: Path) -> None:
    found = problem(
        tmp_path,
        """
        tests:
          - id: a
            input: q
            assert:
              - {type: contains, valeu: x}
            execution: {skipDefaults: maybe}
        """,
    )
    assert ":7:31: tests[0].execution.skipDefaults: expected" in found
    fixed = problem(
        tmp_path,
        """
        tests:
          - id: a
            input: q
            assert:
              - {type: contains, valeu: x}
        """,
    )
    assert 'demo.eval.yaml:6:26: tests[0].assert[0].valeu: "contains" has no field "valeu"' in fixed


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("workspace", "{template: ./t}"),
        ("environment", "{type: host}"),
        ("extensions", "['file://x.mjs:beforeAll']"),
        ("preprocessors", "[{type: xlsx, command: c}]"),
        ("env", "{A: b}"),
    ],
)
def test_what_is_not_done_yet_is_said(tmp_path: Path, field: str, value: str) -> None:
    text = f"{JUDGED}\n{field}: {value}\ntests: [{{id: a, input: q}}]\n"
    assert f'demo.eval.yaml:2:1: {field}: "{field}" is not supported: ' in problem(tmp_path, text)


def test_what_is_not_done_yet_may_be_there_empty(tmp_path: Path) -> None:
    text = f"{JUDGED}\nextensions: []\nworkspace:\ntests: [{{id: a, input: q, hooks: {{}}}}]\n"
    assert load(tmp_path, text).count == 1


def test_what_changes_no_result_is_warned_of(tmp_path: Path) -> None:
    suite = load(
        tmp_path,
        f"""
        $schema: https://example.org/eval.json
        version: 1.0
        author: us
        license: MIT
        requires: {{agentv: ">=4"}}
        evaluator: llm-grader
        execution: {{cache: true, trials: {{count: 2, strategy: pass_at_k}}}}
        evaluate_options: {{delay: 100}}
        {JUDGED}
        tests: [{{id: a, input: q}}]
        """,
    )
    said = [line.split(": ")[1] for line in suite.warnings]
    assert said == [
        "evaluate_options.delay",
        "execution.trials.strategy",
        "evaluator",
    ]


def test_a_money_limit_is_never_ignored(tmp_path: Path) -> None:
    text = f"execution: {{trials: {{count: 2, cost_limit_usd: 1}}}}\n{JUDGED}\ntests: [{{id: a}}]"
    assert '"cost_limit_usd" is not supported: set `budget_usd`' in problem(tmp_path, text)
    found = problem(
        tmp_path, f"{JUDGED}\ntests: [{{id: a, input: q, execution: {{budget_usd: 1}}}}]"
    )
    assert '"budget_usd" is a setting of the whole suite' in found


def test_included_assertions_count_for_the_hash(tmp_path: Path) -> None:
    folder = tmp_path / ".muster" / "templates"
    folder.mkdir(parents=True)
    (folder / "polite.yaml").write_text("assertions: [{type: contains, value: please}]\n")
    text = "assertions: [{include: polite}]\ntests: [{id: a, input: q}]\n"
    suite = load(tmp_path, text)
    assert [grader.name for case in suite.cases() for grader in case.graders] == ["contains-please"]
    (folder / "polite.yaml").write_text("assertions: [{type: contains, value: '{{ word }}'}]\n")
    again = load(tmp_path, text.replace("input: q", "input: q, vars: {word: hi}"))
    assert [grader.name for case in again.cases() for grader in case.graders] == ["contains-hi"]
    assert again.content_hash != suite.content_hash
