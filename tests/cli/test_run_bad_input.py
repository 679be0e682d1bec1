"""What goes wrong with a team: one clear message, the right exit code, a journal that can be read,
no process left (which `project.run` looks at)."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from muster_project import Project

ROGUE = Path(__file__).parents[1] / "tools" / "rogue_server.py"

TEAM = """\
apiVersion: muster.dev/v1alpha1
kind: Team
metadata: {name: t}
spec:
  roles:
    - name: ask
      model: mock
      systemPrompt: Ask.
"""
CALL = """\
replies:
  - {turn: 1, tool_calls: [{tool: rogue__go, input: {}}]}
  - {turn: 2, text: done}
"""


def team_with(project: Project, mode: str, **server: Any) -> None:
    """A team whose one agent calls the tool of a server that misbehaves."""
    spec = {"name": "rogue", "command": sys.executable, "args": [str(ROGUE), mode], **server}
    project.write(
        "team.yaml",
        TEAM
        + f"      mcpServers: [{json.dumps(spec)}]\n"
        + '  pipeline: [{role: ask, inputs: {prompt: "go"}}]\n',
    )
    project.write("script.yaml", CALL)


def calls(project: Project) -> list[tuple[str, str]]:
    """What the journal has of tool calls: status and result."""
    with sqlite3.connect(project.root / ".muster" / "runs.db") as journal:
        assert journal.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return journal.execute("SELECT status, result FROM calls ORDER BY id").fetchall()


def test_a_result_of_50_mb_is_cut(project: Project) -> None:
    team_with(project, "huge")
    ended = project.run("run", "team.yaml", "--script", "script.yaml")
    assert ended.code == 0, ended.text
    ((status, result),) = calls(project)
    assert status == "ok"
    assert 900_000 < len(result) < 1_100_000
    assert "50,000,000" in result[-300:]


def test_a_binary_result_is_described(project: Project) -> None:
    team_with(project, "binary")
    ended = project.run("run", "team.yaml", "--script", "script.yaml")
    assert ended.code == 0, ended.text
    assert calls(project) == [("ok", "[image/png, 12,345 bytes]")]


def test_a_server_that_dies_amid_a_call(project: Project) -> None:
    team_with(project, "dies")
    ended = project.run("run", "team.yaml", "--script", "script.yaml")
    assert ended.code == 0, ended.text  # the model was told, and went on
    ((status, result),) = calls(project)
    assert status == "error"
    assert "error: " in result
    assert "the disk is on fire" in result


def test_a_server_that_never_answers_initialize(project: Project) -> None:
    team_with(project, "mute", startupTimeoutSeconds=0.5)
    project.write("script.yaml", "replies: [{text: without tools}]\n")
    began = time.monotonic()
    ended = project.run("run", "team.yaml", "--script", "script.yaml")
    assert time.monotonic() - began < 10
    assert ended.code == 0, ended.text
    assert ended.err.count("rogue") == 1
    assert "waiting for the database" in ended.err


def refused(project: Project, team: str, *arguments: str) -> str:
    """The message of a team that is refused before any call."""
    project.write("team.yaml", team)
    ended = project.run("run", "team.yaml", "--mock", *arguments)
    assert ended.code == 2, ended.text
    assert ended.out == ""
    assert not (project.root / ".muster" / "runs.db").exists()
    return ended.err


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        (
            """\
    - {name: a, model: mock, systemPrompt: A., canDelegate: [b]}
    - {name: b, model: mock, systemPrompt: B., canDelegate: [a]}
  entry: a
""",
            'cycle detected: role "',
        ),
        ('  pipeline: [{role: aks, inputs: {prompt: "x"}}]\n', 'did you mean "ask"?'),
        (
            """\
  pipeline:
    - {role: ask, inputs: {prompt: "x"}, outputSchema: '{"type": "objct"}'}
""",
            "team.yaml:10:",
        ),
        ('  pipeline: [{role: ask, inputs: {prompt: "{{ .input.x "}}]\n', "team.yaml:9:"),
    ],
    ids=["delegates", "role", "schema", "template"],
)
def test_a_team_that_cannot_be(project: Project, rest: str, message: str) -> None:
    told = refused(project, TEAM + rest)
    assert message in told
    assert "team.yaml:" in told


def test_a_helm_template(project: Project) -> None:
    told = refused(project, TEAM.replace("name: t}", "name: {{ .Values.name }}}"))
    assert "Helm template" in told
    assert "helm template" in told


def test_an_input_that_is_a_list(project: Project) -> None:
    team = TEAM + '  pipeline: [{role: ask, inputs: {prompt: "x"}}]\n'
    assert refused(project, team, "--input", "[1]") == (
        "error: --input [1]: expected a JSON object, found a list\n"
    )


def test_an_input_that_python_alone_takes_for_json(project: Project) -> None:
    declared = TEAM.replace("spec:", "spec:\n  inputs: [{name: n, type: number}]")
    team = declared + '  pipeline: [{role: ask, inputs: {prompt: "x"}}]\n'
    assert refused(project, team, "--input", "n=NaN") == (
        'error: team "t": input "n": expected number, found "NaN"\n'
    )
    told = refused(project, team, "--input", '{"n": Infinity}')
    assert told.endswith("not JSON: Infinity is no number of JSON\n")


def test_a_loop_that_would_never_end(project: Project) -> None:
    endless = '{{ define \\"x\\" }}{{ template \\"x\\" . }}{{ end }}{{ template \\"x\\" . }}'
    project.write(
        "team.yaml", TEAM + f'  pipeline: [{{role: ask, inputs: {{prompt: "{endless}"}}}}]\n'
    )
    ended = project.run("run", "team.yaml", "--mock")
    assert ended.code in (1, 2), ended.text
    assert "team.yaml:9:" in ended.text


def test_secrets_in_prompts_are_masked_wherever_they_are_written(project: Project) -> None:
    project.write(
        "team.yaml", TEAM + '  pipeline: [{role: ask, inputs: {prompt: "{{ .input.q }}"}}]\n'
    )
    project.write("script.yaml", "default: your key is sk-very-hidden-1\n")
    ended = project.run(
        "run", "team.yaml", "--script", "script.yaml", "--watch", "--trace",
        "--input", "q=use sk-very-hidden-1", env={"SHOP_API_KEY": "sk-very-hidden-1"},
    )  # fmt: skip
    assert ended.code == 0, ended.text
    journal = (project.root / ".muster" / "runs.db").read_bytes()
    for suffix in ("-wal",):
        path = project.root / ".muster" / f"runs.db{suffix}"
        journal += path.read_bytes() if path.exists() else b""
    assert b"very-hidden" not in journal
    assert "very-hidden" not in ended.text


def test_secrets_are_not_in_prompts_that_are_only_shown(project: Project) -> None:
    project.write(
        "team.yaml",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: k}\nstringData: {t: very-hidden-2}\n---\n"
        + TEAM.replace("Ask.", "Ask.\n      envFrom: [{secretRef: {name: k}}]")
        + '  pipeline: [{role: ask, inputs: {prompt: "very-hidden-2"}}]\n',
    )
    ended = project.run("run", "team.yaml", "--mock", "--dry-run")
    assert (ended.code, "prompt: **********" in ended.out) == (0, True)
    assert "very-hidden" not in ended.text


FULL_DISK = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
sys.argv = ["muster", "run", "team.yaml", "--script", "script.yaml"]
from muster.cli.main import main
main()
"""


def test_a_journal_that_can_grow_no_more(project: Project) -> None:
    project.write(
        "team.yaml",
        TEAM + "  pipeline: [{role: ask, loop: {condition: 'true', maxIterations: 100}, "
        'inputs: {prompt: "go"}}]\n',
    )
    project.write("script.yaml", f"default: {'x' * 20_000}\n")
    ended = subprocess.run(
        [sys.executable, "-c", FULL_DISK],
        cwd=project.root,
        env=project.environment(None),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1, ended.stderr
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: run t-")
    assert "runs.db: " in line
    told = project.run("runs", "list")
    assert (told.code, len(told.out.splitlines())) == (0, 3)
    assert project.run("run", "--resume", "latest").code == 0
