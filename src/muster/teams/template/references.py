"""What a template asks of its data, as far as it can be told without them."""

from __future__ import annotations

from typing import TypeAlias

from muster.teams.template.nodes import (
    Action,
    Body,
    Call,
    Chain,
    Constant,
    Dot,
    Expression,
    Field,
    If,
    Invoke,
    Parsed,
    Pipeline,
    Range,
    Variable,
    With,
)
from muster.teams.template.values import Int

__all__ = ("int_comparisons_of", "references_of")

_Path: TypeAlias = tuple[str, ...] | None
"""From the top of the data; `None` where only a rendering knows."""


def references_of(parsed: Parsed) -> frozenset[tuple[str, ...]]:
    """All paths of the main template, and of the named ones as it uses them."""
    finder = _Finder(parsed)
    finder.template("", ())
    return frozenset(path for path in finder.found if path)


def int_comparisons_of(parsed: Parsed) -> frozenset[tuple[str, tuple[str, ...], int]]:
    """Where what stands at a path is compared with an int: the function, the path, the int."""
    finder = _Finder(parsed)
    finder.template("", ())
    return frozenset(finder.compared)


_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")


class _Finder:
    def __init__(self, parsed: Parsed) -> None:
        self.parsed = parsed
        self.found: set[tuple[str, ...]] = set()
        self.compared: set[tuple[str, tuple[str, ...], int]] = set()
        self.seen: set[tuple[str, _Path]] = set()

    def template(self, name: str, dot: _Path) -> None:
        """A named template with the dot it is given; each pair once."""
        if (name, dot) in self.seen or len(self.seen) > 1000:
            return
        self.seen.add((name, dot))
        self.body(self.parsed.bodies[name], dot, {0: dot})

    def body(self, body: Body, dot: _Path, variables: dict[int, _Path]) -> None:
        for node in body:
            if isinstance(node, Action):
                self.pipeline(node.pipeline, dot, variables)
            elif isinstance(node, If | With):
                for pipeline, inner in node.branches:
                    value = self.pipeline(pipeline, dot, variables)
                    self.body(inner, value if isinstance(node, With) else dot, variables)
                self.body(node.otherwise, dot, variables)
            elif isinstance(node, Range):
                self.visit(node.pipeline.expression, dot, variables)
                variables.update(dict.fromkeys(node.pipeline.slots))
                self.body(node.body, None, variables)
                self.body(node.otherwise, dot, variables)
            elif isinstance(node, Invoke):
                value = self.pipeline(node.pipeline, dot, variables) if node.pipeline else None
                self.template(node.name, value)

    def pipeline(self, node: Pipeline, dot: _Path, variables: dict[int, _Path]) -> _Path:
        path = self.visit(node.expression, dot, variables)
        for slot in node.slots:
            # A variable that is assigned twice may hold either value.
            variables[slot] = path if variables.get(slot, path) == path else None
        return path

    def visit(self, node: Expression, dot: _Path, variables: dict[int, _Path]) -> _Path:
        """Notes the paths within `node`; its own path, if it is one."""
        path = self.path(node, dot, variables)
        if path is not None:
            self.found.add(path)
        return path

    def path(self, node: Expression, dot: _Path, variables: dict[int, _Path]) -> _Path:
        if isinstance(node, Dot):
            return dot
        if isinstance(node, Field):
            return None if dot is None else (*dot, *node.names)
        if isinstance(node, Variable):
            base = variables.get(node.slot)
            return None if base is None else (*base, *node.names)
        if isinstance(node, Chain):
            base = self.path(node.base, dot, variables)
            return None if base is None else (*base, *node.names)
        if isinstance(node, Call):
            return self.call(node, dot, variables)
        return None

    def call(self, node: Call, dot: _Path, variables: dict[int, _Path]) -> _Path:
        path: _Path = None
        rest = list(node.arguments)
        if node.name == "index":
            path = self.path(rest.pop(0), dot, variables)
            while path is not None and rest and isinstance(rest[0], Constant):
                key = rest[0].value
                if not isinstance(key, str):
                    break
                path = (*path, key)
                rest.pop(0)
            if not rest:
                return path
            if path is not None:
                self.found.add(path)
        paths = [self.visit(argument, dot, variables) for argument in rest]
        if node.name in _COMPARISONS:
            ints = [each.value for each in rest if isinstance(each, Constant)]
            self.compared |= {
                (node.name, path, int(value))
                for path in paths
                for value in ints
                if path and isinstance(value, Int)
            }
        return None
