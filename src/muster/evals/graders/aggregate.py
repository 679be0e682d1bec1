"""How the verdicts of the graders of a set become one."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypeAlias

from pydantic import AliasChoices, Field

from muster.config.validation import FileModel
from muster.evals.graders.base import GradeContext, GraderSpec, Score, SettingError
from muster.evals.scoring import ScoreRow
from muster.importing import load_object

__all__ = (
    "Aggregate",
    "Aggregator",
    "LlmAggregator",
    "Member",
    "WeightedAverage",
    "aggregate_of",
    "named_rows",
    "read_aggregator",
    "results_of",
)


class Member(NamedTuple):
    """What one grader of the set said, under a name that no other one has."""

    name: str
    row: ScoreRow

    @property
    def passed(self) -> bool:
        return self.row.verdict == "pass"


Aggregate: TypeAlias = Callable[[Sequence[Member], float, GradeContext], Any | Awaitable[Any]]
"""From the members, and the weighted mean of what they count, to what a grader may return."""


class _Aggregator(FileModel):
    takes_threshold: ClassVar[bool] = True
    """Its score says whether the set passes, so that a threshold may stand beside it."""


class WeightedAverage(_Aggregator):
    """The weighted mean of the members' scores."""

    type: Literal["weighted_average"] = "weighted_average"
    weights: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(
        default_factory=dict
    )
    """By member's name; over the `weight` that a member has itself."""


class Share(_Aggregator):
    """The share of the weights whose members pass; the set passes from `threshold` on."""

    takes_threshold = False
    type: Literal["threshold"]
    threshold: Annotated[float, Field(ge=0, le=1)]
    """The share from which the set passes."""


class AllOf(_Aggregator):
    """1 when all members with a weight pass, else 0."""

    takes_threshold = False
    type: Literal["all"]


class AnyOf(_Aggregator):
    """1 when at least one member with a weight passes, else 0."""

    takes_threshold = False
    type: Literal["any"]


class PythonAggregator(_Aggregator):
    """A Python function of the members' results."""

    type: Literal["python"]
    function: Annotated[str, Field(pattern=r"^[^:]+:[^:]+$")] = Field(
        validation_alias=AliasChoices("function", "value", "path")
    )
    """`package.module:name`, looked for in the project first (`value` is the same)."""


class ScriptAggregator(_Aggregator):
    """A program that gets the members' results as JSON, and answers with JSON."""

    type: Literal["script"]
    command: Annotated[str, Field(pattern=r"\S")] | Annotated[list[str], Field(min_length=1)] = (
        Field(validation_alias=AliasChoices("command", "path", "script"))
    )
    """The program and its arguments, or a line for the shell (`path` is the same)."""
    cwd: str | None = None
    """Where it runs, from the folder of the suite; by default that folder."""
    timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        default=60.0, validation_alias=AliasChoices("timeout", "timeout_seconds")
    )
    """Seconds that it may take."""


class LlmAggregator(_Aggregator):
    """A model that judges by what the members found."""

    type: Literal["llm"]
    prompt: Annotated[str, Field(pattern=r"\S")] | None = None
    """What it is asked: criteria, or a template with `{{ EVALUATOR_RESULTS_JSON }}`; may be
    `file://…`."""
    judge_target: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        validation_alias=AliasChoices("judge_target", "grader_target", "target", "provider"),
    )
    """The target that judges."""
    max_attempts: Annotated[int, Field(ge=1, le=10)] = 3
    """Answers that it may give until one can be read."""
    model: Any = None
    """Read, not used: a target has its model."""


Aggregator: TypeAlias = Annotated[
    WeightedAverage | Share | AllOf | AnyOf | PythonAggregator | ScriptAggregator | LlmAggregator,
    Field(discriminator="type"),
]

_NAMES = {
    "weighted-average": "weighted_average",
    "code": "script",
    "code-grader": "script",
    "code-judge": "script",
    "llm-grader": "llm",
    "llm-judge": "llm",
    "llm-rubric": "llm",
}


def read_aggregator(value: Any) -> Any:
    """A name alone as a mapping, and each type by the name that it has here."""
    if isinstance(value, str):
        value = {"type": value}
    if isinstance(value, Mapping) and isinstance(value.get("type"), str):
        written = value["type"].replace("_", "-")
        return {**value, "type": _NAMES.get(written, written)}
    return value


def aggregate_of(settings: Any, spec: GraderSpec) -> Aggregate:
    """The function that `settings`, an `Aggregator`, stand for.

    Raises:
        SettingError: it cannot be made.
    """
    if isinstance(settings, WeightedAverage):
        return _mean
    if isinstance(settings, Share):
        return _Share(settings.threshold)
    if isinstance(settings, AllOf):
        return _all
    if isinstance(settings, AnyOf):
        return _any
    if isinstance(settings, LlmAggregator):
        from muster.evals.graders.aggregate_llm import LlmAggregate

        return LlmAggregate(settings, spec)
    if spec.safe:
        told = f"--safe runs no code, and the aggregator {settings.type} is code"
        raise SettingError("aggregator", told, "type")
    if isinstance(settings, PythonAggregator):
        return _function(settings, spec)
    from muster.evals.graders.aggregate_script import ScriptAggregate

    return ScriptAggregate(settings, spec)


def _mean(members: Sequence[Member], mean: float, context: GradeContext) -> Score:
    return Score(mean)


class _Share:
    def __init__(self, threshold: float) -> None:
        self._threshold = threshold

    def __call__(self, members: Sequence[Member], mean: float, context: GradeContext) -> Score:
        total = math.fsum(member.row.weight for member in members)
        passing = math.fsum(member.row.weight for member in members if member.passed)
        share = min(passing / total, 1.0) if total else 0.0
        # 0.1 + 0.2 of 0.3 must not fail by what rounding leaves.
        passed = share >= self._threshold - 1e-12
        details = {"share": share, "threshold": self._threshold}
        return Score(share, details=details, passed=passed, counted=float(passed))


def _all(members: Sequence[Member], mean: float, context: GradeContext) -> Score:
    asked = [member for member in members if member.row.weight]
    return _verdict(bool(asked) and all(member.passed for member in asked))


def _any(members: Sequence[Member], mean: float, context: GradeContext) -> Score:
    return _verdict(any(member.passed for member in members if member.row.weight))


def _verdict(passed: bool) -> Score:
    return Score(float(passed), passed=passed)


def _function(settings: PythonAggregator, spec: GraderSpec) -> Aggregate:
    function = load_object(settings.function, search=spec.project_root or spec.base_dir)
    if not callable(function):
        raise SettingError("aggregator", f'"{settings.function}" is no function')

    def aggregate(members: Sequence[Member], mean: float, context: GradeContext) -> Any:
        return function(results_of(members))

    return aggregate


# --- what code and models get of the members ------------------------------------------------------


def named_rows(rows: Sequence[ScoreRow]) -> list[Member]:
    """The rows with names that differ: of two with one name, the second is `name-2`."""
    taken: set[str] = set()
    members = []
    for row in rows:
        name, number = row.name, 1
        while name in taken:
            number += 1
            name = f"{row.name}-{number}"
        taken.add(name)
        members.append(Member(name, row))
    return members


def results_of(members: Sequence[Member]) -> dict[str, dict[str, Any]]:
    """By name, the row of each member as plain data."""
    return {member.name: member.row.to_dict() for member in members}
