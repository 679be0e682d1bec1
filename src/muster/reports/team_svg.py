"""The picture of a team as SVG, drawn without anybody's help."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape

from muster.reports.team_graph import Diagram
from muster.reports.team_layout import LINE, PADDING, TITLE, Box, Layout, Route, lay_out

__all__ = ("svg",)

_MARGIN = 24
_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #333; }
text.title { font-weight: 600; font-size: 14px; fill: #111; }
.node > .shape { fill: #eef3fb; stroke: #4a6fa5; stroke-width: 1.2; }
.node.approval > .shape { fill: #fdf3e1; stroke: #b7791f; }
.node.choice > .shape { fill: #eefaf1; stroke: #2f855a; }
.node.team > .shape { fill: #fafafa; stroke: #888; }
.edge path { fill: none; stroke: #666; stroke-width: 1.3; }
.edge.if path, .edge.loop path, .edge.routes path { stroke-dasharray: 5 4; }
.edge.delegates path { stroke: #8a4fbf; stroke-dasharray: 1.5 3.5; stroke-linecap: round; }
.edge text { font-size: 11px; text-anchor: middle; stroke: #fff; stroke-width: 4px;
  paint-order: stroke; }
""".strip()
_ARROW = (
    '<marker id="arrow" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="8" markerHeight="8" '
    'orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#666"/></marker>'
)


def svg(diagram: Diagram) -> str:
    """The picture as an SVG document."""
    layout = lay_out(diagram)
    width, height = layout.width + 2 * _MARGIN, layout.height + 2 * _MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_n(width)}" height="{_n(height)}" '
        f'viewBox="0 0 {_n(width)} {_n(height)}" role="img">',
        f"<title>{_text(diagram.title)}</title>",
        f"<style>{_STYLE}</style>",
        f"<defs>{_ARROW}</defs>",
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<g transform="translate({_MARGIN} {_MARGIN})">',
        *_drawn(layout),
        "</g>",
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _drawn(layout: Layout) -> Iterator[str]:
    for route in layout.routes:
        yield from _edge(route, layout)
    for box in layout.boxes:
        yield from _node(box)


# --- nodes ----------------------------------------------------------------------------------------


def _node(box: Box) -> Iterator[str]:
    node = box.node
    assert node is not None
    yield f'<g class="node {node.shape}" data-key="{_text(node.key)}">'
    yield _shape(box, node.shape)
    x, y = box.x + box.width / 2, box.y + PADDING + TITLE - 5
    yield _line(node.title, x, y, "title")
    for line in node.lines:
        y += LINE
        yield _line(line, x, y)
    if box.inside is not None:
        left = box.x + (box.width - box.inside.width) / 2
        top = box.y + box.height - PADDING - box.inside.height
        yield f'<g transform="translate({_n(left)} {_n(top)})">'
        yield from _drawn(box.inside)
        yield "</g>"
    yield "</g>"


def _shape(box: Box, shape: str) -> str:
    x, y, width, height = box.x, box.y, box.width, box.height
    if shape == "approval":
        slope = 2 * PADDING - 4
        points = (
            (x, box.middle), (x + slope, y), (x + width - slope, y),
            (x + width, box.middle), (x + width - slope, y + height), (x + slope, y + height),
        )  # fmt: skip
        listed = " ".join(f"{_n(left)},{_n(top)}" for left, top in points)
        return f'<polygon class="shape" points="{listed}"/>'
    radius = height / 2 if shape == "choice" else 6
    return (
        f'<rect class="shape" x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}" '
        f'rx="{_n(radius)}"/>'
    )


def _line(text: str, x: float, y: float, kind: str = "") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text{style} x="{_n(x)}" y="{_n(y)}" text-anchor="middle">{_text(text)}</text>'


# --- arrows ---------------------------------------------------------------------------------------


def _edge(route: Route, layout: Layout) -> Iterator[str]:
    edge = route.edge
    if edge.kind == "loop":
        path, x, y = _loop(route.boxes[0])
    elif route.backward:
        path, x, y = _around(*route.boxes, bottom=layout.height)
    else:
        path, x, y = _across(route)
    ends = f'data-from="{_text(edge.source)}" data-to="{_text(edge.target)}"'
    yield f'<g class="edge {edge.kind}" {ends}>'
    yield f'<path d="{path}" marker-end="url(#arrow)"/>'
    if edge.label:
        yield f'<text x="{_n(x)}" y="{_n(y)}">{_text(edge.label)}</text>'
    yield "</g>"


def _across(route: Route) -> tuple[str, float, float]:
    """From the right side of one box to the left side of the other; straight through the rows
    that are kept free between. The label stands where the arrow begins."""
    first, *others = route.boxes
    x, y = first.x + first.width, first.middle
    parts = [f"M{_n(x)} {_n(y)}"]
    label = ((x + others[0].x) / 2, (y + others[0].middle) / 2 - 4)
    for box in others:
        bend = (box.x - x) / 2
        parts.append(
            f"C{_n(x + bend)} {_n(y)} {_n(box.x - bend)} {_n(box.middle)} "
            f"{_n(box.x)} {_n(box.middle)}"
        )
        x, y = box.x, box.middle
        if box.node is None:
            x += box.width
            parts.append(f"L{_n(x)} {_n(y)}")
    return " ".join(parts), *label


def _loop(box: Box) -> tuple[str, float, float]:
    """Out of the top of the box, and back into it."""
    right, left, top = box.x + box.width * 0.7, box.x + box.width * 0.3, box.y - 34
    path = f"M{_n(right)} {_n(box.y)} C{_n(right)} {_n(top)} {_n(left)} {_n(top)} "
    return f"{path}{_n(left)} {_n(box.y)}", box.x + box.width / 2, box.y - 30


def _around(source: Box, target: Box, *, bottom: float) -> tuple[str, float, float]:
    """Below all boxes, out of the bottom of one and into the bottom of the other."""
    x1, y1 = source.x + source.width / 2, source.y + source.height
    x2, y2 = target.x + target.width / 2, target.y + target.height
    path = f"M{_n(x1)} {_n(y1)} C{_n(x1)} {_n(bottom)} {_n(x2)} {_n(bottom)} {_n(x2)} {_n(y2)}"
    return path, (x1 + x2) / 2, (y1 + y2 + 6 * bottom) / 8 - 4  # half-way along the curve


def _n(number: float) -> str:
    """A number as short as it can be."""
    return f"{number:.1f}".removesuffix(".0")


_REFUSED = re.compile("[\x00-\x1f\ud800-\udfff\ufffe\uffff]")
"""Not allowed in XML; and tabs and ends of lines, which a line of text has no use for."""


def _text(text: str) -> str:
    """Escaped; characters that cannot be written are shown as a replacement."""
    return escape(_REFUSED.sub("\ufffd", text))
