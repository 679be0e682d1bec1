"""One step of a team: its condition, its loop, its items, and the answer it comes to."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any, Protocol

from muster.errors import MusterError
from muster.evals.budget import MoneyBudget
from muster.provider import BudgetExceeded, ProviderError, ProviderTimeout
from muster.store.records import WAITING, StepRecord
from muster.tasks import end_within, stop_tasks
from muster.teams.approval import approve, told
from muster.teams.artifacts import collect, missing
from muster.teams.budget import Budgets, TokenBudget
from muster.teams.context import RunContext, Unit
from muster.teams.definition import Agent, Approval, Role, Step, Team
from muster.teams.json_output import NO_JSON, extract_json
from muster.teams.prompt import step_prompt, task_prompt
from muster.teams.state import FAILED, RUNNING, SKIPPED, SUCCEEDED, RunState, StepState
from muster.teams.template import Template, TemplateError
from muster.teams.template.values import Int
from muster.teams.unit import Answer, StepFailed, UnitRunner, UnitTask
from muster.tools.base import BoundTool

__all__ = ("StepRunner", "truthy")

_FALSE = frozenset({"", "false", "0", "no"})


def truthy(text: str) -> bool:
    """Whether a condition that rendered to `text` holds."""
    return text.strip().lower() not in _FALSE


class Handles(Protocol):
    """What a step needs of the engine around it."""

    async def choose(self, step: Step, state: StepState, prompt: str) -> Agent:
        """Find the agent that does the step, by what it can do."""
        ...

    def busy(self, agent: Agent, tasks: int) -> None:
        """The agent that was chosen has so many tasks more, or less."""
        ...

    def tools_of(
        self, role: Role | None, state: StepState, unit: Unit, budgets: Budgets
    ) -> list[BoundTool]:
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
            await self._run_in_time(step, state)
        except (ProviderError, StepFailed) as error:
            self._failed(step, state, str(error), error.kind)
        except MusterError as error:
            self._failed(step, state, str(error), "configuration")
        finally:
            state.seconds = time.perf_counter() - began
        await self._context.journal.flushed()  # what is told has happened for good
        self._tell(state)
        return state

    def _failed(self, step: Step, state: StepState, error: str, kind: str) -> None:
        state.status, state.error, state.error_kind = FAILED, error, kind
        self._context.note("step_failed", {"step": step.name, "error": error, "kind": kind})

    def _tell(self, state: StepState) -> None:
        """Tell who watches how it has ended."""
        emit, name = self._context.emit, state.name
        if state.status == FAILED:
            data = {"kind": state.error_kind, **_account_of(state)}
            emit("step_failed", step=name, text=state.error or "", data=data)
        elif state.status == SKIPPED:
            emit("step_skipped", step=name, text=state.message or "")
        else:
            emit("step_done", step=name, text=state.output, data=_account_of(state))

    async def _run_in_time(self, step: Step, state: StepState) -> None:
        if step.timeout_seconds is None:
            await self._run(step, state)
            return
        task = asyncio.get_running_loop().create_task(self._run(step, state))
        if not await end_within(task, step.timeout_seconds):
            raise ProviderTimeout(f"the step took longer than {step.timeout_seconds:g} s")
        task.result()

    async def _run(self, step: Step, state: StepState) -> None:
        if step.condition is not None and not self._holds(step, "if", step.condition):
            self._skip(step, state)
            return
        state.status = RUNNING
        self._context.emit("step_started", step=step.name)
        budgets = self._budgets(step)
        iteration = 0
        while True:
            if step.for_each is not None:
                answer = await self._each(step, state, iteration, budgets)
            elif step.approval is not None:
                answer = await self._approve(step, step.approval, state, iteration)
            else:
                answer = await self._unit(step, state, (step.name, iteration, None), {}, budgets)
            state.output, state.data, state.artifacts = answer.output, answer.data, answer.artifacts
            state.iterations = iteration + 1
            loop = step.loop
            if loop is None or iteration >= loop.max_iterations:
                break
            if not self._holds(step, "loop", loop.condition):
                break
            iteration += 1
            state.message = f"loop iteration {iteration}/{loop.max_iterations}"
        if (exceeded := budgets.exceeded) is not None:
            raise StepFailed(exceeded, BudgetExceeded.kind)
        state.status = SUCCEEDED

    def _holds(self, step: Step, field: str, condition: Template) -> bool:
        return truthy(str(self._render(step, field, condition)))

    def _render(
        self,
        step: Step,
        field: str,
        template: Template,
        extra: Mapping[str, Any] | None = None,
        *,
        evaluate: bool = False,
    ) -> Any:
        """What the template in `field` comes to. Raises `StepFailed`, which says where."""
        own = step.name if step.loop is not None else None
        data = self._state.data(envelopes=field.startswith("input"), own=own) | dict(extra or {})
        use = template.evaluate if evaluate else template.render
        try:
            return use(data, lenient=self._context.lenient)
        except TemplateError as error:
            raise StepFailed(f"{field} template error: {error}", "template_error") from error

    def _skip(self, step: Step, state: StepState) -> None:
        state.status = SKIPPED
        state.message = "skipped: if condition evaluated to false"
        row = self._context.journal.begin_step(
            StepRecord(run_id=self._context.run_id, name=step.name)
        )
        self._context.journal.end_step(row, status=SKIPPED, message=state.message)

    def _budgets(self, step: Step) -> Budgets:
        earlier, of = self._context.earlier, f'step "{step.name}"'
        tokens: tuple[TokenBudget, ...] = ()
        money: tuple[MoneyBudget, ...] = ()
        if step.max_tokens is not None:
            tokens = (TokenBudget(step.max_tokens, of, earlier.tokens_of(step.name)),)
        if step.max_cost_usd is not None:
            money = (MoneyBudget(step.max_cost_usd, earlier.cost_of(step.name)),)
        return Budgets(tokens, money)

    # --- approval ---

    async def _approve(
        self, step: Step, approval: Approval, state: StepState, iteration: int
    ) -> Answer:
        context, journal = self._context, self._context.journal
        known = context.earlier.done.get((step.name, iteration, None))
        if known is not None:
            state.message = known.output
            return Answer(known.output or "")
        message = self._render(step, "approval", approval.message)
        row = journal.begin_step(
            StepRecord(
                run_id=context.run_id,
                name=step.name,
                iteration=iteration,
                status=WAITING,
                prompt=message,
            )
        )
        ended: dict[str, Any] = {"status": FAILED, "error": "cancelled", "error_kind": "cancelled"}
        try:
            decided = await approve(context, step.name, approval, message)
            said = state.message = told(decided)
            ended = {"status": SUCCEEDED, "output": said}
            if not decided.approved:
                ended = {"status": FAILED, "error": said, "error_kind": "rejected"}
                raise StepFailed(said, "rejected")
        finally:
            journal.end_step(row, **ended)
        return Answer(said)

    # --- for each item ---

    async def _each(self, step: Step, state: StepState, iteration: int, budgets: Budgets) -> Answer:
        spec = step.for_each
        assert spec is not None
        items = self._items(step)
        answers: list[Answer | None] = [None] * len(items)
        problems: dict[int, str] = {}
        failed: list[StepFailed] = []
        numbers = iter(range(len(items)))

        async def work() -> None:
            for number in numbers:
                if failed:
                    return
                extra = {spec.variable: items[number], "index": Int(number)}
                unit = (step.name, iteration, number)
                try:
                    answers[number] = await self._unit(step, state, unit, extra, budgets)
                except (ProviderError, StepFailed) as error:
                    out_of_budget = error.kind == BudgetExceeded.kind
                    if spec.on_failure == "fail" or out_of_budget:
                        failed.append(StepFailed(f"item {number}: {error}", error.kind))
                    problems[number] = str(error)

        workers = [asyncio.ensure_future(work()) for _ in range(min(spec.max_parallel, len(items)))]
        try:
            await asyncio.gather(*workers)
        finally:
            await stop_tasks(workers)
        if failed:
            raise failed[0]
        if problems:
            state.message = f"{len(problems)} of {len(items)} items failed"
            self._context.note("items_failed", {"step": step.name, "problems": problems})
            self._context.emit("warning", step=step.name, text=state.message)
        return _together(answers, problems)

    def _items(self, step: Step) -> list[Any]:
        assert step.for_each is not None
        value = self._render(step, "forEach", step.for_each.items, evaluate=True)
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
        budgets: Budgets,
    ) -> Answer:
        context = self._context
        known = context.earlier.done.get(unit)
        artifacts = collect(context, step, unit)
        if known is not None and missing(step, artifacts) is None:
            state.agent = known.agent or state.agent
            return Answer(known.output or "", known.data, artifacts)
        inputs = {
            name: str(self._render(step, f'input "{name}"', template, extra))
            for name, template in step.inputs.items()
        }
        if self._team.steps:
            prompt = step_prompt(inputs, step.output_schema)
        else:
            prompt = task_prompt(self._state.inputs)
        role = self._team.roles.get(step.role) if step.role is not None else None
        task = UnitTask(
            step=step,
            state=state,
            unit=unit,
            prompt=prompt,
            inputs=inputs,
            budgets=budgets,
            tools=self._handles.tools_of(role, state, unit, budgets),
        )
        if role is not None:
            task.agent, task.team = role.agent, role.team
            state.agent = task.name
            return await self._units.run(task)
        task.agent = agent = await self._handles.choose(step, state, prompt)
        state.agent = agent.name
        self._handles.busy(agent, 1)
        try:
            return await self._units.run(task)
        finally:
            self._handles.busy(agent, -1)


def _account_of(state: StepState) -> dict[str, Any]:
    usage = state.account.token_usage
    return {
        "tokens": usage.total if usage is not None else 0,
        "untold": state.account.untold,
        "cost_usd": state.account.cost_usd,
        "seconds": state.seconds,
    }


def _together(answers: list[Answer | None], problems: Mapping[int, str]) -> Answer:
    """The outputs as one JSON list; an item that failed is `null` in it."""
    values = [
        None if answer is None else answer.output if answer.data is NO_JSON else answer.data
        for answer in answers
    ]
    left = [{} if answer is None else answer.artifacts for answer in answers]
    names = dict.fromkeys(name for artifacts in left for name in artifacts)
    artifacts = {name: [each.get(name) for each in left] for name in names}
    return Answer(json.dumps(values, ensure_ascii=False), values, artifacts)
