"""Which team is meant."""

from __future__ import annotations

import pytest

from muster.errors import UsageError

AGENT = """\
apiVersion: arkonis.dev/v1alpha1
kind: ArkAgent
metadata: {name: a}
spec: {model: m, systemPrompt: p}
"""


def flow(name: str) -> str:
    return (
        "---\napiVersion: arkonis.dev/v1alpha1\nkind: ArkFlow\n"
        f"metadata: {{name: {name}}}\nspec: {{steps: [{{name: s, arkAgent: a}}]}}\n"
    )


def team(name: str, inner: str = "arkAgent: a") -> str:
    return (
        "---\napiVersion: arkonis.dev/v1alpha1\nkind: ArkTeam\n"
        f"metadata: {{name: {name}}}\nspec: {{roles: [{{name: r, {inner}}}]}}\n"
    )


def test_the_only_one(folder) -> None:
    bundle = folder.load(AGENT + flow("f"))
    assert bundle.pick_team().name == "f"
    assert bundle.pick_team("f").name == "f"
    assert bundle.warnings == []


def test_the_first_of_several(folder) -> None:
    bundle = folder.load(AGENT + flow("skiplast") + flow("skipfwd"))
    assert bundle.pick_team().name == "skiplast"
    assert bundle.warnings == [
        '2 flows found [skiplast skipfwd] — running "skiplast" (use --flow <name> to pick)'
    ]
    mixed = folder.load(AGENT + team("t") + flow("f"))
    assert mixed.pick_team().name == "t"
    assert mixed.warnings == ['2 teams found [t f] — running "t" (use --team <name> to pick)']


def test_a_team_that_is_another_ones_role_is_not_meant(folder) -> None:
    bundle = folder.load(AGENT + team("inner") + team("outer", "arkTeam: inner"))
    assert bundle.pick_team().name == "outer"
    assert bundle.warnings == []
    assert bundle.pick_team("inner").name == "inner"


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (flow("research"), "zz", 'flow "zz" not found; available: [research]'),
        (
            flow("research") + team("write"),
            "wriet",
            'team "wriet" not found; available: [research write] (did you mean "write"?)',
        ),
        ("", None, "no ArkTeam or ArkFlow found in t.yaml"),
        ("", "zz", "no ArkTeam or ArkFlow found in t.yaml"),
    ],
)
def test_no_such_team(folder, text: str, name: str | None, message: str) -> None:
    bundle = folder.load(AGENT + text)
    with pytest.raises(UsageError) as caught:
        bundle.pick_team(name)
    assert folder.short(str(caught.value)) == message
