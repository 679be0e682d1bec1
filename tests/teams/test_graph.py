"""Orders, levels and cycles of graphs, and what is said about good manifests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.errors import ConfigError
from muster.teams.graph import (
    ancestors,
    delegation,
    dependencies,
    failure_lines,
    find_cycle,
    levels,
    topological_order,
    validate_lines,
)
from muster.teams.manifests import load_manifests

Graph = Mapping[str, Sequence[str]]


@pytest.mark.parametrize(
    ("graph", "edge"),
    [
        ({}, None),
        ({"a": [], "b": ["a"]}, None),
        ({"a": ["b"], "b": ["a"]}, ("b", "a")),
        ({"a": ["a"]}, ("a", "a")),
        ({"a": ["zz"]}, None),
        ({"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": []}, None),
        ({"x": [], "a": ["x", "b"], "b": ["c"], "c": ["a"]}, ("c", "a")),
    ],
)
def test_cycles(graph: Graph, edge: tuple[str, str] | None) -> None:
    found = find_cycle(graph)
    assert (found and found[:2]) == edge


def test_the_way_around_a_cycle() -> None:
    graph = {"a": ["b"], "b": ["c"], "c": ["x", "d"], "d": ["b"], "x": []}
    assert find_cycle(graph) == ("d", "b", "c", "d")
    assert find_cycle({"a": ["a"]}) == ("a", "a")


def test_order_is_that_of_the_file_where_it_can_be() -> None:
    graph = {"c": ["a"], "b": [], "a": [], "d": ["c", "b"]}
    assert topological_order(graph) == ["a", "c", "b", "d"]


def test_levels() -> None:
    graph = {"d": ["b", "c"], "a": [], "b": ["a"], "c": [], "e": ["c", "unknown"]}
    assert levels(graph) == [["a", "c"], ["b", "e"], ["d"]]
    assert levels({}) == []


def test_ancestors() -> None:
    graph = {"a": [], "b": ["a", "zz"], "c": ["b"], "d": []}
    assert ancestors(graph) == {
        "a": frozenset(),
        "b": {"a"},
        "c": {"a", "b"},
        "d": frozenset(),
    }
    assert ancestors({"a": ["b"], "b": ["a"]}) == {"a": {"a", "b"}, "b": {"a", "b"}}


def test_a_long_chain() -> None:
    chain = {"s0": []} | {f"s{n}": [f"s{n - 1}"] for n in range(1, 5000)}
    backwards: dict[str, list[str]] = dict(reversed(chain.items()))
    assert find_cycle(backwards) is None
    assert topological_order(backwards) == list(chain)
    assert len(levels(backwards)) == 5000


@given(st.dictionaries(st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdef"), max_size=3)))
def test_orders_of_any_graph(graph: dict[str, list[str]]) -> None:
    edge = find_cycle(graph)
    if edge is not None:
        start, end = edge[:2]
        assert edge[-1] == start
        assert all(after in graph[before] for before, after in pairwise(edge))
        assert end in graph[start]
        assert start == end or start in ancestors(graph)[end]
        return
    order = topological_order(graph)
    assert sorted(order) == sorted(graph)
    place = {name: number for number, name in enumerate(order)}
    level = {name: number for number, names in enumerate(levels(graph)) for name in names}
    for name, others in graph.items():
        for other in others:
            if other in graph:
                assert place[other] < place[name]
                assert level[other] < level[name]
                assert other in ancestors(graph)[name]


AGENTS = """\
apiVersion: muster.dev/v1alpha1
kind: Agent
metadata: {name: research-agent}
spec: {model: m, systemPrompt: p, capabilities: [{id: find}]}
---
apiVersion: muster.dev/v1alpha1
kind: Agent
metadata: {name: summarizer}
spec: {model: m, systemPrompt: p}
"""
FLOW = """\
---
apiVersion: muster.dev/v1alpha1
kind: Flow
metadata: {name: f}
spec:
  steps:
  - {name: s1, arkAgent: research-agent}
  - {name: s2, arkAgent: summarizer, dependsOn: [s1]}
"""
TEAMS = """\
---
apiVersion: muster.dev/v1alpha1
kind: Team
metadata: {name: d}
spec:
  entry: lead
  roles:
  - {name: lead, arkAgent: summarizer, canDelegate: [deep, self]}
  - {name: deep, arkTeam: f}
  - {name: self, model: m, systemPrompt: p}
---
apiVersion: muster.dev/v1alpha1
kind: Registry
metadata: {name: reg}
spec: {}
---
apiVersion: muster.dev/v1alpha1
kind: Team
metadata: {name: r}
spec: {routing: {registryRef: {name: reg}, model: m}}
---
apiVersion: muster.dev/v1alpha1
kind: Event
metadata: {name: nightly}
spec: {source: {type: cron, cron: "@daily"}, targets: [{team: r}]}
"""


def lines(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "team.yaml"
    path.write_text(text)
    return validate_lines(load_manifests(path, env={}))


def test_lines_of_one_flow(tmp_path: Path) -> None:
    assert lines(tmp_path, AGENTS + FLOW) == [
        "  DAG          ok  (2 steps, 0 cycles)",
        "  Agents       ok  (research-agent, summarizer)",
        "  Schema       ok",
        "Validation passed.",
    ]


def test_lines_of_several_teams(tmp_path: Path) -> None:
    assert lines(tmp_path, AGENTS + FLOW + TEAMS) == [
        "Flow: f",
        "  DAG          ok  (2 steps, 0 cycles)",
        "  Agents       ok  (research-agent, summarizer)",
        "Team: d",
        "  Delegation   ok  (3 roles, 0 cycles)",
        "  Agents       ok  (summarizer, team f, d-self)",
        "Team: r",
        "  Routing      ok  (3 agents, 1 capability)",
        "  Schema       ok",
        "  Events       ok  (nightly)",
        "Validation passed.",
    ]


def test_lines_of_agents_alone(tmp_path: Path) -> None:
    assert lines(tmp_path, AGENTS) == [
        "  Agents       ok  (research-agent, summarizer)",
        "  Schema       ok",
        "Validation passed.",
    ]


def test_lines_of_what_is_wrong(tmp_path: Path) -> None:
    text = AGENTS + FLOW.replace("research-agent}", "reserch-agent, dependsOn: [s2]}") + TEAMS
    text = text.replace("[deep, self]", "[deep, lead]").replace("team: r}", "tema: r}")
    path = tmp_path / "team.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_manifests(path, env={})
    told = [line.replace(f"{tmp_path}/", "") for line in failure_lines(caught.value)]
    assert told == [
        "  DAG          error  cycle detected: s2 → s1 → s2  "
        "(team.yaml:17:50: spec.steps[1].dependsOn[0])",
        "  Delegation   error  cycle detected: lead → lead  "
        "(team.yaml:25:60: spec.roles[0].canDelegate[1])",
        '  Agents       error  team.yaml:16:26: spec.steps[0].arkAgent: step "s1" references '
        'unknown ArkAgent "reserch-agent" (did you mean "research-agent"?)',
        '  Schema       error  team.yaml:42:57: spec.targets[0].tema: unknown field "tema" '
        '(did you mean "team"?)',
        "Validation failed.",
    ]


def test_graphs_of_a_team(tmp_path: Path) -> None:
    path = tmp_path / "team.yaml"
    path.write_text(AGENTS + FLOW + TEAMS)
    teams = load_manifests(path, env={}).teams
    assert dependencies(teams["f"]) == {"s1": (), "s2": ("s1",)}
    assert delegation(teams["d"]) == {"lead": ("deep", "self"), "deep": (), "self": ()}
