"""The state of one rendering: its bounds, and how paths are followed through the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from muster.teams.template.effort import MAX_STEPS
from muster.teams.template.errors import Failure
from muster.teams.template.standard import no_key
from muster.teams.template.values import MAX_TEXT, Missing, kind

__all__ = ("MAX_DEPTH", "MAX_ITERATIONS", "Frame", "Run", "Sought", "follow", "missing")

MAX_ITERATIONS = 250_000
"""Turns of all loops, and uses of named templates, together."""

MAX_DEPTH = 50
"""Named templates within each other."""

_PATTERN_SECONDS = 0.25
"""For all searches of a rendering; what a pattern takes cannot be counted beforehand."""


class Run:
    """One rendering: what it has written, and what it may still use up."""

    __slots__ = (
        "data",
        "depth",
        "iterations",
        "lenient",
        "out",
        "pattern_seconds",
        "size",
        "steps",
    )

    def __init__(self, data: Mapping[str, Any], lenient: bool) -> None:
        self.data = data
        self.lenient = lenient
        self.out: list[str] = []
        self.size = 0
        self.iterations = MAX_ITERATIONS
        self.steps = MAX_STEPS
        self.depth = 0
        self.pattern_seconds = _PATTERN_SECONDS

    def write(self, text: str, offset: int) -> None:
        """Add to the output."""
        self.size += len(text)
        if self.size > MAX_TEXT:
            raise Failure(f"the output is longer than {MAX_TEXT:,} characters", offset)
        self.out.append(text)

    def iterate(self, steps: int, offset: int) -> None:
        """Count one more turn of a loop, of so many steps."""
        self.iterations -= 1
        if self.iterations < 0:
            raise Failure(f"the template loops more than {MAX_ITERATIONS:,} times", offset)
        self.charge(steps, offset)

    def charge(self, steps: int, offset: int) -> None:
        """Count work."""
        self.steps -= steps
        if self.steps < 0:
            raise Failure(f"the template does more work than {MAX_STEPS:,} steps", offset)


class Frame:
    """The variables of one named template in use; slot 0 is `$`."""

    __slots__ = ("run", "variables")

    def __init__(self, run: Run, dot: Any, slots: int) -> None:
        self.run = run
        self.variables = [dot] + [None] * (slots - 1)


def follow(run: Run, value: Any, names: tuple[str, ...], base: str, offset: int) -> Any:
    """`value.a.b` by the rules, after the quick way has failed; `base` is how `value` is written.

    Only a last name may be missing; every other failure names the path as far as it goes.
    """
    path = base
    for position, name in enumerate(names):
        at = "the data" if value is run.data else "the dot"
        shown, whole = path or at, f"{path}.{'.'.join(names[position:])}"
        if isinstance(value, Mapping):
            if name in value:
                value = value[name]
                path += f".{name}"
                continue
            if position == len(names) - 1:
                return missing(run, value, name, Sought(whole, shown, offset))
            raise Failure(f"{whole}: {no_key(shown, value, name)}", offset)
        if isinstance(value, Missing):
            raise Failure(f"{whole}: {value.explain()}", offset)
        found = f'{shown} is {kind(value)}, so it has no "{name}"{_hint(value)}'
        raise Failure(f"{whole}: {found}", offset)
    return value


def _hint(value: Any) -> str:
    if isinstance(value, str) and value.lstrip()[:1] in {"{", "["}:
        return "; fromJson reads JSON"
    if isinstance(value, list | tuple):
        return "; items are reached by index or range"
    return ""


class Sought(NamedTuple):
    """A path that was followed to its last name: how it and what holds the name are written."""

    path: str
    container: str
    offset: int


def missing(run: Run, container: Mapping[str, Any], key: str, sought: Sought) -> Any:
    """What a path's last name stands for when it is not there.

    Leniently it is ark's zero value: null, but empty text among a pipeline's inputs, which are
    text by their type.
    """
    if not run.lenient:
        return Missing(
            lambda: f"{sought.path}: {no_key(sought.container, container, key)}", sought.offset
        )
    pipeline = run.data.get("pipeline")
    return "" if isinstance(pipeline, Mapping) and container is pipeline.get("input") else None
