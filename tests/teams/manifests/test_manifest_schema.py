"""The JSON Schema of manifests accepts what the loader accepts."""

from __future__ import annotations

import pytest
from jsonschema import Draft202012Validator

from muster.config.document import parse_documents
from muster.teams.manifests import manifest_schema

GOOD = """\
apiVersion: arkonis.dev/v1alpha1
kind: ArkTeam
metadata: {name: t}
spec:
  roles: [{name: r, model: m, systemPrompt: p, mcpServers: [{name: s, url: u, headers: {A: b}}]}]
  pipeline:
  - {role: r, if: x, forEach: y, retry: 2, outputSchema: {type: object}, validate: {contains: z}}
---
apiVersion: muster.dev/v1alpha1
kind: Memory
metadata: {name: m}
spec: {backend: sqlite}
---
apiVersion: v1
kind: Secret
metadata: {name: s}
stringData: {a: b}
"""


SCHEMA = manifest_schema()


def messages(text: str) -> list[list[str]]:
    validator = Draft202012Validator(SCHEMA)
    return [
        [error.message for error in validator.iter_errors(document.data)]
        for document in parse_documents(text)
    ]


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    titles = [item["title"] for item in SCHEMA["oneOf"] if "title" in item]
    assert titles[:3] == ["ArkAgent", "Agent", "ArkTeam"]
    assert len(SCHEMA["oneOf"]) == 11 + 10 + 2


def test_it_accepts_what_is_good() -> None:
    assert messages(GOOD) == [[], [], []]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("role: r,", "rolle: r,"),
        ("kind: Memory", "kind: ArkMemory"),
        ("backend: sqlite", "backend: disk"),
        ("{a: b}", "{a: 5}"),
        ("retry: 2", "retry: many"),
        ("metadata: {name: t}\n", ""),
    ],
)
def test_it_refuses_what_is_wrong(old: str, new: str) -> None:
    assert any(messages(GOOD.replace(old, new)))


def test_fields_are_described() -> None:
    step = SCHEMA["$defs"]["StepSpec"]["properties"]
    assert step["if"]["description"] == "A template; the step is skipped when it is false."
    assert all("description" in value for value in step.values())
