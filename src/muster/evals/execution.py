"""One case on one target: ask, grade, and say how it went as a `CaseResult`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from muster.evals.case import Case, Turn
from muster.evals.conversation import history_after, make_request, shown_input
from muster.evals.graders.base import BoundGrader, GradeContext
from muster.evals.results import EXECUTION_ERROR, OK, QUALITY_FAILURE, CaseResult
from muster.evals.scoring import Graded, aggregate_turns, grade_all
from muster.importing import describe_failure
from muster.provider import (
    Message,
    Provider,
    ProviderError,
    ProviderFailed,
    ProviderResponse,
    ProviderTimeout,
    TokenUsage,
)
from muster.tasks import end_within

__all__ = ("Item", "execute", "failed_dependency")


class Item(msgspec.Struct, frozen=True):
    """A case to run: on which target, and for the how-manieth time (0-based)."""

    case: Case
    target: str
    repeat: int
    eval_path: str | None
    provider: str
    threshold: float
    timeout: float | None
    cwd: Path | None


class _CaseFailed(Exception):
    """The case has no score; `stage` is where it broke."""

    def __init__(self, message: str, kind: str, stage: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.stage = stage


class _Record(msgspec.Struct):
    """What is known of a case so far: an error later on does not lose the answers before it."""

    started_at: str = msgspec.field(default_factory=lambda: _now())  # noqa: PLW0108 - defined below
    usage: TokenUsage | None = None
    cost_usd: float | None = None
    duration_ms: float = 0.0
    attempts: int = 0
    target_used: str | None = None
    response: ProviderResponse | None = None
    messages: Sequence[Message] = ()
    turns: list[dict[str, Any]] | None = None
    scores: list[dict[str, Any]] = msgspec.field(default_factory=list)
    call_began: float | None = None
    """While a call is under way: `time.perf_counter()` of its beginning."""

    def count_broken_call(self) -> None:
        """A call that is under way was cut off: its time counts, its cost is not known."""
        if self.call_began is not None:
            self.duration_ms += (time.perf_counter() - self.call_began) * 1000
            self.attempts = max(self.attempts, 1)

    def count(
        self,
        spent: ProviderResponse | ProviderError,
        target: str | None,
        duration_ms: float,
    ) -> None:
        """Add one call's tokens, money and time."""
        if spent.token_usage is not None:
            self.usage = spent.token_usage + self.usage
        if spent.cost_usd is not None:
            self.cost_usd = (self.cost_usd or 0.0) + spent.cost_usd
        self.duration_ms += duration_ms
        self.attempts = max(self.attempts, spent.attempts)
        self.target_used = target or self.target_used


async def execute(item: Item, provider: Provider) -> CaseResult:
    """Run one case; whatever goes wrong is in the result. Only cancellation passes through."""
    record = _Record()
    run = _converse if item.case.turns else _ask_once
    try:
        if item.timeout is None:
            score = await run(item, provider, record)
        else:
            score = await _in_time(run(item, provider, record), item.timeout)
    except _CaseFailed as error:
        record.count_broken_call()
        failure = error
    else:
        return _result(item, record, score, None)
    return _result(item, record, None, failure)


def failed_dependency(item: Item, failed: Sequence[str]) -> CaseResult:
    """The result of a case that was not run, because cases it depends on had errors."""
    verb = "Failed" if item.case.on_dependency_failure == "fail" else "Skipped"
    message = f"{verb}: dependency failed ({', '.join(failed)})"
    return _result(item, _Record(), None, _CaseFailed(message, "dependency_failed", "setup"))


async def _ask_once(item: Item, provider: Provider, record: _Record) -> float:
    case = item.case
    response = await _invoke(item, provider, case.input, record)
    record.messages = response.output
    graded = await _grade(item, case.graders, case.expected_output, response, record.duration_ms)
    record.scores = [row.to_dict() for row in graded.rows]
    return _score_of(graded)


async def _converse(item: Item, provider: Provider, record: _Record) -> float:
    """A multi-turn case: each turn sees what was said before; a broken turn is an error."""
    case = item.case
    history = case.input
    scores: list[float] = []
    record.turns = rows = []
    stopped = False
    for turn in case.turns:
        row: dict[str, Any] = {"input": shown_input(turn.input)}
        rows.append(row)
        if stopped:
            row |= {"score": 0.0, "verdict": "skip"}
            scores.append(0.0)
            continue
        asked = history_after(history, case.window_size) + turn.input
        response = await _invoke(item, provider, asked, record)
        history = (*history, *turn.input, *response.output)
        record.messages = history
        row["output"] = response.text
        score = await _grade_turn(item, turn, response, row)
        if score is not None:
            scores.append(score)
            stopped = score < item.threshold and case.on_turn_failure == "stop"
    if case.graders and record.response is not None:
        graded = await _grade(
            item, case.graders, case.expected_output, record.response, record.duration_ms
        )
        record.scores = [score_row.to_dict() for score_row in graded.rows]
        scores.append(_score_of(graded))
    return aggregate_turns(scores, case.aggregation)


async def _grade_turn(
    item: Item, turn: Turn, response: ProviderResponse, row: dict[str, Any]
) -> float | None:
    if not turn.graders:
        return None
    graded = await _grade(item, turn.graders, turn.expected_output, response, response.duration_ms)
    row["scores"] = [score.to_dict() for score in graded.rows]
    row["score"] = score = _score_of(graded)
    return score


def _score_of(graded: Graded) -> float:
    if graded.error is not None:
        raise _CaseFailed(graded.error, "grader_error", "evaluator")
    return graded.score


async def _invoke(
    item: Item, provider: Provider, messages: tuple[Message, ...], record: _Record
) -> ProviderResponse:
    request = make_request(item.case, messages, item.repeat, cwd=item.cwd)
    record.call_began = start = time.perf_counter()
    try:
        response = await provider.invoke(request)
    except ProviderError as error:
        record.call_began = None
        record.count(error, None, (time.perf_counter() - start) * 1000)
        raise _CaseFailed(str(error), error.kind, "agent") from error
    except Exception as error:
        # Providers are wrapped so that only ProviderErrors leave them: this is a defect of ours.
        raise _CaseFailed(describe_failure(error), "internal_error", "agent") from error
    record.call_began = None
    measured = (time.perf_counter() - start) * 1000
    record.count(
        response,
        response.target_used,
        measured if response.duration_ms is None else response.duration_ms,
    )
    record.response = response
    return response


async def _grade(
    item: Item,
    graders: Sequence[BoundGrader],
    expected: tuple[Message, ...],
    response: ProviderResponse,
    duration_ms: float | None,
) -> Graded:
    context = GradeContext(
        output=response.text,
        case=item.case,
        response=response,
        expected_output=expected,
        duration_ms=duration_ms,
    )
    graded = grade_all(graders, context, item.threshold)
    return graded if isinstance(graded, Graded) else await graded


def _result(
    item: Item, record: _Record, score: float | None, failure: _CaseFailed | None
) -> CaseResult:
    case: Case = item.case
    response = record.response
    if score is None:
        status = EXECUTION_ERROR
    else:
        status = OK if score >= item.threshold else QUALITY_FAILURE
    return CaseResult(
        test_id=case.id,
        suite=case.suite,
        target=item.target,
        repeat=item.repeat,
        execution_status=status,
        score=score,
        threshold=item.threshold,
        scores=record.scores,
        input=shown_input(case.input + case.turns[0].input if case.turns else case.input),
        output=response.text if response is not None else None,
        expected_output=case.reference_answer,
        criteria=case.criteria,
        messages=[message.to_dict() for message in record.messages],
        turns=record.turns,
        error=str(failure) if failure is not None else None,
        error_kind=failure.kind if failure is not None else None,
        failure_stage=failure.stage if failure is not None else None,
        target_used=record.target_used or (item.target if response is not None else None),
        provider=item.provider,
        model=response.model if response is not None else None,
        finish_reason=response.finish_reason if response is not None else None,
        attempts=record.attempts,
        token_usage=record.usage.to_dict() if record.usage is not None else None,
        cost_usd=record.cost_usd,
        duration_ms=round(record.duration_ms, 3) if record.attempts else None,
        started_at=record.started_at,
        prompt=case.prompt,
        eval_path=item.eval_path,
        category=case.category,
        conversation_id=case.conversation_id,
        tags=list(case.tags),
        metadata=dict(case.metadata),
    )


async def _in_time(work: Coroutine[Any, Any, float], seconds: float) -> float:
    task = asyncio.get_running_loop().create_task(work)
    if not await end_within(task, seconds):
        raise _CaseFailed(f"no result within {seconds:g} s", ProviderTimeout.kind, "agent")
    if task.cancelled():
        raise _CaseFailed("the provider cancelled its own call", ProviderFailed.kind, "agent")
    return task.result()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
