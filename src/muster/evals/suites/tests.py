"""The tests of a suite, in order: written in it, referred to by it, or under its scenarios."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from muster.config.document import Place
from muster.config.validation import validate
from muster.errors import ConfigError, MusterError
from muster.evals.case import Case
from muster.evals.suites.dataset import OnProblem, Row, RowSource, rows_of
from muster.evals.suites.layers import Layer
from muster.evals.suites.models import Scenario
from muster.evals.suites.names import SCENARIO, tidy
from muster.evals.suites.notes import Notes

__all__ = ("CasesInMemory", "Part", "References", "TestList", "said", "scenarios_of")


class Part(msgspec.Struct, frozen=True):
    """Tests from one place; `layer` is what a scenario gives them."""

    rows: RowSource
    layer: Layer | None = None
    id_suffix: str = ""
    """Tells the tests of a scenario's several configurations apart."""


class TestList:
    """All tests of a suite; every pass gives the same in the same order."""

    __test__ = False  # not for pytest

    def __init__(self, parts: list[Part]) -> None:
        self._parts = parts

    @classmethod
    def of(cls, rows: RowSource) -> TestList:
        """The tests of one source."""
        return cls([Part(rows)])

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that they are read from."""
        return tuple(path for part in self._parts for path in part.rows.paths)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was found beside the tests and is not used."""
        return tuple(line for part in self._parts for line in part.rows.warnings)

    def read(self, on_problem: OnProblem) -> Iterator[tuple[Row | Case, Layer | None]]:
        """A fresh pass; `on_problem` is told of tests that cannot be read."""
        for part in self._parts:
            if not part.id_suffix:
                for row in part.rows.read(on_problem):
                    yield row, part.layer
                continue
            for row in part.rows.read(on_problem):
                yield _renamed(row, part.id_suffix), part.layer


def _renamed(row: Row, suffix: str) -> Row:
    if "id" not in row.data:
        return row
    data = {**row.data, "id": f"{row.data['id']}{suffix}"}
    return Row(data, row.document, row.location, row.line)


class CasesInMemory:
    """Tests given by a program: mappings as in a suite, or finished cases."""

    paths: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()

    def __init__(self, items: list[Any], place: Place) -> None:
        self._items = items
        self._place = place

    def read(self, on_problem: OnProblem) -> Iterator[tuple[Row | Case, Layer | None]]:
        """A fresh pass; `on_problem` is told of what is neither a mapping nor a case."""
        for number, item in enumerate(self._items):
            if isinstance(item, Case):
                yield item, None
                continue
            place = self._place.at(number)
            if isinstance(item, dict):
                yield Row(item, place.document, place.location, None), None
            else:
                on_problem(place.problem(_not_a_test(item)))

    def add_to(self, update: Callable[[bytes], None]) -> None:
        """Give what identifies the tests, for a hash."""
        for item in self._items:
            update(said((item.id, item.input) if isinstance(item, Case) else item))


def said(value: object) -> bytes:
    """What identifies a value of Python. Where a function lies in memory does not."""
    text = repr(value)
    return (_ADDRESS.sub("", text) if " at 0x" in text else text).encode("utf-8", "surrogatepass")


_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class _Inline(msgspec.Struct, frozen=True):
    """Tests written in the suite."""

    place: Place
    numbered: tuple[tuple[int, Any], ...]
    paths: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Row]:
        return self.read()

    def read(self, on_problem: OnProblem | None = None) -> Iterator[Row]:
        """A fresh pass; see `RowSource`."""
        for number, item in self.numbered:
            place = self.place.at(number)
            if isinstance(item, dict):
                mark = place.document.mark(place.location)
                yield Row(item, place.document, place.location, mark.line if mark else None)
                continue
            problem = place.problem(_not_a_test(item))
            if on_problem is None:
                raise ConfigError(problem)
            on_problem(problem)


def _not_a_test(item: Any) -> str:
    kind = "nothing" if item is None else f"{item!r}"
    return f"expected a test (a mapping), found {kind[:60]}"


class References(msgspec.Struct, frozen=True):
    """Finds what `tests:` refers to."""

    base_dir: Path
    project_root: Path
    safe: bool
    allow_outside: bool

    def source(self, reference: str, place: Place) -> RowSource:
        """The tests that `reference`, which stands at `place`, means.

        Raises:
            ConfigError: they are not there, or cannot be read; the place is named as well.
        """
        try:
            return rows_of(
                reference,
                base_dir=self.base_dir,
                project_root=self.project_root,
                safe=self.safe,
                allow_outside=self.allow_outside,
            )
        except ConfigError as error:
            problems = error.problems
            if any(problem.line is not None for problem in problems):
                raise
            raise ConfigError(place.problem(str(problem)) for problem in problems) from None
        except MusterError as error:  # of the code that makes the tests
            raise ConfigError(place.problem(str(error))) from error

    def parts(
        self, value: Any, place: Place, *, layer: Layer | None = None, id_suffix: str = ""
    ) -> list[Part]:
        """The tests of `value`: a list of tests and references, or one reference.

        Raises:
            ConfigError: it is of another form, or a reference leads nowhere.
        """
        if isinstance(value, str):
            return [Part(self.source(value, place), layer, id_suffix)]
        if not isinstance(value, list):
            text = "expected a list of tests, or where they are (a file, a folder, a glob)"
            raise ConfigError(place.problem(text))
        if not value:
            raise ConfigError(place.problem("is empty; a suite needs a test"))
        parts: list[Part] = []
        inline: list[tuple[int, Any]] = []
        for number, item in enumerate(value):
            reference = item if isinstance(item, str) else self._included(item, place.at(number))
            if reference is None:
                inline.append((number, item))
                continue
            if inline:
                parts.append(Part(_Inline(place, tuple(inline)), layer, id_suffix))
                inline = []
            parts.append(Part(self.source(reference, place.at(number)), layer, id_suffix))
        if inline:
            parts.append(Part(_Inline(place, tuple(inline)), layer, id_suffix))
        return parts

    @staticmethod
    def _included(item: Any, place: Place) -> str | None:
        """v5's old `{include: path}`."""
        if not isinstance(item, dict) or not isinstance(item.get("include"), str):
            return None
        for key, value in item.items():
            if key == "include" or (key == "type" and value == "tests"):
                continue
            text = (
                "suites are not included in each other; name them both on the command line"
                if key == "type"
                else f'"{key}" is not supported here; an include takes tests as they are'
            )
            raise ConfigError(place.at(key).problem(text, of_key=True))
        return str(item["include"])


def scenarios_of(
    value: Any,
    place: Place,
    references: References,
    *,
    layer_at: Any,
    notes: Notes,
) -> list[Part]:
    """The tests of `scenarios: value`; `layer_at(config, place)` reads a configuration.

    Raises:
        ConfigError: a scenario is not of the right form.
    """
    parts: list[Part] = []
    for data, where in _scenario_entries(value, place, references):
        tidied = tidy(data, where, SCENARIO, notes.old_name)
        base = tidied.place
        scenario = validate(Scenario, tidied.data, base.document, base.location)
        several = len(scenario.config) > 1
        for number, config in enumerate(scenario.config):
            here = base.at("config", number)
            if not isinstance(config, dict):
                raise ConfigError(here.problem("expected a mapping, such as {vars: …}"))
            parts += references.parts(
                scenario.tests,
                base.at("tests"),
                layer=layer_at(config, here),
                id_suffix=f"-{number + 1}" if several else "",
            )
    return parts


def _scenario_entries(
    value: Any, place: Place, references: References
) -> Iterator[tuple[dict[str, Any], Place]]:
    items = value if isinstance(value, list) else [value]
    for number, item in enumerate(items):
        where = place.at(number) if isinstance(value, list) else place
        if isinstance(item, str):
            for row in references.source(item, where):
                yield row.data, Place(row.document, row.location)
        elif isinstance(item, dict):
            yield item, where
        else:
            raise ConfigError(where.problem("expected a scenario: {config: […], tests: […]}"))
