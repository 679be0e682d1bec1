"""Tasks that agents hand on: `delegate`, whose result comes back at once, and `submit_subtask`,
which goes on by itself until the run ends."""

from __future__ import annotations

import asyncio
import contextvars
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from muster.errors import MusterError, nearest
from muster.importing import describe_failure
from muster.provider import ProviderError, Tool
from muster.store.records import StepRecord
from muster.tasks import stop_tasks
from muster.teams.asking import Question, ask, calling_row
from muster.teams.budget import Budgets
from muster.teams.context import ARROW, SUBTASK, RunContext, Unit
from muster.teams.definition import Agent, Role, Team
from muster.teams.own_tools import DELEGATE, SUBMIT_SUBTASK
from muster.teams.remembering import recalled, remember, with_memories
from muster.teams.state import FAILED, SUCCEEDED, Account
from muster.teams.unit import StepFailed
from muster.tools.base import BoundTool, ToolFailed

__all__ = ("Delegation",)


class Delegation:
    """What the roles of one run hand to each other; tasks of one turn run at the same time."""

    def __init__(self, context: RunContext, team: Team) -> None:
        self._context = context
        self._team = team
        self._background: dict[asyncio.Task[None], int] = {}
        """Subtasks, and their rows."""
        self._at_work: set[int] = set()
        """Rows of subtasks that have begun, and end by themselves."""
        self._outside = contextvars.copy_context()

    def tools_of(
        self, role: Role | None, account: Account, unit: Unit, budgets: Budgets
    ) -> list[BoundTool]:
        """The tools of a role that stands at the beginning of a chain."""
        if role is None:
            return []
        return self._tools(role, (role.name,), account, unit, budgets)

    def go_on(self, account: Account) -> None:
        """Begin the subtasks again that an earlier part of the run was cut off in."""
        for row in self._context.earlier.subtasks.values():
            chain = tuple(row.name.split(ARROW))
            role = self._team.roles.get(row.name.partition(SUBTASK)[0].rpartition(ARROW)[2])
            if role is not None and role.agent is not None:
                unit = (chain[0], row.iteration, row.item)
                task = _Task(role, row.prompt or "", chain, account, unit, Budgets())
                self._begin(task, self._row(task, row.parent))

    async def finish(self) -> None:
        """Wait for the subtasks that were submitted."""
        while self._background:
            await asyncio.wait(set(self._background))

    async def stop(self) -> None:
        """End them."""
        begun = dict(self._background)
        await stop_tasks(set(begun))
        for row in begun.values():
            if row not in self._at_work:  # it has not come to its first line
                self._context.journal.end_step(row, **_CUT_OFF)

    def _tools(
        self,
        role: Role,
        chain: tuple[str, ...],
        account: Account,
        unit: Unit,
        budgets: Budgets,
    ) -> list[BoundTool]:
        tools: list[BoundTool] = []
        if role.can_delegate:

            async def delegate(arguments: Mapping[str, Any]) -> str:
                to, prompt = self._asked(role, chain, arguments)
                told = {"from": role.name}
                self._context.emit("delegated", step=unit[0], text=to.name, data=told)
                given = _Task(to, prompt, (*chain, to.name), account, unit, budgets)
                return await self._hand_over(given)

            tools.append(BoundTool(_delegate_tool(self._team, role), delegate, "delegation"))
        if SUBMIT_SUBTASK in (role.agent.builtin_tools if role.agent is not None else ()):

            async def submit(arguments: Mapping[str, Any]) -> str:
                prompt = _text(arguments, "prompt", SUBMIT_SUBTASK)
                self._check_depth(chain)
                name = f"subtask-{secrets.token_hex(4)}"
                given = _Task(role, prompt, (*chain, name), account, unit, budgets)
                # It is in the journal before the model is told so: a run that is killed now, and
                # gone on with, does it.
                row = self._row(given, calling_row())
                self._begin(given, row)
                return f"subtask submitted with id: {name}"

            tools.append(BoundTool(_SUBMIT, submit, "subtasks"))
        return tools

    def _begin(self, given: _Task, row: int) -> None:
        """Begin a subtask: it outlives the call that submits it, and is not within it."""
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._subtask(given, row), context=self._outside.copy())
        self._background[task] = row
        task.add_done_callback(lambda done: self._background.pop(done, None))

    def _asked(
        self, role: Role, chain: tuple[str, ...], arguments: Mapping[str, Any]
    ) -> tuple[Role, str]:
        name = _text(arguments, "role", DELEGATE)
        prompt = _text(arguments, "prompt", DELEGATE)
        if name not in role.can_delegate:
            near = nearest(name, role.can_delegate)
            hint = f"near: {near[0]}; " if near else ""
            raise ToolFailed(
                f'{role.name} may not delegate to "{name}" '
                f"({hint}allowed: {', '.join(role.can_delegate)})"
            )
        if name in chain:
            raise ToolFailed(
                f'"{name}" is at work on this already: {" → ".join((*chain, name))} is a cycle'
            )
        self._check_depth(chain)
        return self._team.roles[name], prompt

    def _check_depth(self, chain: tuple[str, ...]) -> None:
        if len(chain) > self._team.max_depth:
            raise ToolFailed(
                f"delegation goes no deeper than {self._team.max_depth}: {' → '.join(chain)}"
            )

    async def _hand_over(self, task: _Task) -> str:
        """The role's answer; what goes wrong is told to the agent that asked."""
        try:
            if task.role.agent is not None:
                return await self._ask(task, task.role.agent, self._row(task, calling_row()))
            return await self._ask_team(task)
        except (ProviderError, StepFailed) as error:
            raise ToolFailed(f"{task.role.name} failed: {error}") from error

    async def _subtask(self, task: _Task, row: int) -> None:
        """What goes wrong is told to who watches: the agent that asked has gone on."""
        assert task.role.agent is not None
        self._at_work.add(row)
        try:
            await self._ask(task, task.role.agent, row)
        except Exception as error:
            why = str(error) if isinstance(error, ProviderError) else describe_failure(error)
            told = f"{task.chain[-1]} failed: {why}"
            self._context.note("warning", {"step": task.unit[0], "text": told})
            self._context.emit("warning", step=task.unit[0], text=told)

    async def _ask_team(self, task: _Task) -> str:
        from muster.teams.nested import run_nested

        team = task.role.team
        assert team is not None
        unit = (task.name, task.unit[1], task.unit[2])
        given = {"prompt": task.prompt}
        return await run_nested(
            self._context, team, given, unit, account=task.account, budgets=task.budgets
        )

    def _row(self, task: _Task, parent: int | None) -> int:
        """The task's row of the journal, written before it begins."""
        agent = task.role.agent
        return self._context.journal.begin_step(
            StepRecord(
                run_id=self._context.run_id,
                name=task.name,
                iteration=task.unit[1],
                item=task.unit[2],
                agent=agent.name if agent is not None else None,
                parent=parent,
                prompt=task.prompt,
            )
        )

    async def _ask(self, task: _Task, agent: Agent, row: int) -> str:
        context = self._context
        own = Account(task.account)
        ended: dict[str, Any] = _CUT_OFF
        try:
            member = await context.member(agent)
            context.journal.update_step(row, target=member.target)
            entries = await recalled(context, agent, task.prompt, row)
            response = await ask(
                context,
                Question(
                    member=member,
                    prompt=with_memories(task.prompt, entries),
                    with_memory=bool(entries),
                    account=own,
                    unit=task.unit,
                    role=task.role.name,
                    row=row,
                    row_name=task.name,
                    budgets=task.budgets.tokens,
                    money_budgets=task.budgets.money,
                    with_envelopes=True,
                    # What is handed on further is in rows of its own, and not counted in this one.
                    tools=self._tools(task.role, task.chain, task.account, task.unit, task.budgets),
                    stream=False,
                ),
            )
            ended = {"status": SUCCEEDED, "output": response.text, "model": response.model}
        except ProviderError as error:
            ended = {"status": FAILED, "error": str(error), "error_kind": error.kind}
            raise
        except MusterError as error:
            ended = {"status": FAILED, "error": str(error), "error_kind": "configuration"}
            raise
        finally:
            context.journal.end_step(
                row, token_usage=own.token_usage, cost_usd=own.cost_usd, **ended
            )
        await remember(context, agent, task.prompt, response.text, row)
        return response.text


@dataclass(frozen=True, slots=True)
class _Task:
    """What was handed on: to whom, and through whom."""

    role: Role
    prompt: str
    chain: tuple[str, ...]
    account: Account
    unit: Unit
    budgets: Budgets

    @property
    def name(self) -> str:
        """What the journal calls it."""
        return ARROW.join(self.chain)


_CUT_OFF: dict[str, Any] = {"status": FAILED, "error": "cancelled", "error_kind": "cancelled"}


def _text(arguments: Mapping[str, Any], name: str, tool: str) -> str:
    value = arguments.get(name)
    if not isinstance(value, str) or not value.strip():
        raise ToolFailed(f"{tool}: {name} must not be empty")
    return value


def _delegate_tool(team: Team, role: Role) -> Tool:
    told = []
    for name in role.can_delegate:
        agent = team.roles[name].agent
        can = "; ".join(c.description for c in agent.capabilities if c.description) if agent else ""
        told.append(f"{name} ({can})" if can else name)
    return Tool(
        DELEGATE,
        "Hand a task to another member of the team and get the result. "
        f"Members: {', '.join(told)}.",
        {
            "type": "object",
            "properties": {
                "role": {"type": "string", "enum": list(role.can_delegate)},
                "prompt": {"type": "string", "description": "The task, with all that is needed."},
            },
            "required": ["role", "prompt"],
        },
    )


_SUBMIT = Tool(
    SUBMIT_SUBTASK,
    "Put a further task into the queue. It is done by itself: the answer is its id, not its "
    "result.",
    {
        "type": "object",
        "properties": {"prompt": {"type": "string"}},
        "required": ["prompt"],
    },
)
