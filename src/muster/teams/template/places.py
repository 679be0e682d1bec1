"""From an offset in a template to the line and column of the file that it was written in.

YAML folds, indents and escapes text, but always keeps the order of the characters that are not
white space: the n-th of the value is the n-th of the file's text for it.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import Any

import yaml

from muster.config.document import Mark, Place, read_text
from muster.errors import MusterError, Problem, field_path

__all__ = ("problem_at",)

_PLAIN = re.compile(r"\S")
_SINGLE = re.compile(r"''|\S")
_DOUBLE = re.compile(r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[\s\S])|\S")
_WHITE_ESCAPES = re.compile(
    r"\\(?:[ntvfrNLP_ \t\r\n]|x0[9a-dA-D]|x20|x[aA]0|x85|u00[aA]0|u202[89])\Z"
)
_PROPERTIES = re.compile(r"(?:[&!]\S*\s+)*")
_BLOCK_HEADER = re.compile(r"[|>][^\n]*\n")


def problem_at(place: Place | None, source: str, offset: int, message: str) -> Problem:
    """`message` about the character at `offset` of the template `source`, written at `place`."""
    line = source.count("\n", 0, offset) + 1
    column = offset - (source.rfind("\n", 0, offset) + 1) + 1
    if place is None:
        return Problem(message, line=line, column=column)
    mark = _mark_in_file(place, source, offset)
    if mark is None:
        return place.problem(f"line {line}, column {column} of the template: {message}")
    return Problem(
        message,
        path=place.document.path,
        line=mark.line,
        column=mark.column,
        field=field_path(place.location) or None,
    )


def _mark_in_file(place: Place, source: str, offset: int) -> Mark | None:
    """Where the character stands in the file; `None` if the file does not say."""
    document = place.document
    node = _node_at(document.node, place)
    if node is None or document.path is None:
        return None
    try:
        lines = [f"{line}\n" for line in read_text(document.path).split("\n")]
    except MusterError:
        return None
    first, last = (mark.line + document.line_offset for mark in (node.start_mark, node.end_mark))
    raw = "".join(lines[first : last + 1])
    begin = node.start_mark.column
    end = len(raw) - len(lines[last]) + node.end_mark.column if last < len(lines) else len(raw)
    at = _raw_offset(raw[:end], begin, node.style, source, offset)
    if at is None:
        return None
    before = raw[:at]
    return Mark(first + before.count("\n") + 1, at - (before.rfind("\n") + 1) + 1)


def _node_at(node: Any, place: Place) -> yaml.ScalarNode | None:
    """The scalar at the place, if it is written there itself."""
    for step in place.location:
        if isinstance(node, yaml.MappingNode):
            node = next((value for key, value in node.value if key.value == str(step)), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            node = next(islice(node.value, step, None), None)
        else:
            return None
    return node if isinstance(node, yaml.ScalarNode) else None


def _raw_offset(raw: str, begin: int, style: str | None, source: str, offset: int) -> int | None:
    """The offset in `raw` of the template's character; `None` if the two do not match."""
    properties = _PROPERTIES.match(raw, begin)
    begin = properties.end() if properties else begin
    end = len(raw)
    if style in {"|", ">"}:
        header = _BLOCK_HEADER.match(raw, begin)
        if header is None:
            return None
        begin = header.end()
    elif style in {"'", '"'}:
        begin, end = begin + 1, end - 1
    pattern = {"'": _SINGLE, '"': _DOUBLE}.get(style or "", _PLAIN)
    visible = [
        match.start()
        for match in pattern.finditer(raw, begin, end)
        if not _WHITE_ESCAPES.match(match.group())
    ]
    wanted = sum(not character.isspace() for character in source)
    if len(visible) != wanted or not visible:
        return None
    before = sum(not character.isspace() for character in source[:offset])
    if before < len(visible) and (offset == len(source) or not source[offset].isspace()):
        return visible[before]
    return visible[min(before, len(visible)) - 1] + 1 if before else visible[0]
