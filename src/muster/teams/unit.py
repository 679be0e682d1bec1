"""One question of a step: attempts, the repair of an answer, and the checks that it must pass."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from muster.provider import Message, ProviderError, ProviderResponse
from muster.store.records import StepRecord
from muster.teams.answer_checks import check_schema, check_text, judge_prompt, read_verdict
from muster.teams.asking import Question, ask
from muster.teams.budget import TokenBudget
from muster.teams.context import RunContext, Unit
from muster.teams.definition import Agent, Step, StepRetry, Team, Validation
from muster.teams.json_output import NO_JSON, extract_json
from muster.teams.state import FAILED, SUCCEEDED, Account, StepState
from muster.tools.base import BoundTool

__all__ = ("Answer", "StepFailed", "UnitRunner", "UnitTask")


class StepFailed(Exception):
    """The step cannot be done; `kind` says what stood in the way."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class _Refused(StepFailed):
    """There is an answer, but not as it should be."""


@dataclass(slots=True)
class Answer:
    """What a step, or one item of it, came to."""

    output: str
    data: Any = NO_JSON
    artifacts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UnitTask:
    """A unit of a step, ready to be asked."""

    step: Step
    state: StepState
    unit: Unit
    prompt: str
    agent: Agent
    budgets: tuple[TokenBudget, ...]
    tools: Sequence[BoundTool]


class UnitRunner:
    """Asks until the answer will do. Each attempt is a row of the journal."""

    def __init__(self, context: RunContext, team: Team, *, with_envelopes: bool) -> None:
        self._context = context
        self._team = team
        self._with_envelopes = with_envelopes

    async def run(self, task: UnitTask) -> Answer:
        """The answer. Failures that a retry can help, and refused answers, have their own counts.

        Raises:
            ProviderError: the agent failed, and further attempts are not allowed or did not help.
            StepFailed: its answer is not as it should be.
        """
        retry, validation = task.step.retry, task.step.validation
        refusals_left = failures_left = retry.max_retries
        if validation is not None and validation.on_failure == "retry":
            refusals_left = max(refusals_left, validation.max_retries)
        attempt = 0
        while True:
            try:
                return await self._attempt(task, attempt)
            except ProviderError as error:
                if not error.retryable or not failures_left:
                    raise
                failures_left -= 1
                why, delay = str(error), _delay(retry, retry.max_retries - failures_left)
            except _Refused as refused:
                if not refusals_left:
                    raise
                refusals_left -= 1
                why, delay = str(refused), 0.0
            attempt += 1
            self._tell("retry", task, why)
            await asyncio.sleep(delay)

    async def _attempt(self, task: UnitTask, attempt: int) -> Answer:
        context = self._context
        member = await context.member(task.agent)
        name, iteration, item = task.unit
        task.state.attempts += 1
        row = context.journal.begin_step(
            StepRecord(
                run_id=context.run_id,
                name=name,
                iteration=iteration,
                item=item,
                attempt=attempt,
                agent=task.agent.name,
                prompt=task.prompt,
                target=member.target,
            )
        )
        account = Account(task.state.account)
        question = Question(
            member=member,
            prompt=task.prompt,
            account=account,
            unit=task.unit,
            role=task.step.role or task.agent.name,
            row=row,
            attempt=attempt,
            schema=task.step.output_schema,
            seconds=task.step.timeout_seconds,
            budgets=task.budgets,
            with_envelopes=self._with_envelopes,
            tools=task.tools,
        )
        ended: dict[str, Any] = {"status": FAILED}
        try:
            response = await self._response(task, question)
            answer = Answer(response.text, extract_json(response.text))
            ended = {
                "status": SUCCEEDED,
                "output": answer.output,
                "data": answer.data,
                "model": response.model,
            }
        except (ProviderError, StepFailed) as error:
            ended |= {"error": str(error), "error_kind": error.kind}
            raise
        except asyncio.CancelledError:
            ended |= {"error": "cancelled", "error_kind": "cancelled"}
            raise
        finally:
            context.journal.end_step(
                row, token_usage=account.token_usage, cost_usd=account.cost_usd, **ended
            )
        return answer

    async def _response(self, task: UnitTask, question: Question) -> ProviderResponse:
        """The agent's answer, with one turn to repair what does not match the schema."""
        step = task.step
        response = await ask(self._context, question)
        if step.output_schema is not None:
            problem = check_schema(step.output_schema, extract_json(response.text))
            if problem is not None:
                self._tell("invalid", task, problem, row=question.row)
                response = await ask(self._context, _repair(question, response, problem))
                problem = check_schema(step.output_schema, extract_json(response.text))
            if problem is not None:
                raise _Refused(f"the output does not match its schema: {problem}", "invalid_output")
        if response.finish_reason in ("length", "content_filter"):
            cut = f"the answer was cut short ({response.finish_reason})"
            self._tell("warning", task, cut, row=question.row)
        if step.validation is not None:
            task.state.validation_attempts += 1
            problem = await self._validate(task, question, step.validation, response.text)
            if problem is not None:
                self._tell("invalid", task, problem, row=question.row)
                raise _Refused(f"validation failed: {problem}", "validation")
        return response

    async def _validate(
        self, task: UnitTask, question: Question, validation: Validation, text: str
    ) -> str | None:
        """The first check that does not hold; the cheap ones are first."""
        problem = check_text(validation, text)
        if problem is None and validation.suite is not None:
            from muster.teams.suite_gate import grade_output

            problem = await grade_output(validation.suite, task.prompt, text)
        if problem is None and validation.semantic is not None:
            problem = await self._ask_judge(question, validation, text)
        return problem

    async def _ask_judge(self, question: Question, validation: Validation, text: str) -> str | None:
        judge = question.member
        if validation.judge is not None:
            role = self._team.roles.get(validation.judge)
            agent = role.agent if role is not None else None
            judge = await self._context.member(
                agent or Agent(name=validation.judge, target=validation.judge)
            )
        asked = replace(
            question,
            member=judge,
            prompt=judge_prompt(validation.semantic or "", text),
            role="judge",
            schema=None,
            use_tools=False,
            stream=False,
            metadata={"purpose": "judge"},
        )
        response = await ask(self._context, asked)
        passed, reason = read_verdict(response.text)
        return None if passed else reason

    def _tell(self, kind: str, task: UnitTask, text: str, row: int | None = None) -> None:
        step, iteration, item = task.unit
        self._context.note(kind, {"step": step, "text": text}, row)
        self._context.emit(kind, step=step, iteration=iteration, item=item, text=text)


def _delay(retry: StepRetry, failures: int) -> float:
    """Exponential back-off with full jitter, in seconds."""
    longest = min(retry.initial_delay * retry.backoff_factor ** (failures - 1), retry.max_delay)
    return random.uniform(0, longest)  # noqa: S311 - no secret


def _repair(question: Question, response: ProviderResponse, problem: str) -> Question:
    return replace(
        question,
        history=(
            *question.history,
            Message("user", question.prompt),
            Message("assistant", response.text),
        ),
        prompt=f"That does not match the schema: {problem}.\n"
        "Answer again, with nothing but JSON that matches it.",
    )
