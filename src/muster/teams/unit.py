"""One question of a step: attempts, the repair of an answer, and the checks that it must pass."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from muster.errors import MusterError
from muster.provider import Message, ProviderError, ProviderRequest, ProviderResponse
from muster.store.records import StepRecord
from muster.teams.answer_checks import check_schema, check_text, judge_prompt, read_verdict
from muster.teams.artifacts import collect, missing, wanted, workplace
from muster.teams.asking import Question, ask
from muster.teams.budget import Budgets
from muster.teams.cast import Member
from muster.teams.context import RunContext, Unit
from muster.teams.definition import Agent, Step, StepRetry, Team, Validation
from muster.teams.json_output import NO_JSON, extract_json
from muster.teams.remembering import recalled, remember, with_memories
from muster.teams.state import FAILED, SUCCEEDED, Account, StepState
from muster.tools.base import BoundTool

__all__ = ("Answer", "StepFailed", "UnitRunner", "UnitTask")


class StepFailed(Exception):
    """The step cannot be done; `kind` says what stood in the way."""

    def __init__(self, message: str, kind: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.retryable = retryable


class _Refused(StepFailed):
    """There is an answer, but not as it should be."""

    def __init__(self, message: str, kind: str, output: str) -> None:
        super().__init__(message, kind)
        self.output = output


@dataclass(slots=True)
class Answer:
    """What a step, or one item of it, came to."""

    output: str
    data: Any = NO_JSON
    artifacts: Mapping[str, Any] = field(default_factory=dict)
    """Paths by name; of a step with items, lists of them."""


@dataclass(slots=True, kw_only=True)
class UnitTask:
    """A unit of a step, ready to be asked: of an agent, or of a whole team."""

    step: Step
    state: StepState
    unit: Unit
    prompt: str
    inputs: Mapping[str, str]
    """What `prompt` is made of."""
    agent: Agent | None = None
    team: Team | None = None
    budgets: Budgets
    tools: Sequence[BoundTool] = ()

    @property
    def name(self) -> str:
        """Whose answer it is."""
        if self.agent is not None:
            return self.agent.name
        assert self.team is not None
        return self.team.name


@dataclass(slots=True, kw_only=True)
class _Attempt:
    """One attempt at a unit, and on whose account it is."""

    task: UnitTask
    number: int
    account: Account
    member: Member | None
    """The agent, ready to be asked; a team is made ready by its own run."""
    has_place: bool = False
    """Whether it has a place at the agent: until the agent is asked."""
    row: int = 0
    """In the journal, once it has begun."""


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
        number = 0
        while True:
            try:
                return await self._attempt(task, number)
            except _Refused as refused:
                if not refusals_left:
                    raise
                refusals_left -= 1
                why, delay = str(refused), 0.0
            except (ProviderError, StepFailed) as error:
                if not error.retryable or not failures_left:
                    raise
                failures_left -= 1
                why, delay = str(error), _delay(retry, retry.max_retries - failures_left)
            number += 1
            self._tell("retry", task, why)
            await asyncio.sleep(delay)

    async def _attempt(self, task: UnitTask, number: int) -> Answer:
        """Nothing of it has begun before the agent has a place for it."""
        context = self._context
        member = await context.member(task.agent) if task.agent is not None else None
        own = Account(task.state.account)
        attempt = _Attempt(task=task, number=number, account=own, member=member)
        if member is None:
            return await self._carry_out(attempt)
        await member.room.enter()
        attempt.has_place = True
        try:
            return await self._carry_out(attempt)
        finally:
            if attempt.has_place:
                member.room.leave()

    async def _carry_out(self, attempt: _Attempt) -> Answer:
        context, task = self._context, attempt.task
        ended: dict[str, Any] = {"status": FAILED}
        try:
            await self._begin(attempt)
            with workplace(context, task.step, task.unit):
                response = await self._answer(attempt)
            artifacts = collect(context, task.step, task.unit)
            answer = Answer(response.text, extract_json(response.text), artifacts)
            ended = {
                "status": SUCCEEDED,
                "output": answer.output,
                "data": answer.data,
                "model": response.model,
            }
        except (ProviderError, StepFailed) as error:
            ended |= {"error": str(error), "error_kind": error.kind}
            if isinstance(error, _Refused):
                ended["output"] = error.output
            raise
        except MusterError as error:
            ended |= {"error": str(error), "error_kind": "configuration"}
            raise
        except asyncio.CancelledError:
            ended |= {"error": "cancelled", "error_kind": "cancelled"}
            raise
        finally:
            if attempt.row:
                used = attempt.account
                context.journal.end_step(
                    attempt.row, token_usage=used.token_usage, cost_usd=used.cost_usd, **ended
                )
        if task.agent is not None:
            await remember(context, task.agent, task.prompt, answer.output, attempt.row)
        return answer

    async def _begin(self, attempt: _Attempt) -> None:
        """Write down that it begins; nothing is done before that is on disk."""
        context, task = self._context, attempt.task
        name, iteration, item = task.unit
        task.state.attempts += 1
        async with context.beginning:
            attempt.row = context.journal.begin_step(
                StepRecord(
                    run_id=context.run_id,
                    name=name,
                    iteration=iteration,
                    item=item,
                    attempt=attempt.number,
                    agent=task.name,
                    prompt=task.prompt,
                    target=attempt.member.target if attempt.member is not None else None,
                )
            )
            await context.journal.flushed()

    async def _answer(self, attempt: _Attempt) -> ProviderResponse:
        """An answer that holds against the schema and the checks."""
        task = attempt.task
        if task.team is not None:
            response = await self._ask_team(attempt, task.team)
        else:
            response = await self._ask_agent(attempt)
        absent = missing(task.step, collect(self._context, task.step, task.unit))
        if absent is not None:
            raise _Refused(absent, "missing_artifact", response.text)
        validation = task.step.validation
        if validation is not None:
            task.state.validation_attempts += 1
            problem = await self._validate(attempt, validation, response.text)
            if problem is not None:
                self._tell("invalid", task, problem, row=attempt.row)
                raise _Refused(f"validation failed: {problem}", "validation", response.text)
        return response

    async def _ask_team(self, attempt: _Attempt, team: Team) -> ProviderResponse:
        """What the team's own run comes to."""
        from muster.teams.nested import run_nested

        task = attempt.task
        output = await run_nested(
            self._context,
            team,
            task.inputs,
            task.unit,
            account=task.state.account,
            budgets=task.budgets,
        )
        if task.step.output_schema is not None:
            problem = check_schema(task.step.output_schema, extract_json(output))
            if problem is not None:
                raise _unlike_schema(problem, output)
        return ProviderResponse(output)

    async def _ask_agent(self, attempt: _Attempt) -> ProviderResponse:
        """The agent's answer, with one turn to repair what does not match the schema."""
        task, schema = attempt.task, attempt.task.step.output_schema
        assert task.agent is not None
        prompt = task.prompt + wanted(task.step)
        entries = await recalled(self._context, task.agent, task.prompt, attempt.row)
        assert attempt.member is not None
        question = self._question(attempt, attempt.member, with_memories(prompt, entries))
        if entries:
            question = replace(question, with_memory=True)
        attempt.has_place = False  # it is the question's from now on
        response = await ask(self._context, question)
        if schema is not None:
            problem = check_schema(schema, extract_json(response.text))
            if problem is not None:
                self._tell("invalid", task, problem, row=attempt.row)
                response = await ask(self._context, _repair(question, response, problem))
                problem = check_schema(schema, extract_json(response.text))
            if problem is not None:
                raise _unlike_schema(problem, response.text)
        if response.finish_reason in ("length", "content_filter"):
            cut = f"the answer was cut short ({response.finish_reason})"
            self._tell("warning", task, cut, row=attempt.row)
        return response

    def _question(self, attempt: _Attempt, member: Member, prompt: str) -> Question:
        task = attempt.task
        return Question(
            member=member,
            prompt=prompt,
            account=attempt.account,
            unit=task.unit,
            role=task.step.role or task.name,
            row=attempt.row,
            attempt=attempt.number,
            schema=task.step.output_schema,
            budgets=task.budgets.tokens,
            money_budgets=task.budgets.money,
            with_envelopes=self._with_envelopes,
            tools=task.tools,
            has_place=attempt.has_place,
        )

    async def _validate(self, attempt: _Attempt, validation: Validation, text: str) -> str | None:
        """The first check that does not hold; the cheap ones are first."""
        problem = check_text(validation, text)
        if problem is None and validation.suite is not None:
            problem = await self._ask_suite(attempt, validation, validation.suite, text)
        if problem is None and validation.semantic is not None:
            problem = await self._ask_judge(attempt, validation, text)
        return problem

    async def _ask_judge(self, attempt: _Attempt, validation: Validation, text: str) -> str | None:
        prompt = judge_prompt(validation.semantic or "", text)
        judge = await self._context.member(self._judge(attempt.task, validation))
        response = await ask(self._context, self._to_judge(attempt, judge, prompt))
        passed, reason = read_verdict(response.text)
        return None if passed else reason

    async def _ask_suite(
        self, attempt: _Attempt, validation: Validation, suite: Path, text: str
    ) -> str | None:
        from muster.teams.suite_gate import STEPS_OWN

        def judge(name: str) -> Agent:
            if name == STEPS_OWN:
                return self._judge(attempt.task, validation)
            return self._judge_called(name)

        async def ask_judge(agent: Agent, request: ProviderRequest) -> ProviderResponse:
            member = await self._context.member(agent)
            system = replace(agent, system_prompt=request.system_prompt or "", output_format=None)
            question = self._to_judge(attempt, replace(member, agent=system), request.question)
            schema = request.response_schema
            question = replace(question, schema=schema, with_envelopes=False)
            return await ask(self._context, question)

        cast = self._context.cast
        prompt = attempt.task.prompt
        return await cast.gate(suite).refusal(prompt, text, cast=cast, judge=judge, ask=ask_judge)

    def _to_judge(self, attempt: _Attempt, judge: Member, prompt: str) -> Question:
        return replace(
            self._question(attempt, judge, prompt),
            role="judge",
            schema=None,
            use_tools=False,
            stream=False,
            metadata={"purpose": "judge"},
        )

    def _judge(self, task: UnitTask, validation: Validation) -> Agent:
        """The role or target that is named, else the step's own agent."""
        if validation.judge is not None:
            return self._judge_called(validation.judge)
        if task.agent is None:
            raise StepFailed("validate needs a judge where a team does the step", "configuration")
        return task.agent

    def _judge_called(self, name: str) -> Agent:
        role = self._team.roles.get(name)
        if role is not None and role.agent is not None:
            return role.agent
        return self._context.cast.agent_of_target(name)

    def _tell(self, kind: str, task: UnitTask, text: str, row: int | None = None) -> None:
        step, iteration, item = task.unit
        self._context.note(kind, {"step": step, "text": text}, row)
        self._context.emit(kind, step=step, iteration=iteration, item=item, text=text)


def _unlike_schema(problem: str, output: str) -> _Refused:
    return _Refused(f"the output does not match its schema: {problem}", "invalid_output", output)


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
        has_place=False,
        prompt=f"That does not match the schema: {problem}.\n"
        "Answer again, with nothing but JSON that matches it.",
    )
