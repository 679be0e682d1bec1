"""The first pass over a suite's tests: is every case good, and how many are there?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec

from muster.config.document import Document, Place
from muster.errors import ConfigError, Problem, nearest
from muster.evals.case import Case
from muster.evals.suites.dataset import Row
from muster.evals.suites.layers import Layer
from muster.evals.suites.normalize import NO_GRADER, CaseBuilder
from muster.evals.suites.tests import CasesInMemory, TestList

__all__ = ("MAX_PROBLEMS", "Checked", "check_cases")

MAX_PROBLEMS = 20
"""Mistakes that are told one by one."""

_GIVE_UP = 1000
"""Mistakes after which a suite is not read on."""

_KEPT_CASES = 20_000
_KEPT_BYTES = 8_000_000
"""Suites of up to so many cases, from files of up to so many bytes, are built once and kept."""

_FEW_IDS = 5_000
"""Up to so many, the nearest is looked for when one is not found."""


class Checked(msgspec.Struct):
    """What the first pass found."""

    cases: Callable[[], Iterator[Case]]
    count: int = 0
    repeats: int = 0
    has_turns: bool = False
    has_clusters: bool = False
    targets: dict[str, None] = msgspec.field(default_factory=dict)
    """Those that single cases name."""
    judges: set[str | None] = msgspec.field(default_factory=set)
    """Those that graders ask."""
    dependencies: frozenset[str] = frozenset()
    skipped: tuple[str, ...] = ()


def check_cases(
    tests: TestList | CasesInMemory, builder: CaseBuilder, *, skip_invalid: bool
) -> Checked:
    """Build every case once.

    Raises:
        ConfigError: some are wrong, and `skip_invalid` is not given; or a whole file is.
    """
    return _Pass(tests, builder, skip_invalid).run()


class _Dependent(msgspec.Struct):
    """A test that depends on others."""

    number: int
    ids: tuple[str, ...]
    cases: int
    repeats: int


class _Pass:
    def __init__(
        self, tests: TestList | CasesInMemory, builder: CaseBuilder, skip_invalid: bool
    ) -> None:
        self.tests = tests
        self.builder = builder
        self.skip_invalid = skip_invalid
        self.found = Checked(self._again)
        self.ids: set[str] = set()
        self.kept: list[Case] | None = [] if _are_small(tests) else None
        self.problems: list[Problem] = []
        self.untold = 0
        self.skipped: dict[object, list[str]] = {}
        self.left_out: set[int] = set()
        """Numbers of the tests that are skipped."""
        self.duplicates: list[tuple[str, int, Place]] = []
        self.dependents: dict[str, _Dependent] = {}

    def run(self) -> Checked:
        number = 0
        for item, layer in self.tests.read(self._unreadable):
            number += 1
            try:
                cases = self._build(item, number, layer)
            except ConfigError as error:
                self._wrong(error.problems, number)
                continue
            if cases[0].id in self.ids:
                cases = self._same_id(item, number, layer, cases)
                if not cases:
                    continue
            self._take(cases, number)
            if self.untold + len(self.problems) > _GIVE_UP:
                break
        self._tell_duplicates()
        self._check_dependencies()
        if self.problems:
            raise ConfigError(self._told())
        self.found.skipped = tuple(
            f"{lines[0]} (and {len(lines) - 1} more)" if len(lines) > 1 else lines[0]
            for lines in self.skipped.values()
        )
        self.ids = set()
        if self.kept is not None and not self.left_out:
            kept = tuple(self.kept)
            self.found.cases = lambda: iter(kept)
        return self.found

    def _again(self) -> Iterator[Case]:
        """A later pass: the same cases, built anew."""
        build, left_out = self.builder.build, self.left_out
        number = count = 0
        for item, layer in self.tests.read(_ignore):
            number += 1
            if number in left_out:
                continue
            cases = (item,) if isinstance(item, Case) else build(item, number, layer)
            count += len(cases)
            yield from cases
        if count != self.found.count:
            changed = f"has changed: there were {self.found.count} cases, and now {count}"
            raise ConfigError(Problem(changed, next(iter(self.tests.paths), None)))

    def _build(self, item: Row | Case, number: int, layer: Layer | None) -> tuple[Case, ...]:
        if not isinstance(item, Case):
            return self.builder.build(item, number, layer)
        if not item.graders and not any(turn.graders for turn in item.turns):
            raise ConfigError(Problem(f"{item.id}: {NO_GRADER}"))
        return (item,)

    def _take(self, cases: tuple[Case, ...], number: int) -> None:
        first, found = cases[0], self.found
        self.ids.add(first.id)
        repeats = first.repeat * len(cases)
        found.count += len(cases)
        found.repeats += repeats
        if first.turns:
            found.has_turns = True
        if first.cluster is not None:
            found.has_clusters = True
        if first.targets:
            found.targets |= dict.fromkeys(first.targets)
        for case in cases:
            for graders in (case.graders, *(turn.graders for turn in case.turns)):
                for grader in graders:
                    if grader.judges:
                        found.judges.update(name or case.judge_target for name in grader.judges)
        if first.depends_on:
            self.dependents[first.id] = _Dependent(number, first.depends_on, len(cases), repeats)
        if self.kept is not None:
            self.kept += cases
            if len(self.kept) > _KEPT_CASES:
                self.kept = None

    # --- what is wrong ----------------------------------------------------------------------------

    def _unreadable(self, problem: Problem) -> None:
        if self.skip_invalid:
            key = (problem.path, problem.line)
            self.skipped.setdefault(key, []).append(str(problem))
        else:
            self._tell(problem)

    def _wrong(self, problems: Sequence[Problem], number: int) -> None:
        if self.skip_invalid:
            self.left_out.add(number)
            self.skipped[number] = [str(problem) for problem in problems]
            return
        for problem in problems:
            self._tell(problem)

    def _tell(self, problem: Problem) -> None:
        if problem in self.problems:
            return  # of something that many tests share
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)
        else:
            self.untold += 1

    def _told(self) -> list[Problem]:
        if not self.untold:
            return self.problems
        least = "at least " if self.untold + len(self.problems) > _GIVE_UP else ""
        return [*self.problems, Problem(f"… and {least}{self.untold} more problems")]

    # --- ids ------------------------------------------------------------------------------------

    def _same_id(
        self, item: Row | Case, number: int, layer: Layer | None, cases: tuple[Case, ...]
    ) -> tuple[Case, ...]:
        """The cases under another id, if the id was made from something; else none."""
        own = isinstance(item, Case) or item.data.get("id") is not None
        if not own:
            self.builder.numbered.add(number)
            assert isinstance(item, Row)
            cases = self.builder.build(item, number, layer)
            if cases[0].id not in self.ids:
                return cases
        place = Place(item.document, (*item.location, "id")) if isinstance(item, Row) else None
        if len(self.duplicates) < MAX_PROBLEMS or self.skip_invalid:
            self.duplicates.append((cases[0].id, number, place or Place(_NOWHERE)))
        else:
            self.untold += 1
        return ()

    def _tell_duplicates(self) -> None:
        """The first test of each id that is there twice is looked up only now: keeping the line of
        every id would take more memory than the ids."""
        if not self.duplicates:
            return
        firsts = self._first_places({name for name, _, _ in self.duplicates})
        for name, number, place in self.duplicates:
            text = f'two tests have the id "{name}"; the first is at {firsts[name]}'
            self._wrong([place.problem(text)], number)

    def _first_places(self, wanted: set[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        number = 0
        for item, layer in self.tests.read(_ignore):
            number += 1
            if number in self.left_out or wanted <= found.keys():
                continue
            try:
                name = self._build(item, number, layer)[0].id
            except ConfigError:
                continue
            if name in wanted and name not in found:
                found[name] = _where(item, number)
        return found

    # --- dependencies -----------------------------------------------------------------------------

    def _check_dependencies(self) -> None:
        if not self.dependents:
            return
        wrong = self._unknown_dependencies() or self._cycle()
        while wrong:
            places = self._places_of({number for number, _, _ in wrong})
            for number, name, text in wrong:
                problem = places[number].problem(f"{name}: {text}")
                if self.skip_invalid:
                    self._leave_out(name)
                self._wrong([problem], number)
            wrong = (self._unknown_dependencies() or self._cycle()) if self.skip_invalid else []
        self.found.dependencies = frozenset(
            name for dependent in self.dependents.values() for name in dependent.ids
        )

    def _leave_out(self, name: str) -> None:
        dependent = self.dependents.pop(name)
        self.ids.discard(name)
        self.found.count -= dependent.cases
        self.found.repeats -= dependent.repeats

    def _unknown_dependencies(self) -> list[tuple[int, str, str]]:
        wrong = []
        for name, dependent in self.dependents.items():
            for other in dependent.ids:
                if other in self.ids:
                    continue
                near = nearest(other, self.ids) if len(self.ids) <= _FEW_IDS else []
                hint = f' (did you mean "{near[0]}"?)' if near else ""
                text = f'depends on "{other}", but no test has that id{hint}'
                wrong.append((dependent.number, name, text))
                break
        return wrong

    def _cycle(self) -> list[tuple[int, str, str]]:
        """A test that depends on itself, by way of others; told at the first of them."""
        finished: set[str] = set()
        for start in self.dependents:
            path: list[str] = []
            on_path: set[str] = set()
            todo: list[tuple[str, bool]] = [(start, False)]
            while todo:
                name, leaving = todo.pop()
                if leaving:
                    finished.add(path.pop())
                    on_path.discard(name)
                elif name in on_path:
                    cycle = [*path[path.index(name) :], name]
                    text = f"depends on itself: {' -> '.join(cycle)}"
                    return [(self.dependents[name].number, name, text)]
                elif name not in finished and name in self.dependents:
                    path.append(name)
                    on_path.add(name)
                    todo.append((name, True))
                    todo += ((other, False) for other in reversed(self.dependents[name].ids))
        return []

    def _places_of(self, numbers: set[int]) -> dict[int, Place]:
        places = {}
        for number, (item, _) in enumerate(self.tests.read(_ignore), 1):
            if number in numbers:
                places[number] = (
                    Place(_NOWHERE)
                    if isinstance(item, Case)
                    else Place(item.document, (*item.location, "depends_on"))
                )
        return places


def _where(item: Row | Case, number: int) -> str:
    if isinstance(item, Case):
        return f"number {number}"
    text = str(Place(item.document, item.location).problem("x"))
    return text.removesuffix(": x")


def _are_small(tests: TestList | CasesInMemory) -> bool:
    return sum(path.stat().st_size for path in tests.paths) <= _KEPT_BYTES


def _ignore(problem: Problem) -> None:
    """Rows that cannot be read were told of in the first pass."""


_NOWHERE = Document(None)
"""Cases made by a program stand in no file."""
