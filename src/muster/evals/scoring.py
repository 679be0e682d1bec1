"""From graders to a score.

The score of a case is the weighted mean over *all* its graders, 0 when the weights sum to 0. A
grader passes from its `min_score` on, or else from the case's threshold. A `required` grader that
does not pass makes the case's score 0. `negate` turns a score s into 1 - s, swaps the verdict and
flips the assertions. A grader that raises, or returns what is no score, is an error of the case:
nothing is taken for a 0 that was not judged.

A grader may say itself whether it passes. Where that and its score disagree, the verdict counts: as
1 in the mean when it passes, as 0 when it does not; the row keeps the score, and says as `counted`
what counted.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec

from muster.evals.case import DEFAULT_THRESHOLD
from muster.evals.graders.base import (
    Assertion,
    BoundGrader,
    GradeContext,
    GraderError,
    Score,
)
from muster.importing import describe_failure

__all__ = ("Graded", "ScoreRow", "aggregate_turns", "as_score", "grade_all")


class ScoreRow(msgspec.Struct, frozen=True):
    """What one grader said: an element of `scores` in a result."""

    name: str
    type: str
    score: float
    weight: float
    verdict: str
    """`pass`, `fail`, or `skip` when the grader could not judge."""
    assertions: tuple[Assertion, ...] = ()
    details: Mapping[str, Any] | None = None
    required: bool = False
    error: str | None = None
    duration_ms: float | None = None
    counted: float | None = None
    """What counts in the mean, where that is not `score`."""
    scores: tuple[ScoreRow, ...] = ()
    """The rows of the graders within it."""

    def to_dict(self) -> dict[str, Any]:
        """The wire form; what is unset is left out."""
        row: dict[str, Any] = {
            "name": self.name,
            "type": self.type,
            "score": self.score,
            "weight": self.weight,
            "verdict": self.verdict,
            "assertions": [assertion.to_dict() for assertion in self.assertions],
        }
        if self.details is not None:
            row["details"] = dict(self.details)
        if self.required:
            row["required"] = True
        if self.error is not None:
            row["error"] = self.error
        if self.duration_ms is not None:
            row["duration_ms"] = self.duration_ms
        if self.counted is not None:
            row["counted"] = self.counted
        if self.scores:
            row["scores"] = [inner.to_dict() for inner in self.scores]
        return row

    @property
    def value(self) -> float:
        """What counts in the mean."""
        return self.score if self.counted is None else self.counted


class Graded(msgspec.Struct, frozen=True):
    """What all graders of an answer said. With an `error`, `score` is 0 and means nothing."""

    score: float
    rows: tuple[ScoreRow, ...]
    error: str | None = None
    """Names each grader that could not judge, and why; the case is an execution error."""


def grade_all(
    graders: Sequence[BoundGrader], context: GradeContext, threshold: float = DEFAULT_THRESHOLD
) -> Graded | Awaitable[Graded]:
    """Ask every grader; those that wait for something wait side by side.

    While all are sync, the answer is a `Graded` and no event loop is needed; with an async one it
    is an awaitable that the caller awaits. Without graders the score is 0.
    """
    rows: list[ScoreRow | None] = []
    pending: list[_Pending] = []
    for number, grader in enumerate(graders):
        start = time.perf_counter()
        try:
            verdict = grader.grade(context)
            if type(verdict) is not Score and isinstance(verdict, Awaitable):
                pending.append(_Pending(number, grader, verdict, start))
                rows.append(None)
                continue
            row = _row(grader, verdict, threshold, start)
        except Exception as error:
            row = _broken(grader, error, start)
        rows.append(row)
    if pending:
        return _grade_pending(rows, pending, threshold)
    return _total([row for row in rows if row is not None])


class _Pending(NamedTuple):
    """A grader that has been asked and has not answered yet."""

    number: int
    grader: BoundGrader
    verdict: Awaitable[Any]
    start: float


async def _grade_pending(
    rows: list[ScoreRow | None], pending: Sequence[_Pending], threshold: float
) -> Graded:
    async def finish(one: _Pending) -> None:
        try:
            row = _row(one.grader, await one.verdict, threshold, one.start)
        except Exception as error:
            row = _broken(one.grader, error, one.start)
        rows[one.number] = row

    if len(pending) == 1:
        await finish(pending[0])
    else:
        async with asyncio.TaskGroup() as group:
            for one in pending:
                group.create_task(finish(one))
    return _total([row for row in rows if row is not None])


def _total(rows: list[ScoreRow]) -> Graded:
    errors = [f'grader "{row.name}": {row.error}' for row in rows if row.error is not None]
    if errors:
        return Graded(0.0, tuple(rows), "; ".join(errors))
    if any(row.required and row.verdict == "fail" for row in rows):
        return Graded(0.0, tuple(rows))
    weight = math.fsum([row.weight for row in rows])
    if weight == 0:
        return Graded(0.0, tuple(rows))
    mean = math.fsum([row.weight * row.value for row in rows]) / weight
    return Graded(_neat(min(mean, 1.0)), tuple(rows))


def _row(grader: BoundGrader, verdict: Any, threshold: float, start: float) -> ScoreRow:
    bar = threshold if grader.min_score is None else grader.min_score
    score = as_score(verdict, bar)
    value, assertions = score.score, score.assertions
    passed, counted = value >= bar, score.counted
    if score.passed is not None:
        passed, counted = _own_verdict(score, grader, passed)
    if grader.negate:
        passed = not passed
        value = _neat(1.0 - value)
        counted = None if counted is None else _neat(1.0 - counted)
        assertions = tuple(_negated(assertion) for assertion in assertions)
    return ScoreRow(
        grader.name,
        grader.type,
        value,
        grader.weight,
        "pass" if passed else "fail",
        assertions,
        score.details,
        grader.required,
        None,
        _elapsed(start),
        None if counted == value else counted,
        score.scores,
    )


def _own_verdict(score: Score, grader: BoundGrader, by_score: bool) -> tuple[bool, float | None]:
    """The verdict of a grader that has one of its own, and what counts. A `min_score` that its
    entry says must be reached as well."""
    passed = bool(score.passed)
    if grader.min_score is not None:
        passed = passed and by_score
    if score.counted is not None or passed == by_score:
        return passed, score.counted
    return passed, float(passed)


def _broken(grader: BoundGrader, error: Exception, start: float) -> ScoreRow:
    said = str(error) if isinstance(error, GraderError) else ""
    return ScoreRow(
        grader.name,
        grader.type,
        0.0,
        grader.weight,
        "skip",
        required=grader.required,
        error=said or describe_failure(error),
        duration_ms=_elapsed(start),
        scores=error.scores if isinstance(error, GraderError) else (),
    )


def _negated(assertion: Assertion) -> Assertion:
    evidence = f"[Negated] {assertion.evidence}" if assertion.evidence else "[Negated]"
    return Assertion(assertion.text, not assertion.passed, evidence)


def _elapsed(start: float) -> float:
    return round((time.perf_counter() - start) * 1000, 3)


def _neat(value: float) -> float:
    """0.8 for 0.7999999999999999: rounding on the way must not decide at the threshold."""
    rounded = round(value, 12)
    return rounded if abs(rounded - value) < 1e-15 else value


# --- what graders return ------------------------------------------------------------------------


def as_score(value: Any, bar: float = DEFAULT_THRESHOLD) -> Score:
    """What a grader returned, as a `Score`: a `Score`, a bool, a number in [0, 1], or a mapping
    `{score | pass, reason?, assertions?, details?}`. From a mapping that has only `assertions`,
    the score is the share that holds. `bar` decides whether a `reason` is told as passed.

    Raises:
        GraderError: it is none of these, or the score is not in [0, 1].
    """
    if type(value) is Score:
        number = value.score
        if type(number) is float and 0.0 <= number <= 1.0:
            return value
        return replace(value, score=_number(number), assertions=tuple(value.assertions))
    if isinstance(value, Mapping):
        return _from_mapping(value, bar)
    return Score(_number(value))


def _number(value: Any) -> float:
    if not isinstance(value, bool | int | float) and callable(getattr(value, "item", None)):
        value = value.item()  # NumPy's scalars
    if not isinstance(value, bool | int | float):
        raise GraderError(
            f"returned {_shown(value)}; a grader returns a Score, a bool, a number from 0 to 1, "
            "or a mapping with score"
        )
    if not 0 <= value <= 1:  # NaN too
        raise GraderError(f"returned the score {value}; scores are numbers from 0 to 1")
    return float(value)


_MAPPING_KEYS = ("score", "pass", "passed", "reason", "assertions", "details")


def _from_mapping(value: Mapping[str, Any], bar: float) -> Score:
    unknown = [str(key) for key in value if key not in _MAPPING_KEYS]
    if unknown:
        known = ", ".join(_MAPPING_KEYS)
        raise GraderError(f"returned a mapping with {', '.join(unknown)}; known are {known}")
    assertions = tuple(_assertion(item) for item in value.get("assertions") or ())
    verdict = value.get("pass", value.get("passed"))
    if value.get("score") is not None:
        score = _number(value["score"])
    elif verdict is not None:
        score = _number(verdict)
    elif assertions:
        score = sum(assertion.passed for assertion in assertions) / len(assertions)
    else:
        raise GraderError("returned a mapping without score, pass or assertions")
    reason = value.get("reason")
    if reason:
        passed = bool(verdict) if verdict is not None else score >= bar
        assertions = (*assertions, Assertion(str(reason), passed))
    details = value.get("details")
    if details is not None and not isinstance(details, Mapping):
        raise GraderError(f"returned {_shown(details)} as details; they are a mapping")
    return Score(score, assertions, details, _own(verdict, value))


def _own(verdict: Any, value: Mapping[str, Any]) -> bool | None:
    """The verdict that stands beside a score."""
    if verdict is None or value.get("score") is None:
        return None
    if not isinstance(verdict, bool):
        raise GraderError(f"returned {_shown(verdict)} as pass; it is true or false")
    return verdict


def _assertion(value: Any) -> Assertion:
    if isinstance(value, Assertion):
        return value
    if isinstance(value, Mapping) and "text" in value and isinstance(value.get("passed"), bool):
        evidence = value.get("evidence")
        return Assertion(
            str(value["text"]), value["passed"], None if evidence is None else str(evidence)
        )
    raise GraderError(
        f"returned {_shown(value)} as an assertion; it is a mapping of text, passed and evidence"
    )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"


# --- conversations ------------------------------------------------------------------------------


def aggregate_turns(scores: Sequence[float], method: str = "mean") -> float:
    """One score from those of a conversation's turns and of the conversation as a whole, by
    `mean`, `min` or `max`; 0 of none.

    Raises:
        ValueError: another `method`.
    """
    if method not in {"mean", "min", "max"}:
        raise ValueError(f'aggregation is mean, min or max, not "{method}"')
    if not scores:
        return 0.0
    if method == "mean":
        return _neat(math.fsum(scores) / len(scores))
    return min(scores) if method == "min" else max(scores)
