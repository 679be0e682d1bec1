"""`--safe`, for files one did not write: no code runs, and what was refused is said."""

from __future__ import annotations

import pytest
from muster_project import Project

SUITE = "target: TARGET\ntests: [{id: a, input: q, assertions: [{type: regex, value: .}]}]\n"

TARGETS = """
targets:
  - {name: fine, provider: echo}
  - {name: command, provider: cli, command: touch ran; echo x}
  - {name: healthy, provider: mock, response: x}
  - {name: function, provider: function, function: "evil:answer"}
  - {name: dotted, provider: "evil:make"}
  - {name: project, provider: evil}
  - {name: recorded, provider: replay, file: ../../answers.jsonl}
"""

EVIL = """
import pathlib

pathlib.Path(__file__).with_name("ran").touch()


def answer(question):
    return question


def make(target):
    return answer
"""


@pytest.fixture
def stranger(project: Project) -> Project:
    """Files that leave a trace called `ran` when any code of theirs is run."""
    project.write(".muster/targets.yaml", TARGETS)
    project.write("evil.py", EVIL)
    project.write(".muster/evil.py", EVIL)
    project.write(
        ".muster/providers/evil.py", EVIL + "import muster\nmuster.register('evil', make)\n"
    )
    project.write(".muster/graders/judge.py", EVIL)
    (project.root.parent / "answers.jsonl").write_text('{"id": "a", "output": "x"}\n')
    return project


def traces(project: Project) -> list[str]:
    return [str(path.relative_to(project.root)) for path in project.root.rglob("ran")]


@pytest.mark.parametrize(
    ("target", "refused"),
    [
        ("command", 'targets[1]: --safe refuses the target "command": it runs a command'),
        ("function", "targets[3]: --safe refuses"),
        ("dotted", 'targets[4]: --safe refuses the target "dotted": provider "evil:make" is code'),
        ("project", 'targets[5].provider: unknown provider "evil"'),
        ("recorded", "targets[6]: "),
        ("exec:touch ran", "--safe refuses"),
        ("evil:make", '--safe refuses the target "evil:make": provider "evil:make" is code'),
    ],
)
def test_code_of_targets_is_refused(stranger: Project, target: str, refused: str) -> None:
    stranger.write("a.eval.yaml", SUITE.replace("TARGET", f'"{target}"'))
    ended = stranger.eval("a.eval.yaml", "--safe")
    assert ended.code == 2
    assert refused in ended.err
    assert traces(stranger) == []
    assert not (stranger.root / "run").exists()


def test_what_needs_no_code_runs_and_the_rest_is_named(stranger: Project) -> None:
    stranger.write("a.eval.yaml", SUITE.replace("TARGET", "fine"))
    ended = stranger.eval("a.eval.yaml", "--safe")
    assert ended.code == 0
    assert traces(stranger) == []
    warnings = ended.err.replace(f"{stranger.root}/", "").splitlines()
    for name in ("providers/evil.py", "graders/judge.py"):
        assert f"warning: --safe refuses project code: .muster/{name} was not loaded" in warnings
    # The same without --safe does run it: the traces are worth something.
    stranger.eval("a.eval.yaml", "-o", "second")
    assert sorted(traces(stranger)) == [".muster/graders/ran", ".muster/providers/ran"]


@pytest.mark.parametrize(
    ("tests", "refused"),
    [
        ("evil.py:answer", "--safe refuses"),
        ("../answers.jsonl", "is outside the project"),
        ("link.jsonl", "is outside the project"),
    ],
)
def test_tests_from_code_or_outside_are_refused(
    stranger: Project, tests: str, refused: str
) -> None:
    (stranger.root / "link.jsonl").symlink_to(stranger.root.parent / "answers.jsonl")
    stranger.write(
        "a.eval.yaml",
        f"target: fine\nassertions: [{{type: regex, value: .}}]\ntests: {tests}\n",
    )
    # Even for who would let the files of his own read outside.
    ended = stranger.eval("a.eval.yaml", "--safe", "--allow-outside")
    assert ended.code == 2
    assert ended.err.replace(f"{stranger.root}/", "").startswith("error: a.eval.yaml:3:8: tests: ")
    assert refused in ended.err
    assert traces(stranger) == []


def test_graders_are_the_built_in_ones(stranger: Project) -> None:
    stranger.write("a.eval.yaml", SUITE.replace("TARGET", "fine").replace("regex", "evil:make"))
    ended = stranger.eval("a.eval.yaml", "--safe")
    assert ended.code == 2
    assert "--safe refuses" in ended.err
    assert traces(stranger) == []


@pytest.mark.parametrize("command", ["validate", "targets check", "targets show command"])
def test_other_commands_take_it_too(stranger: Project, command: str) -> None:
    stranger.write("a.eval.yaml", SUITE.replace("TARGET", "command"))
    ended = stranger.run(*command.split(), "--safe")
    assert ended.code == {"validate": 2, "targets check": 1, "targets show command": 0}[command]
    assert traces(stranger) == []


def test_allow_outside(stranger: Project) -> None:
    stranger.write(
        "a.eval.yaml",
        "target: fine\nassertions: [{type: regex, value: .}]\ntests: ../cases.jsonl\n",
    )
    (stranger.root.parent / "cases.jsonl").write_text('{"id": "a", "input": "x"}\n')
    assert stranger.eval("a.eval.yaml").code == 2
    assert stranger.eval("a.eval.yaml", "--allow-outside").code == 0
    assert stranger.statuses() == {"a": "ok"}
