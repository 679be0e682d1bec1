"""Brings the spellings of AgentV's dialects to one name a field.

`assert` is as good as `assertions`. camelCase and old names are read, with one warning each. A
field that means something Muster does not do is an error that says so: a test that runs without
its workspace would measure something else. Places stay right: messages name the field as written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from muster.config.document import Document, Location, Mark, Place
from muster.config.validation import FileModel
from muster.errors import ConfigError, Problem
from muster.evals.suites.models import (
    SUITE_SYNONYMS,
    SYNONYMS,
    TEST_SYNONYMS,
    DefaultTest,
    EvaluateOptions,
    Execution,
    Options,
    RunOverrides,
    Scenario,
    SuiteFile,
    TestEntry,
    Trials,
    TurnEntry,
)

__all__ = ("DEFAULT_TEST", "SCENARIO", "SUITE", "TEST", "Level", "Tidied", "tidy")

_CAMEL = re.compile(r"(?<=[a-z0-9])([A-Z])")

Told = Callable[[str, str, Place], None]
"""Told of an old name: as written, as it is called now, and where."""


class Level(msgspec.Struct, frozen=True):
    """The names of one kind of mapping."""

    fields: frozenset[str]
    synonyms: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Other names that are as good."""
    old: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Names that are warned of."""
    foreign: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Fields that Muster does not know what to do with, and what to do instead."""
    inner: Mapping[str, Level] = msgspec.field(default_factory=dict)
    """Levels of the mappings, or lists of mappings, within."""


class Tidied(msgspec.Struct, frozen=True):
    """A mapping under the names of today, and where its values stand."""

    data: dict[str, Any]
    place: Place


def tidy(data: Mapping[str, Any], place: Place, level: Level, told: Told) -> Tidied:
    """`data`, which stands at `place`, with the names that its model knows.

    Raises:
        ConfigError: a field is there under two names, or is one that Muster has no use for.
    """
    renamer = _Renamer(place, told)
    tidied = renamer.mapping(data, level, (), ())
    if renamer.problems:
        raise ConfigError(renamer.problems)
    if not renamer.written:
        return Tidied(tidied, place)
    return Tidied(tidied, Place(_Renamed(tidied, place, renamer.written)))


class _Renamer:
    def __init__(self, place: Place, told: Told) -> None:
        self.place = place
        self.told = told
        self.problems: list[Problem] = []
        self.written: dict[Location, str] = {}
        """Locations by today's names, and the name that the last step is written under."""

    def mapping(
        self, data: Mapping[str, Any], level: Level, now: Location, written: Location
    ) -> dict[str, Any]:
        found: dict[str, Any] = {}
        sources: dict[str, str] = {}
        for key, value in data.items():
            here = self.place.at(*written, key)
            if key in level.foreign and key not in level.fields:
                if value not in (None, False, {}, [], ""):
                    text = f'"{key}" is not supported: {level.foreign[key]}'
                    self.problems.append(here.problem(text, of_key=True))
                continue
            name = self._name(key, level, here)
            if name in sources:
                text = f'"{key}" and "{sources[name]}" mean the same; keep one'
                self.problems.append(here.problem(text, of_key=True))
                continue
            sources[name] = key
            if name != key:
                self.written[*now, name] = key
            inner = level.inner.get(name)
            found[name] = (
                value if inner is None else self.inside(value, inner, (*now, name), (*written, key))
            )
        return found

    def inside(self, value: Any, level: Level, now: Location, written: Location) -> Any:
        if isinstance(value, dict):
            return self.mapping(value, level, now, written)
        if isinstance(value, list):
            return [
                self.inside(item, level, (*now, number), (*written, number))
                for number, item in enumerate(value)
            ]
        return value

    def _name(self, key: str, level: Level, here: Place) -> str:
        if key in level.fields:
            return key
        if key in level.synonyms:
            return level.synonyms[key]
        name = level.old.get(key)
        if name is None:
            snake = _CAMEL.sub(lambda match: "_" + match[1].lower(), key)
            if snake == key:
                return key
            name = level.synonyms.get(snake, level.old.get(snake, snake))
            if name not in level.fields:
                return key
        self.told(key, name, here)
        return name


class _Renamed(Document):
    """Tidied data; places are looked up under the names as written."""

    def __init__(self, data: Any, origin: Place, written: Mapping[Location, str]) -> None:
        super().__init__(data, origin.document.path)
        self._origin = origin
        self._names = written

    def mark(self, location: Sequence[str | int], *, of_key: bool = False) -> Mark | None:
        """Where the value stands in the file."""
        place = self._place(location)
        return place.document.mark(place.location, of_key=of_key)

    def problem(
        self, location: Sequence[str | int], message: str, *, of_key: bool = False
    ) -> Problem:
        """`message` about the value, under the name that the file gives it."""
        return self._place(location).problem(message, of_key=of_key)

    def _place(self, location: Sequence[str | int]) -> Place:
        now = tuple(location)
        steps = [self._names.get(now[: number + 1], step) for number, step in enumerate(now)]
        return self._origin.at(*steps)


# --- the names ------------------------------------------------------------------------------------


def _fields(*models: type[FileModel]) -> frozenset[str]:
    return frozenset(
        info.alias or name for model in models for name, info in model.model_fields.items()
    )


_OLD_GRADERS = {"evaluators": "assertions", "graders": "assertions"}

_PLACES = "Muster gives targets no workspace of their own yet"
_CODE = "Muster runs no hooks yet; prepare what is needed before the run"
_FILES = "Muster does not convert files; give text files"
_FOREIGN = {
    "workspace": _PLACES,
    "environment": _PLACES,
    "extensions": _CODE,
    "hooks": _CODE,
    "preprocessors": _FILES,
    "transform": "Muster does not rewrite outputs; let the target do it",
}
_SUITE_BUDGET = "set `budget_usd` for the whole suite"
_SCORING = "the score is the weighted mean of the assertions; use their `weight` and `required`"

_TURN = Level(_fields(TurnEntry), SYNONYMS, _OLD_GRADERS)
_OPTIONS = Level(
    _fields(Options),
    foreign=dict.fromkeys(
        ("transform", "postprocess", "transformVars", "transform_vars"), _FOREIGN["transform"]
    ),
)
_EXECUTION = Level(
    _fields(Execution),
    SYNONYMS,
    _OLD_GRADERS | {"total_budget_usd": "budget_usd"},
    {"hooks": _CODE},
    {
        "trials": Level(
            _fields(Trials),
            foreign=dict.fromkeys(("cost_limit_usd", "costLimitUsd"), _SUITE_BUDGET),
        )
    },
)
_TEST_FOREIGN = _FOREIGN | {
    "assert_scoring_function": _SCORING,
    "assertScoringFunction": _SCORING,
    "provider_output": "recorded outputs come from a target with `provider: replay`",
    "providerOutput": "recorded outputs come from a target with `provider: replay`",
}
_TEST_INNER = {"options": _OPTIONS}

DEFAULT_TEST = Level(_fields(DefaultTest), TEST_SYNONYMS, _OLD_GRADERS, _TEST_FOREIGN, _TEST_INNER)
"""`default_test`, and the `config` of a scenario."""

TEST = Level(
    _fields(TestEntry),
    TEST_SYNONYMS,
    _OLD_GRADERS | {"expected_outcome": "criteria"},
    _TEST_FOREIGN,
    _TEST_INNER
    | {
        "execution": _EXECUTION,
        "turns": _TURN,
        "run": Level(_fields(RunOverrides), foreign={"budget_usd": _SUITE_BUDGET}),
    },
)
"""A test."""

SCENARIO = Level(_fields(Scenario))
"""An entry of `scenarios`; its tests are tidied one by one."""

SUITE = Level(
    _fields(SuiteFile),
    SUITE_SYNONYMS,
    _OLD_GRADERS | dict.fromkeys(("eval_cases", "evalcases", "cases"), "tests"),
    _FOREIGN
    | {
        "env": "put variables into a .env file beside the suite",
        "derived_metrics": "compute them from results.jsonl",
        "derivedMetrics": "compute them from results.jsonl",
        "nunjucks_filters": "Jinja's own filters can be used in prompts",
        "nunjucksFilters": "Jinja's own filters can be used in prompts",
        "output_path": "say where with --output",
        "outputPath": "say where with --output",
        "imports": "list the other files under `tests`",
        "early_exit": "use `fail_on_error`",
        "policy": "use `threshold` and `fail_on_error`",
        "on_run_complete": _CODE,
    },
    {
        "execution": _EXECUTION,
        "evaluate_options": Level(
            _fields(EvaluateOptions),
            foreign=dict.fromkeys(("max_eval_time_ms", "maxEvalTimeMs"), "use --timeout")
            | dict.fromkeys(("filter_range", "filterRange"), "use --limit or --test-id"),
        ),
        "default_test": DEFAULT_TEST,
    },
)
"""A suite; its tests are tidied one by one."""
