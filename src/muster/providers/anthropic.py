"""Anthropic's Messages API: `provider: anthropic`.

https://docs.anthropic.com/en/api/messages

Only text blocks make the answer's text; thinking, redacted thinking and whatever else stands among
them goes back verbatim in the next turn of a tool loop, as the API demands.

A `response_schema` is asked for as the input of a tool that the model must call, which every model
and every gateway knows; the tool's input then is the answer's text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from pydantic import Field, model_validator

from muster.capabilities import Capabilities
from muster.pricing import cost_of
from muster.provider import Message, TextPart, TokenUsage, ToolCall
from muster.providers.anthropic_stream import AnthropicStream
from muster.providers.anthropic_types import ANSWER, Answer, Usage
from muster.providers.attachments import DocumentPart
from muster.providers.chat import ChatReply, ChatTurn
from muster.providers.conversation import ChatPart, parts_of
from muster.providers.endpoint import ModelSettings, base_url_of, key_of, model_of
from muster.providers.structured import schema_name
from muster.providers.transport import HttpClient
from muster.providers.wire import JsonApi
from muster.target import ResolvedTarget

__all__ = ("AnthropicProvider", "AnthropicSettings")

HOME = "https://api.anthropic.com"
VERSION = "2023-06-01"
DEFAULT_MAX_TOKENS = 8192
"""The API demands a bound; this one no current model refuses."""

FINISH_REASONS: Mapping[str, str] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


class AnthropicSettings(ModelSettings):
    """What a target of the Messages API can say."""

    thinking_budget: int | None = Field(None, ge=1024)
    """Tokens for extended thinking; they are part of `max_output_tokens`."""

    @model_validator(mode="after")
    def _budget_fits(self) -> AnthropicSettings:
        bound, budget = self.max_output_tokens, self.thinking_budget
        if bound is not None and budget is not None and budget >= bound:
            raise ValueError(
                f"thinking_budget ({budget}) must be below max_output_tokens ({bound}), "
                "which it is a part of"
            )
        return self


class AnthropicProvider:
    """A chat model behind the Messages API; one connection pool for all its calls."""

    Settings = AnthropicSettings
    takes_documents = True
    capabilities = Capabilities(
        streaming=True, tools=True, history=True, files=True, images=True,
        structured_output=True, embeddings=False, batch=False,
    )  # fmt: skip

    def __init__(self, target: ResolvedTarget) -> None:
        """Raises `UsageError` when no model is known."""
        settings = AnthropicSettings.model_validate(dict(target.config))
        self.target = target
        self.settings = settings
        self.max_file_bytes = settings.max_file_bytes
        self.model = model_of(settings, target, ("ANTHROPIC_MODEL", "AGENT_MODEL"))
        self.priced_as = (self.model, "anthropic")
        base = base_url_of(settings, target, ("ANTHROPIC_BASE_URL",), HOME)
        base = base.removesuffix("/messages").removesuffix("/v1")
        self.url = f"{base}/v1/messages"
        self._client = HttpClient(
            connect_timeout=settings.connect_timeout_seconds,
            read_timeout=settings.read_timeout_seconds,
        )
        self._api: JsonApi | None = None

    async def complete(self, turn: ChatTurn) -> ChatReply:
        """Answer one turn.

        Raises:
            AuthenticationFailed: there is no key, or it is refused.
            ProviderError: the call failed otherwise.
        """
        api = self._api or self._connect()
        body = msgspec.json.encode(self.body(turn))
        form = _AnswerForm.of(turn)
        if turn.on_chunk is None:
            return self._whole(api, await api.post(body), form)
        # The pieces of a form's JSON are the answer's only when nothing is wrapped around it.
        form_tool = form.name if form is not None and not form.wrapped else None
        stream = AnthropicStream(api, turn.on_chunk, form_tool=form_tool)
        unstreamed = await api.stream(body, stream.take)
        if unstreamed is None:
            reply = self._reply(api, stream.answer(), stream.raw(), form)
        else:
            reply = self._whole(api, unstreamed, form)
        if reply.message.text and not stream.passed_on:
            turn.on_chunk(reply.message.text)
        return reply

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _connect(self) -> JsonApi:
        key = key_of(
            self.settings, self.target, ("ANTHROPIC_API_KEY",), base_url=self.url, home=HOME
        )
        more = {name: value.get_secret_value() for name, value in self.settings.headers.items()}
        self._api = JsonApi(
            self._client,
            self.url,
            {"anthropic-version": VERSION, **({"x-api-key": key} if key else {}), **more},
            who=self.target.name,
            secrets=[*([key] if key else []), *more.values()],
        )
        return self._api

    def body(self, turn: ChatTurn) -> dict[str, Any]:
        """The request's JSON."""
        settings = self.settings
        system, messages = _messages(turn)
        budget = settings.thinking_budget
        bound = settings.bounded(turn.max_output_tokens)
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": bound or DEFAULT_MAX_TOKENS + (budget or 0),
            "messages": messages,
        }
        if system:
            body["system"] = system
        if settings.temperature is not None:
            body["temperature"] = settings.temperature
        if settings.top_p is not None:
            body["top_p"] = settings.top_p
        if budget is not None:
            body["thinking"] = {"type": "enabled", "budget_tokens": budget}
        tools = [
            {
                "name": tool.name,
                "description": tool.description,
                "input_schema": dict(tool.parameters),
            }
            for tool in turn.tools
        ]
        form = _AnswerForm.of(turn)
        if form is not None:
            # With thinking, the API lets nobody force a tool.
            body["tool_choice"] = (
                {"type": "auto"}
                if budget is not None
                else {"type": "any"}
                if tools
                else {"type": "tool", "name": form.name}
            )
            tools.append(form.tool)
        if tools:
            body["tools"] = tools
        if turn.on_chunk is not None:
            body["stream"] = True
        return body | settings.extra_body

    def _whole(self, api: JsonApi, data: bytes, form: _AnswerForm | None) -> ChatReply:
        return self._reply(api, api.decode(ANSWER, data), msgspec.json.decode(data), form)

    def _reply(
        self, api: JsonApi, answer: Answer, raw: object, form: _AnswerForm | None
    ) -> ChatReply:
        """A whole answer as a `ChatReply`.

        Raises:
            ProviderError: it is an error object, or has no content or no stop reason.
        """
        if answer.error is not None:
            raise api.broke_off(answer.error)
        if answer.content is None:
            raise api.bad("the answer has no content")
        if answer.stop_reason is None:
            raise api.bad("the answer has no stop reason, so it is not whole")
        text, calls = _read_blocks(api, answer.content)
        finish = FINISH_REASONS.get(answer.stop_reason, answer.stop_reason)
        filled = None
        if form is not None and finish not in ("length", "content_filter"):
            filled = next((call.input for call in calls if call.tool == form.name), None)
        if form is not None and filled is not None:
            text, calls = form.text(filled), []
            finish = "stop"
        usage = token_usage(answer.usage)
        model = answer.model or self.model
        written = answer.usage.cache_creation_input_tokens if answer.usage is not None else None
        return ChatReply(
            message=Message("assistant", text, tool_calls=tuple(calls)),
            token_usage=usage,
            finish_reason=finish,
            cost_usd=cost_of(model, usage, provider="anthropic", cache_write=written or 0),
            model=model,
            raw=raw,
            carry=_sendable(answer.content) if calls else None,
        )


class _AnswerForm:
    """The tool whose input is the answer, when an answer must satisfy a schema."""

    def __init__(self, schema: Mapping[str, Any], taken: set[str]) -> None:
        self.name = schema_name(schema)
        while self.name in taken:
            self.name += "_"
        # A tool's input is an object; any other kind of answer is put into one.
        self.wrapped = schema.get("type") != "object"
        if self.wrapped:
            schema = {"type": "object", "properties": {"value": schema}, "required": ["value"]}
        self.tool = {
            "name": self.name,
            "description": "Give the final answer, and nothing but it, by calling this.",
            "input_schema": dict(schema),
        }

    @classmethod
    def of(cls, turn: ChatTurn) -> _AnswerForm | None:
        if turn.response_schema is None:
            return None
        return cls(turn.response_schema, {tool.name for tool in turn.tools})

    def text(self, filled: object) -> str:
        """The answer's JSON."""
        if self.wrapped and isinstance(filled, Mapping) and "value" in filled:
            filled = filled["value"]
        return filled if isinstance(filled, str) else msgspec.json.encode(filled).decode()


def token_usage(usage: Usage | None) -> TokenUsage | None:
    """Inclusive counts: the API counts what was read from and written to caches apart."""
    if usage is None or (usage.input_tokens is None and usage.output_tokens is None):
        return None
    read, written = usage.cache_read_input_tokens, usage.cache_creation_input_tokens
    return TokenUsage(
        (usage.input_tokens or 0) + (read or 0) + (written or 0),
        usage.output_tokens or 0,
        cached=read,
    )


def _read_blocks(api: JsonApi, blocks: list[dict[str, Any]]) -> tuple[str, list[ToolCall]]:
    """The text of an answer's blocks and its tool calls; other blocks say nothing to a user."""
    texts: list[str] = []
    calls: list[ToolCall] = []
    for block in blocks:
        if block.get("type") == "text":
            texts.append(block.get("text") or "")
        elif block.get("type") == "tool_use":
            if not isinstance(block.get("name"), str) or not block.get("id"):
                raise api.bad("the answer has a tool call without name or id")
            calls.append(ToolCall(block["name"], block.get("input", {}), id=block["id"]))
    return "".join(texts), calls


def _sendable(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """An answer's blocks as they may be sent back: the API refuses some of what models make."""
    return [
        {**block, "input": {"arguments": block.get("input")}}
        if block.get("type") == "tool_use" and not isinstance(block.get("input"), Mapping)
        else block
        for block in blocks
        if block.get("type") != "text" or (block.get("text") or "").strip()
    ]


def _messages(turn: ChatTurn) -> tuple[str, list[dict[str, Any]]]:
    """The system prompt, with leading system messages, and the messages in the API's form."""
    systems = [turn.system_prompt] if turn.system_prompt else []
    rows: list[dict[str, Any]] = []
    failed: set[str | None] = set()
    for index, message in enumerate(turn.messages):
        if message.role == "system" and not rows:
            systems.append(message.text)
            continue
        failed.update(call.id for call in message.tool_calls if call.status not in (None, "ok"))
        carried = turn.carried.get(index)
        if message.role == "assistant":
            blocks = carried if isinstance(carried, list) else _assistant_blocks(message)
        elif message.role == "tool":
            blocks = [_tool_result(message, message.tool_call_id in failed)]
        elif message.role == "system":
            # The API has no system messages within a conversation.
            blocks = [{"type": "text", "text": f"<system>\n{message.text}\n</system>"}]
        else:
            blocks = [_block(part) for part in parts_of(message)]
        role = "assistant" if message.role == "assistant" else "user"
        if rows and rows[-1]["role"] == role:
            rows[-1]["content"] = [*rows[-1]["content"], *blocks]
        elif blocks:
            rows.append({"role": role, "content": blocks})
    return "\n\n".join(systems), rows


def _assistant_blocks(message: Message) -> list[dict[str, Any]]:
    # Trailing white space at the end of an assistant's message is refused.
    blocks = [_block(part) for part in parts_of(message)]
    blocks = [
        {**block, "text": block["text"].rstrip()} if "text" in block else block for block in blocks
    ]
    blocks = [block for block in blocks if block.get("text") != ""]
    for call in message.tool_calls:
        given = call.input if isinstance(call.input, Mapping) else {"arguments": call.input}
        blocks.append({"type": "tool_use", "id": call.id, "name": call.tool, "input": dict(given)})
    return blocks


def _tool_result(message: Message, failed: bool) -> dict[str, Any]:
    block: dict[str, Any] = {
        "type": "tool_result",
        "tool_use_id": message.tool_call_id,
        "content": message.text,
    }
    if failed:
        block["is_error"] = True
    return block


def _block(part: ChatPart) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    if isinstance(part, DocumentPart):
        return {"type": "document", "source": _base64(part.source), "title": part.path.name}
    source: dict[str, Any] = {"type": "url", "url": part.source}
    if part.source.startswith("data:"):
        source = _base64(part.source)
    return {"type": "image", "source": source}


def _base64(uri: str) -> dict[str, Any]:
    kind, _, data = uri.removeprefix("data:").partition(",")
    return {"type": "base64", "media_type": kind.partition(";")[0], "data": data}
