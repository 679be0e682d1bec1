"""Runs a team: its steps each as soon as what they depend on is done, or its entry, or a route.

A step that fails ends the run: what is under way is finished, nothing new is begun. The run's
time is bounded by force, its tokens and its money before each call.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from muster.provider import TokenUsage
from muster.tasks import GRACE_SECONDS, end_within, stop_tasks
from muster.teams.budget import Budgets
from muster.teams.context import RunContext, Unit
from muster.teams.definition import Agent, Role, Step, Team
from muster.teams.delegation import Delegation
from muster.teams.inputs import check_inputs
from muster.teams.routing import Lookups, route
from muster.teams.state import FAILED, RUNNING, SUCCEEDED, RunState, StepState
from muster.teams.step import StepRunner
from muster.tools.base import BoundTool

__all__ = ("RunOutcome", "TeamRun", "run_team")

ENTRY_STEP = "route"

BURST = 32
"""Steps that begin in one turn of the event loop: the first are asked while further ones are made
ready, which takes time when there are a thousand."""


@dataclass(slots=True)
class RunOutcome:
    """How a run ended. `reason` is `Succeeded`, `StepFailed`, `TimedOut`, `BudgetExceeded`,
    `OutputFailed`, `Rejected`, `Cancelled` or `Interrupted`."""

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
    untold: int = 0
    """Calls that did not tell their usage."""
    unpriced: int = 0
    """Calls whose cost is not known."""


async def run_team(
    team: Team, inputs: Mapping[str, Any], context: RunContext, *, grace: float = GRACE_SECONDS
) -> RunOutcome:
    """Run `team` to its end. Only cancellation passes through.

    Raises:
        UsageError: an input is missing, unknown, or of the wrong type; nothing was asked.
    """
    return await TeamRun(team, inputs, context).run(grace=grace)


class TeamRun:
    """The steps of one run and their order. What `StepRunner` needs of the engine, it gives."""

    def __init__(self, team: Team, inputs: Mapping[str, Any], context: RunContext) -> None:
        """Raises `UsageError` as `run_team`."""
        self._team = team
        self._context = context
        self._steps = {step.name: step for step in _steps_of(team)}
        given = check_inputs(team, inputs)
        self._state = RunState(given, tuple(self._steps), context.earlier.spent, context.account)
        self._runner = StepRunner(context, team, self._state, self)
        self._delegation = Delegation(context, team)
        self._lookups = Lookups()
        self._running: set[asyncio.Task[None]] = set()
        self._ended: asyncio.Queue[StepState | BaseException] = asyncio.Queue()
        self._began = time.perf_counter()

    async def run(self, *, grace: float = GRACE_SECONDS) -> RunOutcome:
        """To the end, or until the team's time is up."""
        self._warn_of_spending()
        outcome = await self._run_in_time(grace)
        self._warn_of_spending()
        return outcome

    async def _run_in_time(self, grace: float) -> RunOutcome:
        limit = self._team.timeout_seconds
        task = asyncio.get_running_loop().create_task(self._run_steps())
        if limit is None:
            in_time = True
            try:
                await asyncio.wait((task,))
            finally:
                await stop_tasks((task,), grace=grace)
        else:
            in_time = await end_within(task, limit, grace=grace)
        if not in_time:
            return self.cut_off("TimedOut", f"run exceeded timeout of {limit:g}s")
        task.result()
        return self._outcome()

    def _warn_of_spending(self) -> None:
        """Tell of the budgets of months, weeks and days of which most is spent."""
        for purse in self._context.standing_money:
            if (told := purse.warning()) is not None:
                self._context.note("warning", {"text": told})
                self._context.emit("warning", text=told)

    # --- the graph ---

    async def _run_steps(self) -> None:
        """Until every step is done, or one has failed and the others under way have ended."""
        waiting = {name: len(set(step.depends_on)) for name, step in self._steps.items()}
        dependants: dict[str, list[str]] = {name: [] for name in self._steps}
        for name, step in self._steps.items():
            for other in set(step.depends_on):
                dependants[other].append(name)
        ready = deque(name for name, missing in waiting.items() if not missing)
        open_ = 0  # begun, and their end not looked at: several may end at the same moment
        failed = False
        self._delegation.go_on(self._state.account)
        try:
            while ready or open_:
                for _ in range(min(len(ready), BURST)):
                    self._start(ready.popleft())
                    open_ += 1
                if ready and self._ended.empty():
                    await asyncio.sleep(0)
                    continue
                ended = await self._ended.get()
                open_ -= 1
                if isinstance(ended, BaseException):
                    raise ended
                failed = failed or not ended.satisfied
                for name in dependants[ended.name]:
                    waiting[name] -= 1
                    if not waiting[name]:
                        ready.append(name)
                if failed:
                    ready.clear()
            await self._delegation.finish()
        finally:
            await stop_tasks(set(self._running))
            await self._delegation.stop()

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
        await self._runner.run(step)

    # --- what steps need ---

    async def choose(self, step: Step, state: StepState, prompt: str) -> Agent:
        """The agent that the team is routed to, or that the registry has for the step."""
        if self._team.routing is not None and step.lookup is None:
            agent, state.reason = await route(self._context, self._team.routing, prompt, state)
            return agent
        agent, reason = self._lookups.choose(step, self._team.registry, prompt)
        state.reason = reason
        self._context.note("chosen", {"step": step.name, "agent": agent.name, "reason": reason})
        self._context.emit("routed", step=step.name, text=agent.name, data={"reason": reason})
        return agent

    def busy(self, agent: Agent, tasks: int) -> None:
        """The agent has so many tasks more, or less."""
        self._lookups.busy(agent, tasks)

    def tools_of(
        self, role: Role | None, state: StepState, unit: Unit, budgets: Budgets
    ) -> list[BoundTool]:
        """Delegation, where the role may."""
        return self._delegation.tools_of(role, state.account, unit, budgets)

    # --- the end ---

    def cut_off(self, reason: str, error: str) -> RunOutcome:
        """The run did not come to its end; its tasks have been stopped."""
        for step in self._state.steps.values():
            if step.status == RUNNING:
                step.status, step.error_kind = FAILED, "cancelled"
                step.error = f"cancelled: {error}"
        return self._made(FAILED, reason, error)

    def _outcome(self) -> RunOutcome:
        """A failed step, out of budget, or well."""
        failed = next((s for s in self._state.steps.values() if s.status == FAILED), None)
        if failed is not None:
            reason = _REASONS.get(failed.error_kind or "", "StepFailed")
            error = f'step "{failed.name}": {failed.error}'
            return self._made(FAILED, reason, error, failed_step=failed.name)
        output, error_of_output = self._output()
        if (exceeded := self._exceeded()) is not None:
            return self._made(FAILED, "BudgetExceeded", exceeded, output)
        if error_of_output is not None:
            return self._made(FAILED, "OutputFailed", error_of_output)
        return self._made(SUCCEEDED, "Succeeded", None, output)

    def _exceeded(self) -> str | None:
        """All steps are done, but with more than was allowed."""
        return Budgets(self._context.token_budgets, self._context.money_budgets).exceeded

    def _made(
        self,
        status: str,
        reason: str,
        error: str | None,
        output: str = "",
        *,
        failed_step: str | None = None,
    ) -> RunOutcome:
        account = self._state.account
        return RunOutcome(
            status,
            reason,
            error,
            output,
            list(self._state.steps.values()),
            time.perf_counter() - self._began,
            account.token_usage,
            account.cost_usd,
            failed_step,
            self._state.inputs,
            account.untold,
            account.unpriced,
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


_REASONS = {"budget_exceeded": "BudgetExceeded", "rejected": "Rejected"}
"""Of a run, by the kind of error of the step that failed."""


def _steps_of(team: Team) -> tuple[Step, ...]:
    """A team without a pipeline has one step: its entry, or the agent that it is routed to."""
    if team.steps:
        return team.steps
    return (Step(name=team.entry or ENTRY_STEP, role=team.entry),)
