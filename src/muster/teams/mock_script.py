"""What the mock says for each role, and what a run must then come to: unit tests of teams.

replies:
  - {role: research, text: Bees dance.}
  - {role: write, attempt: 0, error: rate_limited}
expect:
  status: succeeded
  output: {contains: dance}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, Field, field_validator

from muster.config.document import read_yaml
from muster.config.validation import FileModel, validate
from muster.providers.mock_script import MockReply, MockRule

__all__ = ("Expectation", "Script", "TestCase", "Text", "read_script")


class RoleRule(MockRule):
    """A reply, and when it is given: all conditions that are there must hold."""

    case: str | tuple[str, ...] | None = Field(
        default=None, validation_alias=AliasChoices("role", "case")
    )
    """The role that is asked, or one of several; `judge` and `router` for those."""


class Text(FileModel):
    """What a text must be like; every condition that is given must hold."""

    equals: str | None = None
    contains: str | tuple[str, ...] | None = None
    excludes: str | tuple[str, ...] | None = None
    matches: str | None = None
    """A regular expression that must be found."""
    json_schema: dict[str, Any] | None = None

    @field_validator("matches")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"not a regular expression: {error}") from None
        return pattern


class StepExpectation(FileModel):
    """What a step must come to."""

    status: Literal["succeeded", "failed", "skipped", "pending"] | None = None
    output: Text | None = None
    error: Text | None = None
    agent: str | None = None
    """The agent that did it, where it was chosen."""
    iterations: int | None = None
    """How often it ran; 1 without a loop."""
    attempts: int | None = None
    """Questions asked for it, retries included."""
    tools: tuple[str, ...] | None = None
    """The tools it called, in this order."""

    @field_validator("output", "error", mode="before", json_schema_input_type=str | Text | None)
    @classmethod
    def _text_alone(cls, value: object) -> object:
        return {"equals": value} if isinstance(value, str) else value


class Expectation(FileModel):
    """What the run must come to; every condition that is given must hold."""

    status: Literal["succeeded", "failed"] = "succeeded"
    reason: str | None = None
    """`Succeeded`, `StepFailed`, `TimedOut`, `BudgetExceeded`, `OutputFailed`, `Rejected`."""
    output: Text | None = None
    error: Text | None = None
    steps: dict[str, StepExpectation] = Field(default_factory=dict)
    max_tokens: int | None = None
    """Tokens of the whole run."""

    @field_validator("output", "error", mode="before", json_schema_input_type=str | Text | None)
    @classmethod
    def _text_alone(cls, value: object) -> object:
        return {"equals": value} if isinstance(value, str) else value


class _Mock(FileModel):
    replies: tuple[RoleRule, ...] = ()
    default: MockReply | None = None
    """What is said when no reply fits; without it, the mock's own default."""
    delay: float | None = Field(default=None, ge=0)
    """Seconds before each answer."""

    @field_validator("default", mode="before", json_schema_input_type=str | MockReply | None)
    @classmethod
    def _text_alone(cls, value: object) -> object:
        return {"text": value} if isinstance(value, str) else value


class TestEntry(_Mock):
    """One test of a team."""

    name: str
    input: dict[str, Any] = Field(default_factory=dict)
    """Over the manifest's own."""
    team: str | None = None
    """Which of the manifest's teams."""
    expect: Expectation = Expectation()


class ScriptFile(_Mock):
    """A script of the mock, alone or with what a run must come to."""

    expect: Expectation | None = None
    """Without `tests`: what a run with the manifest's own input must come to."""
    tests: tuple[TestEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class TestCase:
    """One run with the mock, and what it must come to."""

    name: str
    inputs: Mapping[str, Any]
    team: str | None
    settings: Mapping[str, Any]
    expect: Expectation


@dataclass(frozen=True, slots=True)
class Script:
    """A script, checked. `settings` are those of a `mock` target."""

    path: Path
    settings: Mapping[str, Any]
    tests: tuple[TestCase, ...] = field(default=())


def read_script(path: Path) -> Script:
    """Read the script at `path`.

    Raises:
        ConfigError: it cannot be read, or something in it is not as it should be.
    """
    document = read_yaml(path)
    file = validate(ScriptFile, document.data, document)
    shared = _settings(file)
    if file.tests:
        tests = tuple(
            TestCase(test.name, test.input, test.team, _over(shared, _settings(test)), test.expect)
            for test in file.tests
        )
    else:
        tests = (TestCase(path.stem, {}, None, shared, file.expect or Expectation()),)
    return Script(path, shared, tests)


def _settings(mock: _Mock) -> dict[str, Any]:
    rules = [
        rule.model_dump(by_alias=True, exclude_unset=True, exclude_none=True)
        for rule in mock.replies
    ]
    settings: dict[str, Any] = {"replies": [_as_case(rule) for rule in rules]}
    if mock.default is not None:
        settings["default"] = mock.default.model_dump(by_alias=True, exclude_unset=True)
    if mock.delay is not None:
        settings["delay"] = mock.delay
    return settings


def _as_case(rule: dict[str, Any]) -> dict[str, Any]:
    return {"case" if key == "role" else key: value for key, value in rule.items()}


def _over(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """A test's replies go before those of the file."""
    return {**shared, **own, "replies": [*own["replies"], *shared["replies"]]}
