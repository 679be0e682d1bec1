"""What a grader gets, what it says, and how its verdict counts.

A grader is any callable `grade(context)`, sync or async, that returns a `Score`, a bool, a number
in [0, 1] or a dict. It is built once a case (or once a suite) from a `GraderSpec`. What it raises
is an *error* of the case, never a score of 0.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from muster.provider import Message, ProviderResponse

if TYPE_CHECKING:
    from muster.evals.case import Case

__all__ = (
    "Assertion",
    "BoundGrader",
    "GradeContext",
    "GraderError",
    "GraderFactory",
    "GraderSpec",
    "Score",
    "SettingError",
)

_EMPTY: Mapping[str, Any] = MappingProxyType({})


class GraderError(Exception):
    """A grader could not judge: the case becomes an execution error."""


class SettingError(ValueError):
    """A factory's complaint about one of its settings, told with that setting's place."""

    def __init__(self, setting: str, message: str) -> None:
        self.setting = setting
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Assertion:
    """One thing a grader looked at, as a sentence, and whether it held."""

    text: str
    passed: bool
    evidence: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The wire form."""
        row: dict[str, Any] = {"text": self.text, "passed": self.passed}
        if self.evidence is not None:
            row["evidence"] = self.evidence
        return row


@dataclass(frozen=True, slots=True)
class Score:
    """A grader's verdict: `score` in [0, 1], with what was looked at."""

    score: float
    assertions: tuple[Assertion, ...] = ()
    details: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GradeContext:
    """All that a grader may look at."""

    output: str
    """The text of the last assistant message."""
    case: Case
    response: ProviderResponse
    expected_output: tuple[Message, ...] = ()
    """The case's, or the turn's."""
    duration_ms: float | None = None

    @property
    def reference_answer(self) -> str | None:
        """The text of the last expected message; `None` without one."""
        return self.expected_output[-1].text if self.expected_output else None


Grade: TypeAlias = Callable[[GradeContext], Any | Awaitable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class GraderSpec:
    """An entry of `assertions`, common fields taken out; `config` holds the rest as written."""

    type: str
    """Canonical, kebab-case."""
    config: Mapping[str, Any] = field(default_factory=lambda: _EMPTY)
    base_dir: Path = field(default_factory=Path.cwd)
    """The folder of the file that the entry stands in; its relative paths start here."""
    project_root: Path | None = None
    """The folder that its paths may not leave; `None`: `base_dir`."""
    safe: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundGrader:
    """A grader ready to judge, and how its score counts."""

    name: str
    type: str
    grade: Grade
    weight: float = 1.0
    required: bool = False
    min_score: float | None = None
    """The score from which it passes; `None`: the case's threshold."""
    negate: bool = False


GraderFactory: TypeAlias = Callable[[GraderSpec], Grade]
"""Builds a grader from its settings; raises `pydantic.ValidationError` or `ValueError` when they
are wrong, which becomes a load-time error with file, line and column. May carry its settings'
model as the attribute `Settings`."""
