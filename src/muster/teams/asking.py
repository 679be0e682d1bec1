"""One question to one agent: within its limits and budgets, with its tools, into the journal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from muster.errors import MusterError
from muster.evals.budget import MoneyBudget
from muster.evals.unpriced import lacks_cost
from muster.importing import describe_failure
from muster.provider import (
    Limits,
    Message,
    ProviderError,
    ProviderFailed,
    ProviderRequest,
    ProviderResponse,
    ProviderTimeout,
    TokenUsage,
    Tool,
)
from muster.providers.chat import refused_call
from muster.store.records import CallRecord
from muster.tasks import end_within
from muster.teams.budget import TokenBudget
from muster.teams.cast import Member
from muster.teams.context import RunContext, Unit, call_key
from muster.teams.own_tools import DELEGATE
from muster.teams.prompt import system_prompt
from muster.teams.state import Account
from muster.teams.turns import Price, Turns
from muster.tools.artifacts import ARTIFACT_DIR
from muster.tools.artifacts import current as artifact_folder
from muster.tools.base import BoundTool, ToolFailed
from muster.wrappers.places import Pauses

__all__ = ("Question", "ask", "calling_row")

TEAM = "team"
"""The provider that is a team behind a target: one call to it is many, and bounded as a whole."""

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
    has_place: bool = False
    """Who asks has taken the agent's place for it already; it is free when it is answered."""


async def ask(context: RunContext, question: Question) -> ProviderResponse:
    """Ask, and count what it has cost, whether it answers or not.

    The agent's place and the budgets are held for each turn of the model, not while its tools run:
    see `muster.teams.turns`. The agent's time begins when both are there.

    Raises:
        BudgetExceeded: a budget does not allow the call, or a further turn.
        ProviderTimeout: no answer within the time of the agent.
        ProviderError: the agent failed.
    """
    member = question.member
    token = _inside.set((*_inside.get(), question))
    try:
        if not question.has_place:
            await member.room.enter()
        calls: _ToolCalls | None = None
        try:
            system = _system_prompt(question)
            estimate = TokenBudget.estimate(
                system, question.prompt, *(message.text for message in question.history)
            )
            turns = Turns(
                (*context.token_budgets, *question.budgets, *_of_a_day(context, member)),
                (*context.money_budgets, *question.money_budgets, *context.standing_money),
                prompt=estimate,
                answer=member.agent.limits.max_tokens_per_call,
                whole=member.kind == TEAM,
                price=_price_of(member),
                on_spent=partial(_spend, context, member),
            )
            calls = _ToolCalls(context, question, turns)
            try:
                await turns.begin()
                request = _request(context, question, system, turns, calls)
                return await _in_time(context, question, request, turns)
            finally:
                turns.close(None, None, unknown=0)  # if it has not come so far as to be asked
        finally:
            if calls is None or calls.has_room:
                member.room.leave()
    finally:
        _inside.reset(token)


async def _in_time(
    context: RunContext, question: Question, request: ProviderRequest, turns: Turns
) -> ProviderResponse:
    seconds = question.member.agent.limits.timeout_seconds
    asking = _counted(context, question, request, turns)
    if seconds is None:
        return await asking
    task = asyncio.get_running_loop().create_task(asking)
    if not await end_within(task, seconds):
        raise ProviderTimeout(f"no answer within {seconds:g} s")
    return task.result()


async def _counted(
    context: RunContext, question: Question, request: ProviderRequest, turns: Turns
) -> ProviderResponse:
    """Ask the provider; what that took is on the account and the budgets, however it ends."""
    usage: TokenUsage | None = None
    cost: float | None = None
    unknown = turns.prompt  # all that is known of a call that is cut off
    answered, priced = False, False
    try:
        await context.journal.flushed()
        response = await question.member.provider.invoke(request)
        usage, cost = response.token_usage, response.cost_usd
        unknown += TokenBudget.estimate(response.text)
        answered = True
        priced = cost is not None and not lacks_cost(response.output)
        return response
    except ProviderError as error:
        usage, cost, unknown = error.token_usage, error.cost_usd, 0
        raise
    except MusterError:
        raise
    except Exception as error:
        raise ProviderFailed(describe_failure(error)) from error
    finally:
        turns.close(usage.total if usage is not None else None, cost, unknown=unknown)
        usage = usage if usage is not None else turns.token_usage
        cost = cost if cost is not None else turns.cost_usd
        question.account.spend(
            usage,
            cost,
            untold=int(answered and usage is None),
            unpriced=int(answered and not priced),
        )


def _spend(context: RunContext, member: Member, tokens: int, cost_usd: float | None) -> None:
    """Write down what a turn has used: days and months count it, whatever becomes of the run."""
    context.journal.spend(
        tokens,
        cost_usd,
        agent=member.agent.name,
        teams=context.teams,
        asked_by=context.asked_by,
    )


def _of_a_day(context: RunContext, member: Member) -> Iterable[TokenBudget]:
    limit = member.agent.limits.max_daily_tokens
    return context.standing.tokens_of(member.agent.name, limit, context.daily_limits)


def _price_of(member: Member) -> Price | None:
    """What the agent's model costs, if it says which that is."""
    model = member.agent.model
    if model is None:
        return None

    def price(prompt: int, answer: int) -> float | None:
        from muster.pricing import cost_of

        return cost_of(model, TokenUsage(prompt, answer), provider=member.kind)

    return price


def _system_prompt(question: Question) -> str | None:
    member = question.member
    return system_prompt(
        member.agent.system_prompt,
        guidance=member.toolbox.guidance if question.use_tools else (),
        with_envelopes=question.with_envelopes,
        with_memory=question.with_memory,
        output_format=member.agent.output_format,
    )


def _request(
    context: RunContext,
    question: Question,
    system: str | None,
    turns: Turns,
    calls: _ToolCalls,
) -> ProviderRequest:
    member = question.member
    return ProviderRequest(
        question=question.prompt,
        system_prompt=system,
        messages=question.history,
        eval_case_id=question.role,
        attempt=question.attempt,
        tools=calls.tools,
        call_tool=calls if calls.tools else None,
        watch=turns,
        on_chunk=_Chunks(context, question) if question.stream else None,
        limits=Limits(
            max_output_tokens=turns.output_allowed(),
            max_turns=member.agent.limits.max_turns,
            max_total_tokens=turns.total_allowed,
            max_cost_usd=turns.money_allowed,
        ),
        response_schema=question.schema if member.takes_schema else None,
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

    __slots__ = (
        "_context",
        "_extra",
        "_handed_on",
        "_in_turn",
        "_known",
        "_question",
        "_results",
        "_turns",
        "has_room",
        "tools",
    )

    def __init__(self, context: RunContext, question: Question, turns: Turns) -> None:
        self._context = context
        self._question = question
        self._turns = turns
        toolbox = question.member.toolbox.tools if question.use_tools else ()
        own = question.tools if question.use_tools else ()
        self._extra = {bound.tool.name: bound for bound in own}
        self.tools: tuple[Tool, ...] = (*toolbox, *(bound.tool for bound in own))
        step, iteration, item = question.unit
        row = (question.row_name or step, iteration, item)
        known = context.earlier.calls.get(row, {})
        self._known = {key: list(results) for key, results in known.items()}
        self._results = 0
        self.has_room = True
        """Whether the question has its place at the agent, which is free for others while it waits
        for whom it has handed a task to."""
        self._handed_on = Pauses(self._make, self._leave_room, self._enter_room)
        self._in_turn = Pauses(self._routed, self._end_turn, self._next_turn)

    async def __call__(self, name: str, arguments: Mapping[str, Any]) -> str:
        return await self._in_turn(name, arguments)

    def _end_turn(self) -> None:
        """What the turns until now have used is on disk before the tools run."""
        self._turns.pause()
        question, turns = self._question, self._turns
        used = Account(token_usage=question.account.token_usage, cost_usd=question.account.cost_usd)
        used.spend(turns.token_usage, turns.cost_usd)
        self._context.journal.update_step(
            question.row, token_usage=used.token_usage, cost_usd=used.cost_usd
        )

    async def _next_turn(self) -> None:
        results, self._results = self._results, 0
        await self._context.journal.flushed()  # how calls went that have failed, too
        await self._turns.resume(results)

    def _leave_room(self) -> None:
        self.has_room = False
        self._question.member.room.leave()

    async def _enter_room(self) -> None:
        await self._question.member.room.enter(again=True)
        self.has_room = True

    async def _routed(self, name: str, arguments: Mapping[str, Any]) -> str:
        if known := self._known.get(call_key(name, arguments)):
            result = known.pop(0)
        elif name == DELEGATE and name in self._extra:
            result = await self._handed_on(name, arguments)
        else:
            result = await self._make(name, arguments)
        self._results += TokenBudget.estimate(result)
        return result

    async def _make(self, name: str, arguments: Mapping[str, Any]) -> str:
        context, question = self._context, self._question
        step, iteration, item = question.unit
        # What a model makes up may be anything, also no object.
        given: Any = dict(arguments) if isinstance(arguments, Mapping) else arguments
        if given is None:
            given = "null"
        shown = name if self._is_known(name) else context.journal.masked(name)
        call_id = context.journal.begin_call(
            question.row,
            CallRecord(kind=DELEGATE if name == DELEGATE else "tool", name=shown, arguments=given),
        )
        context.emit("tool_call", step=step, iteration=iteration, item=item, text=shown, data=given)
        began = time.perf_counter()
        status, result = "error", ""
        try:
            await context.journal.flushed()
            result = await self._call(name, arguments)
            status = "ok"
        except asyncio.CancelledError:
            status = "cancelled"
            raise
        except Exception as error:
            if isinstance(error, TimeoutError):
                status = "timeout"
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
                data={"name": shown, "status": status, "duration_ms": took},
            )
        await context.journal.flushed()  # also what the tool has noted: a subtask
        return result

    def _is_known(self, name: str) -> bool:
        return any(tool.name == name for tool in self.tools)

    async def _call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Raises `ToolFailed` for what is no call that can be made."""
        refusal = refused_call(name, arguments, self.tools)
        if refusal is not None:
            raise ToolFailed(refusal)
        bound = self._extra.get(name)
        if bound is not None:
            return await bound.call(arguments)
        return await self._question.member.toolbox.call(name, arguments)
