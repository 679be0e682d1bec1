"""The published JSON Schemas are current, accept what is good, and refuse what is wrong."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

import muster
from manual import PAGES, ROOT, blocks_of
from muster.config.document import parse_documents, parse_yaml
from muster.teams.schemas import NAMES, schema_of


@pytest.mark.parametrize("name", NAMES)
def test_published_schema_is_current(name: str) -> None:
    path = ROOT / "docs" / "schemas" / f"{name}.schema.json"
    schema = json.loads(path.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema == schema_of(name), "write it anew: make schemas"


@cache
def validator(schema: str) -> Draft202012Validator:
    return Draft202012Validator(schema_of(schema))


def errors_of(schema: str, data: object) -> list[str]:
    return [error.message for error in validator(schema).iter_errors(data)]


@cache
def written() -> list[tuple[str, str, str]]:
    """All YAML files of `examples/` and of the manual: where they stand, their names, their
    texts."""
    found = [
        (path.relative_to(ROOT).as_posix(), path.name, path.read_text(encoding="utf-8"))
        for path in sorted((ROOT / "examples").rglob("*.yaml"))
    ]
    found += [
        (block.place, str(block.file), block.text)
        for page in PAGES
        for block in blocks_of(page)
        if block.kind == "yaml" and not re.match("promptfoo|mistakes", str(block.file))
    ]
    return found


def examples(kind: str) -> list[tuple[str, str]]:
    """Targets files or suites of the manual and of `examples/`, each with where it stands."""
    found = [(place, text) for place, name, text in written() if not name.endswith(".test.yaml")]
    word = "tests|scenarios" if kind == "suite" else "targets|providers"
    suites = r"^(tests|scenarios):"
    return [
        (place, text)
        for place, text in found
        if re.search(rf"^({word}):", text, re.MULTILINE)
        and (kind == "suite" or not re.search(suites, text, re.MULTILINE))
    ]


@pytest.mark.parametrize("kind", ["suite", "targets"])
def test_schema_accepts_the_examples(kind: str) -> None:
    found = examples(kind)
    assert len(found) > 5
    for place, text in found:
        assert errors_of(kind, parse_yaml(text).data) == [], place


def test_schemas_accept_the_teams() -> None:
    manifests = [(place, text) for place, _, text in written() if "apiVersion:" in text]
    assert len(manifests) > 12
    for place, text in manifests:
        for document in parse_documents(text):
            if document.data["apiVersion"] != "v1":
                assert errors_of("team", document.data) == [], place
    scripts = [(place, text) for place, name, text in written() if name.endswith(".test.yaml")]
    assert len(scripts) >= 12
    for place, text in scripts:
        assert errors_of("script", parse_yaml(text).data) == [], place


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("targets", {"targets": [{"name": "a", "provider": "openai", "modle": "x"}]}),
        ("targets", {"targets": [{"name": "a", "provider": "openai", "config": {"modle": "x"}}]}),
        ("targets", {"targets": [{"name": "a", "provider": "cli", "command": 3}]}),
        ("targets", {"targets": [{"name": "a", "provider": "mock", "replies": [{"txt": "x"}]}]}),
        ("targets", {"targets": [{"name": "a", "workers": "many"}]}),
        ("targets", {"targets": [{"provider": "mock"}]}),
        ("suite", {"name": "nothing to run"}),
        ("suite", {"tests": [{"inptu": "x"}]}),
        ("suite", {"tests": [], "threshold": 2}),
        ("result", {"test_id": "a", "suite": "s", "target": "t", "score": "high"}),
        ("script", {"tests": [{"name": "a", "expct": {}}]}),
        ("script", {"tests": [{"input": {}}]}),
        ("script", {"expect": {"reason": "Broken"}}),
        ("team", {"apiVersion": "muster.dev/v1alpha1", "kind": "Team", "metadata": {"name": "a"}}),
        (
            "team",
            {
                "apiVersion": "muster.dev/v1alpha1",
                "kind": "Team",
                "metadata": {"name": "a"},
                "spec": {"pipline": []},
            },
        ),
    ],
)
def test_schema_refuses_what_is_wrong(kind: str, data: object) -> None:
    assert errors_of(kind, data)


def test_schema_of_results(tmp_path: Path) -> None:
    cases = [
        {"id": "a", "input": "a", "assert": [{"type": "equals", "value": "a"}]},
        {"id": "b", "turns": [{"input": "b", "assert": [{"type": "equals", "value": "a"}]}]},
        {"id": "c", "input": "c", "assert": [{"type": "cost", "budget": 1}]},
    ]
    evaluation = muster.evaluate(cases, "echo", output=tmp_path / "run")
    lines = (evaluation.folder / "results.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    statuses = {row["test_id"]: row["execution_status"] for row in rows}
    assert statuses == {"a": "ok", "b": "quality_failure", "c": "execution_error"}
    for row in rows:
        assert errors_of("result", row) == []
