"""`muster validate` on manifests: its lines, and what it finds."""

from __future__ import annotations

import pytest
from muster_project import Project

TEAM = """
    apiVersion: arkonis.dev/v1alpha1
    kind: ArkTeam
    metadata: {name: report}
    spec:
      roles:
        - {name: research, model: claude-sonnet-4-5, systemPrompt: You find facts.}
        - {name: summarize, arkAgent: summarizer}
      pipeline:
        - {role: research, inputs: {prompt: x}}
        - {role: summarize, dependsOn: [research], inputs: {prompt: x}}
"""

AGENT = """
    apiVersion: arkonis.dev/v1alpha1
    kind: ArkAgent
    metadata: {name: summarizer}
    spec: {model: claude-sonnet-4-5, systemPrompt: You sum up.}
"""

GOOD = [
    "  DAG          ok  (2 steps, 0 cycles)",
    "  Agents       ok  (report-research, summarizer)",
    "  Schema       ok",
    "Validation passed.",
]

SUITE = "tests: [{id: a, input: x, assert: [{type: equals, value: x}]}]\n"


def test_a_good_one(project: Project) -> None:
    project.write("team.yaml", f"{TEAM}    ---{AGENT}")
    ended = project.run("validate", "team.yaml")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines() == GOOD


def test_a_folder_is_one_set(project: Project) -> None:
    project.write("app/team.yaml", TEAM)
    project.write("app/agents.yaml", AGENT)
    assert project.run("validate", "app").out.splitlines() == GOOD
    ended = project.run("validate", "app/team.yaml")
    assert ended.code == 2
    line, *others, last = ended.out.splitlines()
    assert line.startswith("  Agents       error  app/team.yaml:7:")
    assert 'references unknown ArkAgent "summarizer"' in line
    assert (others, last) == ([], "Validation failed.")


def test_folders_in_a_folder_are_sets_of_their_own(project: Project) -> None:
    project.write("one/deep/team.yaml", f"{TEAM}    ---{AGENT}")
    project.write("two/team.yaml", TEAM)
    project.write("chart/pod.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n")
    project.write("node_modules/team.yaml", TEAM)
    ended = project.run("validate", ".")
    assert ended.code == 2
    lines = ended.out.splitlines()
    assert lines[:5] == ["one/deep:", *GOOD]
    assert lines[5] == "two:"
    assert lines[6].startswith("  Agents       error  two/team.yaml:7:")
    assert (lines[7:], ended.err) == (["Validation failed."], "")
    assert project.run("validate", "one").out.splitlines() == ["one/deep:", *GOOD]


def test_beside_suites_and_targets(project: Project) -> None:
    project.write("team.yaml", f"{TEAM}    ---{AGENT}")
    project.write("targets.yaml", "targets: [{name: m, provider: mock}]\n")
    project.write("deep/a.eval.yaml", SUITE)
    ended = project.run("validate")
    assert ended.code == 0
    assert ended.out.splitlines() == [
        f"ok  {project.root}/deep/a.eval.yaml: 1 case on m",
        f"ok  {project.root}/targets.yaml: targets m",
        ".:",
        *GOOD,
    ]
    ended = project.run("validate", "team.yaml", "deep", "targets.yaml")
    assert ended.code == 0
    assert ended.out.splitlines()[2:] == ["team.yaml:", *GOOD]


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (
            "inputs: {prompt: x}}\n        - {role: summ",
            "dependsOn: [summarize], inputs: {prompt: x}}\n        - {role: summ",
            "  DAG          error  cycle detected: summarize → research → summarize  "
            "(team.yaml:10:37:",
        ),
        ("dependsOn: [research]", "dependsOn: [reserch]", "  DAG          error  team.yaml:10:"),
        ("role: research", "role: reserch", "  Agents       error  team.yaml:9:"),
        ("systemPrompt: You find", "sytemPrompt: You find", "  Schema       error  team.yaml:6:"),
        ("{prompt: x}}", "{prompt: '{{ .inpt'}}", "  Schema       error  team.yaml:9:"),
    ],
)
def test_what_is_wrong_stands_under_its_title(
    project: Project, old: str, new: str, line: str
) -> None:
    text = f"{TEAM}    ---{AGENT}"
    assert old in text
    project.write("team.yaml", text.replace(old, new, 1))
    ended = project.run("validate", "team.yaml")
    assert ended.code == 2
    told = ended.out.splitlines()
    assert any(row.startswith(line) for row in told), ended.out
    assert told[-1] == "Validation failed."


TOOLS = """
    apiVersion: muster.dev/v1alpha1
    kind: Team
    metadata: {name: t}
    spec:
      roles:
        - name: a
          model: claude-sonnet-4-5
          systemPrompt: x
          pythonTools: PYTHON
          tools: [{name: search, url: "http://tools.example/search"}]
      pipeline: [{role: a, inputs: {prompt: x}}]
"""


@pytest.mark.parametrize(
    ("python", "told"),
    [
        ("[{path: 'own:find', name: search}]", 'there are two tools called "search"'),
        ("['own:fnd']", "own"),
        ("['nowhere:find']", "nowhere"),
    ],
)
def test_tools_that_cannot_be_had(project: Project, python: str, told: str) -> None:
    project.write("own.py", "def find(text: str) -> str:\n    return text\n")
    project.write("t.yaml", TOOLS.replace("PYTHON", python))
    ended = project.run("validate", "t.yaml")
    assert ended.code == 2
    (line,) = ended.out.splitlines()[:-1]
    assert line.startswith("  Schema       error  t.yaml:")
    assert told in line
    ran = project.run("run", "t.yaml", "--mock")
    assert (ran.code, told in ran.err) == (2, True)
    assert not (project.root / ".muster" / "runs.db").exists()
    project.write("t.yaml", TOOLS.replace("PYTHON", "['own:find']"))
    assert project.run("validate", "t.yaml").code == 0


@pytest.mark.parametrize(
    ("agent", "told"),
    [
        ("model: a-model-of-nobody", 'which provider has the model "a-model-of-nobody"?'),
        ("model: x, provider: antropic", 'unknown provider "antropic"'),
        ("target: nobody", "nobody"),
    ],
)
def test_providers_are_made_when_asked_for(project: Project, agent: str, told: str) -> None:
    text = f"{TEAM}    ---{AGENT}".replace("model: claude-sonnet-4-5", agent, 1)
    project.write("team.yaml", text)
    assert project.run("validate", "team.yaml").code == 0
    ended = project.run("validate", "team.yaml", "--check-providers")
    assert ended.code == 2
    assert told in ended.out
    assert ended.out.endswith("Validation failed.\n")


def test_values_and_warnings(project: Project) -> None:
    project.write(
        "team.yaml",
        f"{TEAM}    ---{AGENT}".replace(
            "systemPrompt: You sum up.", "systemPromptRef: {configMapKeyRef: {name: p, key: k}}"
        )
        + "    ---\n    apiVersion: apps/v1\n    kind: Deployment\n    metadata: {name: d}\n",
    )
    project.write("values/p/k", "You sum up.")
    assert project.run("validate", "team.yaml").code == 2
    ended = project.run("validate", "team.yaml", "--values", "values")
    assert ended.code == 0
    assert 'kind "Deployment" of apps/v1 means nothing here' in ended.err
    strict = project.run("validate", "team.yaml", "--values", "values", "--max-warnings", "0")
    assert strict.code == 2


def test_tests_of_teams_are_checked(project: Project) -> None:
    project.write("app/team.yaml", f"{TEAM}    ---{AGENT}")
    project.write("app/team.test.yaml", "tests: [{name: a}, {name: b}]")
    ended = project.run("validate", "app/team.test.yaml")
    assert (ended.code, ended.text) == (0, "ok  app/team.test.yaml: 2 tests of app/team.yaml\n")
    ended = project.run("validate", "app")
    assert ended.out.splitlines() == [
        "ok  app/team.test.yaml: 2 tests of app/team.yaml",
        "app:",
        *GOOD,
    ]
    project.write("app/team.test.yaml", "replies: [{role: reserch, text: x}]")
    told = (
        'app/team.test.yaml:1:18: replies[0].role: the team has no role "reserch" '
        '(did you mean "research"?)\n'
    )
    for path in ("app", "app/team.test.yaml", "."):
        ended = project.run("validate", path)
        assert (ended.code, ended.err) == (2, told)


def test_tests_that_cannot_be_read_or_have_no_team(project: Project) -> None:
    project.write("a.test.yaml", "tests: [{name: x}]")
    project.write("b.yaml", f"{TEAM}    ---{AGENT}")
    project.write("b.test.yaml", "tests: {}")
    ended = project.run("validate", "a.test.yaml", "b.test.yaml")
    assert ended.code == 2
    assert ended.err.splitlines() == [
        "a.test.yaml: the team that these tests are of is not there: a.yaml",
        "b.test.yaml:1:8: tests: expected a list, found a mapping",
    ]


def test_what_is_wrong_with_a_team_is_told_once(project: Project) -> None:
    project.write("team.yaml", TEAM)
    project.write("team.test.yaml", "tests: [{name: a}, {name: b}]")
    ended = project.run("validate")
    assert ended.code == 2
    assert ended.text.count("references unknown ArkAgent") == 1


def test_a_suite_that_is_a_gate_is_read_too(project: Project) -> None:
    gate = "dependsOn: [research], validate: {suite: gate.eval.yaml}"
    project.write("team.yaml", f"{TEAM}    ---{AGENT}".replace("dependsOn: [research]", gate))
    project.write(
        "gate.eval.yaml", "assertions: [{type: containz, value: x}]\ntests: [{input: y}]\n"
    )
    ended = project.run("validate", "team.yaml")
    assert ended.code == 2
    assert 'gate.eval.yaml:1:21: assertions[0].type: unknown grader "containz"' in ended.out
