"""A test on its way to becoming cases: its entry, what it inherits, and its mistakes so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from muster.config.document import Place
from muster.errors import ConfigError, Problem
from muster.evals.suites.dataset import Row
from muster.evals.suites.layers import Layer
from muster.evals.suites.models import TestEntry
from muster.evals.suites.notes import Notes
from muster.evals.suites.variables import fill_vars

__all__ = ("RawTest",)


class RawTest(msgspec.Struct):
    """A test that was read and validated, its variables known but not yet filled in."""

    entry: TestEntry
    place: Place
    row: Row
    id: str
    layer: Layer
    """What it inherits, all levels merged."""
    skip_defaults: bool
    vars: Mapping[str, Any]
    notes: Notes
    problems: list[Problem] = msgspec.field(default_factory=list)

    def complain(self, message: str) -> None:
        """Note a mistake of the test as a whole."""
        self.problems.append(self.place.problem(f"{self.id}: {message}"))

    def guarded(self, make: Callable[..., Any], *args: Any) -> Any:
        """What `make(*args)` gives; `None` when it raises, its problems noted."""
        try:
            return make(*args)
        except ConfigError as error:
            self.problems += (one for one in error.problems if one not in self.problems)
            return None

    def fill(self, value: Any, place: Place) -> Any:
        """`value`, which stands at `place`, with the variables filled in."""
        return None if value is None else fill_vars(value, self.vars, self.unknown_at(place))

    def unknown_at(self, place: Place) -> Callable[[str], None]:
        """A function that warns of a variable at `place` that there is not."""
        return lambda name: self.notes.unknown_variable(name, place)
