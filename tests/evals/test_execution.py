from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from eval_parts import Asked, grader, make_case, make_item, make_turn, now, user
from muster.evals.case import Case
from muster.evals.execution import execute, failed_dependency
from muster.evals.graders.base import Assertion, GradeContext, Score
from muster.evals.results import CaseResult
from muster.provider import (
    Message,
    ProviderError,
    ProviderFailed,
    ProviderRequest,
    ProviderResponse,
    ProviderTimeout,
    RateLimited,
    TokenUsage,
    ToolCall,
)
from muster.tasks import GRACE_SECONDS
from virtual_loop import virtual


def run(case: Case, asked: Asked, /, **fields: Any) -> CaseResult:
    return asyncio.run(execute(make_item(case, **fields), asked))


def broken_by(result: CaseResult) -> tuple[Any, ...]:
    names = ("execution_status", "score", "error_kind", "failure_stage", "error")
    return tuple(getattr(result, name) for name in names)


def replies(*answers: Any) -> Asked:
    left = iter(answers)
    return Asked(lambda request: next(left))


# --- a case of one question -----------------------------------------------------------------------


def test_all_that_is_known_of_a_case_is_in_its_result() -> None:
    verdict = Score(0.75, (Assertion("says it", True),))
    case = make_case(
        graders=(grader(verdict, "mostly", weight=2.0),),
        expected_output=(user("x"), Message("assistant", "yes")),
        criteria="Says it.",
        prompt="short",
        category="kind/of",
        conversation_id="talk",
        tags=("a", "b"),
        metadata={"level": 3},
    )
    answer = ProviderResponse(
        "yes",
        token_usage=TokenUsage(3, 4),
        cost_usd=0.5,
        duration_ms=12.3456,
        finish_reason="length",
        model="m-1",
        target_used="other",
        attempts=3,
    )
    result = run(case, replies(answer), threshold=0.7, repeat=2, eval_path="a.yaml", provider="p")
    row = result.to_dict()
    (score,) = row.pop("scores")
    assert score.pop("duration_ms") >= 0
    assert score == {
        "name": "mostly",
        "type": "test",
        "score": 0.75,
        "weight": 2.0,
        "verdict": "pass",
        "assertions": [{"text": "says it", "passed": True}],
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", row.pop("started_at"))
    assert row == {
        "test_id": "c",
        "suite": "s",
        "target": "t",
        "target_used": "other",
        "repeat": 2,
        "execution_status": "ok",
        "score": 0.75,
        "threshold": 0.7,
        "input": "c",
        "output": "yes",
        "messages": [{"role": "assistant", "content": "yes"}],
        "error": None,
        "provider": "p",
        "attempts": 3,
        "token_usage": {"input": 3, "output": 4},
        "cost_usd": 0.5,
        "duration_ms": 12.346,
        "model": "m-1",
        "finish_reason": "length",
        "expected_output": "yes",
        "criteria": "Says it.",
        "prompt": "short",
        "eval_path": "a.yaml",
        "category": "kind/of",
        "conversation_id": "talk",
        "tags": ["a", "b"],
        "metadata": {"level": 3},
    }


@pytest.mark.parametrize(
    ("score", "status"), [(0.8, "ok"), (0.7999, "quality_failure"), (0.0, "quality_failure")]
)
def test_the_threshold_decides(score: float, status: str) -> None:
    result = run(make_case(graders=(grader(score),)), Asked())
    assert (result.execution_status, result.score, result.passed) == (status, score, status == "ok")


def test_a_duration_that_the_provider_does_not_tell_is_measured() -> None:
    async def slow(request: ProviderRequest) -> str:
        await asyncio.sleep(0.02)
        return "x"

    seen: list[float | None] = []
    case = make_case(graders=(grader(lambda context: bool(seen.append(context.duration_ms)) or 1),))
    result = run(case, Asked(slow))
    assert result.duration_ms is not None
    assert 20 <= result.duration_ms < 1000
    assert seen == [pytest.approx(result.duration_ms, abs=0.001)]
    told = run(make_case(), replies(ProviderResponse("x", duration_ms=0)))
    assert told.duration_ms == 0


def test_the_target_itself_answered_unless_another_is_told() -> None:
    assert run(make_case(), Asked()).target_used == "t"
    assert run(make_case(), replies(ProviderResponse("", target_used="u"))).target_used == "u"


def test_what_is_unknown_stays_unknown() -> None:
    result = run(make_case(), Asked())
    assert (result.token_usage, result.cost_usd, result.model) == (None, None, None)
    assert result.attempts == 1


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ProviderError.__subclasses__())
def test_the_provider_cannot_answer(kind: type[ProviderError]) -> None:
    result = run(make_case(), replies(kind("no such luck")))
    assert broken_by(result) == ("execution_error", None, kind.kind, "agent", "no such luck")
    assert (result.output, result.messages, result.target_used) == (None, [], None)


def test_what_a_failed_call_cost_is_kept() -> None:
    error = RateLimited("slow down", token_usage=TokenUsage(5, 1, cached=2), cost_usd=0.25)
    error.attempts, error.target = 4, "fallback"
    result = run(make_case(), replies(error))
    assert result.token_usage == {"input": 5, "output": 1, "cached": 2}
    assert (result.cost_usd, result.attempts, result.target_used) == (0.25, 4, None)
    assert result.duration_ms is not None


def test_an_exception_that_is_no_provider_error() -> None:
    def reply(request: ProviderRequest) -> str:
        raise LookupError("where is it")

    result = run(make_case(), Asked(reply))
    assert result.error is not None
    assert re.fullmatch(r".*test_execution\.py:\d+: LookupError: where is it", result.error)
    assert broken_by(result)[:4] == ("execution_error", None, "internal_error", "agent")
    assert result.attempts == 1


def test_a_grader_that_crashes_is_an_error_and_no_score_of_zero() -> None:
    case = make_case(graders=(grader(0.5, "fine"), grader(RuntimeError("oh"), "broken")))
    result = run(case, replies(ProviderResponse("said", cost_usd=0.1)))
    status, score, kind, stage, error = broken_by(result)
    assert (status, score, kind, stage) == ("execution_error", None, "grader_error", "evaluator")
    assert error is not None
    assert re.fullmatch(r'grader "broken": .*eval_parts\.py:\d+: RuntimeError: oh', error)
    # What it cost and what was said is not lost, nor what the other grader said of it.
    assert (result.output, result.cost_usd, result.target_used) == ("said", 0.1, "t")
    assert [(row["name"], row["verdict"]) for row in result.scores] == [
        ("fine", "fail"),
        ("broken", "skip"),
    ]


# --- time -----------------------------------------------------------------------------------------


def in_virtual_time(case: Case, provider: Asked, **fields: Any) -> tuple[CaseResult, float]:
    async def main() -> tuple[CaseResult, float]:
        return await execute(make_item(case, **fields), provider), round(now(), 6)

    return virtual(main())


async def sleeps(request: ProviderRequest) -> str:
    await asyncio.sleep(60)
    return "late"


async def swallows(request: ProviderRequest) -> str:
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            continue


@pytest.mark.parametrize(("reply", "extra"), [(sleeps, 0), (swallows, GRACE_SECONDS)])
def test_a_case_ends_at_its_timeout(reply: Any, extra: float) -> None:
    result, seconds = in_virtual_time(make_case(timeout_seconds=2.5), Asked(reply))
    expected = ("execution_error", None, "timeout", "agent", "no result within 2.5 s")
    assert broken_by(result) == expected
    assert seconds == 2.5 + extra
    assert result.attempts == 1
    assert result.duration_ms is not None


def test_graders_are_within_the_timeout() -> None:
    async def judge() -> float:
        await asyncio.sleep(60)
        return 1.0

    case = make_case(graders=(grader(lambda context: judge()),), timeout_seconds=5)
    result, seconds = in_virtual_time(case, replies(ProviderResponse("said", cost_usd=0.1)))
    assert broken_by(result)[:3] == ("execution_error", None, "timeout")
    assert (result.output, result.cost_usd, seconds) == ("said", 0.1, 5)


def test_a_case_within_its_timeout() -> None:
    result, seconds = in_virtual_time(make_case(timeout_seconds=61), Asked(sleeps))
    assert (result.execution_status, result.output, seconds) == ("ok", "late", 60)
    error = ProviderTimeout("the server was slow")
    result, _ = in_virtual_time(make_case(timeout_seconds=61), replies(error))
    assert broken_by(result)[2:] == ("timeout", "agent", "the server was slow")


def test_a_provider_that_cancels_itself_does_not_cancel_the_run() -> None:
    result, _ = in_virtual_time(make_case(timeout_seconds=9), replies(asyncio.CancelledError()))
    assert broken_by(result)[2:] == (
        "provider_failed",
        "agent",
        "the provider cancelled its own call",
    )


@pytest.mark.parametrize("timeout", [None, 50.0])
def test_cancellation_passes_through(timeout: float | None) -> None:
    async def main() -> Asked:
        provider = Asked(sleeps)
        task = asyncio.create_task(execute(make_item(make_case(), timeout=timeout), provider))
        await asyncio.sleep(1)
        assert provider.under_way == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return provider

    assert virtual(main()).under_way == 0


# --- dependencies ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("rule", "verb"), [("skip", "Skipped"), ("fail", "Failed")])
def test_a_case_whose_dependency_failed(rule: str, verb: str) -> None:
    item = make_item(make_case(on_dependency_failure=rule, depends_on=("a", "b")), repeat=1)
    result = failed_dependency(item, ["a", "b"])
    message = f"{verb}: dependency failed (a, b)"
    expected = ("execution_error", None, "dependency_failed", "setup", message)
    assert broken_by(result) == expected
    assert (result.attempts, result.duration_ms) == (0, None)
    assert (result.output, result.target_used) == (None, None)
    assert (result.test_id, result.repeat, result.input) == ("c", 1, "c")


# --- conversations --------------------------------------------------------------------------------


def talk(*turns: Any, **fields: Any) -> Case:
    return make_case(turns=turns, **({"input": (), "graders": ()} | fields))


def test_each_turn_sees_what_was_said_before() -> None:
    system, early = Message("system", "be kind"), user("before")
    case = talk(make_turn("one"), make_turn("two"), make_turn("three"), input=(system, early))
    provider = replies("eins", "zwei", "drei")
    result = run(case, provider)
    eins, zwei = Message("assistant", "eins"), Message("assistant", "zwei")
    assert provider.questions == ["one", "two", "three"]
    assert {request.system_prompt for request in provider.requests} == {"be kind"}
    assert [request.messages for request in provider.requests] == [
        (early,),
        (early, user("one"), eins),
        (early, user("one"), eins, user("two"), zwei),
    ]
    assert [message["content"] for message in result.messages] == [
        *("be kind", "before", "one", "eins", "two", "zwei", "three", "drei")
    ]
    assert result.output == "drei"
    assert result.input == [message.to_dict() for message in (system, early, user("one"))]


def test_a_window_shows_only_the_last_exchanges() -> None:
    turns = [make_turn(str(number)) for number in range(4)]
    provider = replies(*"abcd")
    result = run(talk(*turns, window_size=1, input=(Message("system", "s"),)), provider)
    shown = [[message.text for message in request.messages] for request in provider.requests]
    assert shown == [[], ["0", "a"], ["1", "b"], ["2", "c"]]
    assert {request.system_prompt for request in provider.requests} == {"s"}
    assert len(result.messages) == 9


@pytest.mark.parametrize(("aggregation", "score"), [("mean", 0.525), ("min", 0.2), ("max", 0.9)])
def test_turns_and_conversation_make_one_score(aggregation: str, score: float) -> None:
    turns = [make_turn(f"{value}", grader(value)) for value in (0.2, 0.6, 0.4)]
    case = talk(*turns, make_turn("free"), graders=(grader(0.9, "all"),), aggregation=aggregation)
    result = run(case, Asked())
    assert result.score == score
    assert [row["name"] for row in result.scores] == ["all"]
    assert result.turns is not None
    assert [turn.get("score") for turn in result.turns] == [0.2, 0.6, 0.4, None]
    assert "scores" not in result.turns[3]


def test_graders_of_a_turn_see_its_answer_and_those_of_the_conversation_the_last() -> None:
    seen: list[tuple[str, str | None, float | None]] = []

    def look(context: GradeContext) -> float:
        seen.append((context.output, context.reference_answer, context.duration_ms))
        return 1.0

    expected = {"expected_output": (Message("assistant", "EINS"),)}
    case = talk(
        make_turn("one", grader(look), **expected),
        make_turn("two", grader(look)),
        graders=(grader(look),),
        expected_output=(Message("assistant", "END"),),
    )
    answers = [ProviderResponse(text, duration_ms=ms) for text, ms in [("eins", 5), ("zwei", 7)]]
    result = run(case, replies(*answers))
    assert seen == [("eins", "EINS", 5), ("zwei", None, 7), ("zwei", "END", 12)]
    assert result.duration_ms == 12


def test_tokens_money_and_attempts_of_all_turns() -> None:
    answers = [
        ProviderResponse("a", token_usage=TokenUsage(1, 2, cached=1), cost_usd=0.25, attempts=2),
        ProviderResponse("b"),
        ProviderResponse("c", token_usage=TokenUsage(10, 20), cost_usd=0.5),
    ]
    result = run(talk(*[make_turn(str(n), grader()) for n in range(3)]), replies(*answers))
    assert result.token_usage == {"input": 11, "output": 22, "cached": 1}
    assert (result.cost_usd, result.attempts) == (0.75, 2)


@pytest.mark.parametrize(("rule", "asked", "score"), [("stop", 2, 0.4), ("continue", 3, 0.7333)])
def test_after_a_turn_that_failed(rule: str, asked: int, score: float) -> None:
    turns = [make_turn(text, grader(value)) for text, value in [("1", 1), ("2", 0.2), ("3", 1)]]
    provider = Asked()
    result = run(talk(*turns, on_turn_failure=rule), provider)
    assert len(provider.requests) == asked
    assert result.score == pytest.approx(score, abs=1e-4)
    assert result.turns is not None
    if rule == "stop":
        assert result.turns[2] == {"input": "3", "score": 0.0, "verdict": "skip"}
    assert [turn["score"] for turn in result.turns[:2]] == [1.0, 0.2]


def test_an_error_in_the_second_turn_keeps_what_was_answered() -> None:
    error = ProviderFailed("crashed", token_usage=TokenUsage(1, 0), cost_usd=0.5)
    answer = ProviderResponse("eins", token_usage=TokenUsage(2, 3), cost_usd=0.25, model="m")
    turns = [make_turn(text, grader(1.0, "fine")) for text in ("one", "two", "three")]
    provider = replies(answer, error)
    result = run(talk(*turns), provider)
    assert broken_by(result) == ("execution_error", None, "provider_failed", "agent", "crashed")
    assert len(provider.requests) == 2
    assert result.turns is not None
    assert [(turn["input"], turn.get("output")) for turn in result.turns] == [
        ("one", "eins"),
        ("two", None),
    ]
    assert result.turns[0]["scores"][0]["name"] == "fine"
    assert (result.output, result.model, result.cost_usd) == ("eins", "m", 0.75)
    assert result.token_usage == {"input": 3, "output": 3}
    assert [message["content"] for message in result.messages] == ["one", "eins"]


def test_a_grader_that_crashes_in_a_turn() -> None:
    result = run(talk(make_turn("one", grader(ValueError("oh"), "bad")), make_turn("2")), Asked())
    assert broken_by(result)[:4] == ("execution_error", None, "grader_error", "evaluator")
    assert result.turns is not None
    assert [turn["input"] for turn in result.turns] == ["one"]
    assert result.turns[0]["scores"][0]["verdict"] == "skip"


async def test_a_conversation_is_judged_by_all_its_answers() -> None:
    """Its tools and its tokens are those of all turns, not of the last."""
    seen: list[GradeContext] = []

    class Calling:
        async def invoke(self, request: ProviderRequest) -> ProviderResponse:
            call = ToolCall("search", {"q": request.question})
            messages = (Message("assistant", "", tool_calls=(call,)), Message("assistant", "said"))
            known = None if request.question == "three" else TokenUsage(10, 5)
            return ProviderResponse(messages, token_usage=known, cost_usd=0.25)

    def look(context: GradeContext) -> float:
        seen.append(context)
        return 1.0

    for turns in (("one", "two"), ("one", "three")):
        case = make_case(
            input=(), turns=tuple(make_turn(text) for text in turns), graders=(grader(look),)
        )
        result = await execute(make_item(case), Calling())
        assert result.score == 1.0
    whole, partly = (context.response for context in seen)
    assert [call.input for call in whole.tool_calls] == [{"q": "one"}, {"q": "two"}]
    assert whole.token_usage == TokenUsage(20, 10)
    assert (whole.cost_usd, whole.text) == (0.5, "said")
    assert partly.token_usage is None
