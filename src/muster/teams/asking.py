"""One question to one agent: within its limits and budgets, with its tools, into the journal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from muster.errors import MusterError
from muster.evals.budget import MoneyBudget
from muster.importing import describe_failure
from muster.provider import (
    BudgetExceeded,
    CallTool,
    Limits,
    Message,
    ProviderError,
    ProviderFailed,
    ProviderRequest,
    ProviderResponse,
    ProviderTimeout,
)
from muster.store.records import CallRecord
from muster.tasks import end_within
from muster.teams.budget import TokenBudget
from muster.teams.cast import Member
from muster.teams.context import RunContext, Unit, call_key
from muster.teams.prompt import system_prompt
from muster.teams.state import Account
from muster.tools.artifacts import ARTIFACT_DIR
from muster.tools.artifacts import current as artifact_folder
from muster.tools.base import BoundTool

__all__ = ("Question", "ask", "calling_row")

_inside: ContextVar[tuple[Question, ...]] = ContextVar("muster_asking", default=())
"""The questions around this one: a tool that an agent calls may ask another agent."""


def calling_row() -> int | None:
    """The journal's row of the attempt that calls a tool here."""
    around = _inside.get()
    return around[-1].row if around else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What an agent is asked, and on whose account."""

    member: Member
    prompt: str
    account: Account
    unit: Unit
    """What it is for, as it is told to who watches."""
    role: str
    """Who is asked, as the team calls it; `judge` and `router` for those."""
    row: int
    """The journal's row of this attempt."""
    attempt: int = 0
    history: tuple[Message, ...] = ()
    schema: Mapping[str, Any] | None = None
    budgets: tuple[TokenBudget, ...] = ()
    """The step's, besides the run's."""
    money_budgets: tuple[MoneyBudget, ...] = ()
    """As `budgets`."""
    with_envelopes: bool = False
    with_memory: bool = False
    """The prompt begins with what the agent remembers."""
    tools: Sequence[BoundTool] = ()
    """Those of the engine, besides the agent's own."""
    use_tools: bool = True
    stream: bool = True
    metadata: Mapping[str, str] = field(default_factory=dict)
    row_name: str | None = None
    """What the journal calls it, if not as the unit's step."""


async def ask(context: RunContext, question: Question) -> ProviderResponse:
    """Ask, and count what it has cost, whether it answers or not.

    Raises:
        BudgetExceeded: a budget does not allow the call; nothing was asked.
        ProviderTimeout: no answer within the time of the agent.
        ProviderError: the agent failed.
    """
    member, around = question.member, _inside.get()
    token = _inside.set((*around, question))
    try:
        if any(other.member is member for other in around):
            return await _in_time(context, question)  # who waits for us has the room
        async with member.room:
            return await _in_time(context, question)
    finally:
        _inside.reset(token)


async def _in_time(context: RunContext, question: Question) -> ProviderResponse:
    seconds = question.member.agent.limits.timeout_seconds
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
        with_memory=question.with_memory,
        output_format=member.agent.output_format,
    )
    estimate = TokenBudget.estimate(
        system, question.prompt, *(message.text for message in question.history)
    )
    _check_daily(context, member, estimate)
    budgets = (*context.token_budgets, *question.budgets)
    money = (*context.money_budgets, *question.money_budgets)
    spent = _Spent()
    with ExitStack() as reserved:
        for budget in budgets:
            budget.reserve(estimate)
            reserved.callback(_release, budget, estimate, spent)
        for purse in money:
            await _enter(purse)
            reserved.callback(_leave, purse, spent)
        limits = Limits(
            max_output_tokens=member.agent.limits.max_tokens_per_call,
            max_turns=member.agent.limits.max_turns,
            max_total_tokens=min((each.left + estimate for each in budgets), default=None),
            max_cost_usd=min((each.limit - each.spent for each in money), default=None),
        )
        spent.tokens = estimate  # all that is known of a call that is cut off
        try:
            response = await member.provider.invoke(_request(context, question, system, limits))
        except ProviderError as error:
            usage = error.token_usage
            spent.tokens, spent.cost = usage.total if usage is not None else 0, error.cost_usd
            question.account.spend(usage, error.cost_usd)
            raise
        except MusterError:
            raise
        except Exception as error:
            raise ProviderFailed(describe_failure(error)) from error
        usage = response.token_usage
        spent.tokens = estimate + TokenBudget.estimate(response.text)
        if usage is not None:
            spent.tokens = usage.total
        spent.cost = response.cost_usd
        question.account.spend(usage, response.cost_usd)
        return response


@dataclass(slots=True)
class _Spent:
    """What a call has used; nothing, if it is not made after all."""

    tokens: int = 0
    cost: float | None = None


def _release(budget: TokenBudget, estimate: int, spent: _Spent) -> None:
    budget.release(estimate, spent.tokens)


async def _enter(purse: MoneyBudget) -> None:
    """Raises `BudgetExceeded` when the money is spent."""
    within_another = len(_inside.get()) > 1
    if not (purse.enter_at_once() if within_another else await purse.enter()):
        raise BudgetExceeded(f"budget of ${purse.limit:g} exceeded: spent ${purse.spent:.4g}")


def _leave(purse: MoneyBudget, spent: _Spent) -> None:
    purse.leave(spent.cost)


def _request(
    context: RunContext, question: Question, system: str | None, limits: Limits
) -> ProviderRequest:
    member = question.member
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
        limits=limits,
        response_schema=question.schema,
        metadata={"run": context.run_id, "step": question.unit[0], "agent": member.agent.name,
                  **_artifact_dir(), **question.metadata},
    )  # fmt: skip


def _artifact_dir() -> dict[str, str]:
    folder = artifact_folder.get()
    return {} if folder is None else {ARTIFACT_DIR: str(folder)}


class _Chunks:
    """Tells of each piece of text; the journal has where a piece ended when the next one comes.
    Where the last one ends, the answer itself says."""

    __slots__ = ("_context", "_length", "_question")

    def __init__(self, context: RunContext, question: Question) -> None:
        self._context = context
        self._question = question
        self._length = 0

    def __call__(self, text: str) -> None:
        question = self._question
        step, iteration, item = question.unit
        if self._length:
            self._context.note("chunk", {"end": self._length}, question.row)
        self._length += len(text)
        self._context.emit("chunk", step=step, iteration=iteration, item=item, text=text)


class _ToolCalls:
    """Calls tools: each call is in the journal before it is made, its result before it is used. A
    call whose result is there from an earlier part of the run is not made again."""

    __slots__ = ("_context", "_extra", "_known", "_question")

    def __init__(self, context: RunContext, question: Question) -> None:
        self._context = context
        self._question = question
        self._extra = {bound.tool.name: bound for bound in question.tools}
        step, iteration, item = question.unit
        row = (question.row_name or step, iteration, item)
        known = context.earlier.calls.get(row, {})
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
    """Raises `BudgetExceeded` when the agent, or its team, has had its tokens of the day."""
    since = datetime.now(UTC) - timedelta(hours=24)
    name, own = member.agent.name, member.agent.limits.max_daily_tokens
    if own is not None:
        used = context.journal.tokens_since(name, since)
        _check_day(f"agent {name}", used, own, estimate)
    for team, limit in context.daily_limits.items():
        used = context.journal.tokens_since(None, since, team=team)
        _check_day(f"team {team}", used, limit, estimate)


def _check_day(whose: str, used: int, limit: int, estimate: int) -> None:
    if used + estimate >= limit:
        raise BudgetExceeded(
            f"daily token usage {used} of {whose} leaves no room for about {estimate} more: "
            f"its limit is {limit}"
        )
