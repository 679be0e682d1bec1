"""From a test as it is written to `Case`s: inherited settings merged, variables and prompts filled
in, files found, graders built. One test gives one case, or one for each prompt.

Where a setting can stand in several places, the nearest to the test counts: the test's own field,
its `run`, `options` and `execution`, the scenario's `config`, `default_test`, the suite.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from pydantic import ValidationError

from muster.config.document import Location, Place
from muster.config.interpolation import fill
from muster.config.validation import problems_of
from muster.errors import ConfigError
from muster.evals.case import DEFAULT_THRESHOLD, Case, Turn
from muster.evals.graders.base import BoundGrader
from muster.evals.suites.dataset import Row
from muster.evals.suites.inputs import InputMaker
from muster.evals.suites.layers import (
    Binder,
    GraderList,
    Layer,
    SuiteSettings,
    judge_of,
    judge_prompt_of,
    loaded_vars,
    merged_metadata,
    over,
)
from muster.evals.suites.messages import FileFinder, take_files, to_messages
from muster.evals.suites.models import TestEntry, TurnEntry
from muster.evals.suites.moved import MovedDocument
from muster.evals.suites.names import TEST, tidy
from muster.evals.suites.notes import Notes
from muster.evals.suites.raw_test import RawTest
from muster.evals.suites.targets import SuiteTargets
from muster.evals.suites.variables import has_braces
from muster.provider import Message

__all__ = ("CACHE_OF_SUITE", "NO_GRADER", "NO_STRATEGY", "CaseBuilder")

_PLAIN = frozenset(
    ("id", "input", "expected_output", "criteria", "assertions", "assert", "metadata")
)
_NESTED = frozenset(TEST.inner)
_ENVIRONMENT_FILES = (".yaml", ".yml", ".json")

NO_GRADER = (
    "has nothing that judges the answer; add `assertions`, for example "
    "`- {type: contains, value: …}`, or `criteria` for a model that judges"
)
CACHE_OF_SUITE = "not used; caching is a setting of the whole suite"
NO_STRATEGY = "not used: every repeat is run, recorded and summed up by itself"


class CaseBuilder:
    """Makes cases of the tests of one suite."""

    def __init__(
        self,
        settings: SuiteSettings,
        *,
        files: FileFinder,
        binder: Binder,
        notes: Notes,
        targets: SuiteTargets,
    ) -> None:
        self.settings = settings
        self.numbered: set[int] = set()
        """Tests without an id of their own, whose derived id is another's already."""
        self._files = files
        self._binder = binder
        self._notes = notes
        self._targets = targets
        self._inputs = InputMaker(settings, files)
        self._layers: dict[int, Layer] = {}
        layer = settings.layer
        self._shared = self._shared_graders(layer)
        self._can_be_plain = (
            not settings.prompts
            and not settings.input_files
            and not (layer.vars or layer.prefix or layer.suffix)
            and not has_braces(settings.input)
            and self._shared is not None
        )
        self._suite_input: tuple[Message, ...] = ()
        if settings.input is not None and self._can_be_plain:
            self._suite_input = to_messages(settings.input, settings.input_place, files)
            self._can_be_plain = all(type(m.content) is str for m in self._suite_input)

    def build(self, row: Row, number: int, layer: Layer | None = None) -> tuple[Case, ...]:
        """The cases of a test. `number` counts the suite's tests from 1; `layer` is a scenario's.

        Raises:
            ConfigError: with a problem for each mistake in the test.
        """
        if layer is None and self._can_be_plain:
            plain = self._plain(row, number)
            if plain is not None:
                return plain
        test = self._read(row, number, layer)
        cases = self._cases(test)
        if test.problems:
            raise ConfigError(test.problems)
        return cases

    # --- the fast way ---------------------------------------------------------------------------

    def _plain(self, row: Row, number: int) -> tuple[Case, ...] | None:
        """The case of a test of the simplest form: an id, texts without variables, assertions and
        metadata, in a suite that asks for nothing per test. `None` for any other: those are
        checked by their model. Both ways give the same case."""
        data = row.data
        if not data.keys() <= _PLAIN:
            return None
        test_id, asked = data.get("id"), data.get("input")
        if type(test_id) is not str or type(asked) is not str or not test_id:
            return None
        if "{{" in asked or "{{" in test_id:
            return None
        answer, criteria = data.get("expected_output"), data.get("criteria")
        if answer is not None and (type(answer) is not str or "{{" in answer):
            return None
        if criteria is not None and (type(criteria) is not str or "{{" in criteria):
            return None
        metadata = data.get("metadata")
        if metadata is not None and (type(metadata) is not dict or has_braces(metadata)):
            return None
        graders = self._shared
        assert graders is not None
        key = "assertions" if "assertions" in data else "assert"
        if (own := data.get(key)) is not None:
            if type(own) is not list or len(data.keys() & {"assertions", "assert"}) > 1:
                return None
            if has_braces(own):
                return None
            graders = (
                self._binder.bind(own, Place(row.document, (*row.location, key)), None) + graders
            )
        if not graders:
            return None
        settings = self.settings
        layer = settings.layer
        merged = merged_metadata(layer.metadata, metadata or {})
        return (
            Case(
                id=test_id,
                suite=settings.name,
                input=(*self._suite_input, Message("user", asked)),
                expected_output=(Message("assistant", answer),) if answer is not None else (),
                criteria=criteria,
                graders=graders,
                judge_target=layer.judge_target,
                judge_prompt=layer.judge_prompt,
                threshold=DEFAULT_THRESHOLD if layer.threshold is None else layer.threshold,
                repeat=layer.repeat or 1,
                timeout_seconds=layer.timeout_seconds,
                targets=layer.targets,
                metadata=merged,
                tags=layer.tags,
                cluster=self._cluster(None, merged, {}, row),
                category=settings.category,
                response_schema=layer.response_schema,
                line=row.line,
            ),
        )

    @staticmethod
    def _shared_graders(layer: Layer) -> tuple[BoundGrader, ...] | None:
        """The inherited graders, if they are the same for all tests."""
        if any(graders.shared is None for graders in layer.graders):
            return None
        return tuple(grader for graders in layer.graders for grader in graders.shared or ())

    # --- reading --------------------------------------------------------------------------------

    def _read(self, row: Row, number: int, scenario: Layer | None) -> RawTest:
        data, place = row.data, Place(row.document, row.location)
        path = row.document.path
        if path is not None and path.suffix.lower() in _ENVIRONMENT_FILES:
            data = fill(data, self.settings.env, self._missing_in(place), coerce=True)
        if not data.keys() <= TEST.fields or not data.keys().isdisjoint(_NESTED):
            tidied = tidy(data, place, TEST, self._notes.old_name)
            data, place = tidied.data, tidied.place
        try:
            entry = TestEntry.model_validate(data)
        except ValidationError as error:
            found = problems_of(error, TestEntry, place.document, place.location)
            raise ConfigError(found) from None
        layer = self._inherited(scenario)
        variables: Mapping[str, Any] = entry.vars or {}
        if self.settings.files_in_vars and variables:
            variables = loaded_vars(variables, place.at("vars"), self._files)
        if layer.vars:
            variables = {**layer.vars, **variables}
        skip = entry.execution is not None and entry.execution.skip_defaults
        test_id = self._id(entry, variables, number)
        test = RawTest(entry, place, row, test_id, layer, skip, variables, self._notes)
        self._check(test)
        return test

    def _inherited(self, scenario: Layer | None) -> Layer:
        if scenario is None:
            return self.settings.layer
        layer = self._layers.get(id(scenario))
        if layer is None:
            layer = self._layers[id(scenario)] = over(scenario, self.settings.layer)
        return layer

    def _missing_in(self, place: Place) -> Callable[[str, Location], None]:
        def missing(name: str, location: Location) -> None:
            text = f"the variable {name} is not set; it is filled in as nothing"
            self._notes.at(place.at(*location), text, key=("environment", name))

        return missing

    def _check(self, test: RawTest) -> None:
        """What the model cannot know."""
        entry, place, problems = test.entry, test.place, test.problems
        if entry.mode is not None and entry.turns is None:
            problems.append(place.at("mode").problem("a conversation needs `turns`"))
        execution = entry.execution
        if execution is None:
            return
        if entry.assertions is not None and execution.assertions is not None:
            text = "the test has `assertions` beside `execution` as well; keep one"
            problems.append(place.at("execution", "assertions").problem(text, of_key=True))
        for name in ("budget_usd", "workers", "fail_on_error"):
            if getattr(execution, name) is not None:
                text = f'"{name}" is a setting of the whole suite'
                problems.append(place.at("execution", name).problem(text, of_key=True))
        if execution.cache or execution.cache_path:
            self._notes.at(place.at("execution", "cache"), CACHE_OF_SUITE)
        if execution.trials is not None and execution.trials.strategy is not None:
            self._notes.at(place.at("execution", "trials", "strategy"), NO_STRATEGY)

    # --- from a test to its cases ---------------------------------------------------------------

    def _id(self, entry: TestEntry, variables: Mapping[str, Any], number: int) -> str:
        """The test's id; without one, its `vars.id`, its description, or its number."""
        if entry.id is not None:
            return entry.id
        derived = variables.get("id") or entry.description
        if not isinstance(derived, str | int) or not str(derived).strip():
            return f"test-{number}"
        text = str(derived).strip()
        return f"{text} ({number})" if number in self.numbered else text

    def _cases(self, test: RawTest) -> tuple[Case, ...]:
        entry, layer = test.entry, test.layer
        turns = tuple(
            turn
            for at, item in enumerate(entry.turns or ())
            if (turn := test.guarded(self._turn, test, item, at)) is not None
        )
        turns, turn_files = _without_files(turns)
        graders = self._graders(test)
        if not graders and not test.problems and not any(turn.graders for turn in turns):
            if entry.criteria:
                graders = test.guarded(self._implicit, test) or ()
            else:
                test.complain(NO_GRADER)
        metadata = _metadata(test)
        base = Case(
            id=test.id,
            suite=entry.suite or self.settings.name,
            input=(),
            input_files=self._inputs.files(test) + turn_files,
            expected_output=test.guarded(self._expected, test) or (),
            criteria=_text(test.fill(entry.criteria, test.place.at("criteria"))),
            graders=graders,
            judge_target=test.guarded(judge_of, entry, test.place, self._targets)
            or layer.judge_target,
            judge_prompt=test.guarded(judge_prompt_of, entry.options, test.place, self._files)
            or layer.judge_prompt,
            threshold=_threshold(test),
            repeat=_repeat(test),
            timeout_seconds=_timeout(test),
            targets=test.guarded(self._targets.of, entry, test.place) or layer.targets,
            vars=test.vars,
            metadata=metadata,
            tags=tuple(dict.fromkeys((*layer.tags, *(entry.tags or ())))),
            cluster=self._cluster(entry.cluster, metadata, test.vars, test.row),
            category=entry.category or self.settings.category,
            conversation_id=entry.conversation_id,
            depends_on=tuple(entry.depends_on or ()),
            on_dependency_failure=entry.on_dependency_failure,
            turns=turns,
            aggregation=entry.aggregation,
            on_turn_failure=entry.on_turn_failure,
            window_size=entry.window_size,
            response_schema=entry.response_schema or layer.response_schema,
            line=test.row.line,
        )
        return self._inputs.cases(test, base)

    def _cluster(
        self, own: str | None, metadata: Mapping[str, Any], values: Mapping[str, Any], row: Row
    ) -> str | None:
        """What the test shares with others: as it says itself, else by the suite's `cluster_by`.
        Tests that stand in the suite's own file do not share a source by that."""
        by = self.settings.cluster_by
        if own is None and by == "file":
            path, suite = row.document.path, self.settings.input_place.document.path
            if path is not None and path != suite:
                own = os.path.relpath(path, self.settings.base_dir)
        found = own if own is not None else metadata.get("cluster")
        if found is None and by not in (None, "file"):
            found = metadata.get(by, values.get(by))
        return None if found is None else str(found)

    def _expected(self, test: RawTest) -> tuple[Message, ...]:
        value, place = test.entry.expected_output, test.place.at("expected_output")
        if value is None:
            value, place = (
                test.vars.get("expected_output"),
                test.place.at("vars", "expected_output"),
            )
        if value is None:
            return ()
        return to_messages(test.fill(value, place), place, self._files, role="assistant")

    def _turn(self, test: RawTest, item: TurnEntry, at: int) -> Turn:
        place = test.place.at("turns", at)
        asked = to_messages(
            test.fill(item.input, place.at("input")), place.at("input"), self._files
        )
        expected: tuple[Message, ...] = ()
        if item.expected_output is not None:
            where = place.at("expected_output")
            value = test.fill(item.expected_output, where)
            expected = to_messages(value, where, self._files, role="assistant")
        graders: tuple[BoundGrader, ...] = ()
        if item.assertions:
            graders = self._bound(test, item.assertions, place.at("assertions"))
        return Turn(input=asked, expected_output=expected, graders=graders)

    def _graders(self, test: RawTest) -> tuple[BoundGrader, ...]:
        """The test's own, then those it inherits."""
        entry = test.entry
        entries, place = entry.assertions, test.place.at("assertions")
        if entries is None and entry.execution is not None:
            entries, place = entry.execution.assertions, test.place.at("execution", "assertions")
        found: tuple[BoundGrader, ...] = ()
        if entry.rubrics:
            found = test.guarded(self._inline_rubrics, test, entry.rubrics) or ()
        if entries:
            found += test.guarded(self._bound, test, entries, place) or ()
        if test.skip_defaults:
            return found
        for inherited in test.layer.graders:
            found += test.guarded(self._inherited_graders, test, inherited) or ()
        return found

    def _inline_rubrics(self, test: RawTest, rubrics: list[Any]) -> tuple[BoundGrader, ...]:
        """`rubrics` beside a test's other fields: one grader, before the others."""
        made = {"type": "rubrics", "name": "rubrics", "rubrics": rubrics}
        at = test.place.at("rubrics")
        moved = {("made", 0): at.location, ("made", 0, "rubrics"): at.location}
        document = MovedDocument({"made": [made]}, at.document, moved)
        return self._bound(test, [made], Place(document, ("made",)))

    def _implicit(self, test: RawTest) -> tuple[BoundGrader, ...]:
        """What judges a test that has criteria and nothing else."""
        return self._bound(test, [{"type": "llm-grader"}], test.place.at("criteria"))

    def _inherited_graders(self, test: RawTest, graders: GraderList) -> tuple[BoundGrader, ...]:
        if graders.shared is not None:
            return graders.shared
        return self._bound(test, graders.entries, graders.place)

    def _bound(self, test: RawTest, entries: list[Any], place: Place) -> tuple[BoundGrader, ...]:
        return self._binder.bind(entries, place, lambda text: test.fill(text, place))


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _metadata(test: RawTest) -> Mapping[str, Any]:
    metadata = merged_metadata(test.layer.metadata, test.entry.metadata or {})
    if test.entry.description and "description" not in metadata:
        metadata = {**metadata, "description": test.entry.description}
    return metadata


def _threshold(test: RawTest) -> float:
    entry = test.entry
    for holder in (entry, entry.run, entry.execution, test.layer):
        value: float | None = getattr(holder, "threshold", None)
        if value is not None:
            return value
    return DEFAULT_THRESHOLD


def _repeat(test: RawTest) -> int:
    entry = test.entry
    for holder in (entry, entry.run, entry.options):
        value: int | None = getattr(holder, "repeat", None)
        if value is not None:
            return value
    if entry.execution is not None and entry.execution.trials is not None:
        return entry.execution.trials.count
    return test.layer.repeat or 1


def _timeout(test: RawTest) -> float | None:
    entry = test.entry
    for holder in (entry, entry.run, test.layer):
        value: float | None = getattr(holder, "timeout_seconds", None)
        if value is not None:
            return value
    return None


def _without_files(turns: tuple[Turn, ...]) -> tuple[tuple[Turn, ...], tuple[Path, ...]]:
    """The turns without the files in their inputs, and these files: they go with every turn."""
    found: list[Path] = []
    cleaned = []
    for turn in turns:
        messages, files = take_files(turn.input)
        found += files
        cleaned.append(replace(turn, input=messages) if files else turn)
    return tuple(cleaned), tuple(dict.fromkeys(found))
