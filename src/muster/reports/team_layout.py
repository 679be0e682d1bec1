"""Where the boxes and arrows of a team's picture go: in levels from left to right.

Each node stands one level after the last of those that lead to it; within the levels, nodes are
ordered by the mean place of their neighbours, which takes most crossings away (Sugiyama, Tagawa and
Toda, 1981). An arrow over several levels gets a free row in each level between.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from muster.reports.team_graph import Diagram, Edge, Node
from muster.teams.graph import levels

__all__ = ("LINE", "PADDING", "TITLE", "Box", "Layout", "Point", "Route", "lay_out")

TITLE = 20
"""Height of a node's first line."""
LINE = 16
"""Height of each further one."""
PADDING = 12

_COLUMN_GAP = 70
_LABEL_GAP = 24
"""Besides the label's own width, between levels that a labelled arrow joins."""
_ROW_GAP = 28
_SWEEPS = 4
_CHARACTER = 7.2
"""Width of a narrow character; wide ones, such as Chinese, take two."""

Point = tuple[float, float]


@dataclass(slots=True)
class Box:
    """A node with its place; an invisible one keeps a row free for an arrow."""

    node: Node | None
    width: float
    height: float
    inside: Layout | None = None
    x: float = 0.0
    y: float = 0.0

    @property
    def middle(self) -> float:
        """Its vertical middle."""
        return self.y + self.height / 2


@dataclass(frozen=True, slots=True)
class Route:
    """An arrow: the boxes that it leads through, ends included."""

    edge: Edge
    boxes: tuple[Box, ...]
    backward: bool = False
    """It leads against the levels, or within one: around the boxes."""


@dataclass(slots=True)
class Layout:
    """Everything with its place."""

    width: float
    height: float
    boxes: list[Box] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)


def lay_out(diagram: Diagram) -> Layout:
    """Place the nodes of `diagram`."""
    boxes = {node.key: _box(node) for node in diagram.nodes}
    forward = _without_cycles(diagram)
    into: dict[str, list[str]] = {node.key: [] for node in diagram.nodes}
    for edge in forward:
        into[edge.target].append(edge.source)
    rank = {key: n for n, keys in enumerate(levels(into)) for key in keys}
    columns: list[list[Box]] = [[] for _ in range(max(rank.values(), default=-1) + 1)]
    for key, box in boxes.items():
        columns[rank[key]].append(box)
    routes = []
    for edge in diagram.edges:
        ends = boxes[edge.source], boxes[edge.target]
        if edge not in forward:
            routes.append(Route(edge, ends, backward=True))
            continue
        between = [Box(None, 0, LINE) for _ in range(rank[edge.source] + 1, rank[edge.target])]
        for number, box in enumerate(between, rank[edge.source] + 1):
            columns[number].append(box)
        routes.append(Route(edge, (ends[0], *between, ends[1])))
    _order(columns, routes)
    size = _place(columns, _gaps(len(columns), routes, columns))
    above, below = _room_around(routes)
    for box in (box for column in columns for box in column):
        box.y += above
    return Layout(size[0], size[1] + above + below, list(boxes.values()), routes)


def _without_cycles(diagram: Diagram) -> list[Edge]:
    """The arrows that decide on levels: none of them closes a cycle."""
    out: dict[str, set[str]] = {node.key: set() for node in diagram.nodes}
    kept: list[Edge] = []
    for edge in sorted(diagram.edges, key=lambda edge: edge.kind == "delegates"):
        if edge.kind != "loop" and not _reaches(out, edge.target, edge.source):
            out[edge.source].add(edge.target)
            kept.append(edge)
    return kept


def _reaches(out: dict[str, set[str]], start: str, goal: str) -> bool:
    waiting, seen = [start], {start}
    while waiting:
        key = waiting.pop()
        if key == goal:
            return True
        waiting += out[key] - seen
        seen |= out[key]
    return False


# --- sizes ----------------------------------------------------------------------------------------


def text_width(text: str) -> float:
    """About how wide `text` is."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return (len(text) + wide) * _CHARACTER


def _box(node: Node) -> Box:
    width = max(text_width(line) for line in (node.title, *node.lines)) + 2 * PADDING
    height = TITLE + LINE * len(node.lines) + 2 * PADDING
    if node.shape == "approval":
        width += 2 * PADDING
    if node.inside is None:
        return Box(node, width, height)
    inside = lay_out(node.inside)
    return Box(node, max(width, inside.width + 2 * PADDING), height + inside.height, inside)


# --- order and places -----------------------------------------------------------------------------


def _order(columns: list[list[Box]], routes: Iterable[Route]) -> None:
    before: dict[int, list[Box]] = {}
    after: dict[int, list[Box]] = {}
    for route in routes:
        if route.backward:
            continue
        for left, right in zip(route.boxes, route.boxes[1:], strict=False):
            after.setdefault(id(left), []).append(right)
            before.setdefault(id(right), []).append(left)
    for sweep in range(_SWEEPS):
        rightward = sweep % 2 == 0
        pairs = range(1, len(columns)) if rightward else range(len(columns) - 2, -1, -1)
        for number in pairs:
            fixed = columns[number - 1 if rightward else number + 1]
            row = {id(box): n for n, box in enumerate(fixed)}
            own = {id(box): n for n, box in enumerate(columns[number])}
            near = before if rightward else after

            def place(
                box: Box,
                near: dict[int, list[Box]] = near,
                row: dict[int, int] = row,
                own: dict[int, int] = own,
            ) -> float:
                rows = [row[id(other)] for other in near.get(id(box), ())]
                return sum(rows) / len(rows) if rows else own[id(box)]

            columns[number].sort(key=place)


def _gaps(count: int, routes: Iterable[Route], columns: list[list[Box]]) -> list[float]:
    """Before each level; a label has room where its arrow begins."""
    level = {id(box): number for number, column in enumerate(columns) for box in column}
    gaps = [0.0] + [float(_COLUMN_GAP)] * max(count - 1, 0)
    for route in routes:
        if not route.backward and route.edge.label:
            number = level[id(route.boxes[0])] + 1
            gaps[number] = max(gaps[number], text_width(route.edge.label) + 2 * _LABEL_GAP)
    return gaps


def _place(columns: Sequence[list[Box]], gaps: Sequence[float]) -> tuple[float, float]:
    """Put the columns beside each other, each in the vertical middle; the size of it all."""
    heights = [
        sum(box.height for box in column) + _ROW_GAP * max(len(column) - 1, 0) for column in columns
    ]
    height = max(heights, default=0)
    x = 0.0
    for column, own, gap in zip(columns, heights, gaps, strict=False):
        x += gap
        width = max((box.width for box in column), default=0)
        y = (height - own) / 2
        for box in column:
            if box.node is None:
                box.width = width
            box.x, box.y = x + (width - box.width) / 2, y
            y += box.height + _ROW_GAP
        x += width
    return x, height


def _room_around(routes: Iterable[Route]) -> tuple[float, float]:
    """Above for loops, below for arrows that lead back."""
    loops = any(route.edge.kind == "loop" for route in routes)
    back = any(route.backward and route.edge.kind != "loop" for route in routes)
    return (44.0 if loops else 0.0), (56.0 if back else 0.0)
