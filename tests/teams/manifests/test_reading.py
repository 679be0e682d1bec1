"""Which documents are read, from where, and what is said about the others."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from muster.errors import ConfigError

AGENT = """\
apiVersion: arkonis.dev/v1alpha1
kind: ArkAgent
metadata: {name: a}
spec: {model: m, systemPrompt: p}
"""


def test_documents_of_one_file(folder) -> None:
    second = AGENT.replace("name: a", "name: b")
    bundle = folder.load(f"---\n# a comment alone\n---\n{AGENT}---\n{second}---\n")
    assert list(bundle.agents) == ["a", "b"]
    assert bundle.files == (folder.path / "t.yaml",)
    assert bundle.warnings == []


@pytest.mark.parametrize(
    ("api", "kind"),
    [
        ("arkonis.dev/v1alpha1", "ArkAgent"),
        ("arkonis.dev/v1alpha1", "ArkonisDeployment"),
        ("muster.dev/v1alpha1", "Agent"),
    ],
)
def test_names_that_mean_the_same(folder, api: str, kind: str) -> None:
    text = AGENT.replace("arkonis.dev/v1alpha1", api).replace("ArkAgent", kind)
    assert folder.load(text).agents["a"].model == "m"


def test_each_unknown_kind_is_told_once(folder) -> None:
    other = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n"
    typo = AGENT.replace("ArkAgent", "ArkAgnet").replace("name: a", "name: b")
    old = AGENT.replace("v1alpha1", "v1").replace("name: a", "name: c")
    bundle = folder.load("---\n".join([other, AGENT, other, typo, old]))
    assert list(bundle.agents) == ["a"]
    assert bundle.warnings == [
        't.yaml:2:7: kind: kind "Deployment" of apps/v1 means nothing here; '
        "2 such documents are left out",
        't.yaml:15:7: kind: unknown kind "ArkAgnet" of arkonis.dev/v1alpha1 '
        '(did you mean "ArkAgent"?); 1 such document is left out',
        't.yaml:20:7: kind: unknown version "arkonis.dev/v1" of kind "ArkAgent" '
        "(known: arkonis.dev/v1alpha1); 1 such document is left out",
    ]


def test_a_service_is_checked_and_left_out(folder) -> None:
    service = """\
apiVersion: arkonis.dev/v1alpha1
kind: ArkService
metadata: {name: s}
spec:
  selector: {arkAgent: a}
  routing: {strategy: least-busy}
  ports: [{protocol: A2A, port: 8080}]
"""
    assert folder.load(service).warnings == [
        't.yaml:5:3: spec: ArkService "s" is left out: on one machine nothing needs it'
    ]
    assert folder.problems(service.replace("8080", "0")) == [
        "t.yaml:7:33: spec.ports[0].port: expected greater than or equal to 1, found 0"
    ]


def test_items_of_a_list(folder) -> None:
    text = """\
apiVersion: v1
kind: List
items:
- apiVersion: arkonis.dev/v1alpha1
  kind: ArkAgent
  metadata: {name: a, uid: 3, resourceVersion: "7"}
  spec: {model: m, systemPrompt: p}
  status: {replicas: 1}
- apiVersion: arkonis.dev/v1alpha1
  kind: ArkAgent
  metadata: {name: b}
  spec: {model: m, systemPrompt: p, replica: 2}
"""
    assert folder.problems(text) == [
        't.yaml:12:37: items[1].spec.replica: unknown field "replica" (did you mean "replicas"?)'
    ]
    bundle = folder.load(text.replace("replica:", "replicas:"))
    assert list(bundle.agents) == ["a", "b"]


def test_what_every_document_must_have(folder) -> None:
    text = """\
kind: ArkAgent
---
apiVersion: arkonis.dev/v1alpha1
kind: ArkAgent
spec: {model: m, systemPrompt: p}
---
apiVersion: arkonis.dev/v1alpha1
kind: ArkAgent
metadata: {name: Not A Name, lables: {}}
specs: {}
---
apiVersion: arkonis.dev/v1alpha1
kind: ArkAgent
metadata: {}
spec: {model: m, systemPrompt: p}
"""
    assert folder.problems(text) == [
        't.yaml:1:1: "apiVersion" is required',
        't.yaml:3:1: "metadata" is required',
        't.yaml:7:1: "spec" is required',
        't.yaml:9:18: metadata.name: "Not A Name" is no name: lower-case letters, digits, "-" and '
        '"." make one, and it begins and ends with a letter or a digit',
        't.yaml:9:30: metadata.lables: unknown field "lables" (did you mean "labels"?)',
        't.yaml:10:1: specs: unknown field "specs" (did you mean "spec"?)',
        't.yaml:14:11: metadata: "name" is required',
    ]


def test_two_of_one_name(folder) -> None:
    assert folder.problems(f"{AGENT}---\n{AGENT}") == [
        't.yaml:8:18: metadata.name: there are two of kind ArkAgent called "a" '
        "(the other is at t.yaml:3)"
    ]


def test_a_team_and_a_flow_of_one_name(folder) -> None:
    flow = "apiVersion: {0}\nkind: {1}\nmetadata: {{name: x}}\nspec: {2}\n"
    api = "muster.dev/v1alpha1"
    steps = "{steps: [{name: s, arkAgent: a}]}"
    team = "{roles: [{name: r, arkAgent: a}]}"
    text = "---\n".join([AGENT, flow.format(api, "Flow", steps), flow.format(api, "Team", team)])
    assert folder.problems(text) == [
        't.yaml:13:18: metadata.name: there are a team and a flow called "x"'
    ]


# --- folders, the standard input ----------------------------------------------------------------


def test_a_folder(folder) -> None:
    folder.write("d/2.yaml", AGENT.replace("name: a", "name: b"))
    folder.write("d/1.yml", AGENT)
    folder.write(
        "d/3.json",
        '{"apiVersion": "muster.dev/v1alpha1", "kind": "Agent",\n'
        '\t"metadata": {"name": "c"}, "spec": {"target": "t"}}',
    )
    folder.write("d/targets.yaml", "targets: [{name: t, provider: echo}]\n")
    folder.write("d/notes.md", "apiVersion: no\n")
    folder.write("d/deeper/4.yaml", AGENT)
    bundle = folder.load_path(folder.path / "d")
    assert list(bundle.agents) == ["a", "b", "c"]
    assert [path.name for path in bundle.files] == ["1.yml", "2.yaml", "3.json", "targets.yaml"]


def test_problems_of_all_files_at_once(folder) -> None:
    folder.write("d/1.yaml", AGENT.replace("model", "modle"))
    folder.write("d/2.yaml", "apiVersion: [")
    folder.write("d/3.yaml", b"\xff apiVersion")
    with pytest.raises(ConfigError) as caught:
        folder.load_path(folder.path / "d")
    assert [folder.short(str(problem)) for problem in caught.value.problems] == [
        'd/1.yaml:4:8: spec.modle: unknown field "modle" (did you mean "model"?)',
        "d/2.yaml:2:1: not valid YAML: did not find expected node content "
        "(while parsing a flow node)",
        "d/3.yaml:1: not UTF-8 text",
    ]


def test_a_name_that_is_written_wrong_hides_no_other_mistake(folder) -> None:
    flow = """
        apiVersion: arkonis.dev/v1alpha1
        kind: ArkFlow
        metadata: {name: f}
        spec:
          maxTokns: 5
          steps:
            - {nme: a, arkAgent: nobody, dependOn: [b]}
            - {name: b, arkAgent: nobody, dependsOn: [a], inputs: {p: "{{ .steps.c.output }}"}}
    """
    assert [told.partition("spec.")[2] for told in folder.problems(flow)] == [
        'maxTokns: unknown field "maxTokns" (did you mean "maxTokens"?)',
        'steps[0].nme: unknown field "nme" (did you mean "name"?)',
        'steps[0].arkAgent: step "a" references unknown ArkAgent "nobody"',
        'steps[0].dependOn: unknown field "dependOn" (did you mean "dependsOn"?)',
        'steps[1].arkAgent: step "b" references unknown ArkAgent "nobody"',
        'steps[1].dependsOn[0]: cycle detected: step "b" → "a" forms a cycle',
        'steps[1].inputs.p: refers to step "c", which does not exist (known: a, b)',
    ]


def test_an_empty_folder(folder) -> None:
    (folder.path / "d").mkdir()
    with pytest.raises(ConfigError, match=r"d: no manifests here \(\*\.yaml, \*\.yml, \*\.json\)"):
        folder.load_path(folder.path / "d")


def test_no_such_file(folder) -> None:
    with pytest.raises(ConfigError, match=r"no\.yaml: no such file"):
        folder.load_path(folder.path / "no.yaml")


def test_the_standard_input(folder, monkeypatch) -> None:
    def given(text: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))

    given(AGENT)
    assert list(folder.load_path(Path("-")).agents) == ["a"]
    given(AGENT.replace("model", "modle"))
    with pytest.raises(ConfigError, match=r'<stdin>:4:8: spec.modle: unknown field "modle"'):
        folder.load_path(Path("-"))


# --- what is no manifest ------------------------------------------------------------------------

HELM = "this is a Helm template; render it first: helm template …"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("metadata:\n  name: {{ .Values.name }}\n", "2:9"),
        ("{{- if .Values.on }}\nkind: ArkTeam\n{{- end }}\n", "1:1"),
        ('metadata:\n  {{- include "labels" . | nindent 4 }}\n', "2:3"),
        (AGENT.replace(": p}", ": '{{ $.Release.Name }}'}"), "4:33"),
        ("# {{ .Values.no }}\n" + AGENT.replace(": p}", ": '{{- .Values.x }}'}"), "5:33"),
    ],
)
def test_a_helm_template(folder, text: str, place: str) -> None:
    assert folder.problems(text) == [f"t.yaml:{place}: {HELM}"]


def test_values_that_begin_with_braces(folder) -> None:
    assert folder.problems("spec:\n  output: {{ .steps.a.output }}\n") == [
        't.yaml:2:12: a key must be text (put a value that begins with "{{" in quotes)'
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n", "expected a mapping with apiVersion, kind, metadata and spec"),
        ("a: 1\n", 'not a manifest: "apiVersion" and "kind" are required'),
        ("targets: []\n", 'not a manifest: "kind" is required (is it a targets file?)'),
        ("tests: []\n", 'not a manifest: "kind" is required (is it a suite? see muster eval)'),
    ],
)
def test_other_files(folder, text: str, message: str) -> None:
    assert folder.problems(text) == [f"t.yaml:1:1: {message}"]
