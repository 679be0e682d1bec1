"""The kinds of files that hold suites and tests, and suites made in memory."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muster.config.document import Document, Place
from muster.errors import ConfigError
from muster.evals.case import Case, Suite
from muster.evals.suites.files import suite_stem
from muster.evals.suites.load import load_suite, suite_from_cases
from muster.evals.suites.models import suite_schema
from muster.evals.suites.names import TEST, tidy
from muster.provider import Message
from muster.registry import Registry

CONTAINS = [{"type": "contains", "value": "x"}]


def load(path: Path, text: str | None = None, **options: Any) -> Suite:
    if text is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
    options.setdefault("project_root", path.parent)
    return load_suite(path, env={"WORD": "filled"}, **options)


def shown(suite: Suite) -> list[tuple[str, str]]:
    return [(case.id, case.input[-1].text) for case in suite.cases()]


def as_data(case: Case) -> tuple[Any, ...]:
    """What a case is, its graders by what they are called and do."""
    plain = {name: getattr(case, name) for name in Case.__slots__ if name != "graders"}
    return plain, [(g.name, g.type, g.weight) for g in case.graders]


# --- JSONL ----------------------------------------------------------------------------------------


def test_jsonl_rows_take_every_field(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "input": "q", "assertions": CONTAINS},
        {"id": "b", "input": "Hi {{ n }}", "vars": {"n": "Bob"}, "assert": CONTAINS},
        {"id": "c", "input": "q", "metadata": {"k": 1}, "threshold": 0.5, "assert": CONTAINS},
        {"id": "d", "turns": [{"input": "t", "assert": CONTAINS}], "depends_on": ["a"]},
        {"id": "e", "input": "${{ WORD }}", "evaluators": CONTAINS},
    ]
    suite = load(tmp_path / "cases.jsonl", "\n\n".join(map(json.dumps, rows)))
    a, b, c, d, e = suite.cases()
    assert suite.name == "cases"
    assert b.input == (Message("user", "Hi Bob"),)
    assert (c.metadata, c.threshold) == ({"k": 1}, 0.5)
    assert (d.turns[0].input[0].text, d.depends_on) == ("t", ("a",))
    assert e.input[0].text == "${{ WORD }}"  # data is not filled from the environment
    assert [case.line for case in (a, b, c, d, e)] == [1, 3, 5, 7, 9]
    assert "old name" in suite.warnings[0]


def test_a_sidecar_has_the_settings(tmp_path: Path) -> None:
    (tmp_path / "cases.jsonl").write_text('{"id": "a", "input": "q"}\n')
    sidecar = tmp_path / "cases.yaml"
    sidecar.write_text(
        "name: side\nexecution: {target: mock}\nthreshold: 0.4\n"
        "assert: [{type: contains, value: '${{ WORD }}'}]\n"
    )
    suite = load(tmp_path / "cases.jsonl")
    (case,) = suite.cases()
    assert (suite.name, suite.targets, case.threshold) == ("side", ("mock",), 0.4)
    assert case.graders[0].name == "contains-filled"
    before = suite.content_hash
    sidecar.write_text(sidecar.read_text() + "category: c\n")
    assert load(tmp_path / "cases.jsonl").content_hash != before


def test_a_suite_beside_a_data_set_is_no_sidecar(tmp_path: Path) -> None:
    (tmp_path / "cases.yaml").write_text("name: whole\ntests: cases.jsonl\n")
    row = {"id": "a", "input": "q", "assert": CONTAINS}
    suite = load(tmp_path / "cases.jsonl", json.dumps(row))
    assert suite.name == "cases"
    assert "is a suite of its own" in suite.warnings[0]


def test_hash_follows_the_content(tmp_path: Path) -> None:
    suite_file = tmp_path / "demo.eval.yaml"
    suite_file.write_text("tests: cases.jsonl\nassert: [{type: contains, value: x}]\n")
    data = tmp_path / "cases.jsonl"
    data.write_text('{"id": "a", "input": "q"}\n')
    first = load(suite_file).content_hash
    assert load(suite_file).content_hash == first
    assert len(first) == 64
    data.write_text('{"id": "a", "input": "r"}\n')
    assert load(suite_file).content_hash != first


# --- CSV, JSON, Python, promptfoo -----------------------------------------------------------------


def test_csv_with_magic_columns(tmp_path: Path) -> None:
    (tmp_path / "qa.yaml").write_text('prompts: "Q: {{ question }}"\n')
    text = """\
    question,__expected,__expected2,__description,__metadata:topic,__threshold,__prefix
    What is 2+2?,contains: 4,icontains: four,sum,math,0.5,Please.
    Capital of France?,Paris,,,,,
    """
    suite = load(tmp_path / "qa.csv", text)
    first, second = suite.cases()
    assert (first.id, second.id) == ("sum", "test-2")
    assert [grader.type for grader in first.graders] == ["contains", "icontains"]
    assert (first.threshold, first.metadata["topic"]) == (0.5, "math")
    assert first.input[0].text.replace(" ", "") == "Please.Q:Whatis2+2?"
    assert second.input[0].text == "Q: Capital of France?"
    assert [grader.name for grader in second.graders] == ["equals-Paris"]
    assert first.vars["question"] == "What is 2+2?"


def test_csv_columns_input_expected_output_and_id(tmp_path: Path) -> None:
    suite = load(
        tmp_path / "qa.csv", "id,input,expected_output,__expected\nx,Hello,Hi,contains: H\n"
    )
    (case,) = suite.cases()
    assert (case.id, case.input[0].text, case.reference_answer) == ("x", "Hello", "Hi")


def test_ids_made_from_descriptions_are_unique(tmp_path: Path) -> None:
    text = """
    prompts: "{{ q }}"
    assert: [{type: contains, value: x}]
    tests:
      - {description: same, vars: {q: 1}}
      - {description: same, vars: {q: 2}}
      - {vars: {q: 3}}
    """
    suite = load(tmp_path / "a.eval.yaml", text)
    assert shown(suite) == [("same", "1"), ("same (2)", "2"), ("test-3", "3")]
    assert shown(suite) == shown(suite)


def test_json_suites_and_lists(tmp_path: Path) -> None:
    tests = [{"id": "a", "input": "tab\tand \U0001f600", "assertions": CONTAINS}]
    as_list = load(tmp_path / "list.json", json.dumps(tests, indent="\t"))
    as_suite = load(tmp_path / "suite.json", json.dumps({"name": "j", "tests": tests}))
    assert shown(as_list) == shown(as_suite) == [("a", "tab\tand \U0001f600")]
    assert (as_list.name, as_suite.name) == ("list", "j")


def test_yaml_list_of_tests(tmp_path: Path) -> None:
    suite = load(
        tmp_path / "list.yaml", "- {id: a, input: q, assert: [{type: contains, value: x}]}\n"
    )
    assert shown(suite) == [("a", "q")]


def test_python_generators(tmp_path: Path) -> None:
    code = """
    def odd():
        for n in range(1, 6, 2):
            yield {"id": f"n{n}", "input": str(n), "assert": [{"type": "equals", "value": str(n)}]}
    def generate_tests():
        return [{"id": "d", "input": "q", "assert": [{"type": "equals", "value": "q"}]}]
    """
    (tmp_path / "make.py").write_text(dedent(code))
    suite = load(tmp_path / "make.py:odd")
    assert shown(suite) == [("n1", "1"), ("n3", "3"), ("n5", "5")]
    assert suite.name == "make"
    assert shown(load(tmp_path / "make.py")) == [("d", "q")]


def test_all_kinds_of_references_in_one_suite(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    for name in ("b", "a"):
        (tmp_path / "rows" / f"{name}.jsonl").write_text(f'{{"id": "{name}", "input": "q"}}\n')
    (tmp_path / "dir" / "first").mkdir(parents=True)
    (tmp_path / "dir" / "first" / "case.yaml").write_text("input: in a folder, ${{ WORD }}\n")
    (tmp_path / "dir" / "first" / "PROMPT.md").write_text("not needed")
    (tmp_path / "dir" / "second").mkdir(parents=True)
    (tmp_path / "dir" / "second" / "case.yaml").write_text("input_files: [notes.txt]\n")
    (tmp_path / "dir" / "second" / "notes.txt").write_text("n")
    (tmp_path / "dir" / "second" / "PROMPT.md").write_text("From the file.")
    (tmp_path / "table.csv").write_text("id,input\nt,from a table\n")
    text = """
    assertions: [{type: contains, value: x}]
    tests:
      - {id: inline, input: here}
      - rows/*.jsonl
      - file://dir
      - table.csv
      - {include: rows/b.jsonl, type: tests}
    """
    with pytest.raises(ConfigError, match='two tests have the id "b"'):
        load(tmp_path / "a.eval.yaml", text)
    suite = load(tmp_path / "a.eval.yaml", text.rsplit("\n", 2)[0])
    assert shown(suite) == [
        ("inline", "here"),
        ("a", "q"),
        ("b", "q"),
        ("first", "in a folder, filled"),
        ("second", "From the file."),
        ("t", "from a table"),
    ]
    last = list(suite.cases())[4]
    assert last.input_files == (tmp_path / "dir" / "second" / "notes.txt",)


def test_promptfoo_configurations(tmp_path: Path) -> None:
    text = """
    description: From promptfoo
    prompts: ["Translate {{ text }} to {{ language }}", "{{ language }}: {{ text }}"]
    providers: [mock]
    defaultTest:
      vars: {language: Dutch}
    tests:
      - vars: {text: [Hello, Bye]}
        assert: [{type: icontains, value: "{{ language }}"}]
      - description: greek
        vars: {text: Hello, language: Greek}
        assert: [{type: contains, value: Greek}]
    """
    suite = load(tmp_path / "shop" / "promptfooconfig.yaml", text)
    assert (suite.name, suite.targets, suite.count) == ("shop", ("mock",), 6)
    found = [(case.id, case.prompt, case.input[0].text) for case in suite.cases()]
    assert found[:3] == [
        ("test-1", "prompt-1", "Translate Hello to Dutch"),
        ("test-1", "prompt-2", "Dutch: Hello"),
        ("test-2", "prompt-1", "Translate Bye to Dutch"),
    ]
    assert found[-1] == ("greek", "prompt-2", "Greek: Hello")
    assert next(iter(suite.cases())).graders[0].name == "icontains-Dutch"


def test_names_from_files() -> None:
    names = ["a.eval.yaml", "b.yml", "c.eval.jsonl", "d.csv.gz", "e.py", "e.py:make", ".eval.yaml"]
    stems = [suite_stem(Path(name)) for name in names]
    assert stems == ["a", "b", "c", "d", "e", "e", "eval"]


# --- in memory ------------------------------------------------------------------------------------


def test_cases_in_memory(tmp_path: Path) -> None:
    ready = Case(
        id="ready",
        suite="s",
        input=(Message("user", "go"),),
        graders=next(
            suite_from_cases("x", [{"id": "x", "input": "x", "assert": CONTAINS}]).cases()
        ).graders,
    )
    suite = suite_from_cases(
        "memory",
        ({"id": name, "vars": {"w": name}, "input": "say {{ w }}"} for name in ("a", "b")),
        settings={"assertions": [{"type": "contains", "value": "{{ w }}"}], "threshold": 0.5},
        base_dir=tmp_path,
    )
    assert (suite.name, suite.path, suite.base_dir, suite.count) == ("memory", None, tmp_path, 2)
    assert shown(suite) == shown(suite) == [("a", "say a"), ("b", "say b")]
    assert [case.graders[0].name for case in suite.cases()] == ["contains-a", "contains-b"]
    assert [case.threshold for case in suite.cases()] == [0.5, 0.5]
    mixed = suite_from_cases("mixed", [ready, {"id": "m", "input": "q", "assert": CONTAINS}])
    assert shown(mixed) == [("ready", "go"), ("m", "q")]
    assert mixed.content_hash != suite.content_hash


@pytest.mark.parametrize(
    ("cases", "message"),
    [
        ([{"id": "a", "imput": "q"}], r'cases\[0\]\.imput: unknown field "imput" \(did you mean'),
        ([{"id": "a", "input": "q"}], r"cases\[0\]: a: has nothing that judges the answer"),
        ([{"id": "a", "input": "q", "assert": CONTAINS}] * 2, r"cases\[1\]\.id: two tests have"),
        ([], "holds no test"),
        ([3], r"cases\[0\]: expected a test \(a mapping\), found 3"),
        ([Case(id="c", suite="s", input=())], "c: has nothing that judges the answer"),
    ],
)
def test_mistakes_in_memory(cases: list[Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        suite_from_cases("memory", cases)


# --- both ways to a case are one ------------------------------------------------------------------

_text = st.text(max_size=12)
_plain_rows = st.fixed_dictionaries(
    {"id": st.text(min_size=1, max_size=8), "input": _text},
    optional={
        "expected_output": _text,
        "criteria": _text,
        "metadata": st.dictionaries(_text, st.one_of(_text, st.integers(), st.lists(_text))),
        "assertions": st.lists(
            st.fixed_dictionaries({"type": st.just("contains"), "value": st.just("y")}),
            min_size=1,
            max_size=2,
        ),
    },
)


@settings(max_examples=60, deadline=None)
@given(row=_plain_rows)
def test_plain_tests_come_out_as_their_model_has_them(row: dict[str, Any]) -> None:
    """`tags: []` says nothing, but takes a test the long way."""
    shared = {"assertions": CONTAINS, "metadata": {"list": [1], "a": "b"}, "tags": ["t"]}
    plain = suite_from_cases("s", [row], settings=shared)
    long = suite_from_cases("s", [{**row, "tags": []}], settings=shared)
    assert [as_data(case) for case in plain.cases()] == [as_data(case) for case in long.cases()]


# --- graders and schema ---------------------------------------------------------------------------


def test_suite_graders_are_built_once_for_all_tests(tmp_path: Path) -> None:
    built: list[object] = []
    registry: Registry[Any] = Registry("grader")

    def factory(spec: object) -> Any:
        built.append(spec)
        return lambda context: True

    registry.register("counted", factory)
    rows = [{"id": f"r{n}", "input": "q"} for n in range(50)]
    suite = suite_from_cases(
        "s", rows, settings={"assertions": [{"type": "counted"}]}, registry=registry
    )
    assert len({id(case.graders[0]) for case in suite.cases()}) == 1
    assert len(built) == 1


def test_the_schema_accepts_what_is_read(tmp_path: Path) -> None:
    import jsonschema

    schema = suite_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    good: dict[str, Any] = {
        "prompts": ["a"],
        "providers": ["mock", {"id": "mock", "label": "x"}],
        "default_test": {"assert": CONTAINS},
        "evaluate_options": {"repeat": 2},
        "tests": ["file://x.jsonl", {"id": "a", "vars": {"x": 1}, "target": "mock"}],
        "execution": {"threshold": 0.5, "trials": {"count": 2}},
    }
    assert list(validator.iter_errors(good)) == []
    bad = {**good, "tests": [{"id": "a", "imput": "q"}], "thresold": 1}
    assert len(list(validator.iter_errors(bad))) == 2
    assert list(validator.iter_errors({"name": "no tests"}))


def test_tidied_places_are_those_of_the_file() -> None:
    data = {"assert": [1], "options": {"repeat": 2}, "execution": {"failOnError": 1}}
    place = Place(Document({"tests": [data]}), ("tests", 0))
    tidied = tidy(data, place, TEST, lambda written, name, where: None)
    assert tidied.data["execution"] == {"fail_on_error": 1}
    assert tidied.place.at("execution", "fail_on_error").problem("x").field == (
        "tests[0].execution.failOnError"
    )
    assert tidied.place.at("assertions", 0).problem("x").field == "tests[0].assert[0]"
