"""How much work things are, in steps, so that a rendering is stopped after so many of them.

A step is what takes about ten nanoseconds. Counting work instead of time makes a template that is
stopped on one machine stop on every other, at the same place; and nothing else that the process
does is held up for longer than `MAX_STEPS` take.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from muster.teams.template.nodes import Body, Call, Constant, Invoke, Range

__all__ = ("MAX_STEPS", "Effort", "effort_of", "size_of_body", "size_of_value")

MAX_STEPS = 30_000_000
"""Of one rendering: less than half a second."""

NODE = 10
"""For each part of a template, each time that it is used."""

_VALUE = 100
"""For each value within one that a function looks through."""

_DEEPEST = 200


@dataclass(frozen=True, slots=True)
class Effort:
    """What a function does with its arguments: steps a character of a text, and an entry of a list
    or mapping; `deep`: it goes through all that is within those."""

    character: float = 0.5
    entry: int = _VALUE
    deep: bool = True

    def of(self, value: Any, left: int) -> int:
        """Steps for one argument; counting ends where they are more than `left`."""
        if isinstance(value, str):
            return int(len(value) * self.character)
        if isinstance(value, Mapping | list | tuple):
            if self.deep:
                return size_of_value(value, left)
            return len(value) * self.entry
        return 0


_NONE = Effort(0.0, 0, deep=False)
_COPIES = Effort(entry=3, deep=False)
_LOOKS_UP = Effort(entry=20, deep=False)
_LOOKS_AT = Effort(0.1, 0, deep=False)
_EFFORTS = {
    **dict.fromkeys(
        ("not", "default", "empty", "coalesce", "ternary", "index", "len", "first", "last", "list",
         "dict", "get", "set", "hasKey"),
        _NONE,
    ),
    **dict.fromkeys(("eq", "ne", "lt", "le", "gt", "ge", "substr", "trunc", "abbrev", "trimPrefix",
                    "trimSuffix", "hasPrefix", "hasSuffix"), _LOOKS_AT),
    **dict.fromkeys(
        ("append", "prepend", "concat", "rest", "initial", "reverse", "slice"), _COPIES
    ),
    **dict.fromkeys(("keys", "values", "merge", "pick", "omit"), _LOOKS_UP),
    "title": Effort(20.0),
    "js": Effort(20.0),
    "quote": Effort(20.0),
    "urlquery": Effort(8.0),
    "nospace": Effort(8.0),
    "split": Effort(12.0),
    "splitList": Effort(4.0),
    "html": Effort(4.0),
    "printf": Effort(8.0),
    "fromJson": Effort(12.0),
    "int": Effort(20.0),
    "int64": Effort(20.0),
    "float64": Effort(20.0),
}  # fmt: skip
_OTHERS = Effort()


def effort_of(function: str) -> Effort | None:
    """The effort of a function; `None`: it is the same for all arguments."""
    effort = _EFFORTS.get(function, _OTHERS)
    return None if effort is _NONE else effort


def size_of_body(body: Body) -> int:
    """Steps for one use of a body. The turns of loops within it, and the uses of named templates,
    count by themselves."""
    return 2 * NODE + NODE * _nodes(body)


def _nodes(node: object) -> int:
    if isinstance(node, tuple):
        return sum(map(_nodes, node))
    if isinstance(node, Range):
        return 2 + _nodes(node.pipeline) + _nodes(node.otherwise)
    if isinstance(node, Invoke):
        return 2 + (_nodes(node.pipeline) if node.pipeline is not None else 0)
    if isinstance(node, Call):
        effort = _EFFORTS.get(node.name, _OTHERS)
        each = 2 if effort is _NONE else 12 if effort.deep else 4
        return 4 + each * len(node.arguments) + _nodes(node.arguments)
    if isinstance(node, Constant):
        return 1
    if isinstance(node, str):  # a name on the way of a path
        return 1
    fields = getattr(node, "__dataclass_fields__", None)
    if fields is None:
        return 0
    return 1 + sum(_nodes(getattr(node, name)) for name in fields if name not in _NO_PARTS)


_NO_PARTS = frozenset({"start", "end", "slot", "slots", "name", "text", "value"})


def size_of_value(value: Any, left: int) -> int:
    """Steps for all that is within a value, level by level; no more than `left` and a little, nor
    deeper than anything may be."""
    steps, level = 0, [value]
    for _ in range(_DEEPEST + 1):
        within: list[Any] = []
        for item in level:
            if isinstance(item, str):
                steps += len(item)
            elif isinstance(item, Mapping):
                within += item.values()
                steps += _VALUE * len(item)
            elif isinstance(item, list | tuple):
                within += item
                steps += _VALUE * len(item)
            if steps > left:
                return steps
        if not within:
            return steps
        level = within
    return steps
