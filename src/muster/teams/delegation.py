"""Tasks that agents hand on: `delegate`, whose result comes back at once, and `submit_subtask`,
which goes on by itself until the run ends."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from muster.errors import nearest
from muster.provider import ProviderError, Tool
from muster.store.records import StepRecord
from muster.teams.asking import Question, ask
from muster.teams.context import RunContext, Unit
from muster.teams.definition import Role, Team
from muster.teams.state import FAILED, SUCCEEDED, Account
from muster.tools.base import BoundTool, ToolFailed

__all__ = ("Delegation",)


class Delegation:
    """What the roles of one run hand to each other; tasks of one turn run at the same time."""

    def __init__(self, context: RunContext, team: Team) -> None:
        self._context = context
        self._team = team
        self._background: set[asyncio.Task[None]] = set()

    def tools_of(self, role: Role | None, account: Account, unit: Unit) -> list[BoundTool]:
        """The tools of a role that stands at the beginning of a chain."""
        if role is None:
            return []
        return self._tools(role, (*self._context.chain, role.name), account, unit)

    async def finish(self) -> None:
        """Wait for the subtasks that were submitted."""
        while self._background:
            await asyncio.gather(*self._background, return_exceptions=True)

    def _tools(
        self, role: Role, chain: tuple[str, ...], account: Account, unit: Unit
    ) -> list[BoundTool]:
        tools: list[BoundTool] = []
        if role.can_delegate:

            async def delegate(arguments: Mapping[str, Any]) -> str:
                to, prompt = self._asked(role, chain, arguments)
                told = {"from": role.name}
                self._context.emit("delegated", step=unit[0], text=to.name, data=told)
                return await self._hand_over(_Task(to, prompt, (*chain, to.name), account, unit))

            tools.append(BoundTool(_delegate_tool(self._team, role), delegate, "delegation"))
        if "submit_subtask" in (role.agent.builtin_tools if role.agent is not None else ()):

            async def submit(arguments: Mapping[str, Any]) -> str:
                prompt = _text(arguments, "prompt", "submit_subtask")
                name = f"subtask-{secrets.token_hex(4)}"
                given = _Task(role, prompt, (*chain, name), account, (name, 0, None))
                task = asyncio.ensure_future(self._subtask(given))
                self._background.add(task)
                task.add_done_callback(self._background.discard)
                return f"subtask submitted with id: {name}"

            tools.append(BoundTool(_SUBMIT, submit, "subtasks"))
        return tools

    def _asked(
        self, role: Role, chain: tuple[str, ...], arguments: Mapping[str, Any]
    ) -> tuple[Role, str]:
        name = _text(arguments, "role", "delegate")
        prompt = _text(arguments, "prompt", "delegate")
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
        if len(chain) > self._team.max_depth:
            raise ToolFailed(
                f"delegation goes no deeper than {self._team.max_depth}: {' → '.join(chain)}"
            )
        return self._team.roles[name], prompt

    async def _hand_over(self, task: _Task) -> str:
        """The role's answer; what goes wrong is told to the agent that asked."""
        try:
            return await self._ask(task)
        except ProviderError as error:
            raise ToolFailed(f"{task.role.name} failed: {error}") from error

    async def _subtask(self, task: _Task) -> None:
        try:
            await self._ask(task)
        except ProviderError as error:
            self._context.emit("warning", step=task.unit[0], text=f"subtask failed: {error}")

    async def _ask(self, task: _Task) -> str:
        agent = task.role.agent
        if agent is None:
            raise ToolFailed(f'"{task.role.name}" is a team, to which tasks cannot be delegated')
        context = self._context
        member = await context.member(agent)
        own = Account(task.account)
        row = context.journal.begin_step(
            StepRecord(
                run_id=context.run_id,
                name=" → ".join(task.chain),
                agent=agent.name,
                prompt=task.prompt,
                target=member.target,
            )
        )
        ended: dict[str, Any] = {"status": FAILED, "error": "cancelled", "error_kind": "cancelled"}
        try:
            response = await ask(
                context,
                Question(
                    member=member,
                    prompt=task.prompt,
                    account=own,
                    unit=task.unit,
                    role=task.role.name,
                    row=row,
                    with_envelopes=True,
                    tools=self._tools(task.role, task.chain, own, task.unit),
                    stream=False,
                ),
            )
            ended = {"status": SUCCEEDED, "output": response.text, "model": response.model}
            return response.text
        except ProviderError as error:
            ended = {"status": FAILED, "error": str(error), "error_kind": error.kind}
            raise
        finally:
            context.journal.end_step(
                row, token_usage=own.token_usage, cost_usd=own.cost_usd, **ended
            )


@dataclass(frozen=True, slots=True)
class _Task:
    """What was handed on: to whom, and through whom."""

    role: Role
    prompt: str
    chain: tuple[str, ...]
    account: Account
    unit: Unit


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
        "delegate",
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
    "submit_subtask",
    "Put a further task into the queue. It is done by itself: the answer is its id, not its "
    "result.",
    {
        "type": "object",
        "properties": {"prompt": {"type": "string"}},
        "required": ["prompt"],
    },
)
