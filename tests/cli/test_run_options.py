"""Options of `muster run` that do not go together, and those with which a run goes on."""

from __future__ import annotations

import os
import subprocess

import pytest
from muster_project import Project

TEAM = """
apiVersion: muster.dev/v1alpha1
kind: Team
metadata: {name: t}
spec:
  roles:
  - {name: research, model: mock, systemPrompt: Help.}
  - {name: summarize, model: mock, systemPrompt: Help.}
  pipeline:
  - {role: research, inputs: {prompt: x}}
  - {role: summarize, dependsOn: [research], inputs: {prompt: y}}
"""


@pytest.fixture
def team(project: Project) -> Project:
    project.write("team.yaml", TEAM)
    return project


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--mock", "--target", "x"), "--mock and --target x: only one can answer"),
        (("--provider", "echo", "--mock"), "--provider echo and --mock: only one can answer"),
        (("--mock", "--output", "no/such.txt"), "--output no/such.txt: there is no folder no"),
        (("--mock", "--output", "yaml"), '--output "yaml": the formats are text and json'),
        (("--mock", "--output", "JSON"), '--output "JSON": the formats are text and json'),
        (
            ("--mock", "--output", "."),
            '--output ".": expected text, json or a file',
        ),
        (("--resume", "latest", "--mock"), "--mock: a run goes on with what it was started with"),
    ],
)
def test_options_that_cannot_be(team: Project, options: tuple[str, ...], told: str) -> None:
    ended = team.run("run", "team.yaml", *options)
    assert ended.code == 2
    assert ended.err.startswith(f"error: {told}")
    assert not (team.root / ".muster" / "runs.db").exists()


def test_a_script_that_speaks_for_nobody(team: Project) -> None:
    script = "replies:\n- {role: reserch, text: x}\n- {role: [summarize, sum], text: y}\n"
    team.write("script.yaml", script)
    ended = team.run("run", "team.yaml", "--script", "script.yaml")
    assert ended.code == 2
    assert ended.err.splitlines() == [
        'error: script.yaml:2:10: replies[0].role: the team has no role "reserch" '
        '(did you mean "research"?)',
        'script.yaml:3:22: replies[1].role[1]: the team has no role "sum" '
        "(known: judge, research, router, summarize)",
    ]
    assert not (team.root / ".muster" / "runs.db").exists()


def test_bounds_may_be_given_anew(team: Project) -> None:
    first = team.run("run", "team.yaml", "--mock", "--max-tokens", "5")
    assert first.code == 4
    assert team.run("retry", "latest").code == 4
    then = team.run("retry", "latest", "--max-tokens", "5000")
    assert then.code == 0, then.text


def test_a_run_is_gone_on_with_beside_its_file(team: Project) -> None:
    team.write("other.yaml", (team.root / "team.yaml").read_text())
    assert team.run("run", "team.yaml", "--mock", "--max-tokens", "5").code == 4
    wrong = team.run("run", "other.yaml", "--resume", "latest")
    assert wrong.code == 2
    assert f"is of {team.root}/team.yaml, not of other.yaml" in wrong.err
    more = ("--max-tokens", "5000")
    assert team.run("run", "team.yaml", "--resume", "latest", *more).code == 0


def test_a_manifest_from_the_standard_input_is_given_again(team: Project) -> None:
    def given(text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            team.command(*arguments), input=text, cwd=team.root, env=team.environment(),
            capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip

    text = (team.root / "team.yaml").read_text()
    assert given(text, "run", "-", "--mock", "--max-tokens", "5").returncode == 4
    other = given(text + "---\n", "run", "--resume", "latest")
    assert "the standard input is not what it was when the run began" in other.stderr
    again = given(text, "run", "--resume", "latest", "--max-tokens", "5000")
    assert again.returncode == 0, again.stderr


def test_a_reader_that_goes_away_does_not_end_the_run(team: Project) -> None:
    read, write = os.pipe()
    os.close(read)
    process = team.start("run", "team.yaml", "--mock", "--watch", stdout=write)
    os.close(write)
    assert team.finish(process).code == 1  # the outcome could not be told
    rows = team.run("runs", "list", "--json").json()
    assert [row["status"] for row in rows] == ["succeeded"]


def test_an_ark_run_says_which_team_and_its_inputs(project: Project) -> None:
    project.write(
        "run.yaml",
        TEAM
        + """---
apiVersion: muster.dev/v1alpha1
kind: Team
metadata: {name: other}
spec:
  inputs: [{name: topic, required: true}, {name: style, default: plain}]
  roles: [{name: write, model: mock, systemPrompt: Help.}]
  pipeline: [{role: write, inputs: {prompt: "{{ .input.topic }}, {{ .input.style }}"}}]
---
apiVersion: muster.dev/v1alpha1
kind: Run
metadata: {name: once}
spec: {teamRef: {name: other}, input: {topic: bees, style: short}, maxTokens: 5}
""",
    )
    shown = project.run("run", "run.yaml", "--mock", "--dry-run", "--input", "style=long").out
    assert "Flow:   other\n" in shown
    assert "prompt: bees, long\n" in shown
    bounded = project.run("run", "run.yaml", "--mock")
    assert (bounded.code, "token budget of 5 of the run exceeded" in bounded.out) == (4, True)
    assert "Flow:   t\n" in project.run("run", "run.yaml", "--mock", "--dry-run", "--team", "t").out
