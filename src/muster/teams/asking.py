"""One question to one agent: within its limits and budgets, with its tools, into the journal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from muster.provider import (
    BudgetExceeded,
    CallTool,
    Limits,
    Message,
    ProviderError,
    ProviderRequest,
    ProviderResponse,
    ProviderTimeout,
    TokenUsage,
)
from muster.store.records import CallRecord
from muster.tasks import end_within
from muster.teams.budget import TokenBudget
from muster.teams.cast import Member
from muster.teams.context import RunContext, Unit, call_key
from muster.teams.prompt import system_prompt
from muster.teams.state import Account
from muster.tools.base import BoundTool

__all__ = ("Question", "ask")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What an agent is asked, and on whose account."""

    member: Member
    prompt: str
    account: Account
    unit: Unit
    role: str
    """Who is asked, as the team calls it; `judge` and `router` for those."""
    row: int
    """The journal's row of this attempt."""
    attempt: int = 0
    history: tuple[Message, ...] = ()
    schema: Mapping[str, Any] | None = None
    seconds: float | None = None
    budgets: tuple[TokenBudget, ...] = ()
    """The step's, besides the run's."""
    with_envelopes: bool = False
    tools: Sequence[BoundTool] = ()
    """Those of the engine, besides the agent's own."""
    use_tools: bool = True
    stream: bool = True
    metadata: Mapping[str, str] = field(default_factory=dict)


async def ask(context: RunContext, question: Question) -> ProviderResponse:
    """Ask, and count what it has cost, whether it answers or not.

    Raises:
        BudgetExceeded: a budget does not allow the call; nothing was asked.
        ProviderTimeout: no answer within the time of the step or of the agent.
        ProviderError: the agent failed.
    """
    member = question.member
    limits = member.agent.limits
    seconds = _least(question.seconds, limits.timeout_seconds)
    async with member.room:
        if seconds is None:
            return await _ask(context, question)
        task = asyncio.get_running_loop().create_task(_ask(context, question))
        if not await end_within(task, seconds):
            raise ProviderTimeout(f"no answer within {seconds:g} s")
        return task.result()


async def _ask(context: RunContext, question: Question) -> ProviderResponse:
    member = question.member
    toolbox = member.toolbox
    system = system_prompt(
        member.agent.system_prompt,
        guidance=toolbox.guidance if question.use_tools else (),
        with_envelopes=question.with_envelopes,
        output_format=member.agent.output_format,
    )
    estimate = TokenBudget.estimate(
        system, question.prompt, *(message.text for message in question.history)
    )
    _check_daily(context, member, estimate)
    budgets = (*context.token_budgets, *question.budgets)
    spent = _Spent()
    with ExitStack() as reserved:
        left: int | None = None
        for budget in budgets:
            left = _least(left, budget.left)
            budget.reserve(estimate)
            reserved.callback(_release, budget, estimate, spent)
        money = context.money
        if money is not None and not await money.enter():
            raise BudgetExceeded(f"budget of ${money.limit:g} exceeded: spent ${money.spent:.4g}")
        cost: float | None = None
        try:
            response = await member.provider.invoke(_request(context, question, system, left))
        except ProviderError as error:
            spent.usage, cost = error.token_usage, error.cost_usd
            question.account.spend(error.token_usage, error.cost_usd)
            raise
        else:
            spent.usage, cost = response.token_usage, response.cost_usd
            question.account.spend(response.token_usage, response.cost_usd)
            return response
        finally:
            if money is not None:
                money.leave(cost)


@dataclass(slots=True)
class _Spent:
    usage: TokenUsage | None = None


def _release(budget: TokenBudget, estimate: int, spent: _Spent) -> None:
    budget.release(estimate, spent.usage)


def _request(
    context: RunContext, question: Question, system: str | None, tokens_left: int | None
) -> ProviderRequest:
    member = question.member
    own = member.agent.limits
    tools: tuple[Any, ...] = ()
    call_tool: CallTool | None = None
    if question.use_tools:
        tools = (*member.toolbox.tools, *(bound.tool for bound in question.tools))
        call_tool = _ToolCalls(context, question) if tools else None
    return ProviderRequest(
        question=question.prompt,
        system_prompt=system,
        messages=question.history,
        eval_case_id=question.role,
        attempt=question.attempt,
        tools=tools,
        call_tool=call_tool,
        on_chunk=_Chunks(context, question) if question.stream else None,
        limits=Limits(
            max_output_tokens=own.max_tokens_per_call,
            max_turns=own.max_turns,
            max_total_tokens=tokens_left,
        ),
        response_schema=question.schema,
        metadata={"run": context.run_id, "step": question.unit[0], "agent": member.agent.name,
                  **question.metadata},
    )  # fmt: skip


class _Chunks:
    """Tells of each piece of text; the journal has where the pieces ended."""

    __slots__ = ("_context", "_length", "_question")

    def __init__(self, context: RunContext, question: Question) -> None:
        self._context = context
        self._question = question
        self._length = 0

    def __call__(self, text: str) -> None:
        question = self._question
        step, iteration, item = question.unit
        self._length += len(text)
        self._context.note("chunk", {"end": self._length}, question.row)
        self._context.emit("chunk", step=step, iteration=iteration, item=item, text=text)


class _ToolCalls:
    """Calls tools: each call is in the journal before it is made, its result before it is used. A
    call whose result is there from an earlier part of the run is not made again."""

    __slots__ = ("_context", "_extra", "_known", "_question")

    def __init__(self, context: RunContext, question: Question) -> None:
        self._context = context
        self._question = question
        self._extra = {bound.tool.name: bound for bound in question.tools}
        known = context.earlier.calls.get(question.unit, {})
        self._known = {key: list(results) for key, results in known.items()}

    async def __call__(self, name: str, arguments: Mapping[str, Any]) -> str:
        context, question = self._context, self._question
        key = call_key(name, arguments)
        if results := self._known.get(key):
            return results.pop(0)
        bound = self._extra.get(name)
        step, iteration, item = question.unit
        call_id = context.journal.begin_call(
            question.row,
            CallRecord(
                kind="delegate" if name == "delegate" else "tool",
                name=name,
                arguments=dict(arguments),
            ),
        )
        context.emit(
            "tool_call", step=step, iteration=iteration, item=item, text=name, data=arguments
        )
        began = time.perf_counter()
        status, result = "error", ""
        try:
            if bound is not None:
                result = await bound.call(arguments)
            else:
                result = await question.member.toolbox.call(name, arguments)
            status = "ok"
            return result
        except asyncio.CancelledError:
            status = "cancelled"
            raise
        except Exception as error:
            result = f"error: {str(error) or type(error).__name__}"
            raise
        finally:
            took = (time.perf_counter() - began) * 1000
            context.journal.end_call(call_id, status=status, result=result, duration_ms=took)
            context.emit(
                "tool_result",
                step=step,
                iteration=iteration,
                item=item,
                text=result,
                data={"name": name, "status": status, "duration_ms": took},
            )


def _check_daily(context: RunContext, member: Member, estimate: int) -> None:
    limit = member.agent.limits.max_daily_tokens
    if limit is None:
        return
    used = context.journal.tokens_since(member.agent.name, datetime.now(UTC) - timedelta(hours=24))
    if used + estimate >= limit:
        raise BudgetExceeded(
            f"daily token usage {used} of agent {member.agent.name} leaves no room for about "
            f"{estimate} more: its limit is {limit}"
        )


def _least(left: Any, right: Any) -> Any:
    return right if left is None else left if right is None else min(left, right)
