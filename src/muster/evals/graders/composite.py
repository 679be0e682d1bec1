"""Sets of graders: `composite` and `assert-set`. Their members are graders as any others, sets
among them, and `weight`, `required`, `min_score` and `negate` mean within a set what they mean
outside of one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar

from pydantic import AliasChoices, BaseModel, BeforeValidator, Field

from muster.config.validation import FileModel
from muster.errors import nearest
from muster.evals.case import DEFAULT_THRESHOLD
from muster.evals.graders.aggregate import (
    Aggregate,
    Aggregator,
    WeightedAverage,
    aggregate_of,
    named_rows,
    read_aggregator,
)
from muster.evals.graders.base import (
    Assertion,
    BoundGrader,
    GradeContext,
    GraderError,
    GraderSpec,
    Score,
    SettingError,
)
from muster.evals.graders.thresholds import bar_of, held_to, own_bar
from muster.evals.scoring import Graded, ScoreRow, as_score, grade_all
from muster.importing import describe_failure

__all__ = ("AssertSet", "Composite")

_LISTS = ("assertions", "assert", "evaluators")


class _Settings(FileModel):
    assertions: Annotated[list[Any], Field(min_length=1)] = Field(
        validation_alias=AliasChoices(*_LISTS)
    )
    """The graders of the set: entries as in the test's own list (`assert` is the same)."""
    aggregator: Annotated[Aggregator, BeforeValidator(read_aggregator)] = WeightedAverage()
    """How their verdicts become one: a name, or a mapping with `type`."""
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    """The score from which the set passes; what counts is then the verdict: 1 or 0."""
    config: dict[str, Any] | None = None
    """The `config` of those members that take one; what they say themselves goes before it."""


class Composite:
    """Several graders, and one score of theirs."""

    Settings: ClassVar[type[BaseModel]] = _Settings
    own_templates: ClassVar[tuple[str, ...]] = (*_LISTS, "aggregator")
    """Members have their variables filled in when they are bound, and not twice."""
    passes_by_members: ClassVar[bool] = False
    """Without a threshold, it passes when all members do that have a weight."""
    __slots__ = ("_aggregate", "_by_members", "_members", "_min_score", "_threshold")

    def __init__(self, spec: GraderSpec) -> None:
        settings = _Settings.model_validate(spec.config)
        if settings.threshold is not None and not settings.aggregator.takes_threshold:
            told = f"the aggregator {settings.aggregator.type} says itself when the set passes"
            raise SettingError("threshold", told)
        self._threshold = own_bar(settings.threshold, spec)
        self._min_score = spec.min_score
        key = next(key for key in _LISTS if key in spec.config)
        entries = _with_config(settings.assertions, settings.config)
        members = spec.nested(entries, key)
        self._members = _weighted(members, settings.aggregator)
        mean = isinstance(settings.aggregator, WeightedAverage)
        self._by_members = mean and self.passes_by_members and spec.min_score is None
        if members and not any(member.weight for member in self._members):
            spec.remark("no member has a weight, so that the set cannot pass", key)
        self._aggregate: Aggregate = aggregate_of(settings.aggregator, spec)

    def __call__(self, context: GradeContext) -> Score | Awaitable[Score]:
        threshold = DEFAULT_THRESHOLD if context.threshold is None else context.threshold
        found = grade_all(self._members, context, threshold)
        if isinstance(found, Graded):
            return self._joined(found, context)
        return self._waited(found, context)

    async def _waited(self, pending: Awaitable[Graded], context: GradeContext) -> Score:
        joined = self._joined(await pending, context)
        return joined if isinstance(joined, Score) else await joined

    def _joined(self, graded: Graded, context: GradeContext) -> Score | Awaitable[Score]:
        rows = graded.rows
        if graded.error is not None:
            raise _within(GraderError(graded.error), rows)
        gate = [row.name for row in rows if row.required and row.verdict == "fail"]
        if gate:
            told = Assertion(f"required, and not passed: {', '.join(gate)}", False)
            return self._told(Score(0.0, (told,), passed=False, counted=0.0), rows)
        bar = self._bar(context)
        try:
            found = self._aggregate(named_rows(rows), graded.score, context)
            if isinstance(found, Awaitable):
                return self._awaited(found, rows, bar)
            return self._judged(as_score(found, bar), rows)
        except Exception as error:  # an aggregator may be anybody's code
            raise _within(error, rows) from error

    async def _awaited(
        self, pending: Awaitable[Any], rows: tuple[ScoreRow, ...], bar: float
    ) -> Score:
        try:
            return self._judged(as_score(await pending, bar), rows)
        except Exception as error:  # an aggregator may be anybody's code
            raise _within(error, rows) from error

    def _bar(self, context: GradeContext) -> float:
        """The score from which the set passes."""
        return bar_of(self._min_score if self._threshold is None else self._threshold, context)

    def _judged(self, score: Score, rows: tuple[ScoreRow, ...]) -> Score:
        """The score with the set's verdict, what that counts, and what the members said."""
        if self._threshold is not None:
            score = held_to(score, self._threshold)
        elif self._by_members:
            weighty = [row for row in rows if row.weight]
            passed = bool(weighty) and all(row.verdict == "pass" for row in weighty)
            score = replace(score, passed=passed, counted=score.score)
        return self._told(score, rows)

    def _told(self, score: Score, rows: tuple[ScoreRow, ...]) -> Score:
        """With what the members said."""
        said = [
            Assertion(f"[{row.name}] {assertion.text}", assertion.passed, assertion.evidence)
            for row in rows
            for assertion in row.assertions
        ]
        return replace(score, assertions=(*score.assertions, *said), scores=rows)


class AssertSet(Composite):
    """As `composite`; without a threshold it passes when all its members do."""

    passes_by_members = True
    __slots__ = ()


def _within(error: Exception, rows: tuple[ScoreRow, ...]) -> GraderError:
    """The error, with what the members said all the same."""
    said = str(error) if isinstance(error, GraderError) else ""
    told = GraderError(said or describe_failure(error))
    told.scores = rows
    return told


def _weighted(members: Sequence[BoundGrader], aggregator: object) -> tuple[BoundGrader, ...]:
    """The members, with the weights that the aggregator gives them.

    Raises:
        SettingError: it names one that is not there.
    """
    weights = aggregator.weights if isinstance(aggregator, WeightedAverage) else {}
    names = [member.name for member in members]
    for name in weights if members else ():
        if names.count(name) == 1:
            continue
        if name in names:
            told = f'several members are called "{name}"; give each a name of its own'
        else:
            near = nearest(name, names)
            hint = f'did you mean "{near[0]}"?' if near else f"members: {', '.join(names)}"
            told = f'no member is called "{name}" ({hint})'
        raise SettingError("aggregator", told, "weights", name)
    return tuple(
        replace(member, weight=weights.get(member.name, member.weight)) for member in members
    )


def _with_config(entries: Sequence[Any], config: Mapping[str, Any] | None) -> list[Any]:
    """The entries, where they take a `config`, with the set's beneath their own."""
    if not config:
        return list(entries)
    return [
        {**entry, "config": {**config, **(entry.get("config") or {})}}
        if isinstance(entry, Mapping) and _takes_config(entry)
        else entry
        for entry in entries
    ]


def _takes_config(entry: Mapping[str, Any]) -> bool:
    from muster.evals.graders import graders

    kind = str(entry.get("type", "")).replace("_", "-").removeprefix("not-")
    if "include" in entry or not isinstance(entry.get("config") or {}, Mapping):
        return False
    if not graders.is_builtin(kind):
        return bool(kind)
    settings = getattr(graders.get(kind), "Settings", None)
    return settings is None or "config" in settings.model_fields
