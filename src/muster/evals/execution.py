"""One case on one target: ask, grade, and say how it went as a `CaseResult`."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from muster.evals.case import Case, Turn
from muster.evals.conversation import history_after, make_request, shown_input
from muster.evals.graders.base import BoundGrader, GradeContext
from muster.evals.judging import CaseJudges, Judges, Saved
from muster.evals.results import EXECUTION_ERROR, OK, QUALITY_FAILURE, CaseResult
from muster.evals.scope import RunScope
from muster.evals.scoring import Graded, aggregate_turns, grade_all
from muster.exchange import OCCASION, Occasion
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
    judges: Judges | None = None
    place: int = 0
    """In the order of the suite's cases, where that is shuffled."""
    scope: RunScope | None = None
    """What graders keep while the run lasts."""


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
    asked: tuple[Message, ...] = ()
    turns: list[dict[str, Any]] | None = None
    scores: list[dict[str, Any]] = msgspec.field(default_factory=list)
    judges: CaseJudges | None = None
    saved: Saved = msgspec.field(default_factory=Saved)
    """What the response cache saved."""
    asked_anew: bool = False
    """Some answer did not come from the cache."""
    asked_before: dict[bytes, int] = msgspec.field(default_factory=dict)
    """Kept by the response cache."""
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
        """Add one call's tokens, money and time; those of an answer that was there are saved."""
        if isinstance(spent, ProviderResponse) and spent.cached:
            self.saved.add(spent)
            self.usage = TokenUsage() + self.usage
            self.cost_usd = self.cost_usd or 0.0
            self.duration_ms += duration_ms
            self.target_used = target or self.target_used
            return
        self.asked_anew = True
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
    if item.judges is not None:
        record.judges = item.judges.for_case(item.case.judge_target)
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
    graded = await _grade(item, case.graders, case.expected_output, record, record.duration_ms)
    record.scores = [row.to_dict() for row in graded.rows]
    return _score_of(graded)


async def _converse(item: Item, provider: Provider, record: _Record) -> float:
    """A multi-turn case: each turn sees what was said before; a broken turn is an error."""
    case = item.case
    history = case.input
    answers: list[ProviderResponse] = []
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
        answers.append(response)
        history = (*history, *turn.input, *response.output)
        record.messages = history
        row["output"] = response.text
        score = await _grade_turn(item, turn, record, row)
        if score is not None:
            scores.append(score)
            stopped = score < item.threshold and case.on_turn_failure == "stop"
    if case.graders and answers:
        record.response = _together(answers, record.duration_ms)
        graded = await _grade(item, case.graders, case.expected_output, record, record.duration_ms)
        record.scores = [score_row.to_dict() for score_row in graded.rows]
        scores.append(_score_of(graded))
    return aggregate_turns(scores, case.aggregation)


def _together(answers: Sequence[ProviderResponse], duration_ms: float) -> ProviderResponse:
    """What a conversation as a whole is judged by: all that was answered, and what it took; what is
    not known of one turn is not known of the whole."""
    last = answers[-1]
    usages = [answer.token_usage for answer in answers]
    costs = [answer.cost_usd for answer in answers]
    usage: TokenUsage | None = None
    if None not in usages:
        for one in usages:
            usage = one + usage if one is not None else usage
    return ProviderResponse(
        tuple(message for answer in answers for message in answer.output),
        token_usage=usage,
        cost_usd=None if None in costs else math.fsum(cost for cost in costs if cost is not None),
        duration_ms=duration_ms,
        raw=last.raw,
        finish_reason=last.finish_reason,
        model=last.model,
        target_used=last.target_used,
        attempts=last.attempts,
    )


async def _grade_turn(item: Item, turn: Turn, record: _Record, row: dict[str, Any]) -> float | None:
    if not turn.graders or record.response is None:
        return None
    duration = record.response.duration_ms
    graded = await _grade(item, turn.graders, turn.expected_output, record, duration)
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
    record.asked = messages
    OCCASION.set(_occasion(item, record))
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


def _occasion(item: Item, record: _Record) -> Occasion:
    case = item.case
    return Occasion(
        suite=case.suite,
        eval_path=item.eval_path,
        test_id=case.id,
        prompt=case.prompt,
        target=item.target,
        repeat=item.repeat,
        turn=len(record.turns) - 1 if record.turns else 0,
        seen=record.asked_before,
    )


async def _grade(
    item: Item,
    graders: Sequence[BoundGrader],
    expected: tuple[Message, ...],
    record: _Record,
    duration_ms: float | None,
) -> Graded:
    response = record.response
    assert response is not None
    context = GradeContext(
        output=response.text,
        case=item.case,
        response=response,
        expected_output=expected,
        asked=record.asked,
        duration_ms=duration_ms,
        judges=record.judges,
        target=item.target,
        repeat=item.repeat,
        threshold=item.threshold,
        scope=item.scope,
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
        cached=record.saved.hits > 0 and not record.asked_anew,
        saved=_saved(record),
        **_judging(record.judges),
        duration_ms=round(record.duration_ms, 3) if record.attempts or record.saved.hits else None,
        started_at=record.started_at,
        prompt=case.prompt,
        eval_path=item.eval_path,
        category=case.category,
        cluster=case.cluster,
        conversation_id=case.conversation_id,
        tags=list(case.tags),
        metadata=dict(case.metadata),
    )


def _saved(record: _Record) -> dict[str, Any] | None:
    """What the response cache saved; `None` when no answer came from it."""
    target, judges = record.saved, record.judges.saved if record.judges is not None else Saved()
    if not target.hits and not judges.hits:
        return None
    row = {
        "hits": target.hits,
        "token_usage": target.token_usage and target.token_usage.to_dict(),
        "cost_usd": target.cost_usd,
        "judge_hits": judges.hits,
        "judge_token_usage": judges.token_usage and judges.token_usage.to_dict(),
        "judge_cost_usd": judges.cost_usd,
    }
    return {name: value for name, value in row.items() if value not in (None, 0)}


def _judging(judges: CaseJudges | None) -> dict[str, Any]:
    """What the judges of the case took; nothing when none was asked."""
    if judges is None or not judges.calls:
        return {}
    usage = judges.token_usage
    return {
        "judge_calls": judges.calls,
        "judge_token_usage": usage.to_dict() if usage is not None else None,
        "judge_cost_usd": judges.cost_usd,
    }


async def _in_time(work: Coroutine[Any, Any, float], seconds: float) -> float:
    task = asyncio.get_running_loop().create_task(work)
    if not await end_within(task, seconds):
        raise _CaseFailed(f"no result within {seconds:g} s", ProviderTimeout.kind, "agent")
    if task.cancelled():
        raise _CaseFailed("the provider cancelled its own call", ProviderFailed.kind, "agent")
    return task.result()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
