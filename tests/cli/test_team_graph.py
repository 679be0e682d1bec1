"""`muster graph`: where the picture goes, and of which team it is."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from muster_project import Project

TEAMS = """
    apiVersion: muster.dev/v1alpha1
    kind: Team
    metadata: {name: one}
    spec:
      roles: [{name: a, model: m, systemPrompt: x}]
      pipeline: [{role: a, inputs: {prompt: x}}]
    ---
    apiVersion: muster.dev/v1alpha1
    kind: Team
    metadata: {name: two}
    spec:
      roles: [{name: b, model: m, systemPrompt: x}]
      pipeline: [{role: b, inputs: {prompt: x}}]
"""


@pytest.fixture
def teams(project: Project) -> Project:
    project.write("team.yaml", TEAMS)
    return project


def test_mermaid_is_printed(teams: Project) -> None:
    ended = teams.run("graph", "team.yaml", "--team", "two")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == 'flowchart LR\n  n0["b<br/>m"]\n'


def test_of_several_teams_the_first(teams: Project) -> None:
    ended = teams.run("graph", "team.yaml", "--format", "svg")
    assert ended.code == 0
    assert 'warning: 2 teams found [one two] — running "one"' in ended.err
    title = ElementTree.fromstring(ended.out).find("{*}title")
    assert title is not None
    assert title.text == "one"


def test_the_files_name_tells_the_format(teams: Project) -> None:
    assert teams.run("graph", "team.yaml", "-o", "one.svg", "--team", "one").code == 0
    assert (teams.root / "one.svg").read_text().startswith("<svg ")
    assert teams.run("graph", "team.yaml", "-o", "one.mmd", "--team", "one").code == 0
    assert (teams.root / "one.mmd").read_text().startswith("flowchart LR\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("team.yaml", "--team", "tow"), 'team "tow" not found; available: [one two]'),
        (("nothing.yaml",), "nothing.yaml"),
        (("team.yaml", "--format", "png"), "png"),
        (("team.yaml", "--team", "one", "-o", "no/folder.svg"), "--output no/folder.svg: No such"),
    ],
)
def test_mistakes(teams: Project, arguments: tuple[str, ...], told: str) -> None:
    ended = teams.run("graph", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert told in ended.err
