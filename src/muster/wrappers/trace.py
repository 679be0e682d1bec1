"""Calls as spans, by OpenTelemetry's conventions for generative AI.

A question to a target is an `invoke_agent` span; each try of a model API is a `chat` span within
it, each tool call that the answer tells of an `execute_tool` span. Names and numbers alone are
told, unless content is asked for: no prompt, no answer, no arguments, no text of an error.

The conventions: https://github.com/open-telemetry/semantic-conventions-genai
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from muster.exchange import OCCASION, Occasion
from muster.provider import (
    Message,
    Provider,
    ProviderError,
    ProviderRequest,
    ProviderResponse,
    ToolCall,
)
from muster.target import ResolvedTarget
from muster.wrappers.base import Wrapper

__all__ = ("Span", "Traced", "TracedTry", "case_ids", "ids_of")

INTERNAL, CLIENT = 1, 3
"""Kinds of spans, as OTLP counts them."""

_PARENT: ContextVar[str | None] = ContextVar("muster_span", default=None)


@dataclass(slots=True, kw_only=True)
class Span:
    """A piece of work that has ended, or soon will have. Times in nanoseconds since 1970."""

    name: str
    trace_id: str
    parent_id: str | None
    start: int
    span_id: str = field(default_factory=lambda: os.urandom(8).hex())
    end: int = 0
    kind: int = INTERNAL
    attributes: dict[str, Any] = field(default_factory=dict)
    events: list[tuple[int, str, dict[str, Any]]] = field(default_factory=list)
    """Each with its time, name and attributes."""
    failed: bool = False


Emit = Callable[[Span], None]


def case_ids(run: str, suite: str, case: Iterable[object]) -> tuple[str, str]:
    """The ids of the trace and of the first span of a case: the same for all who know the case."""
    about = json.dumps([run, suite, *map(str, case)]).encode()
    digest = hashlib.sha256(about).hexdigest()
    return digest[:32], digest[32:48]


def ids_of(run: str, occasion: Occasion | None) -> tuple[str, str | None]:
    """As `case_ids`, for the case that a call is made for; a trace of its own without one."""
    if occasion is None:
        return os.urandom(16).hex(), None
    case = (occasion.test_id, occasion.prompt, occasion.target, occasion.repeat)
    return case_ids(run, occasion.eval_path or occasion.suite, case)


class _Tracing(Wrapper):
    __slots__ = ("_content", "_emit", "_run", "_target")

    def __init__(
        self,
        provider: Provider,
        target: ResolvedTarget,
        run: Callable[[], str],
        emit: Emit,
        *,
        content: bool = False,
    ) -> None:
        super().__init__(provider)
        self._target = target
        self._run = run
        self._emit = emit
        self._content = content

    async def _traced(self, span: Span, request: ProviderRequest) -> ProviderResponse:
        if (model := self._target.config.get("model")) is not None:
            span.attributes["gen_ai.request.model"] = str(model)
        if request.limits.max_output_tokens is not None:
            span.attributes["gen_ai.request.max_tokens"] = request.limits.max_output_tokens
        if self._content:
            span.attributes |= _asked(request)
        token = _PARENT.set(span.span_id)
        try:
            response = await self.provider.invoke(request)
        except BaseException as error:
            span.failed = True
            kind = error.kind if isinstance(error, ProviderError) else "cancelled"
            span.attributes["error.type"] = kind
            raise
        else:
            span.attributes |= _accounting(response)
            if self._content:
                span.attributes["gen_ai.output.messages"] = _answered(response)
            return response
        finally:
            _PARENT.reset(token)
            span.end = time.time_ns()
            self._emit(span)


class TracedTry(_Tracing):
    """Each call a `chat` span. Innermost, around a model API."""

    __slots__ = ()

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        """Answer as the provider inside does."""
        trace_id, root = ids_of(self._run(), OCCASION.get())
        model = self._target.config.get("model")
        span = Span(
            name=f"chat {model}" if model is not None else "chat",
            trace_id=trace_id,
            parent_id=_PARENT.get() or root,
            start=time.time_ns(),
            kind=CLIENT,
            attributes={
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": self._target.provider,
                "muster.attempt": request.attempt,
            },
        )
        return await self._traced(span, request)


class Traced(_Tracing):
    """Each call an `invoke_agent` span, with the tool calls that its answer tells of. Outermost."""

    __slots__ = ()

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        """Answer as the provider inside does."""
        occasion = OCCASION.get()
        trace_id, root = ids_of(self._run(), occasion)
        span = Span(
            name=f"invoke_agent {self._target.name}",
            trace_id=trace_id,
            parent_id=root,
            start=time.time_ns(),
            kind=CLIENT,
            attributes={
                "gen_ai.operation.name": "invoke_agent",
                "gen_ai.provider.name": self._target.provider,
                "gen_ai.agent.name": self._target.name,
                **_of_case(occasion),
            },
        )
        response = await self._traced(span, request)
        for call in response.tool_calls:
            self._emit(self._tool(span, call))
        return response

    def _tool(self, parent: Span, call: ToolCall) -> Span:
        start, end, known = _times(parent, call)
        span = Span(
            name=f"execute_tool {call.tool}",
            trace_id=parent.trace_id,
            parent_id=parent.span_id,
            start=start,
            end=end,
            attributes={
                "gen_ai.operation.name": "execute_tool",
                "gen_ai.tool.name": call.tool,
                "muster.times_known": known,
            },
        )
        if call.id is not None:
            span.attributes["gen_ai.tool.call.id"] = call.id
        if call.status not in (None, "ok"):
            span.failed = True
            span.attributes["error.type"] = str(call.status)
        if self._content:
            span.attributes["gen_ai.tool.call.arguments"] = _text(call.input)
            if call.output is not None:
                span.attributes["gen_ai.tool.call.result"] = _text(call.output)
        return span


def _of_case(occasion: Occasion | None) -> dict[str, Any]:
    if occasion is None:
        return {}
    return {
        "muster.role": "judge" if occasion.judging else "target",
        "muster.test_id": occasion.test_id,
        "muster.turn": occasion.turn,
    }


def _accounting(response: ProviderResponse) -> dict[str, Any]:
    # What the cache has answered was paid for in another trace.
    usage = None if response.cached else response.token_usage
    known = {
        "gen_ai.response.model": response.model,
        "gen_ai.response.finish_reasons": response.finish_reason and [response.finish_reason],
        "gen_ai.usage.input_tokens": usage and usage.input,
        "gen_ai.usage.output_tokens": usage and usage.output,
        "gen_ai.usage.cache_read.input_tokens": usage and usage.cached,
        "gen_ai.usage.reasoning.output_tokens": usage and usage.reasoning,
        "muster.cost_usd": None if response.cached else response.cost_usd,
        "muster.target_used": response.target_used,
        "muster.cached": response.cached or None,
    }
    return {name: value for name, value in known.items() if value is not None}


def _times(parent: Span, call: ToolCall) -> tuple[int, int, bool]:
    """When the call began and ended, and whether that is known; else it stands at the end."""
    try:
        if call.start_time is not None and call.end_time is not None:
            start, end = (
                int(datetime.fromisoformat(text).timestamp() * 1e9)
                for text in (call.start_time, call.end_time)
            )
            if start <= end:
                return start, end, True
    except ValueError:
        pass
    took = int((call.duration_ms or 0.0) * 1e6)
    return max(parent.start, parent.end - took), parent.end, False


def _asked(request: ProviderRequest) -> dict[str, str]:
    said = [*request.messages, Message("user", request.question)]
    attributes = {"gen_ai.input.messages": _text(_messages(said))}
    if request.system_prompt is not None:
        system = [{"type": "text", "content": request.system_prompt}]
        attributes["gen_ai.system_instructions"] = _text(system)
    return attributes


def _answered(response: ProviderResponse) -> str:
    """The answer's messages, each with why it ended, as the conventions want it."""
    rows = _messages(response.output)
    for row, message in zip(rows, response.output, strict=True):
        row["finish_reason"] = "tool_call" if message.tool_calls else "stop"
    if rows:
        ended = response.finish_reason or "stop"
        rows[-1]["finish_reason"] = "tool_call" if ended == "tool_calls" else ended
    return _text(rows)


def _messages(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """Messages in the form that the conventions want."""
    rows: list[dict[str, Any]] = []
    for message in messages:
        parts: list[Mapping[str, Any]] = []
        if message.role == "tool":
            answer = {"type": "tool_call_response", "id": message.tool_call_id}
            parts.append({**answer, "response": message.text})
        elif message.text:
            parts.append({"type": "text", "content": message.text})
        parts += [
            {"type": "tool_call", "id": call.id, "name": call.tool, "arguments": call.input}
            for call in message.tool_calls
        ]
        rows.append({"role": message.role, "parts": parts})
    return rows


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)
