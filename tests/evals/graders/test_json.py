from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from muster.errors import ConfigError
from muster.evals.scoring import Graded, ScoreRow

Judged = Callable[..., ScoreRow]

SCHEMA = {
    "type": "object",
    "required": ["items"],
    "properties": {"items": {"type": "array", "items": {"$ref": "#/$defs/item"}}},
    "$defs": {"item": {"type": "object", "properties": {"price": {"type": "number"}}}},
}


@pytest.mark.parametrize(
    ("output", "passes"),
    [
        ('{"a": [1, 2.5, null, true]}', True),
        (' \n"text"\n', True),
        ("18", True),
        ("7" * 5000, True),
        ('```json\n{"a": 1}\n```', False),
        ('{"a": 1} trailing', False),
        ("{'a': 1}", False),
        ("NaN", False),
        ('{"a": -Infinity}', False),
        ("", False),
        ("[" * 100_000, False),
    ],
)
def test_the_whole_answer_is_json(judged: Judged, output: str, passes: bool) -> None:
    row = judged({"type": "is-json"}, output)
    assert row.score == float(passes)
    says = "is valid" if passes else "is not valid"
    assert row.assertions[0].text == f"Output {says} JSON"
    assert passes or row.assertions[0].evidence


@pytest.mark.parametrize("key", ["schema", "value"])
def test_a_schema_inline(judged: Judged, key: str) -> None:
    entry = {"type": "is-json", key: SCHEMA}
    assert judged(entry, '{"items": [{"price": 1}]}').score == 1.0
    row = judged(entry, '{"items": [{"price": 1}, {"price": "x"}]}')
    assert row.score == 0.0
    assert [assertion.passed for assertion in row.assertions] == [True, False]
    assert row.assertions[1].text == "Output does not satisfy the schema"
    assert row.assertions[1].evidence == "$.items[1].price: 'x' is not of type 'number'"


@pytest.mark.parametrize("name", ["schemas/a.json", "file://schemas/a.json", "schemas/a.yaml"])
def test_a_schema_in_a_file(judged: Judged, tmp_path: Path, name: str) -> None:
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "a.json").write_text(json.dumps(SCHEMA))
    (tmp_path / "schemas" / "a.yaml").write_text("type: object\nrequired: [items]\n")
    entry = {"type": "is-json", "schema": name}
    assert judged(entry, '{"items": []}').score == 1.0
    assert judged(entry, "{}").assertions[1].evidence == "$: 'items' is a required property"


def test_many_errors_are_counted(judged: Judged) -> None:
    row = judged({"type": "is-json", "schema": {"items": {"type": "null"}}}, "[1,2,3,4,5,6,7]")
    evidence = row.assertions[1].evidence
    assert evidence is not None
    assert evidence.endswith("$[4]: 5 is not of type 'null'; and 2 more")


def test_the_draft_is_the_schemas_own(judged: Judged) -> None:
    draft4 = {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "minimum": 5,
        "exclusiveMinimum": True,
    }
    assert judged({"type": "is-json", "schema": draft4}, "5").score == 0.0
    assert judged({"type": "is-json", "schema": draft4}, "6").score == 1.0
    odd = {"$schema": "https://example.com/own-dialect", "type": "null"}
    assert judged({"type": "is-json", "schema": odd}, "null").score == 1.0


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "strin"}, "not a JSON Schema: $.type: 'strin'"),
        ({"$ref": "#/$defs/nope"}, '$ref "#/$defs/nope" leads to nothing in the schema'),
        (
            {"properties": {"a": {"$ref": "http://127.0.0.1:9/s.json"}}},
            '$ref "http://127.0.0.1:9/s.json" leads to nothing',
        ),
        (5, "expected a JSON Schema"),
        ("nope.json", "nope.json: no such file"),
        ("../outside.json", "is outside the project"),
        ("broken.json", "not valid YAML"),
        ("list.json", "a JSON Schema is a mapping"),
    ],
)
def test_a_bad_schema_is_told_when_it_is_loaded(
    bind: Callable[..., Any], tmp_path: Path, schema: Any, message: str
) -> None:
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path.parent / "outside.json").write_text("{}")
    with pytest.raises(ConfigError) as error:
        bind([{"type": "is-json", "schema": schema}])
    assert error.value.problems[0].field == "assertions[0].schema"
    assert message in error.value.problems[0].message


def test_a_schema_that_never_ends_is_an_error(graded: Callable[..., Graded]) -> None:
    found = graded({"type": "is-json", "schema": {"$ref": "#"}}, "1")
    assert found.error == 'grader "is-json": the schema refers to itself without end'


@pytest.mark.parametrize(
    ("output", "schema", "passes"),
    [
        ('Sure: {"a": {"b": [1]}} — done', None, True),
        ("See [1] and {x}", None, False),
        ('```json\n[{"a": 1}]\n```', {"type": "array"}, True),
        ('[{"a": 1}]', {"type": "object", "required": ["a"]}, True),
        ('first {"a": 1} then {"b": 2}', {"type": "object", "required": ["b"]}, True),
        ('first {"a": 1} then {"b": 2}', {"type": "object", "required": ["c"]}, False),
        ("f() { return {}; }", None, True),
        ('{"a": ' * 500, None, False),
    ],
)
def test_json_within_an_answer(judged: Judged, output: str, schema: Any, passes: bool) -> None:
    entry = {"type": "contains-json"} | ({} if schema is None else {"schema": schema})
    assert judged(entry, output).score == float(passes)
    assert judged({**entry, "type": "not-contains-json"}, output).score == float(not passes)


def test_braces_without_end_take_no_time_without_end(graded: Callable[..., Graded]) -> None:
    found = graded({"type": "contains-json"}, '{"a": [' + "1, " * 100_000 + '{"b": ' * 500_000)
    assert found.error is not None
    assert "too many braces" in found.error
