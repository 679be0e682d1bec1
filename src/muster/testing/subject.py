"""What is under test: how to make it, and how it comes to ask the environment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from muster.testing.dialects import Dialect, Shape
from muster.testing.environment import Environment

__all__ = ("Factory", "Reflects", "Subject", "Way")

Factory: TypeAlias = Callable[[Environment], object]
"""Makes what is to be tested, pointed at `environment.url`: a provider, a chat model or a
function."""

Way: TypeAlias = Literal["itself", "behind", "never"]
"""Who calls the environment: the provider itself; something behind it (a command, a function, an
agent of a team), so that failures come through it in its own words; or nobody."""

Reflects: TypeAlias = Literal["question", "system_prompt", "history", "files"]
"""What the answer of a provider that calls nobody repeats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A provider under test."""

    name: str
    factory: Factory
    way: Way | None = None
    """`None`: a first question finds out whether the environment is called by the provider."""
    relays: bool = False
    """With `way` unsaid: what calls the environment is something behind the provider."""
    reflects: frozenset[Reflects] = field(default_factory=frozenset)
    """For one that calls nobody."""
    price_as: str | None = None
    """Who sells its models, as price lists name it; without, the name of the model decides."""
    shape: Shape = field(default_factory=Shape)
    """Where it looks for the values of a plain answer."""
    dialect: Dialect | None = None
    """What its service speaks, at every path, when that is none of the known ones."""
