"""OpenAI's Chat Completions API: bodies out, answers and streams in.

https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from muster.pricing import cost_of
from muster.provider import (
    ImagePart,
    Message,
    OnChunk,
    TokenUsage,
    Tool,
    ToolCall,
)
from muster.providers.attachments import DocumentPart
from muster.providers.chat import ChatReply, ChatTurn
from muster.providers.conversation import parts_of
from muster.providers.openai_settings import OpenAIEndpoint
from muster.providers.openai_types import (
    COMPLETION,
    Call,
    Choice,
    Completion,
    Function,
    Said,
    Usage,
)
from muster.providers.sse import SseEvent
from muster.providers.structured import is_strict_schema, schema_name, with_schema
from muster.providers.wire import JsonApi, parsed_arguments

__all__ = ("ChatCompletions", "chat_message", "chat_tool", "response_format")

FINISH_REASONS: Mapping[str, str] = {
    "max_tokens": "length",
    "function_call": "tool_calls",
    "stop_sequence": "stop",
    "eos": "stop",
    "end_turn": "stop",
}
_NOTHING: Mapping[str, Any] = MappingProxyType({})


class ChatCompletions:
    """One endpoint's Chat Completions."""

    path = "chat/completions"

    def __init__(self, api: JsonApi, endpoint: OpenAIEndpoint) -> None:
        self.api = api
        self.endpoint = endpoint
        settings = endpoint.settings
        fixed = endpoint.sampling()
        if settings.reasoning_effort is not None:
            fixed["reasoning_effort"] = settings.reasoning_effort
        if settings.seed is not None:
            fixed["seed"] = settings.seed
        self._fixed = fixed

    async def complete(self, turn: ChatTurn) -> ChatReply:
        """Answer one turn. Raises a `ProviderError`."""
        body = msgspec.json.encode(self.body(turn))
        if turn.on_chunk is None:
            return self.whole(await self.api.post(body))
        stream = _Stream(self, turn.on_chunk)
        unstreamed = await self.api.stream(body, stream.take)
        if unstreamed is None:
            return stream.reply()
        reply = self.whole(unstreamed)
        if reply.message.text:
            turn.on_chunk(reply.message.text)
        return reply

    def body(self, turn: ChatTurn) -> dict[str, Any]:
        """The request's JSON."""
        preset = self.endpoint.preset
        system = turn.system_prompt
        body = dict(self._fixed)
        if turn.response_schema is not None:
            if preset.json_schema:
                body["response_format"] = response_format(turn.response_schema)
            else:
                body["response_format"] = {"type": "json_object"}
                system = with_schema(system, turn.response_schema)
        messages = [{"role": "system", "content": system}] if system else []
        for index, message in enumerate(turn.messages):
            carried = turn.carried.get(index)
            messages.append(chat_message(message, carried if isinstance(carried, Mapping) else {}))
        body["messages"] = messages
        if turn.tools:
            body["tools"] = [chat_tool(tool) for tool in turn.tools]
        bound = self.endpoint.settings.bounded(turn.max_output_tokens)
        if bound is not None:
            body[self.endpoint.max_tokens_field] = bound
        if turn.on_chunk is not None:
            body["stream"] = True
            if preset.stream_usage:
                body["stream_options"] = {"include_usage": True}
        return body | self.endpoint.settings.extra_body

    def whole(self, data: bytes) -> ChatReply:
        """The answer that came in one piece."""
        answer = self.api.decode(COMPLETION, data)
        if answer.error is not None and not answer.choices:
            raise self.api.broke_off(answer.error)
        if not answer.choices:
            raise self.api.bad("the answer has no choices")
        choice = answer.choices[0]
        if choice.error is not None:
            raise self.api.broke_off(choice.error)
        said = choice.message
        if said is None:
            raise self.api.bad("the answer's choice has no message")
        return self.reply(
            said,
            [_call(call) for call in said.tool_calls or ()],
            finish=choice.finish_reason,
            answer=answer,
            raw=msgspec.json.decode(data),
        )

    def reply(
        self,
        said: Said,
        calls: list[ToolCall],
        *,
        finish: str | None,
        answer: Completion,
        raw: object,
    ) -> ChatReply:
        """A `ChatReply` from what was said, in one piece or put together from a stream."""
        text = _text(said.content)
        finish = FINISH_REASONS.get(finish, finish) if finish is not None else None
        if said.refusal:
            text = text or said.refusal
            finish = "content_filter"
        usage = _token_usage(answer.usage)
        model = answer.model or self.endpoint.model
        cost = _reported_cost(answer.usage)
        if cost is None and self.endpoint.preset.price_as is not None:
            cost = cost_of(model, usage, provider=self.endpoint.preset.price_as)
        return ChatReply(
            message=Message("assistant", text, tool_calls=tuple(calls)),
            token_usage=usage,
            finish_reason=finish,
            cost_usd=cost,
            model=model,
            raw=raw,
            carry=_carry(said) if calls else None,
        )


class _Stream:
    """Puts the answer together from its deltas."""

    def __init__(self, wire: ChatCompletions, on_chunk: OnChunk) -> None:
        self.wire = wire
        self.on_chunk = on_chunk
        self.text: list[str] = []
        self.refusal: list[str] = []
        self.reasoning: list[str] = []
        self.calls: list[Call] = []
        self.finish: str | None = None
        self.last = Completion()

    def take(self, event: SseEvent) -> bool:
        """Use one event; True when it says that the stream is done."""
        if event.data == b"[DONE]":
            return True
        try:
            chunk = COMPLETION.decode(event.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            chunk = self.wire.api.decode(COMPLETION, event.data, what="stream")
        if chunk.error is not None:
            raise self.wire.api.broke_off(chunk.error)
        for choice in chunk.choices or ():
            if not choice.index:
                self.take_choice(choice)
        if chunk.usage is not None:
            self.last.usage = chunk.usage
        if chunk.model:
            self.last.model = chunk.model
        if chunk.id:
            self.last.id = chunk.id
        return False

    def take_choice(self, choice: Choice) -> None:
        delta = choice.delta
        if delta is not None:
            content = delta.content
            if content:
                text = content if isinstance(content, str) else _text(content)
                self.text.append(text)
                self.on_chunk(text)
            if delta.tool_calls:
                for part in delta.tool_calls:
                    self.take_call(part)
            if delta.reasoning_content:
                self.reasoning.append(delta.reasoning_content)
            if delta.refusal:
                self.refusal.append(delta.refusal)
        if choice.error is not None:
            raise self.wire.api.broke_off(choice.error)
        if choice.finish_reason is not None:
            self.finish = choice.finish_reason

    def take_call(self, part: Call) -> None:
        """Add a piece of a tool call to its call."""
        function = part.function or Function()
        call = self._call_of(part)
        if call is None:
            self.calls.append(
                Call(part.index, part.id, Function(function.name, function.arguments or ""))
            )
            self.calls[-1].extra_content = part.extra_content
            return
        known = call.function or Function()
        known.name = known.name or function.name
        call.id = call.id or part.id
        call.extra_content = call.extra_content or part.extra_content
        if isinstance(function.arguments, str) and isinstance(known.arguments, str):
            known.arguments += function.arguments
        elif function.arguments is not None:
            known.arguments = function.arguments

    def _call_of(self, part: Call) -> Call | None:
        """The call that a piece belongs to. Some servers leave `index` out, or number all 0."""
        for call in reversed(self.calls):
            if part.index is None or call.index == part.index:
                new = part.id and call.id and part.id != call.id
                return None if new else call
        return None

    def reply(self) -> ChatReply:
        """The whole answer.

        Raises:
            BadProviderOutput: the stream ended before the answer did.
        """
        if self.finish is None:
            error = self.wire.api.bad(
                "the stream ended without a finish reason, so the answer is not whole"
                + (f" (it broke off after {len(''.join(self.text)):,} characters)")
            )
            error.token_usage = _token_usage(self.last.usage)
            raise error
        said = Said(
            "".join(self.text),
            self.calls,
            "".join(self.refusal) or None,
            "".join(self.reasoning) or None,
        )
        last = self.last
        raw = {"id": last.id, "model": last.model, "finish_reason": self.finish}
        calls = [_call(call) for call in self.calls]
        return self.wire.reply(said, calls, finish=self.finish, answer=last, raw=raw)


def chat_message(message: Message, carried: Mapping[str, Any] = _NOTHING) -> dict[str, Any]:
    """A message as the API takes it; `carried` is what the model wants back with it."""
    content: Any = message.content
    if not isinstance(content, str):
        content = [_part(part) for part in parts_of(message)]
    row = {"role": message.role, "content": content}
    if message.role == "tool":
        row["tool_call_id"] = message.tool_call_id
    elif message.tool_calls:
        row["content"] = content or None
        extras = carried.get("extra_content", {})
        row["tool_calls"] = [_asked(call, extras.get(call.id)) for call in message.tool_calls]
        if "reasoning_content" in carried:
            row["reasoning_content"] = carried["reasoning_content"]
    elif message.name:
        row["name"] = re.sub(r"[^a-zA-Z0-9_-]", "_", message.name)
    return row


def _part(part: object) -> dict[str, Any]:
    if isinstance(part, ImagePart):
        return {"type": "image_url", "image_url": {"url": part.source}}
    if isinstance(part, DocumentPart):
        return {"type": "file", "file": {"filename": part.path.name, "file_data": part.source}}
    return {"type": "text", "text": getattr(part, "text", "")}


def _asked(call: ToolCall, extra: object) -> dict[str, Any]:
    """A tool call of an earlier turn, as the model made it."""
    arguments = call.input
    if not isinstance(arguments, str):
        arguments = msgspec.json.encode(arguments).decode()
    row: dict[str, Any] = {
        "id": call.id,
        "type": "function",
        "function": {"name": call.tool, "arguments": arguments},
    }
    if extra is not None:
        row["extra_content"] = extra
    return row


def chat_tool(tool: Tool) -> dict[str, Any]:
    """A tool as the API takes it."""
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.description,
            "parameters": dict(tool.parameters),
        },
    }


def _call(call: Call) -> ToolCall:
    function = call.function or Function()
    arguments = function.arguments
    parsed = arguments if isinstance(arguments, dict) else parsed_arguments(arguments or "")
    return ToolCall(function.name or "", parsed, id=call.id)


def _carry(said: Said) -> dict[str, Any] | None:
    """What some servers want back with tool calls: Gemini its signatures, DeepSeek its thoughts."""
    extras = {call.id: call.extra_content for call in said.tool_calls or () if call.extra_content}
    carry: dict[str, Any] = {"extra_content": extras} if extras else {}
    if said.reasoning_content:
        carry["reasoning_content"] = said.reasoning_content
    return carry or None


def _text(content: str | list[Any] | None) -> str:
    """Content as text; some servers answer with parts, thoughts among them."""
    if content is None or isinstance(content, str):
        return content or ""
    texts = [part.get("text") for part in content if isinstance(part, Mapping)]
    return "".join(text for text in texts if isinstance(text, str))


def _token_usage(usage: Usage | None) -> TokenUsage | None:
    if usage is None or (usage.prompt_tokens is None and usage.completion_tokens is None):
        return None
    cached = usage.prompt_cache_hit_tokens
    if usage.prompt_tokens_details is not None:
        cached = usage.prompt_tokens_details.cached_tokens
    reasoning = None
    if usage.completion_tokens_details is not None:
        reasoning = usage.completion_tokens_details.reasoning_tokens
    return TokenUsage(
        usage.prompt_tokens or 0, usage.completion_tokens or 0, cached=cached, reasoning=reasoning
    )


def _reported_cost(usage: Usage | None) -> float | None:
    cost = usage.cost if usage is not None else None
    if isinstance(cost, Mapping):  # Perplexity's
        cost = cost.get("total_cost")
    return float(cost) if isinstance(cost, int | float) and not isinstance(cost, bool) else None


def response_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The field that binds an answer to a schema."""
    return {
        "type": "json_schema",
        "json_schema": {
            "name": schema_name(schema),
            "schema": dict(schema),
            "strict": is_strict_schema(schema),
        },
    }
