"""Whatever stands in a field: a good load, or problems with places, nothing else."""

from __future__ import annotations

import copy
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from muster.config.document import parse_documents
from muster.errors import ConfigError
from muster.teams.manifests import load_manifests

GOOD = """\
apiVersion: arkonis.dev/v1alpha1
kind: ArkTeam
metadata: {name: t}
spec:
  entry: r
  inputs: [{name: n, type: integer, default: 1}]
  input: {n: 2}
  roles:
  - name: r
    model: m
    systemPromptRef: {configMapKeyRef: {name: c, key: k}}
    mcpServers: [{name: s, url: "http://h", headers: {A: {secretKeyRef: {name: s, key: k}}}}]
    tools: [{name: t, url: "http://h/{{ .input.n }}", inputSchema: {type: object}}]
    pythonTools: ["a:b"]
    envFrom: [{secretRef: {name: s}}]
    settingsRefs: [{name: s}]
    memoryRef: {name: m}
    canDelegate: [q]
    capabilities: [{id: c}]
  - {name: q, arkAgent: a}
  pipeline:
  - {role: r, inputs: {p: "{{ .input.n }}"}, loop: {condition: "{{ true }}"}, retry: 1}
  - {role: q, dependsOn: [r], forEach: "{{ .steps.r.data }}", validate: {contains: x}}
  - {name: l, registryLookup: {capability: c}, dependsOn: [q], artifacts: [f]}
  - {name: ok, approval: Sure?, dependsOn: [l]}
  output: "{{ .steps.q.output }}"
---
apiVersion: arkonis.dev/v1alpha1
kind: ArkAgent
metadata: {name: a}
spec: {target: x}
---
apiVersion: arkonis.dev/v1alpha1
kind: ArkSettings
metadata: {name: s}
spec: {temperature: 0.5, fragments: [{name: f, text: t}]}
---
apiVersion: arkonis.dev/v1alpha1
kind: ArkMemory
metadata: {name: m}
spec: {backend: redis, redis: {secretRef: {name: s, key: k}}}
---
apiVersion: arkonis.dev/v1alpha1
kind: ArkEvent
metadata: {name: e}
spec: {source: {type: cron, cron: "@daily"}, targets: [{team: t, input: {n: "1"}}]}
---
apiVersion: arkonis.dev/v1alpha1
kind: ArkNotify
metadata: {name: n}
spec: {channel: {type: slack, slack: {url: "http://h"}}, events: [{type: TeamFailed}]}
---
apiVersion: arkonis.dev/v1alpha1
kind: ArkRun
metadata: {name: r}
spec: {teamRef: {name: t}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: c}
data: {k: v}
---
apiVersion: v1
kind: Secret
metadata: {name: s}
stringData: {k: v}
"""
DOCUMENTS = [document.data for document in parse_documents(GOOD)]
VALUES = st.sampled_from(
    (None, True, 0, -1, 1.5, "", "r", "{{", "{{ .x }}", "${{ X }}", "a.b", "x" * 300, "../..")
) | st.sampled_from(("\u0000", [], [1], ["r"], [None], [{}], [[]], {}, {"name": "r"}, {"name": 1}))


def ways(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The ways to all values in `value`."""
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else items
    return [way, *(deeper for key, item in items for deeper in ways(item, (*way, key)))]


def put(documents: Any, way: tuple[Any, ...], value: Any) -> None:
    """Put `value` at `way`, unless an earlier change has taken away what was there."""
    for step in way[:-1]:
        try:
            documents = documents[step]
        except (TypeError, LookupError):
            return
    if isinstance(documents, dict if isinstance(way[-1], str) else list):
        with suppress(IndexError):
            documents[way[-1]] = value


WAYS = [way for way in ways(DOCUMENTS) if way]


def test_it_is_good(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(GOOD)
    bundle = load_manifests(tmp_path / "t.yaml", env={})
    assert list(bundle.teams["t"].roles) == ["r", "q"]
    assert bundle.warnings == []


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.sampled_from(WAYS), VALUES), min_size=1, max_size=2))
def test_any_value_anywhere(tmp_path: Path, changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    documents = copy.deepcopy(DOCUMENTS)
    for way, value in changes:
        put(documents, way, copy.deepcopy(value))
    path = tmp_path / "t.yaml"
    path.write_text("\n---\n".join(json.dumps(document, indent=1) for document in documents))
    try:
        load_manifests(path, env={})
    except ConfigError as error:
        problems = error.problems
    else:
        problems = ()
    assert all(problem.path == path and problem.line for problem in problems)
