"""The tool loop: makes a provider of a chat model, which answers one turn at a time.

    provider = ChatProvider(model)
    response = await provider.invoke(ProviderRequest(question="…", tools=…, call_tool=…))

Each turn, the model sees the whole conversation. If it asks for tools, they are called, several at
once if it asked for several, and their results go back in the order of the calls; a tool that fails
is told to the model as `error: …`, so that it can do something else. The loop ends with the first
turn that asks for no tool, or that was cut short (`length`, `content_filter`: such calls may be
halves), or when nobody is there to call tools (`call_tool` is `None`).

The request's `Limits` are checked before each turn; `max_seconds` also interrupts a turn or a tool
that takes too long. Errors carry the tokens and the money that the turns before them used.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from muster.errors import nearest
from muster.importing import describe_failure
from muster.provider import (
    BadProviderOutput,
    BudgetExceeded,
    LimitExceeded,
    Limits,
    Message,
    OnChunk,
    ProviderError,
    ProviderFailed,
    ProviderRequest,
    ProviderResponse,
    ProviderTimeout,
    TokenUsage,
    Tool,
    ToolCall,
)
from muster.providers.answers import check_accounting
from muster.providers.conversation import Attaching, chat_messages, system_text

__all__ = ("ChatModel", "ChatProvider", "ChatReply", "ChatTurn", "refused_call")

MAX_NAMED = 20
"""Of the tools that there are, in the message that says that one is not there."""

CUT_SHORT = frozenset({"length", "content_filter"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatTurn:
    """One turn: all that the model needs to answer once."""

    messages: tuple[Message, ...]
    """The conversation, oldest first, without the system prompt. Contents are strings or tuples of
    `TextPart` and `ImagePart`."""
    system_prompt: str | None = None
    tools: tuple[Tool, ...] = ()
    max_output_tokens: int | None = None
    response_schema: Mapping[str, Any] | None = None
    on_chunk: OnChunk | None = None
    """Called with each piece of text; `None`: do not stream."""
    seconds_left: float | None = None
    """After so many seconds the turn is cancelled."""
    carried: Mapping[int, object] = field(default_factory=dict)
    """`ChatReply.carry` of earlier turns, by the index of their message in `messages`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatReply:
    """What the model answered in one turn."""

    message: Message
    """The assistant's message. A tool call whose arguments could not be parsed has them as text."""
    token_usage: TokenUsage | None = None
    """`None` when the model did not report it."""
    finish_reason: str | None = None
    """`stop`, `length`, `content_filter`, `tool_calls`, or the model's own word."""
    cost_usd: float | None = None
    model: str | None = None
    raw: object = None
    carry: object = None
    """What the model wants back with this message in later turns, e.g. signed reasoning."""


@runtime_checkable
class ChatModel(Protocol):
    """Answers one turn of a conversation; it may have `async aclose(self) -> None`."""

    async def complete(self, turn: ChatTurn, /) -> ChatReply:
        """Answer, or raise a `ProviderError`."""
        ...


class ChatProvider:
    """A chat model as a provider.

    The response's `output` holds all messages of the loop, the assistant's and the tools', each
    assistant message with its own `token_usage`. The response's sums are `None` as soon as one turn
    did not report: half a sum would pass for a whole one. Budgets count what was reported.
    """

    def __init__(self, model: ChatModel) -> None:
        self.model = model

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        """Run the loop to its end.

        Raises:
            LimitExceeded: `max_turns` or `max_seconds` does not allow another turn.
            BudgetExceeded: `max_total_tokens` or `max_cost_usd` does not.
            ProviderError: the model failed.
        """
        loop = _Loop(self.model, request)
        try:
            if request.limits.max_seconds is None:
                return await loop.run()
            return await _run_within(loop, request.limits.max_seconds)
        except ProviderError as error:
            error.token_usage = loop.usage_with(error.token_usage)
            if loop.cost or error.cost_usd is not None:
                error.cost_usd = loop.cost + (error.cost_usd or 0.0)
            raise

    @property
    def capabilities(self) -> Any:
        """What the model says of itself."""
        return getattr(self.model, "capabilities", None)

    async def aclose(self) -> None:
        """Close the model, if it can be closed."""
        close = getattr(self.model, "aclose", None)
        if close is not None:
            await close()


async def _run_within(loop: _Loop, seconds: float) -> ProviderResponse:
    try:
        async with asyncio.timeout(seconds):
            return await loop.run()
    except TimeoutError:
        # A time-out of the model's own has become a ProviderTimeout on the way here.
        raise LimitExceeded(
            f"stopped in turn {loop.turns}: it took longer than max_seconds ({seconds:g} s) allows"
        ) from None


class _Loop:
    """One request's conversation and what it has used so far."""

    def __init__(self, model: ChatModel, request: ProviderRequest) -> None:
        self.model = model
        self.request = request
        self.started = time.perf_counter()
        self.turns = 0
        self.usage: TokenUsage | None = None
        self.cost = 0.0
        self.usage_known = self.cost_known = True
        self.messages: list[Message] = []
        self.carried: dict[int, object] = {}

    def usage_with(self, more: TokenUsage | None) -> TokenUsage | None:
        """What was reported so far and `more`."""
        if self.usage is None or more is None:
            return self.usage or more
        return self.usage + more

    async def run(self) -> ProviderResponse:
        request = self.request
        system = system_text(request)
        self.messages = await chat_messages(request, Attaching.of(self.model))
        first = len(self.messages)
        while True:
            self.check_limits()
            reply = await self.turn(system)
            asks = bool(reply.message.tool_calls) and reply.finish_reason not in CUT_SHORT
            if not asks or request.call_tool is None:
                return self.response(reply, first)
            await self.call_tools()

    def check_limits(self) -> None:
        """Raise before a turn that the limits do not allow."""
        limits: Limits = self.request.limits
        turn = self.turns + 1
        if limits.max_turns is not None and self.turns >= limits.max_turns:
            raise LimitExceeded(f"stopped before turn {turn}: max_turns is {limits.max_turns}")
        if limits.max_seconds is not None:
            elapsed = time.perf_counter() - self.started
            if elapsed >= limits.max_seconds:
                raise LimitExceeded(
                    f"stopped before turn {turn}: {elapsed:.1f} s have passed and max_seconds is "
                    f"{limits.max_seconds:g}"
                )
        used = self.usage.total if self.usage is not None else 0
        if limits.max_total_tokens is not None and used >= limits.max_total_tokens:
            raise BudgetExceeded(
                f"stopped before turn {turn}: {used:,} tokens are used and max_total_tokens is "
                f"{limits.max_total_tokens:,}"
            )
        if limits.max_cost_usd is not None and self.cost >= limits.max_cost_usd:
            raise BudgetExceeded(
                f"stopped before turn {turn}: ${self.cost:.4f} are spent and max_cost_usd is "
                f"{limits.max_cost_usd:g}"
            )

    async def turn(self, system: str | None) -> ChatReply:
        """Ask the model once and keep its message and its accounting."""
        request, limits = self.request, self.request.limits
        begun = time.perf_counter()
        seconds_left = None
        if limits.max_seconds is not None:
            seconds_left = max(0.0, limits.max_seconds - (begun - self.started))
        self.turns += 1
        turn = ChatTurn(
            messages=tuple(self.messages),
            system_prompt=system,
            tools=request.tools,
            max_output_tokens=self.output_allowed(),
            response_schema=request.response_schema,
            on_chunk=request.on_chunk,
            seconds_left=seconds_left,
            carried=self.carried,
        )
        answering: object = None
        try:
            answering = self.model.complete(turn)
            reply = await answering
        except ProviderError:
            raise
        except TimeoutError as error:
            raise ProviderTimeout(describe_failure(error)) from error
        except Exception as error:
            if answering is not None and not inspect.isawaitable(answering):
                raise _not_async(self.model, answering) from None
            passing = isinstance(error, ConnectionError)
            raise ProviderFailed(describe_failure(error), retryable=passing) from error
        _check_reply(reply, type(self.model).__name__)
        self.account(reply)
        message = reply.message
        if message.tool_calls and _lacks_ids(message.tool_calls):
            calls = _with_ids(message.tool_calls, self.turns)
        else:
            calls = message.tool_calls
            if reply.carry is not None:
                self.carried[len(self.messages)] = reply.carry
        self.messages.append(
            Message(
                "assistant",
                message.content,
                name=message.name,
                tool_calls=calls,
                duration_ms=_milliseconds_since(begun),
                token_usage=reply.token_usage,
                metadata=message.metadata,
            )
        )
        return reply

    def output_allowed(self) -> int | None:
        """Tokens that the next turn may answer with: the lower of what the two who know say."""
        bound, watch = self.request.limits.max_output_tokens, self.request.watch
        left = watch.output_allowed() if watch is not None else None
        return bound if left is None else left if bound is None else min(bound, left)

    def account(self, reply: ChatReply) -> None:
        if self.request.watch is not None:
            self.request.watch.turn_ended(reply.token_usage, reply.cost_usd)
        self.usage = self.usage_with(reply.token_usage)
        self.usage_known = self.usage_known and reply.token_usage is not None
        self.cost += reply.cost_usd or 0.0
        self.cost_known = self.cost_known and reply.cost_usd is not None

    async def call_tools(self) -> None:
        """Call what the last message asks for; its calls get their results, the model too."""
        asked = self.messages[-1]
        if len(asked.tool_calls) == 1:
            done = [await self.call_tool(asked.tool_calls[0])]
        else:
            done = await asyncio.gather(*(self.call_tool(call) for call in asked.tool_calls))
        self.messages[-1] = Message(
            "assistant",
            asked.content,
            name=asked.name,
            tool_calls=tuple(done),
            duration_ms=asked.duration_ms,
            token_usage=asked.token_usage,
            metadata=asked.metadata,
        )
        self.messages += [
            Message("tool", call.output, name=call.tool, tool_call_id=call.id) for call in done
        ]

    async def call_tool(self, call: ToolCall) -> ToolCall:
        """The call with its output, status and duration; what goes wrong is its output."""
        begun = time.perf_counter()
        status = "error"
        try:
            output = await self.tool_output(call)
            status = "ok"
        except BudgetExceeded:
            raise  # the tool has ended, but the model may not be asked again
        except TimeoutError as error:
            status, output = "timeout", f"error: {str(error) or 'the tool took too long'}"
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # The tool cancelled itself; nobody asked this request to stop.
            status, output = "cancelled", "error: the tool was cancelled"
        except Exception as error:
            output = f"error: {str(error) or type(error).__name__}"
        return ToolCall(
            call.tool,
            call.input,
            id=call.id,
            output=output,
            status=status,
            duration_ms=_milliseconds_since(begun),
        )

    async def tool_output(self, call: ToolCall) -> str:
        if self.request.watch is None:
            refusal = refused_call(call.tool, call.input, self.request.tools)
            if refusal is not None:
                raise ValueError(refusal)
        call_tool = self.request.call_tool
        assert call_tool is not None
        given: Any = call.input  # with a watch, whatever the model has made
        output: object = await call_tool(call.tool, given)
        return output if isinstance(output, str) else json.dumps(output, default=str)

    def response(self, reply: ChatReply, first: int) -> ProviderResponse:
        return ProviderResponse(
            tuple(self.messages[first:]),
            token_usage=self.usage if self.usage_known else None,
            cost_usd=self.cost if self.cost_known else None,
            duration_ms=_milliseconds_since(self.started),
            raw=reply.raw,
            finish_reason=reply.finish_reason,
            model=reply.model,
        )


def _not_async(model: ChatModel, answer: object) -> ProviderFailed:
    """What to tell an author whose `complete` cannot be awaited."""
    what = type(answer).__name__
    return ProviderFailed(
        f"{type(model).__name__}.complete() is not async: it answered with {what}. Write `async "
        "def complete(self, turn)` that returns a ChatReply, and `await asyncio.to_thread(…)` "
        "around what blocks"
    )


def _check_reply(reply: object, who: str) -> None:
    """Raise `BadProviderOutput` when a model's author has made no reply of it."""
    if not isinstance(reply, ChatReply) or not isinstance(reply.message, Message):
        made = reply.message if isinstance(reply, ChatReply) else reply
        wanted = "a Message in its ChatReply" if isinstance(reply, ChatReply) else "a ChatReply"
        text = f"{who}: complete() must answer with {wanted}, not {type(made).__name__}"
        raise BadProviderOutput(text, retryable=False)
    check_accounting(reply.token_usage, reply.cost_usd, who)


def refused_call(name: str, arguments: object, tools: Sequence[Tool]) -> str | None:
    """Why a call that a model made cannot be made, for the model; `None` if it can."""
    names = [tool.name for tool in tools]
    if name not in names:
        near = nearest(name[:100], names)
        hint = f"near: {near[0]}; " if near else ""
        known = ", ".join(names[:MAX_NAMED]) or "none"
        if len(names) > MAX_NAMED:
            known += f", and {len(names) - MAX_NAMED} more"
        return f'unknown tool "{_short(name)}" ({hint}known: {known})'
    if not isinstance(arguments, Mapping):
        given = arguments if isinstance(arguments, str) else json.dumps(arguments, default=str)
        return f"the arguments of {name} are not a JSON object: {_short(given)}"
    return None


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}…"


def _lacks_ids(calls: tuple[ToolCall, ...]) -> bool:
    """True when results could not be told apart by their calls' ids."""
    ids = {call.id for call in calls}
    return None in ids or "" in ids or len(ids) < len(calls)


def _with_ids(calls: tuple[ToolCall, ...], turn: int) -> tuple[ToolCall, ...]:
    return tuple(
        ToolCall(call.tool, call.input, id=f"call_{turn}_{number}")
        for number, call in enumerate(calls, 1)
    )


def _milliseconds_since(moment: float) -> float:
    return round((time.perf_counter() - moment) * 1e3, 3)
