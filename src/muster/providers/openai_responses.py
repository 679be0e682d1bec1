"""OpenAI's Responses API: bodies out, answers and streams in.

https://platform.openai.com/docs/api-reference/responses

The items of an answer go back verbatim in the next turn of a tool loop, reasoning included.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from muster.pricing import cost_of
from muster.provider import ImagePart, Message, OnChunk, TokenUsage, Tool, ToolCall
from muster.providers.attachments import DocumentPart
from muster.providers.chat import ChatReply, ChatTurn
from muster.providers.conversation import parts_of
from muster.providers.openai_settings import OpenAIEndpoint
from muster.providers.sse import SseEvent
from muster.providers.structured import is_strict_schema, schema_name
from muster.providers.wire import JsonApi, parsed_arguments

__all__ = ("Responses",)


class _Details(msgspec.Struct, gc=False):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None


class _Incomplete(msgspec.Struct):
    reason: str | None = None


class _Answer(msgspec.Struct):
    output: list[dict[str, Any]] | None = None
    status: str | None = None
    incomplete_details: _Incomplete | None = None
    usage: _Usage | None = None
    model: str | None = None
    id: str | None = None
    error: Any = None


class _Event(msgspec.Struct):
    type: str = ""
    delta: Any = None
    item: dict[str, Any] | None = None
    response: _Answer | None = None
    error: Any = None
    code: Any = None
    message: str | None = None


_ANSWER = msgspec.json.Decoder(_Answer)
_EVENT = msgspec.json.Decoder(_Event)

CUT_SHORT: Mapping[str | None, str] = {
    "max_output_tokens": "length",
    "max_tokens": "length",
    "content_filter": "content_filter",
}


class Responses:
    """One endpoint's Responses API."""

    path = "responses"

    def __init__(self, api: JsonApi, endpoint: OpenAIEndpoint) -> None:
        self.api = api
        self.endpoint = endpoint
        self._fixed = endpoint.sampling()
        effort = endpoint.settings.reasoning_effort
        if effort is not None:
            self._fixed["reasoning"] = {"effort": effort}

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
        body = dict(self._fixed)
        if turn.system_prompt:
            body["instructions"] = turn.system_prompt
        items: list[Any] = []
        for index, message in enumerate(turn.messages):
            carried = turn.carried.get(index)
            items += carried if isinstance(carried, list) else _items(message)
        body["input"] = items
        if turn.tools:
            body["tools"] = [_tool(tool) for tool in turn.tools]
        bound = self.endpoint.settings.bounded(turn.max_output_tokens)
        if bound is not None:
            body["max_output_tokens"] = bound
        if turn.response_schema is not None:
            body["text"] = {
                "format": {
                    "type": "json_schema",
                    "name": schema_name(turn.response_schema),
                    "schema": dict(turn.response_schema),
                    "strict": is_strict_schema(turn.response_schema),
                }
            }
        if turn.on_chunk is not None:
            body["stream"] = True
        return body | self.endpoint.settings.extra_body

    def whole(self, data: bytes) -> ChatReply:
        """The answer that came in one piece."""
        answer = self.api.decode(_ANSWER, data)
        return self.reply(answer, msgspec.json.decode(data))

    def reply(self, answer: _Answer, raw: object) -> ChatReply:
        """A finished answer as a `ChatReply`.

        Raises:
            ProviderError: the answer says that it failed, or it is not finished.
        """
        if answer.error is not None:
            raise self.api.broke_off(answer.error)
        if answer.status not in ("completed", "incomplete", None):
            raise self.api.bad(f'the answer is not finished: its status is "{answer.status}"')
        if answer.output is None:
            raise self.api.bad("the answer has no output")
        text, refused, calls = self._read_items(answer.output)
        finish = "tool_calls" if calls else "stop"
        if answer.status == "incomplete":
            reason = answer.incomplete_details.reason if answer.incomplete_details else None
            finish = CUT_SHORT.get(reason, reason or "incomplete")
        elif refused:
            finish = "content_filter"
        elif not answer.output:
            raise self.api.bad("the answer is empty")
        usage = _token_usage(answer.usage)
        model = answer.model or self.endpoint.model
        seller = self.endpoint.preset.price_as
        return ChatReply(
            message=Message("assistant", text, tool_calls=tuple(calls)),
            token_usage=usage,
            finish_reason=finish,
            cost_usd=cost_of(model, usage, provider=seller) if seller is not None else None,
            model=model,
            raw=raw,
            carry=answer.output if calls else None,
        )

    def _read_items(self, items: list[dict[str, Any]]) -> tuple[str, bool, list[ToolCall]]:
        """The text of an answer's items, whether it is a refusal, and the tool calls."""
        texts: list[str] = []
        refusals: list[str] = []
        calls: list[ToolCall] = []
        for item in items:
            if item.get("type") == "message":
                for part in item.get("content") or ():
                    if part.get("type") == "output_text":
                        texts.append(part.get("text") or "")
                    elif part.get("type") == "refusal":
                        refusals.append(part.get("refusal") or "")
            elif item.get("type") == "function_call":
                if not isinstance(item.get("name"), str) or not item.get("call_id"):
                    raise self.api.bad("the answer has a function call without name or call_id")
                arguments = parsed_arguments(item.get("arguments") or "")
                calls.append(ToolCall(item["name"], arguments, id=item["call_id"]))
        return "".join(texts) or "".join(refusals), bool(refusals), calls


class _Stream:
    """Waits for the event that holds the whole answer, and passes on the text on its way."""

    def __init__(self, wire: Responses, on_chunk: OnChunk) -> None:
        self.wire = wire
        self.on_chunk = on_chunk
        self.characters = 0
        self.items: list[dict[str, Any]] = []
        self.answer: _Answer | None = None

    def take(self, event: SseEvent) -> bool:
        """Use one event; True when it says that the answer is finished."""
        if event.data == b"[DONE]":
            return True
        try:
            news = _EVENT.decode(event.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            news = self.wire.api.decode(_EVENT, event.data, what="stream")
        match news.type:
            case "response.output_text.delta":
                if isinstance(news.delta, str) and news.delta:
                    self.characters += len(news.delta)
                    self.on_chunk(news.delta)
            case "response.output_item.done":
                if news.item is not None:
                    self.items.append(news.item)
            case "response.completed" | "response.incomplete" | "response.failed":
                self.answer = news.response
                return True
            case "error":
                said = {"code": news.code, "message": news.message}
                raise self.wire.api.broke_off(news.error or said)
            case "" if news.error is not None:
                raise self.wire.api.broke_off(news.error)
        return False

    def reply(self) -> ChatReply:
        """The whole answer.

        Raises:
            BadProviderOutput: the stream ended before the answer did.
        """
        if self.answer is None:
            raise self.wire.api.bad(
                "the stream ended without its last event, so the answer is not whole "
                f"(it broke off after {self.characters:,} characters)"
            )
        if not self.answer.output:
            self.answer.output = self.items  # some gateways leave them out of the last event
        answer = self.answer
        raw = {"id": answer.id, "model": answer.model, "status": answer.status}
        return self.wire.reply(answer, raw)


def _items(message: Message) -> list[dict[str, Any]]:
    """A message as input items: tool calls and their results are items of their own."""
    if message.role == "tool":
        output = message.text
        row = {"type": "function_call_output", "call_id": message.tool_call_id, "output": output}
        return [row]
    kind = "output_text" if message.role == "assistant" else "input_text"
    content: Any = message.content
    if not isinstance(content, str):
        content = [_part(part, kind) for part in parts_of(message)]
    items = [{"role": message.role, "content": content}] if content else []
    for call in message.tool_calls:
        arguments = call.input
        if not isinstance(arguments, str):
            arguments = msgspec.json.encode(arguments).decode()
        items.append(
            {
                "type": "function_call",
                "call_id": call.id,
                "name": call.tool,
                "arguments": arguments,
            }
        )
    return items


def _part(part: object, kind: str) -> dict[str, Any]:
    if isinstance(part, ImagePart):
        return {"type": "input_image", "image_url": part.source, "detail": "auto"}
    if isinstance(part, DocumentPart):
        return {"type": "input_file", "filename": part.path.name, "file_data": part.source}
    return {"type": kind, "text": getattr(part, "text", "")}


def _tool(tool: Tool) -> dict[str, Any]:
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": dict(tool.parameters),
        "strict": False,
    }


def _token_usage(usage: _Usage | None) -> TokenUsage | None:
    if usage is None or (usage.input_tokens is None and usage.output_tokens is None):
        return None
    details, thought = usage.input_tokens_details, usage.output_tokens_details
    return TokenUsage(
        usage.input_tokens or 0,
        usage.output_tokens or 0,
        cached=details.cached_tokens if details is not None else None,
        reasoning=thought.reasoning_tokens if thought is not None else None,
    )
