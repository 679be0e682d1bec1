"""What the mock says for each role, and what a run must then come to: unit tests of teams.

replies:
  - {role: research, text: Bees dance.}
  - {role: write, attempt: 0, error: rate_limited}
tests:
  - name: goes on after a refusal
    input: {topic: bees}
    expect:
      output: {contains: dance}
      steps: {write: {attempts: 2}}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, Field, field_validator, model_validator

from muster.config.document import Document, Place, read_yaml
from muster.config.validation import FileModel, validate
from muster.errors import ConfigError, Problem
from muster.providers.mock_script import MockReply, MockRule

__all__ = (
    "Expectation",
    "Reply",
    "Script",
    "ScriptFile",
    "StepExpectation",
    "TestCase",
    "Text",
    "ToolResult",
    "read_script",
)


class RoleRule(MockRule):
    """A reply, and when it is given: all conditions that are there must hold."""

    case: str | tuple[str, ...] | None = Field(
        default=None, alias="role", validation_alias=AliasChoices("role", "case")
    )
    """The role that is asked, or one of several; `judge` and `router` for those."""

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that it is for; none: for all."""
        return (self.case,) if isinstance(self.case, str) else self.case or ()


class ToolResult(FileModel):
    """What a tool answers, in place of being called: a text, or one of these."""

    text: str | None = None
    json_value: Any = Field(default=None, alias="json")
    """A value whose JSON is the answer."""
    error: str | None = None
    """The tool fails, and the model is told this."""

    @model_validator(mode="after")
    def _one_answer(self) -> ToolResult:
        if len(self.model_fields_set) != 1:
            raise ValueError("a tool's result is exactly one of `text`, `json` and `error`")
        return self


class Text(FileModel):
    """What a text must be like; every condition that is given must hold. A text alone must be
    equal."""

    equals: str | None = None
    contains: str | tuple[str, ...] | None = None
    """A text, or several, that must all be in it."""
    excludes: str | tuple[str, ...] | None = None
    """A text, or several, none of which may be in it."""
    matches: str | None = None
    """A regular expression that must be found."""
    json_value: Any = Field(default=None, alias="json")
    """The JSON in it must be equal to this value."""
    json_schema: dict[str, Any] | None = Field(default=None, alias="schema")
    """The JSON in it must satisfy this schema."""

    @field_validator("matches")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"not a regular expression: {error}") from None
        return pattern

    @field_validator("json_schema")
    @classmethod
    def _is_schema(cls, schema: dict[str, Any] | None) -> dict[str, Any] | None:
        if schema is not None:
            from jsonschema.exceptions import SchemaError
            from jsonschema.validators import validator_for

            try:
                validator_for(schema).check_schema(schema)
            except SchemaError as error:
                raise ValueError(f"not a JSON Schema: {error.message}") from None
        return schema


class _Expected(FileModel):
    output: Text | None = None
    error: Text | None = None

    @field_validator("output", "error", mode="before", json_schema_input_type=str | Text | None)
    @classmethod
    def _text_alone(cls, value: object) -> object:
        return {"equals": value} if isinstance(value, str) else value


class StepExpectation(_Expected):
    """What a step must come to."""

    status: Literal["succeeded", "failed", "skipped", "pending"] | None = None
    """`pending`: it was never begun."""
    agent: str | None = None
    """The agent that did it, where it was chosen."""
    iterations: int | None = None
    """How often it ran; 1 without a loop."""
    attempts: int | None = None
    """Questions asked for it, retries included."""
    prompt: Text | None = None
    """What it was asked; of several questions, all of them, a line between each two."""
    tools: tuple[str, ...] | None = None
    """The tools it called, in this order."""
    delegates: tuple[str, ...] | None = None
    """The roles it handed tasks to, in this order."""

    @field_validator("prompt", mode="before", json_schema_input_type=str | Text | None)
    @classmethod
    def _prompt_alone(cls, value: object) -> object:
        return {"equals": value} if isinstance(value, str) else value


class Expectation(_Expected):
    """What the run must come to; every condition that is given must hold."""

    status: Literal["succeeded", "failed"] | None = None
    """By default `succeeded`; `failed` where a `reason` or an `error` is expected."""
    reason: (
        Literal["Succeeded", "StepFailed", "TimedOut", "BudgetExceeded", "OutputFailed", "Rejected"]
        | None
    ) = None
    steps: dict[str, StepExpectation] = Field(default_factory=dict)
    max_tokens: int | None = Field(default=None, ge=0)
    """Tokens that the whole run may use."""
    max_cost_usd: float | None = Field(default=None, ge=0)
    """Money that the whole run may cost."""

    @property
    def wanted_status(self) -> str:
        """The status, said or not."""
        if self.status is not None:
            return self.status
        failed = self.error is not None or self.reason not in (None, "Succeeded")
        return "failed" if failed else "succeeded"


class _Mock(FileModel):
    replies: tuple[RoleRule, ...] = ()
    default: MockReply | None = None
    """What is said when no reply fits; without it, the smallest instance of the schema that is
    asked for, or `mock response`."""
    delay: float | None = Field(default=None, ge=0)
    """Seconds before each answer."""
    tools: dict[str, ToolResult] = Field(default_factory=dict)
    """Results of tools, which are then not called. For `muster test` only."""

    @field_validator("default", mode="before", json_schema_input_type=str | MockReply | None)
    @classmethod
    def _text_alone(cls, value: object) -> object:
        return {"text": value} if isinstance(value, str) else value

    @field_validator(
        "tools", mode="before", json_schema_input_type=dict[str, str | ToolResult] | None
    )
    @classmethod
    def _texts_alone(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {
            name: {"text": result} if isinstance(result, str) else result
            for name, result in value.items()
        }


class TestEntry(_Mock):
    """One test of a team."""

    name: str
    input: dict[str, Any] = Field(default_factory=dict)
    """Over the manifest's own."""
    team: str | None = None
    """Which of the manifest's teams."""
    approvals: dict[str, bool | Literal["nobody"]] = Field(default_factory=dict)
    """What is said to steps that ask a person; `nobody`: nothing, until its time is up. By
    default, yes."""
    expect: Expectation = Expectation()


class ScriptFile(_Mock):
    """A script of the mock, alone or with tests."""

    tests: tuple[TestEntry, ...] = ()
    """Without any, one: that a run with the manifest's own input comes to what is expected."""
    expect: Expectation | None = None
    """What that run must come to; else, that it succeeds."""

    @model_validator(mode="after")
    def _one_place(self) -> ScriptFile:
        if self.tests and self.expect is not None:
            raise ValueError("`expect` stands within each of the `tests`, or there are none")
        return self


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply of the script, and where it stands."""

    rule: RoleRule | MockReply
    place: Place


@dataclass(frozen=True, slots=True)
class TestCase:
    """One run with the mock, and what it must come to."""

    name: str
    entry: TestEntry
    place: Place
    settings: Mapping[str, Any]
    """Those of a `mock` target: its own replies go before those of the file."""
    tools: Mapping[str, ToolResult]


@dataclass(frozen=True, slots=True)
class Script:
    """A script, checked by itself."""

    path: Path
    settings: Mapping[str, Any]
    """Those of a `mock` target, without what single tests add."""
    tests: tuple[TestCase, ...]
    replies: tuple[Reply, ...]
    """All there are."""
    tools: Mapping[str, Place]
    """The names of all tools with results, and where they stand."""


def read_script(path: Path) -> Script:
    """Read the script at `path`.

    Raises:
        ConfigError: it cannot be read, or something in it is not as it should be.
    """
    document = read_yaml(path)
    top = Place(document)
    data = {} if document.data is None else document.data
    if not isinstance(data, dict):
        raise ConfigError(top.problem("a script is a mapping with `replies`, `tests` and the like"))
    file = validate(ScriptFile, data, document)
    shared = _settings(file)
    mocks: list[tuple[_Mock, Place]] = [(file, top)]
    tests = []
    for number, entry in enumerate(file.tests):
        place = Place(document, ("tests", number))
        mocks.append((entry, place))
        settings = _over(shared, _settings(entry))
        tests.append(TestCase(entry.name, entry, place, settings, {**file.tools, **entry.tools}))
    _refuse_twins(file.tests, document)
    if not tests:
        name = path.name.partition(".")[0]
        entry = TestEntry(name=name, expect=file.expect or Expectation())
        tests.append(TestCase(name, entry, top, shared, file.tools))
    return Script(
        path,
        shared,
        tuple(tests),
        tuple(reply for mock, place in mocks for reply in _replies(mock, place)),
        {name: place.at("tools", name) for mock, place in mocks for name in mock.tools},
    )


def _refuse_twins(tests: tuple[TestEntry, ...], document: Document) -> None:
    seen: set[str] = set()
    problems: list[Problem] = []
    for number, test in enumerate(tests):
        if test.name in seen:
            where = Place(document, ("tests", number, "name"))
            problems.append(where.problem(f'there are two tests called "{test.name}"'))
        seen.add(test.name)
    if problems:
        raise ConfigError(problems)


def _replies(mock: _Mock, place: Place) -> list[Reply]:
    found = [Reply(rule, place.at("replies", n)) for n, rule in enumerate(mock.replies)]
    if mock.default is not None:
        found.append(Reply(mock.default, place.at("default")))
    return found


def _settings(mock: _Mock) -> dict[str, Any]:
    settings: dict[str, Any] = {"replies": [_plain(rule) for rule in mock.replies]}
    if mock.default is not None:
        settings["default"] = _plain(mock.default)
    if mock.delay is not None:
        settings["delay"] = mock.delay
    return settings


def _plain(reply: MockReply) -> dict[str, Any]:
    """The reply as it would stand in `targets.yaml`; it can be kept as JSON."""
    plain = reply.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return {"case" if name == "role" else name: value for name, value in plain.items()}


def _over(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """A test's replies go before those of the file."""
    return {**shared, **own, "replies": [*own["replies"], *shared["replies"]]}
