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
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from muster.provider import Message, ProviderResponse

if TYPE_CHECKING:
    from muster.evals.case import Case
    from muster.evals.judging import CaseJudges
    from muster.evals.scope import RunScope
    from muster.evals.scoring import ScoreRow

__all__ = (
    "Assertion",
    "Binding",
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

    scores: tuple[ScoreRow, ...] = ()
    """What the graders within it said all the same."""


class SettingError(ValueError):
    """A factory's complaint about one of its settings, told with that setting's place; `steps`
    lead to what is wrong within it."""

    def __init__(self, setting: str, message: str, *steps: str | int) -> None:
        self.setting = setting
        self.steps = steps
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
    passed: bool | None = None
    """The grader's own verdict; `None`: it passes from its `min_score`, or the case's threshold,
    on. A score that says otherwise does not overrule it: it counts as 1 or 0."""
    counted: float | None = None
    """What counts in the mean, where that is not the score."""
    scores: tuple[ScoreRow, ...] = ()
    """What the graders within it said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GradeContext:
    """All that a grader may look at."""

    output: str
    """The text of the last assistant message."""
    case: Case
    response: ProviderResponse
    expected_output: tuple[Message, ...] = ()
    """The case's, or the turn's."""
    asked: tuple[Message, ...] = ()
    """The messages that were answered, oldest first; empty: the case's input."""
    duration_ms: float | None = None
    judges: CaseJudges | None = None
    """Whom a grader asks that needs a model; what they cost is counted apart from the target."""
    target: str | None = None
    """The name of the target that was asked."""
    repeat: int = 0
    """Which repeat of the case it is, from 0."""
    threshold: float | None = None
    """The score from which the case passes."""
    scope: RunScope | None = None
    """Where to keep what lasts as long as the run; `None`: nothing outlives the call."""

    @property
    def reference_answer(self) -> str | None:
        """The text of the last expected message; `None` without one."""
        return self.expected_output[-1].text if self.expected_output else None

    @property
    def workspace(self) -> Mapping[str, Any] | None:
        """What the target did in its folder (`diff`, `files`, `truncated`); `None` if nothing is
        known of one."""
        for message in reversed(self.response.output):
            found = (message.metadata or _EMPTY).get("workspace")
            if isinstance(found, Mapping):
                return found
        raw = self.response.raw
        found = raw.get("workspace") if isinstance(raw, Mapping) else None
        return found if isinstance(found, Mapping) else None

    @property
    def file_changes(self) -> str | None:
        """The diff of the target's folder; `None` if nothing is known of one."""
        diff = (self.workspace or _EMPTY).get("diff")
        return diff if isinstance(diff, str) else None


Grade: TypeAlias = Callable[[GradeContext], Any | Awaitable[Any]]


class Binding(Protocol):
    """What a factory may ask of the list that its entry stands in."""

    def nested(self, entries: object, *keys: str | int) -> tuple[BoundGrader, ...]:
        """The graders of a list within the entry, at `keys`; what is wrong in it is told with its
        own place, beside the entry's other mistakes."""
        ...

    def asks_judge(self, name: str | None) -> None:
        """Say that the grader will ask the target `name`, or (`None`) the one that judges the
        case: that it is there is checked before the run."""
        ...

    def reads(self, path: Path) -> None:
        """Say that what the grader does depends on the file."""
        ...

    def remark(self, text: str, *keys: str | int) -> None:
        """Warn of something at `keys` that is read otherwise than it was meant."""
        ...


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
    min_score: float | None = None
    """The entry's own, if it says one."""
    negate: bool = False
    """The entry is turned round. A grader that sees to it itself has a true attribute `negated`."""
    binding: Binding | None = None
    """`None` for a grader that is built by hand."""

    def nested(self, entries: object, *keys: str | int) -> tuple[BoundGrader, ...]:
        """The graders of a list within the entry, at `keys`.

        Raises:
            ValueError: the grader was built by hand, from no file.
        """
        if self.binding is None:
            raise ValueError("a list of assertions can only be read from a suite")
        return self.binding.nested(entries, *keys)

    def asks_judge(self, name: str | None = None) -> None:
        """Say that the grader will ask a judge; see `Binding.asks_judge`."""
        if self.binding is not None:
            self.binding.asks_judge(name)

    def reads(self, path: Path) -> None:
        """Say that the grader read the file: a run that goes on after it has changed is refused."""
        if self.binding is not None:
            self.binding.reads(path)

    def remark(self, text: str, *keys: str | int) -> None:
        """Warn of what stands at `keys` in the entry."""
        if self.binding is not None:
            self.binding.remark(text, *keys)


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
    judges: tuple[str | None, ...] = ()
    """The targets that it asks; `None` is the one that judges the case."""


GraderFactory: TypeAlias = Callable[[GraderSpec], Grade]
"""Builds a grader from its settings; raises `pydantic.ValidationError` or `ValueError` when they
are wrong, which becomes a load-time error with file, line and column. May carry its settings'
model as the attribute `Settings`."""
