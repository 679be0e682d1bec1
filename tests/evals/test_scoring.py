from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.evals.case import Case
from muster.evals.graders.base import Assertion, BoundGrader, GradeContext, GraderError, Score
from muster.evals.scoring import Graded, aggregate_turns, as_score, grade_all
from muster.provider import ProviderResponse

CONTEXT = GradeContext(
    output="x", case=Case(id="c", suite="s", input=()), response=ProviderResponse("x")
)


def grader(verdict: Any, name: str = "g", **options: Any) -> BoundGrader:
    """A grader that returns `verdict`, or raises it."""

    def grade(context: GradeContext) -> Any:
        assert context.output == "x"
        if isinstance(verdict, Exception):
            raise verdict
        return verdict

    return BoundGrader(name=name, type="test", grade=grade, **options)


def grade(*graders: BoundGrader, threshold: float = 0.8) -> Graded:
    found = grade_all(graders, CONTEXT, threshold)
    assert isinstance(found, Graded)
    return found


# --- the score -----------------------------------------------------------------------------------


def test_the_score_is_the_weighted_mean() -> None:
    assert grade(grader(1), grader(0.5)).score == 0.75
    assert grade(grader(1, weight=3), grader(0)).score == 0.75
    assert grade(grader(0, weight=0), grader(0.9)).score == 0.9


def test_without_weight_or_graders_the_score_is_zero() -> None:
    assert grade(grader(1, weight=0)).score == 0
    assert grade() == Graded(0.0, ())


def test_rounding_does_not_decide_at_the_threshold() -> None:
    assert 0.7 + 0.1 < 0.8
    found = grade(*[grader(1, weight=w) for w in (0.7, 0.1)], grader(0, weight=0.2))
    assert found.score == 0.8
    assert grade(grader(1), grader(0), grader(0)).score == 1 / 3


SHARES = st.floats(0, 1)


@given(st.lists(st.tuples(SHARES, st.floats(0, 1e6)), min_size=1, max_size=8))
def test_the_score_lies_within_the_scores(pairs: list[tuple[float, float]]) -> None:
    found = grade(*[grader(score, weight=weight) for score, weight in pairs])
    assert [row.score for row in found.rows] == [score for score, _ in pairs]
    assert 0 <= found.score <= 1
    heavy = [score for score, weight in pairs if weight > 0]
    if heavy and sum(weight for _, weight in pairs) > 1e-300:
        assert min(heavy) - 1e-9 <= found.score <= max(heavy) + 1e-9


@pytest.mark.parametrize(
    ("score", "min_score", "threshold", "verdict"),
    [
        (0.8, None, 0.8, "pass"),
        (0.79, None, 0.8, "fail"),
        (0.5, None, 0.5, "pass"),
        (0.5, 0.4, 0.8, "pass"),
        (0.9, 1.0, 0.8, "fail"),
    ],
)
def test_verdicts(score: float, min_score: float | None, threshold: float, verdict: str) -> None:
    found = grade(grader(score, min_score=min_score), threshold=threshold)
    assert found.rows[0].verdict == verdict
    assert found.score == score  # min_score alone is no gate


def test_a_required_grader_that_fails_makes_the_score_zero() -> None:
    assert grade(grader(0.7, required=True), grader(1, weight=99)).score == 0
    assert grade(grader(0.7, required=True, min_score=0.7), grader(1)).score == 0.85
    assert grade(grader(0.7, required=True), grader(1), threshold=0.6).score == 0.85
    assert grade(grader(0, required=True, weight=0), grader(1)).score == 0


def test_negate_turns_everything_round() -> None:
    score = Score(1.0, (Assertion("Output has it", True, "here"), Assertion("Twice", False)))
    row = grade(grader(score, negate=True)).rows[0]
    assert (row.score, row.verdict) == (0.0, "fail")
    assert row.assertions == (
        Assertion("Output has it", False, "[Negated] here"),
        Assertion("Twice", True, "[Negated]"),
    )
    assert grade(grader(0, negate=True, required=True)).score == 1
    assert grade(grader(0.9, negate=True)).rows[0].score == 0.1


# --- errors --------------------------------------------------------------------------------------


def test_a_grader_that_raises_is_an_error_of_the_case_and_the_others_still_judge() -> None:
    found = grade(grader(1, "a"), grader(ValueError("oh"), "b"), grader(GraderError("no"), "c"))
    assert found.score == 0
    assert found.error is not None
    assert 'grader "b": ' in found.error
    assert "test_scoring.py" in found.error
    assert "ValueError: oh" in found.error
    assert found.error.endswith('; grader "c": no')
    assert [row.verdict for row in found.rows] == ["pass", "skip", "skip"]
    assert found.rows[2].error == "no"


@pytest.mark.parametrize(
    ("verdict", "message"),
    [
        (1.01, "returned the score 1.01; scores are numbers from 0 to 1"),
        (-1, "returned the score -1"),
        (math.nan, "returned the score nan"),
        (Score(math.inf), "returned the score inf"),
        (Score("1"), "returned '1'; a grader returns a Score"),  # type: ignore[arg-type]
        (None, "returned None; a grader returns"),
        ("pass", "returned 'pass'"),
        ({"scores": 1}, "returned a mapping with scores; known are score, pass"),
        ({"reason": "so"}, "returned a mapping without score, pass or assertions"),
        ({"score": 1, "assertions": ["fine"]}, "returned 'fine' as an assertion"),
        ({"score": 1, "details": 5}, "returned 5 as details"),
    ],
)
def test_what_is_no_score_is_an_error(verdict: Any, message: str) -> None:
    found = grade(grader(verdict))
    assert found.error is not None
    assert found.error.startswith(f'grader "g": {message}')


# --- what graders may return ---------------------------------------------------------------------


class _NumPyLike:
    def item(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("verdict", "score"),
    [
        (True, 1.0),
        (False, 0.0),
        (1, 1.0),
        (0.25, 0.25),
        (_NumPyLike(), 1.0),
        (Score(True), 1.0),
        ({"score": 0.5}, 0.5),
        ({"pass": True}, 1.0),
        ({"score": 0.5, "pass": False}, 0.5),
        ({"assertions": [{"text": "a", "passed": True}, {"text": "b", "passed": False}]}, 0.5),
    ],
)
def test_scores_in_their_shapes(verdict: Any, score: float) -> None:
    found = as_score(verdict)
    assert found.score == score
    assert type(found.score) is float


def test_a_mapping_with_reason_assertions_and_details() -> None:
    found = as_score(
        {
            "score": 0.5,
            "reason": "half of it",
            "assertions": [{"text": "a", "passed": True, "evidence": 3}],
            "details": {"k": 1},
        }
    )
    assert found.assertions == (Assertion("a", True, "3"), Assertion("half of it", False))
    assert found.details == {"k": 1}
    assert as_score({"score": 0.5, "reason": "ok"}, bar=0.5).assertions[0].passed
    assert as_score({"score": 0.1, "pass": True, "reason": "ok"}).assertions[0].passed


# --- async ---------------------------------------------------------------------------------------


async def test_graders_are_asked_in_order_and_async_ones_wait_side_by_side() -> None:
    asked: list[str] = []

    def sync(name: str) -> BoundGrader:
        def grade(context: GradeContext) -> bool:
            asked.append(name)
            return True

        return BoundGrader(name=name, type="t", grade=grade)

    def slow(name: str, verdict: Any) -> BoundGrader:
        async def grade(context: GradeContext) -> Any:
            asked.append(f"{name} starts")
            await asyncio.sleep(0)
            asked.append(f"{name} ends")
            if isinstance(verdict, Exception):
                raise verdict
            return verdict

        return BoundGrader(name=name, type="t", grade=grade)

    pending = grade_all([sync("a"), slow("b", 0.5), sync("c"), slow("d", {"score": 0.5})], CONTEXT)
    assert isinstance(pending, Awaitable)
    found = await pending
    assert asked == ["a", "c", "b starts", "d starts", "b ends", "d ends"]
    assert found.score == 0.75
    assert [row.name for row in found.rows] == ["a", "b", "c", "d"]

    broken = await grade_all([slow("b", ValueError("oh")), sync("c")], CONTEXT)  # type: ignore[misc]
    assert broken.error is not None
    assert "ValueError: oh" in broken.error
    assert [row.verdict for row in broken.rows] == ["skip", "pass"]


async def test_cancelling_reaches_the_grader() -> None:
    cancelled = asyncio.Event()

    async def forever(context: GradeContext) -> bool:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return True

    async def run() -> Any:
        return await grade_all([BoundGrader(name="g", type="t", grade=forever)], CONTEXT)  # type: ignore[misc]

    task = asyncio.create_task(run())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cancelled.is_set()


# --- rows and conversations ----------------------------------------------------------------------


def test_the_row_of_a_result() -> None:
    score = Score(1.0, (Assertion("yes", True, "there"), Assertion("too", True)), {"k": 1})
    row = grade(grader(score, weight=2.0, required=True)).rows[0].to_dict()
    assert row.pop("duration_ms") >= 0
    assert row == {
        "name": "g",
        "type": "test",
        "score": 1.0,
        "weight": 2.0,
        "verdict": "pass",
        "assertions": [
            {"text": "yes", "passed": True, "evidence": "there"},
            {"text": "too", "passed": True},
        ],
        "details": {"k": 1},
        "required": True,
    }
    failed = grade(grader(GraderError("no"))).rows[0].to_dict()
    assert failed.pop("duration_ms") >= 0
    assert failed == {
        "name": "g",
        "type": "test",
        "score": 0.0,
        "weight": 1.0,
        "verdict": "skip",
        "assertions": [],
        "error": "no",
    }


def test_the_score_of_a_conversation() -> None:
    scores = [1.0, 0.5, 0.3]
    assert aggregate_turns(scores) == 0.6
    assert aggregate_turns(scores, "min") == 0.3
    assert aggregate_turns(scores, "max") == 1.0
    assert aggregate_turns([], "min") == 0.0
    with pytest.raises(ValueError, match='mean, min or max, not "median"'):
        aggregate_turns(scores, "median")


# --- a verdict of one's own -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdict", "options", "row", "score"),
    [
        ({"score": 0.5, "pass": True}, {}, (0.5, "pass", 1.0), 1.0),
        ({"score": 0.9, "pass": False}, {}, (0.9, "fail", 0.0), 0.0),
        ({"score": 0.9, "pass": True}, {}, (0.9, "pass", None), 0.9),
        ({"score": 0.5, "passed": False}, {}, (0.5, "fail", None), 0.5),
        ({"score": 0.5, "pass": True}, {"negate": True}, (0.5, "fail", 0.0), 0.0),
        ({"score": 0.9, "pass": False}, {"required": True}, (0.9, "fail", 0.0), 0.0),
        # What the suite says of it must hold as well.
        ({"score": 0.5, "pass": True}, {"min_score": 0.6}, (0.5, "fail", None), 0.5),
        ({"score": 0.7, "pass": True}, {"min_score": 0.6}, (0.7, "pass", None), 0.7),
        ({"score": 0.7, "pass": False}, {"min_score": 0.6}, (0.7, "fail", 0.0), 0.0),
        (Score(0.5, passed=True, counted=0.5), {}, (0.5, "pass", None), 0.5),
        (Score(0.5, passed=True, counted=0.75), {}, (0.5, "pass", 0.75), 0.75),
        (Score(0.5, passed=True, counted=0.75), {"negate": True}, (0.5, "fail", 0.25), 0.25),
    ],
)
def test_a_verdict_that_the_score_contradicts_counts(
    verdict: Any, options: dict[str, Any], row: tuple[Any, ...], score: float
) -> None:
    found = grade(grader(verdict, **options))
    made = found.rows[0]
    assert (made.score, made.verdict, made.counted) == row
    assert found.score == score
    assert made.to_dict().get("counted") == row[2]


def test_a_verdict_is_true_or_false() -> None:
    error = grade(grader({"score": 0.5, "pass": "yes"})).error
    assert error is not None
    assert "returned 'yes' as pass; it is true or false" in error
