"""Pictures of teams: what is in them, as Mermaid and as SVG."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from textwrap import dedent
from xml.etree import ElementTree

import pytest

from muster.reports.team_graph import Diagram, Edge, Node, diagram_of, mermaid
from muster.reports.team_layout import Layout, lay_out
from muster.reports.team_svg import svg
from muster.teams.manifests import load_manifests

Draw = Callable[[str], Diagram]

HEAD = """
apiVersion: muster.dev/v1alpha1
kind: Team
metadata: {name: big}
spec:
"""

MIXED = (
    HEAD
    + """
  entry: a
  roles:
    - {name: a, model: mock, systemPrompt: x, canDelegate: [helper]}
    - {name: b, model: mock, systemPrompt: x}
    - {name: c, model: mock, systemPrompt: x, canDelegate: [b]}
    - {name: helper, model: mock, systemPrompt: x}
  pipeline:
    - {role: a, inputs: {prompt: x}, loop: {condition: "false", maxIterations: 3}}
    - {role: b, dependsOn: [a], inputs: {prompt: x}, if: '{{ eq .steps.a.output "<&>" }}'}
    - {name: ok, dependsOn: [b], approval: "fine?"}
    - {role: c, dependsOn: [a, ok], inputs: {prompt: x}, forEach: '["x"]'}
"""
)

NESTED = """
apiVersion: muster.dev/v1alpha1
kind: Team
metadata: {name: inner}
spec:
  roles: [{name: x, model: m, systemPrompt: x}, {name: y, target: t}]
  pipeline: [{role: x, inputs: {prompt: x}}, {role: y, dependsOn: [x], inputs: {prompt: x}}]
---
apiVersion: muster.dev/v1alpha1
kind: Team
metadata: {name: outer}
spec:
  roles: [{name: first, model: m, systemPrompt: x}, {name: rest, arkTeam: inner}]
  pipeline:
    - {role: first, inputs: {prompt: x}}
    - {role: rest, dependsOn: [first], inputs: {prompt: x}}
"""


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    def made(text: str) -> Diagram:
        path = tmp_path / "team.yaml"
        path.write_text(dedent(text))
        return diagram_of(load_manifests(path, env=os.environ).pick_team())

    return made


def edges_of(diagram: Diagram) -> set[tuple[str, str, str]]:
    return {(edge.source, edge.kind, edge.target) for edge in diagram.edges}


def test_steps_conditions_loops_approvals_and_delegation(draw: Draw) -> None:
    diagram = draw(MIXED)
    assert {node.key: (node.shape, node.lines) for node in diagram.nodes} == {
        "step a": ("agent", ("mock",)),
        "step b": ("agent", ("mock", 'if {{ eq .steps.a.output "<&>" }}')),
        "step ok": ("approval", ("a person",)),
        "step c": ("agent", ("mock", "for each item")),
        "role helper": ("agent", ("mock",)),
    }
    assert edges_of(diagram) == {
        ("step a", "loop", "step a"),
        ("step a", "if", "step b"),
        ("step b", "after", "step ok"),
        ("step a", "after", "step c"),
        ("step ok", "after", "step c"),
        ("step a", "delegates", "role helper"),
        ("step c", "delegates", "step b"),
    }


def test_teams_without_a_pipeline(draw: Draw) -> None:
    dynamic = draw(
        HEAD
        + """
  entry: lead
  roles:
    - {name: lead, model: m, systemPrompt: x, canDelegate: [own]}
    - {name: own, arkAgent: somebody}
---
apiVersion: muster.dev/v1alpha1
kind: Agent
metadata: {name: somebody}
spec: {model: n, systemPrompt: x, capabilities: [{id: sums}]}
"""
    )
    assert [(node.title, node.lines) for node in dynamic.nodes] == [
        ("lead", ("entry", "m")),
        ("own", ("somebody (n)",)),
    ]
    assert edges_of(dynamic) == {("role lead", "delegates", "role own")}


def test_routed_teams(draw: Draw) -> None:
    routed = draw(
        """
        apiVersion: muster.dev/v1alpha1
        kind: Agent
        metadata: {name: sums}
        spec: {model: n, systemPrompt: x, capabilities: [{id: add}, {id: times}]}
        ---
        apiVersion: muster.dev/v1alpha1
        kind: Agent
        metadata: {name: host}
        spec: {model: n, systemPrompt: x}
        ---
        apiVersion: muster.dev/v1alpha1
        kind: Agent
        metadata: {name: nobody-asks}
        spec: {model: n, systemPrompt: x}
        ---
        apiVersion: muster.dev/v1alpha1
        kind: Registry
        metadata: {name: all}
        spec: {}
        ---
        apiVersion: muster.dev/v1alpha1
        kind: Team
        metadata: {name: desk}
        spec: {routing: {registryRef: {name: all}, model: cheap, fallback: host}}
        """
    )
    assert [(edge.target, edge.label) for edge in routed.edges] == [
        ("agent sums", "add, times"),
        ("agent host", "or else"),
    ]
    assert routed.nodes[0].lines == ("by cheap",)
    assert len(routed.nodes) == 3


def test_a_team_within_a_team(draw: Draw) -> None:
    diagram = draw(NESTED)
    rest = diagram.nodes[1]
    assert (rest.shape, rest.lines) == ("team", ("team inner",))
    assert rest.inside is not None
    assert edges_of(rest.inside) == {("step x", "after", "step y")}
    assert mermaid(diagram) == dedent(
        """\
        flowchart LR
          n0["first<br/>m"]
          subgraph n1["rest<br/>team inner"]
            n1_0["x<br/>m"]
            n1_1["y<br/>t"]
            n1_0 --> n1_1
          end
          n0 --> n1
        """
    )


def test_mermaid(draw: Draw) -> None:
    lines = mermaid(draw(MIXED)).splitlines()
    assert lines[:3] == [
        "flowchart LR",
        '  n0["a<br/>mock"]',
        '  n1["b<br/>mock<br/>if #123;#123; eq .steps.a.output #34;#60;#38;#62;#34; #125;#125;"]',
    ]
    assert lines[3:] == [
        '  n2{{"ok<br/>a person"}}',
        '  n3["c<br/>mock<br/>for each item"]',
        '  n4["helper<br/>mock"]',
        '  n0 -.->|"up to 3 more"| n0',
        '  n0 -.->|"if"| n1',
        "  n1 --> n2",
        "  n0 --> n3",
        "  n2 --> n3",
        '  n0 --o|"delegates"| n4',
        '  n3 --o|"delegates"| n1',
    ]


# --- the layout -----------------------------------------------------------------------------------


def test_levels_go_from_left_to_right_and_nothing_overlaps(draw: Draw) -> None:
    layout = lay_out(draw(MIXED))
    boxes = {box.node.key: box for box in layout.boxes if box.node is not None}
    for source, target in (("a", "b"), ("b", "ok"), ("ok", "c")):
        left, right = boxes[f"step {source}"], boxes[f"step {target}"]
        assert left.x + left.width < right.x
    _check_apart(layout)
    # The long arrow from a to c has a row of its own beside b and ok.
    (long,) = [r for r in layout.routes if (r.edge.source, r.edge.target) == ("step a", "step c")]
    assert [box.node is None for box in long.boxes] == [False, True, True, False]
    # c comes after b, so that its delegation to b leads back.
    assert [r.edge.target for r in layout.routes if r.backward] == ["step a", "step b"]


def _check_apart(layout: Layout) -> None:
    for one, other in combinations(layout.boxes, 2):
        apart_x = one.x + one.width <= other.x or other.x + other.width <= one.x
        apart_y = one.y + one.height <= other.y or other.y + other.height <= one.y
        assert apart_x or apart_y
    for box in layout.boxes:
        assert box.x >= 0 <= box.y
        assert box.x + box.width <= layout.width + 0.01
        assert box.y + box.height <= layout.height + 0.01


def test_crossings_are_taken_away() -> None:
    names = [f"{side}{number}" for side in "lr" for number in range(4)]
    nodes = tuple(Node(name, name) for name in names)
    edges = tuple(Edge(f"l{number}", f"r{3 - number}") for number in range(4))
    layout = lay_out(Diagram("x", nodes, edges))
    y = {box.node.key: box.y for box in layout.boxes if box.node is not None}
    for one, other in combinations(edges, 2):
        assert (y[one.source] < y[other.source]) == (y[one.target] < y[other.target])


def test_a_hundred_steps_are_laid_out(draw: Draw) -> None:
    nodes = tuple(Node(str(number), f"step {number}") for number in range(100))
    edges = tuple(
        Edge(str(number), str(later)) for number in range(100) for later in (number + 1, number + 7)
        if later < 100
    )  # fmt: skip
    layout = lay_out(Diagram("x", nodes, edges))
    _check_apart(layout)
    assert len(layout.routes) == len(edges)


# --- SVG ------------------------------------------------------------------------------------------

NS = {"s": "http://www.w3.org/2000/svg"}


def test_svg_is_good_xml_with_every_node_and_arrow(draw: Draw) -> None:
    diagram = draw(MIXED)
    root = ElementTree.fromstring(svg(diagram))
    nodes = root.findall(".//s:g[@data-key]", NS)
    assert [node.get("data-key") for node in nodes] == [node.key for node in diagram.nodes]
    told = [[text.text for text in node.findall("s:text", NS)] for node in nodes]
    assert told[1] == ["b", "mock", 'if {{ eq .steps.a.output "<&>" }}']
    arrows = root.findall(".//s:g[@data-from]", NS)
    assert {
        (arrow.get("data-from"), str(arrow.get("class")).split()[1], arrow.get("data-to"))
        for arrow in arrows
    } == edges_of(diagram)
    for arrow in arrows:
        (path,) = arrow.findall("s:path", NS)
        assert re.fullmatch(r"M[-\d. ]+( [CL][-\d. ]+)+", str(path.get("d")))


def test_svg_of_a_team_within_a_team(draw: Draw) -> None:
    root = ElementTree.fromstring(svg(draw(NESTED)))
    inner = root.findall(".//s:g[@data-key='step rest']//s:g[@data-key]", NS)
    assert [node.get("data-key") for node in inner] == ["step x", "step y"]


def test_svg_of_odd_characters() -> None:
    text = svg(Diagram("<&\x01", (Node("<\"'&\x0b>", "計画\ud800\x00"),), ()))
    root = ElementTree.fromstring(text)
    (node,) = root.findall(".//s:g[@data-key]", NS)
    assert node.get("data-key") == "<\"'&\ufffd>"
    assert [t.text for t in node.findall("s:text", NS)] == ["計画\ufffd\ufffd"]


def test_nothing_to_draw() -> None:
    root = ElementTree.fromstring(svg(Diagram("x", (), ())))
    assert root.findall(".//s:g[@data-key]", NS) == []
