"""Runs a team: its steps each as soon as what they depend on is done, or its entry, or a route.

A step that fails ends the run: what is under way is finished, nothing new is begun. The run's
time is bounded by force, its tokens and its money before each call.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from muster.provider import TokenUsage
from muster.tasks import GRACE_SECONDS, stop_tasks
from muster.teams.context import RunContext, Unit
from muster.teams.definition import Agent, Role, Step, Team
from muster.teams.delegation import Delegation
from muster.teams.inputs import check_inputs
from muster.teams.prompt import task_prompt
from muster.teams.routing import Lookups, route
from muster.teams.state import FAILED, PENDING, SKIPPED, SUCCEEDED, Account, RunState, StepState
from muster.teams.step import StepRunner
from muster.teams.unit import Answer, StepFailed

__all__ = ("RunOutcome", "run_team")

ENTRY_STEP = "route"


@dataclass(slots=True)
class RunOutcome:
    """How a run ended. `reason` is `Succeeded`, `StepFailed`, `TimedOut`, `BudgetExceeded`,
    `OutputFailed` or `Rejected`."""

    status: str
    reason: str
    error: str | None
    output: str
    steps: list[StepState]
    seconds: float
    token_usage: TokenUsage | None = None
    cost_usd: float | None = None
    failed_step: str | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict)


async def run_team(
    team: Team, inputs: Mapping[str, Any], context: RunContext, *, grace: float = GRACE_SECONDS
) -> RunOutcome:
    """Run `team` to its end. Only cancellation passes through.

    Raises:
        UsageError: an input is missing, unknown, or of the wrong type; nothing was asked.
    """
    run = _TeamRun(team, check_inputs(team, inputs), context)
    began = time.perf_counter()
    task = asyncio.get_running_loop().create_task(run.run())
    timed_out = False
    try:
        _, late = await asyncio.wait((task,), timeout=team.timeout_seconds)
        timed_out = bool(late)
    finally:
        await stop_tasks((task,), grace=grace)
    if not timed_out:
        task.result()
    return run.outcome(time.perf_counter() - began, timed_out=timed_out)


class _TeamRun:
    """The steps of one run and their order. What `StepRunner` needs of the engine, it gives."""

    def __init__(self, team: Team, inputs: Mapping[str, Any], context: RunContext) -> None:
        self._team = team
        self._context = context
        self._steps = {step.name: step for step in _steps_of(team)}
        self._state = RunState(inputs, tuple(self._steps))
        self._runner = StepRunner(context, team, self._state, self)
        self._delegation = Delegation(context, team)
        self._lookups = Lookups()
        self._running: set[asyncio.Task[None]] = set()
        self._ended: asyncio.Queue[StepState | BaseException] = asyncio.Queue()

    # --- the graph ---

    async def run(self) -> None:
        """Until every step is done, or one has failed and the others under way have ended."""
        waiting = {name: len(set(step.depends_on)) for name, step in self._steps.items()}
        dependants: dict[str, list[str]] = {name: [] for name in self._steps}
        for name, step in self._steps.items():
            for other in set(step.depends_on):
                dependants[other].append(name)
        failed = False
        try:
            for name, missing in waiting.items():
                if not missing:
                    self._start(name)
            while self._running:
                ended = await self._ended.get()
                if isinstance(ended, BaseException):
                    raise ended
                failed = failed or not ended.satisfied
                if failed:
                    continue
                for name in dependants[ended.name]:
                    waiting[name] -= 1
                    if not waiting[name]:
                        self._start(name)
            await self._delegation.finish()
        finally:
            await stop_tasks(self._running)

    def _start(self, name: str) -> None:
        task = asyncio.ensure_future(self._run_step(self._steps[name]))
        self._running.add(task)

        def on_end(done: asyncio.Task[None]) -> None:
            self._running.discard(done)
            if not done.cancelled() and (error := done.exception()) is not None:
                self._ended.put_nowait(error)
            else:
                self._ended.put_nowait(self._state.steps[name])

        task.add_done_callback(on_end)

    async def _run_step(self, step: Step) -> None:
        if self._team.mode == "routed":
            await self._route(step)
        else:
            await self._runner.run(step)

    async def _route(self, step: Step) -> None:
        """Choose the agent for the whole task, then let it do it as a step."""
        assert self._team.routing is not None
        state = self._state.steps[step.name]
        prompt = task_prompt(self._state.inputs)
        try:
            agent, reason = await route(self._context, self._team.routing, prompt, state)
        except StepFailed as error:
            state.status, state.error, state.error_kind = FAILED, str(error), error.kind
            self._context.emit("step_failed", step=step.name, text=str(error))
            return
        state.reason = reason
        self._lookups.settle(step.name, agent)
        await self._runner.run(step)

    # --- what steps need ---

    async def run_team(self, role: Role, state: StepState, unit: Unit, prompt: str) -> Answer:
        """A whole team as one step of this one; its budgets are ours too."""
        from muster.teams.nested import run_nested

        return await run_nested(self._context, role, state, unit, prompt)

    def choose(self, step: Step, state: StepState, prompt: str) -> Agent:
        """The agent that the registry has for the step."""
        agent, reason = self._lookups.choose(step, self._team.registry, prompt)
        state.reason = reason
        self._context.note("chosen", {"step": step.name, "agent": agent.name, "reason": reason})
        self._context.emit("routed", step=step.name, text=agent.name, data={"reason": reason})
        return agent

    def tools_of(self, role: Role | None, state: StepState, unit: Unit) -> Any:
        """Delegation, where the role may."""
        return self._delegation.tools_of(role, state.account, unit)

    # --- the end ---

    def outcome(self, seconds: float, *, timed_out: bool) -> RunOutcome:
        """How it went: out of time, out of budget, a failed step, or well."""
        steps = list(self._state.steps.values())
        total = Account()
        for step in steps:
            total.spend(step.account.token_usage, step.account.cost_usd)
        failed = next((step for step in steps if step.status == FAILED), None)
        output, output_error = "", None
        if failed is None and not timed_out:
            output, output_error = self._output()
        status, reason, error = SUCCEEDED, "Succeeded", None
        if timed_out:
            limit = self._team.timeout_seconds
            status, reason, error = FAILED, "TimedOut", f"run exceeded timeout of {limit:g}s"
            for step in steps:
                if step.status not in (SUCCEEDED, SKIPPED, FAILED, PENDING):
                    step.status, step.error_kind = FAILED, "cancelled"
                    step.error = "cancelled: the time of the run was up"
        elif failed is not None:
            status, reason, error = (
                FAILED,
                _reason_of(failed),
                f'step "{failed.name}": {failed.error}',
            )
        elif output_error is not None:
            status, reason, error = FAILED, "OutputFailed", output_error
        return RunOutcome(
            status,
            reason,
            error,
            output,
            steps,
            seconds,
            total.token_usage,
            total.cost_usd,
            failed.name if failed is not None else None,
            self._state.inputs,
        )

    def _output(self) -> tuple[str, str | None]:
        """The run's output; or why there is none."""
        from muster.teams.template import TemplateError

        if self._team.output is not None:
            try:
                data = self._state.data(envelopes=False)
                return self._team.output.render(data, lenient=self._context.lenient), None
            except TemplateError as error:
                return "", f"output template error: {error}"
        done = [step for step in self._state.steps.values() if step.status == SUCCEEDED]
        return (done[-1].output if done else ""), None


def _reason_of(step: StepState) -> str:
    return {"budget_exceeded": "BudgetExceeded", "rejected": "Rejected"}.get(
        step.error_kind or "", "StepFailed"
    )


def _steps_of(team: Team) -> tuple[Step, ...]:
    """A team without a pipeline has one step: its entry, or the agent that it is routed to."""
    if team.steps:
        return team.steps
    return (Step(name=team.entry or ENTRY_STEP, role=team.entry),)
