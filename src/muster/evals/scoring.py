"""From graders to a score.

The score of a case is the weighted mean over *all* its graders, 0 when the weights sum to 0. A
grader passes from its `min_score` on, or else from the case's threshold. A `required` grader that
does not pass makes the case's score 0. `negate` turns a score s into 1 - s, swaps the verdict and
flips the assertions. A grader that raises, or returns what is no score, is an error of the case:
nothing is taken for a 0 that was not judged.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

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
        return row


class Graded(msgspec.Struct, frozen=True):
    """What all graders of an answer said. With an `error`, `score` is 0 and means nothing."""

    score: float
    rows: tuple[ScoreRow, ...]
    error: str | None = None
    """Names each grader that could not judge, and why; the case is an execution error."""


def grade_all(
    graders: Sequence[BoundGrader], context: GradeContext, threshold: float = DEFAULT_THRESHOLD
) -> Graded | Awaitable[Graded]:
    """Ask every grader, one after the other.

    Sync graders are simply called: while all are sync, the answer is a `Graded` and no event loop
    is needed. At the first async one the rest becomes an awaitable that the caller awaits. Without
    graders the score is 0.
    """
    rows: list[ScoreRow] = []
    for number, grader in enumerate(graders):
        start = time.perf_counter()
        try:
            verdict = grader.grade(context)
            if type(verdict) is not Score and isinstance(verdict, Awaitable):
                rest = graders[number:]
                return _grade_rest(rest, context, threshold, rows=rows, first=(verdict, start))
            row = _row(grader, verdict, threshold, start)
        except Exception as error:
            row = _broken(grader, error, start)
        rows.append(row)
    return _total(rows)


async def _grade_rest(
    graders: Sequence[BoundGrader],
    context: GradeContext,
    threshold: float,
    *,
    rows: list[ScoreRow],
    first: tuple[Awaitable[Any], float],
) -> Graded:
    """Go on with `graders`; `first` is what the first of them answered, and when it was called."""
    pending, start = first
    for number, grader in enumerate(graders):
        try:
            if number == 0:
                verdict: Any = await pending
            else:
                start = time.perf_counter()
                verdict = grader.grade(context)
                if type(verdict) is not Score and isinstance(verdict, Awaitable):
                    verdict = await verdict
            row = _row(grader, verdict, threshold, start)
        except Exception as error:
            row = _broken(grader, error, start)
        rows.append(row)
    return _total(rows)


def _total(rows: list[ScoreRow]) -> Graded:
    errors = [f'grader "{row.name}": {row.error}' for row in rows if row.error is not None]
    if errors:
        return Graded(0.0, tuple(rows), "; ".join(errors))
    if any(row.required and row.verdict == "fail" for row in rows):
        return Graded(0.0, tuple(rows))
    weight = math.fsum([row.weight for row in rows])
    if weight == 0:
        return Graded(0.0, tuple(rows))
    mean = math.fsum([row.weight * row.score for row in rows]) / weight
    return Graded(_neat(min(mean, 1.0)), tuple(rows))


def _row(grader: BoundGrader, verdict: Any, threshold: float, start: float) -> ScoreRow:
    bar = threshold if grader.min_score is None else grader.min_score
    score = as_score(verdict, bar)
    passed = score.score >= bar
    value, assertions = score.score, score.assertions
    if grader.negate:
        passed = not passed
        value = _neat(1.0 - value)
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
    )


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
        return Score(_number(number), tuple(value.assertions), value.details)
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
    return Score(score, assertions, details)


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
