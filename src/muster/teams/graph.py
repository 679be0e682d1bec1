"""The graph of a team: what comes before what, and whether that can be at all."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from muster.errors import ConfigError, Problem

if TYPE_CHECKING:
    from muster.teams.definition import Team
    from muster.teams.manifests import Bundle

__all__ = (
    "Graph",
    "ancestors",
    "cycle_text",
    "delegation",
    "dependencies",
    "failure_lines",
    "find_cycle",
    "levels",
    "topological_order",
    "validate_lines",
)

Graph: TypeAlias = Mapping[str, Sequence[str]]
"""Of each node, the nodes it points to: what it depends on, or whom it hands tasks to."""


def dependencies(team: Team) -> dict[str, tuple[str, ...]]:
    """Of each step, in the order of the file, the steps that it depends on."""
    return {step.name: step.depends_on for step in team.steps}


def delegation(team: Team) -> dict[str, tuple[str, ...]]:
    """Of each role, the roles that it may hand tasks to."""
    return {role.name: role.can_delegate for role in team.roles.values()}


def find_cycle(graph: Graph) -> tuple[str, ...] | None:
    """The first cycle in the order of the graph, as the nodes on its way, from the edge that closes
    it back to where that begins; `None` if there is none. Names that are no nodes are passed
    over."""
    done: set[str] = set()
    for start in graph:
        if start in done:
            continue
        open_nodes = {start}
        walk = [(start, iter(graph[start]))]
        while walk:
            node, rest = walk[-1]
            for other in rest:
                if other in open_nodes:
                    way = [each for each, _ in walk]
                    return node, *way[way.index(other) :]
                if other in graph and other not in done:
                    open_nodes.add(other)
                    walk.append((other, iter(graph[other])))
                    break
            else:
                walk.pop()
                open_nodes.discard(node)
                done.add(node)
    return None


def cycle_text(what: str, cycle: Sequence[str]) -> str:
    """What is said of a cycle; `what` its nodes are."""
    text = f'cycle detected: {what} "{cycle[0]}" → "{cycle[1]}" forms a cycle'
    return text if len(cycle) < 4 else f"{text} ({' → '.join(cycle)})"


def topological_order(graph: Graph) -> list[str]:
    """All nodes, each after those it points to, else in the order of the graph. The graph has no
    cycle."""
    done: dict[str, None] = {}
    for start in graph:
        walk = [(start, iter(graph[start]))] if start not in done else []
        while walk:
            node, rest = walk[-1]
            for other in rest:
                if other in graph and other not in done:
                    walk.append((other, iter(graph[other])))
                    break
            else:
                walk.pop()
                done[node] = None
    return list(done)


def levels(graph: Graph) -> list[list[str]]:
    """The nodes by the length of the longest way to one that points nowhere; the graph has no
    cycle. Those of one level could be under way at the same time."""
    depth: dict[str, int] = {}
    for node in topological_order(graph):
        depth[node] = 1 + max((depth[other] for other in graph[node] if other in depth), default=-1)
    found: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for node in graph:
        found[depth[node]].append(node)
    return found


def ancestors(graph: Graph) -> dict[str, frozenset[str]]:
    """Of each node, all that it points to, directly or through others."""
    found: dict[str, frozenset[str]] = {}
    if find_cycle(graph) is None:
        for node in topological_order(graph):
            direct = [other for other in graph[node] if other in graph]
            found[node] = frozenset(direct).union(*(found[other] for other in direct))
        return found
    for start in graph:
        seen: set[str] = set()
        todo = list(graph[start])
        while todo:
            node = todo.pop()
            if node in graph and node not in seen:
                seen.add(node)
                todo += graph[node]
        found[start] = frozenset(seen)
    return found


# --- what `muster validate` says ----------------------------------------------------------------


def validate_lines(bundle: Bundle) -> list[str]:
    """What is good about checked manifests, team by team."""
    lines: list[str] = []
    for team in bundle.teams.values():
        if len(bundle.teams) > 1:
            lines.append(f"{'Flow' if team.is_flow else 'Team'}: {team.name}")
        lines += _lines_of(team)
    if not bundle.teams and bundle.agents:
        lines.append(_line("Agents", ", ".join(bundle.agents)))
    lines.append(_line("Schema"))
    lines += [
        _line(title, ", ".join(names))
        for title, names in (("Events", bundle.events), ("Notify", bundle.notifies))
        if names
    ]
    return [*lines, "Validation passed."]


_OF_THE_GRAPH = re.compile(r"cycle detected: step|depends on unknown step|two steps called")
_CYCLE = re.compile(r'cycle detected: \w+ "(.+?)" → "(.+?)" forms a cycle(?: \((.+)\))?$')
_OF_DELEGATION = re.compile(r"cycle detected: role|delegates to|entry:|needs an \"entry\"")
_OF_AGENTS = re.compile(r"references unknown|unknown ArkAgent|cycle detected: team")


def failure_lines(error: ConfigError) -> list[str]:
    """What is wrong with manifests, each problem under the title that it concerns."""
    titled: dict[str, list[str]] = {"DAG": [], "Delegation": [], "Agents": [], "Schema": []}
    for problem in error.problems:
        titled[_title(problem.message)].append(_told(problem))
    lines = [
        f"  {title:<12} error  {told}" for title, problems in titled.items() for told in problems
    ]
    return [*lines, "Validation failed."]


def _told(problem: Problem) -> str:
    """A cycle as the way around it; its place after it."""
    found = _CYCLE.match(problem.message)
    if found is None:
        return str(problem)
    start, end, way = found.groups()
    way = way or " → ".join([start, end] if start == end else [start, end, start])
    return f"cycle detected: {way}  ({replace(problem, message='')})"


def _title(message: str) -> str:
    if _OF_THE_GRAPH.search(message):
        return "DAG"
    if _OF_DELEGATION.search(message):
        return "Delegation"
    return "Agents" if _OF_AGENTS.search(message) else "Schema"


def _lines_of(team: Team) -> list[str]:
    lines = []
    if team.steps:
        lines.append(_line("DAG", f"{_count(len(team.steps), 'step')}, 0 cycles"))
    if team.mode in ("dynamic", "mixed"):
        lines.append(_line("Delegation", f"{_count(len(team.roles), 'role')}, 0 cycles"))
    if team.routing is not None:
        agents = team.routing.registry.agents
        capabilities = sum(len(agent.capabilities) for agent in agents)
        found = f"{_count(len(agents), 'agent')}, {_count(capabilities, 'capability')}"
        lines.append(_line("Routing", found))
    if names := _agents_of(team):
        lines.append(_line("Agents", ", ".join(names)))
    return lines


def _agents_of(team: Team) -> list[str]:
    """The names of the agents that steps and roles lead to, each once."""
    names: dict[str, None] = {}
    for role in team.roles.values():
        if role.agent is not None:
            names[role.agent.name] = None
        elif role.team is not None:
            names[f"team {role.team.name}"] = None
    return list(names)


def _line(title: str, told: str = "") -> str:
    return f"  {title:<12} ok  ({told})" if told else f"  {title:<12} ok"


def _count(number: int, word: str) -> str:
    if number == 1:
        return f"1 {word}"
    return f"{number} {word[:-1]}ies" if word.endswith("y") else f"{number} {word}s"
