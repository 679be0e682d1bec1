"""The parsed template. `start` and `end` are offsets into the source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

__all__ = (
    "Action",
    "Body",
    "Break",
    "Call",
    "Chain",
    "Constant",
    "Continue",
    "Dot",
    "Expression",
    "Field",
    "If",
    "Invoke",
    "Parsed",
    "Pipeline",
    "Range",
    "Statement",
    "Text",
    "Variable",
    "With",
)


@dataclass(frozen=True, slots=True)
class Constant:
    """A literal; `nil` is one too."""

    value: Any
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Dot:
    """`.` itself."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Field:
    """`.a.b`: names looked up from the dot."""

    names: tuple[str, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Variable:
    """`$x.a.b`; slot 0 is `$`."""

    slot: int
    names: tuple[str, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Chain:
    """`(…).a.b`."""

    base: Expression
    names: tuple[str, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Call:
    """A function with its arguments; the value of an earlier stage is the last of them."""

    name: str
    arguments: tuple[Expression, ...]
    start: int
    end: int


Expression: TypeAlias = Constant | Dot | Field | Variable | Chain | Call


@dataclass(frozen=True, slots=True)
class Pipeline:
    """An expression, and the slots of the variables that it is assigned to."""

    expression: Expression
    slots: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Text:
    """Text as it stands."""

    text: str


@dataclass(frozen=True, slots=True)
class Action:
    """`{{ pipeline }}`: printed, unless it is an assignment."""

    pipeline: Pipeline


@dataclass(frozen=True, slots=True)
class If:
    """`if … else if … else …`: the first branch whose pipeline is not empty, or `otherwise`."""

    branches: tuple[tuple[Pipeline, Body], ...]
    otherwise: Body


@dataclass(frozen=True, slots=True)
class With:
    """`with … else with … else …`: an `if` that moves the dot."""

    branches: tuple[tuple[Pipeline, Body], ...]
    otherwise: Body


@dataclass(frozen=True, slots=True)
class Range:
    """`range`, over a list, a mapping or a whole number."""

    pipeline: Pipeline
    body: Body
    otherwise: Body
    start: int


@dataclass(frozen=True, slots=True)
class Break:
    """`break`."""


@dataclass(frozen=True, slots=True)
class Continue:
    """`continue`."""


@dataclass(frozen=True, slots=True)
class Invoke:
    """`template "name" pipeline`."""

    name: str
    pipeline: Pipeline | None
    start: int


Statement: TypeAlias = Text | Action | If | With | Range | Break | Continue | Invoke
Body: TypeAlias = tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Parsed:
    """A whole source: its text's statements, and the named templates that it defines.

    `slots` is how many variables each of them needs at most, `$` included; the main one's name
    is the empty text.
    """

    bodies: dict[str, Body]
    slots: dict[str, int]

    @property
    def main(self) -> Body:
        """What the source itself renders."""
        return self.bodies[""]
