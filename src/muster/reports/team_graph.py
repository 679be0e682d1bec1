"""The picture of a team, before it is drawn: what its nodes and arrows are, and it as Mermaid."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from muster.teams.definition import Agent, Role, Step, Team

__all__ = ("Diagram", "Edge", "Node", "diagram_of", "mermaid")

_LONGEST = 48


@dataclass(frozen=True, slots=True)
class Node:
    """A step, a role, a router, or an agent that can be chosen."""

    key: str
    title: str
    lines: tuple[str, ...] = ()
    shape: Literal["agent", "approval", "choice", "team"] = "agent"
    inside: Diagram | None = None
    """Of a team that is a role: its own picture."""


@dataclass(frozen=True, slots=True)
class Edge:
    """An arrow. `if`: the target may be skipped; `loop`: it leads back to where it began."""

    source: str
    target: str
    kind: Literal["after", "if", "loop", "delegates", "routes"] = "after"
    label: str = ""


@dataclass(frozen=True, slots=True)
class Diagram:
    """Nodes in the order of the file, and arrows between them by their keys."""

    title: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]


def diagram_of(team: Team) -> Diagram:
    """The picture of `team`: its steps, whom its roles delegate to, or whom it is routed to."""
    nodes: dict[str, Node] = {}
    edges: list[Edge] = []
    if team.routing is not None:
        nodes, edges = _routed(team)
    for step in team.steps:
        node = _of_step(team, step)
        nodes[node.key] = node
    for step in team.steps:
        edges += _edges_of(step)
    _delegation(team, nodes, edges)
    return Diagram(team.name, tuple(nodes.values()), tuple(edges))


# --- steps ----------------------------------------------------------------------------------------


def _key(step: str) -> str:
    return f"step {step}"


def _of_step(team: Team, step: Step) -> Node:
    role = team.roles.get(step.role or "")
    lines = [_who(team, step, role)]
    if step.condition is not None:
        lines.append(f"if {step.condition.source}")
    if step.for_each is not None:
        lines.append(f"for each {step.for_each.variable}")
    if step.approval is not None and (step.role is not None or step.lookup is not None):
        lines.append("asks first")
    shape: Literal["agent", "approval", "choice", "team"] = "agent"
    if step.approval is not None:
        shape = "approval"
    elif step.lookup is not None:
        shape = "choice"
    inside = None
    if role is not None and role.team is not None:
        shape, inside = "team", diagram_of(role.team)
    shown = tuple(_short(line) for line in lines if line and line != step.name)
    return Node(_key(step.name), step.name, shown, shape, inside)


def _who(team: Team, step: Step, role: Role | None) -> str:
    if step.lookup is not None:
        return f"who can {step.lookup.capability}"
    if role is None:
        return "a person"
    return f"team {role.team.name}" if role.team is not None else _of_agent(team, role)


def _of_agent(team: Team, role: Role) -> str:
    """Who answers for the role's agent; and the agent's name, if it has one of its own."""
    agent = role.agent
    if agent is None:
        return ""
    answers = _answering(agent)
    if not answers or agent.name in (role.name, f"{team.name}-{role.name}"):
        return answers
    return f"{agent.name} ({answers})"


def _answering(agent: Agent) -> str:
    return agent.target or agent.model or agent.provider or ""


def _edges_of(step: Step) -> Iterator[Edge]:
    for other in dict.fromkeys(step.depends_on):
        if step.condition is not None:
            yield Edge(_key(other), _key(step.name), "if", "if")
        else:
            yield Edge(_key(other), _key(step.name))
    if step.loop is not None:
        label = f"up to {step.loop.max_iterations} more"
        yield Edge(_key(step.name), _key(step.name), "loop", label)


# --- delegation -----------------------------------------------------------------------------------


def _delegation(team: Team, nodes: dict[str, Node], edges: list[Edge]) -> None:
    """Roles that hand tasks on; one that has a step is that step."""
    if team.mode not in ("dynamic", "mixed"):
        return
    of_role = {step.role: _key(step.name) for step in reversed(team.steps)}
    keys = {name: of_role.get(name, f"role {name}") for name in team.roles}
    for role in team.roles.values():
        if keys[role.name] not in nodes:
            nodes[keys[role.name]] = _of_role(team, role, keys[role.name])
    for role in team.roles.values():
        edges += [
            Edge(keys[role.name], keys[other], "delegates", "delegates")
            for other in role.can_delegate
        ]


def _of_role(team: Team, role: Role, key: str) -> Node:
    lines = ["entry"] if role.name == team.entry else []
    if role.team is not None:
        return Node(key, role.name, (*lines, f"team {role.team.name}"), "team",
                    diagram_of(role.team))  # fmt: skip
    told = _of_agent(team, role)
    return Node(key, role.name, tuple(_short(line) for line in (*lines, told) if line))


# --- routing --------------------------------------------------------------------------------------


def _routed(team: Team) -> tuple[dict[str, Node], list[Edge]]:
    """The router, and the agents that it can choose."""
    routing = team.routing
    assert routing is not None
    by = "by words" if routing.strategy == "lexical" else f"by {routing.target or routing.model}"
    nodes = {"router": Node("router", "route", (by,), "choice")}
    edges = []
    for agent in routing.registry.agents:
        if not agent.capabilities and agent.name != routing.fallback:
            continue
        key = f"agent {agent.name}"
        nodes[key] = Node(key, agent.name, (_short(_answering(agent)),))
        label = ", ".join(capability.id for capability in agent.capabilities)
        if agent.name == routing.fallback:
            label = f"{label}, or else" if label else "or else"
        edges.append(Edge("router", key, "routes", _short(label)))
    return nodes, edges


def _short(text: str) -> str:
    line = re.sub(r"\s+", " ", text).strip()
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


# --- Mermaid --------------------------------------------------------------------------------------

_SHAPES = {
    "agent": ('["', '"]'),
    "approval": ('{{"', '"}}'),
    "choice": ('(["', '"])'),
    "team": ('["', '"]'),
}
_ARROWS = {"after": "-->", "if": "-.->", "loop": "-.->", "delegates": "--o", "routes": "-.->"}


def mermaid(diagram: Diagram) -> str:
    """The picture as Mermaid's text."""
    return "\n".join(["flowchart LR", *_mermaid_lines(diagram, "n", "  ")]) + "\n"


def _mermaid_lines(diagram: Diagram, prefix: str, indent: str) -> Iterator[str]:
    names = {node.key: f"{prefix}{number}" for number, node in enumerate(diagram.nodes)}
    for node in diagram.nodes:
        name = names[node.key]
        label = "<br/>".join(_mermaid_text(line) for line in (node.title, *node.lines))
        if node.inside is not None:
            yield f'{indent}subgraph {name}["{label}"]'
            yield from _mermaid_lines(node.inside, f"{name}_", indent + "  ")
            yield f"{indent}end"
        else:
            opening, closing = _SHAPES[node.shape]
            yield f"{indent}{name}{opening}{label}{closing}"
    for edge in diagram.edges:
        label = f'|"{_mermaid_text(edge.label)}"|' if edge.label else ""
        yield f"{indent}{names[edge.source]} {_ARROWS[edge.kind]}{label} {names[edge.target]}"


def _mermaid_text(text: str) -> str:
    """Text as Mermaid shows it: what means something to it, or to HTML, by its number."""
    return re.sub(r'[#"<>&`|\\{}\[\]]', lambda found: f"#{ord(found[0])};", text)
