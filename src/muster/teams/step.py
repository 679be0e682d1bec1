"""One step of a team: its condition, its loop, its items, and the answer it comes to."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any, Protocol

from muster.errors import MusterError
from muster.provider import ProviderError
from muster.store.records import StepRecord
from muster.teams.approval import approve, told
from muster.teams.budget import TokenBudget
from muster.teams.context import RunContext, Unit
from muster.teams.definition import Agent, Role, Step, Team
from muster.teams.json_output import NO_JSON, extract_json
from muster.teams.prompt import step_prompt, task_prompt
from muster.teams.state import FAILED, RUNNING, SKIPPED, SUCCEEDED, RunState, StepState
from muster.teams.template import TemplateError
from muster.teams.unit import Answer, StepFailed, UnitRunner, UnitTask
from muster.tools.base import BoundTool

__all__ = ("StepRunner", "truthy")

_FALSE = frozenset({"", "false", "0", "no"})


def truthy(text: str) -> bool:
    """Whether a condition that rendered to `text` holds."""
    return text.strip().lower() not in _FALSE


class Handles(Protocol):
    """What a step needs of the engine around it."""

    async def run_team(self, role: Role, state: StepState, unit: Unit, prompt: str) -> Answer:
        """Run a whole team as one step."""
        ...

    def choose(self, step: Step, state: StepState, prompt: str) -> Agent:
        """Look the agent up that does the step."""
        ...

    def tools_of(self, role: Role | None, state: StepState, unit: Unit) -> list[BoundTool]:
        """Delegation and subtasks, where the role may."""
        ...


class StepRunner:
    """Runs the steps of one team in one run."""

    def __init__(self, context: RunContext, team: Team, state: RunState, handles: Handles) -> None:
        self._context = context
        self._team = team
        self._state = state
        self._handles = handles
        self._units = UnitRunner(
            context, team, with_envelopes=any(step.depends_on for step in team.steps)
        )

    async def run(self, step: Step) -> StepState:
        """Do the step; how it went is in the state. Only cancellation passes through."""
        state = self._state.steps[step.name]
        began = time.perf_counter()
        try:
            await self._run(step, state)
        except (ProviderError, StepFailed) as error:
            self._failed(step, state, str(error), error.kind)
        except TemplateError as error:
            self._failed(step, state, f"input template error: {error}", "template_error")
        except MusterError as error:
            self._failed(step, state, str(error), "configuration")
        finally:
            state.seconds = time.perf_counter() - began
        if state.status == SUCCEEDED:
            self._context.emit(
                "step_done", step=step.name, text=state.output, data=_account_of(state)
            )
        return state

    def _failed(self, step: Step, state: StepState, error: str, kind: str) -> None:
        state.status, state.error, state.error_kind = FAILED, error, kind
        self._context.note("step_failed", {"step": step.name, "error": error, "kind": kind})
        self._context.emit("step_failed", step=step.name, text=error, data={"kind": kind})

    async def _run(self, step: Step, state: StepState) -> None:
        if step.condition is not None and not self._holds(step.condition):
            self._skip(step, state)
            return
        state.status = RUNNING
        self._context.emit("step_started", step=step.name)
        budgets = self._budgets(step)
        if step.approval is not None:
            await self._approve(step, state)
        iteration = 0
        while True:
            if step.for_each is not None:
                answer = await self._each(step, state, iteration, budgets)
            elif step.approval is not None and step.role is None and step.lookup is None:
                answer = Answer(state.output)
            else:
                answer = await self._unit(step, state, (step.name, iteration, None), {}, budgets)
            state.output, state.data, state.artifacts = answer.output, answer.data, answer.artifacts
            state.iterations = iteration + 1
            loop = step.loop
            if loop is None or iteration >= loop.max_iterations or not self._holds(loop.condition):
                break
            iteration += 1
            state.message = f"loop iteration {iteration}/{loop.max_iterations}"
        state.status = SUCCEEDED

    def _holds(self, condition: Any) -> bool:
        data = self._state.data(envelopes=False)
        return truthy(condition.render(data, lenient=self._context.lenient))

    def _skip(self, step: Step, state: StepState) -> None:
        state.status = SKIPPED
        state.message = "skipped: if condition evaluated to false"
        row = self._context.journal.begin_step(
            StepRecord(run_id=self._context.run_id, name=step.name)
        )
        self._context.journal.end_step(row, status=SKIPPED, message=state.message)
        self._context.emit("step_skipped", step=step.name, text=state.message)

    def _budgets(self, step: Step) -> tuple[TokenBudget, ...]:
        if step.max_tokens is None:
            return ()
        used = sum(
            row.token_usage.total
            for unit, row in self._context.earlier.done.items()
            if unit[0] == step.name and row.token_usage is not None
        )
        return (TokenBudget(step.max_tokens, f'step "{step.name}"', used),)

    # --- approval ---

    async def _approve(self, step: Step, state: StepState) -> None:
        approval = step.approval
        assert approval is not None
        context = self._context
        data = self._state.data(envelopes=False)
        message = approval.message.render(data, lenient=context.lenient)
        decided = await approve(context, step.name, approval, message)
        state.message = told(decided)
        if not decided.approved:
            raise StepFailed(state.message, "rejected")
        state.output = state.message

    # --- for each item ---

    async def _each(
        self, step: Step, state: StepState, iteration: int, budgets: tuple[TokenBudget, ...]
    ) -> Answer:
        spec = step.for_each
        assert spec is not None
        items = self._items(step)
        answers: list[Answer | None] = [None] * len(items)
        problems: dict[int, str] = {}
        numbers = iter(range(len(items)))

        async def work() -> None:
            for number in numbers:
                extra = {spec.variable: items[number], "index": number}
                unit = (step.name, iteration, number)
                try:
                    answers[number] = await self._unit(step, state, unit, extra, budgets)
                except (ProviderError, StepFailed) as error:
                    if spec.on_failure == "fail":
                        raise StepFailed(f"item {number}: {error}", error.kind) from error
                    problems[number] = str(error)

        workers = [asyncio.ensure_future(work()) for _ in range(min(spec.max_parallel, len(items)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        if problems:
            state.message = f"{len(problems)} of {len(items)} items failed"
            self._context.note("items_failed", {"step": step.name, "problems": problems})
            self._context.emit("warning", step=step.name, text=state.message)
        return _together(answers, problems)

    def _items(self, step: Step) -> list[Any]:
        assert step.for_each is not None
        data = self._state.data(envelopes=False)
        value = step.for_each.items.evaluate(data, lenient=self._context.lenient)
        if isinstance(value, str):
            value = extract_json(value)
        if not isinstance(value, list):
            found = "text that is not JSON" if value is NO_JSON else type(value).__name__
            raise StepFailed(f"forEach needs a list, found {found}", "template_error")
        return value

    # --- one unit ---

    async def _unit(
        self,
        step: Step,
        state: StepState,
        unit: Unit,
        extra: Mapping[str, Any],
        budgets: tuple[TokenBudget, ...],
    ) -> Answer:
        context = self._context
        known = context.earlier.done.get(unit)
        if known is not None:
            state.account.spend(known.token_usage, known.cost_usd)
            state.agent = known.agent or state.agent
            return Answer(known.output or "", known.data)
        data = self._state.data(envelopes=True) | dict(extra)
        inputs = {
            name: template.render(data, lenient=context.lenient)
            for name, template in step.inputs.items()
        }
        if self._team.steps:
            prompt = step_prompt(inputs, step.output_schema)
        else:
            prompt = task_prompt(self._state.inputs)
        role = self._team.roles.get(step.role) if step.role is not None else None
        if role is not None and role.team is not None:
            return await self._handles.run_team(role, state, unit, prompt)
        agent = role.agent if role is not None else self._handles.choose(step, state, prompt)
        assert agent is not None
        state.agent = agent.name
        tools = self._handles.tools_of(role, state, unit)
        return await self._units.run(UnitTask(step, state, unit, prompt, agent, budgets, tools))


def _account_of(state: StepState) -> dict[str, Any]:
    usage = state.account.token_usage
    return {
        "tokens": usage.total if usage is not None else 0,
        "cost_usd": state.account.cost_usd,
        "seconds": state.seconds,
    }


def _together(answers: list[Answer | None], problems: Mapping[int, str]) -> Answer:
    """The outputs as one JSON list; an item that failed is `null` in it."""
    values = [
        None if answer is None else answer.output if answer.data is NO_JSON else answer.data
        for answer in answers
    ]
    return Answer(json.dumps(values, ensure_ascii=False), values)
