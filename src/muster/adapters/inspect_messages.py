"""Messages, tools and counts, from Muster to Inspect and back. Only imported with Inspect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageTool,
    ChatMessageUser,
    ContentImage,
    ContentText,
    ModelOutput,
    ModelUsage,
)
from inspect_ai.tool import ToolCall as TheirCall
from inspect_ai.tool import ToolInfo, ToolParams

from muster.provider import (
    BadRequest,
    ImagePart,
    Message,
    Part,
    ProviderResponse,
    TextPart,
    TokenUsage,
    Tool,
    ToolCall,
)
from muster.providers.conversation import parts_of

__all__ = (
    "from_calls",
    "from_messages",
    "from_tool",
    "from_usage",
    "to_messages",
    "to_output",
    "to_tool",
)

STOP_REASONS: Mapping[str, str] = {"length": "max_tokens"}
FINISH_REASONS: Mapping[str, str] = {"max_tokens": "length", "model_length": "length"}


def to_messages(messages: Sequence[Message], system: str | None) -> list[ChatMessage]:
    """A conversation as Inspect keeps it."""
    found: list[ChatMessage] = [ChatMessageSystem(content=system)] if system else []
    return [*found, *map(_to_message, messages)]


def from_messages(messages: Sequence[ChatMessage]) -> tuple[str | None, list[Message]]:
    """The system prompt and the conversation, of Inspect's."""
    systems = [message.text for message in messages if message.role == "system"]
    rest = [_from_message(message) for message in messages if message.role != "system"]
    return "\n\n".join(systems) or None, rest


def to_tool(tool: Tool) -> ToolInfo:
    """A tool that the model is offered."""
    schema = {"properties": {}, **tool.parameters}
    known = {name: schema[name] for name in ("type", "properties", "required") if name in schema}
    parameters = ToolParams.model_validate(known)
    return ToolInfo(name=tool.name, description=tool.description, parameters=parameters)


def from_tool(tool: ToolInfo) -> Tool:
    """A tool of Inspect's."""
    schema = tool.parameters.model_dump(exclude_none=True, by_alias=True)
    return Tool(tool.name, tool.description, schema)


def from_calls(calls: Sequence[TheirCall] | None) -> tuple[ToolCall, ...]:
    """The calls that a model makes; arguments that were no JSON stay as they were."""
    return tuple(
        ToolCall(
            call.function,
            dict(call.arguments) if call.parse_error is None else str(call.arguments),
            id=call.id,
        )
        for call in calls or ()
    )


def from_usage(usage: ModelUsage | None) -> TokenUsage | None:
    """The counts; Inspect keeps what was cached apart from the input."""
    if usage is None or not (usage.input_tokens or usage.output_tokens or usage.total_tokens):
        return None
    read, written = usage.input_tokens_cache_read, usage.input_tokens_cache_write
    return TokenUsage(
        usage.input_tokens + (read or 0) + (written or 0),
        usage.output_tokens,
        cached=read,
        reasoning=usage.reasoning_tokens,
    )


def to_output(response: ProviderResponse, name: str) -> ModelOutput:
    """A response as Inspect has it."""
    last = response.output[-1] if response.output else None
    # Only calls that nobody has made are Inspect's to make.
    calls = [_to_call(call) for call in last.tool_calls] if last is not None else []
    finish = response.finish_reason or "unknown"
    stop: Any = STOP_REASONS.get(finish, finish)
    if stop not in ("stop", "max_tokens", "tool_calls", "content_filter"):
        stop = "unknown"
    model = response.model or name
    message = ChatMessageAssistant(
        content=response.text, tool_calls=calls or None, source="generate", model=model
    )
    usage = response.token_usage
    counts = None
    if usage is not None:
        counts = ModelUsage(
            input_tokens=usage.input - (usage.cached or 0),
            output_tokens=usage.output,
            total_tokens=usage.total,
            input_tokens_cache_read=usage.cached,
            reasoning_tokens=usage.reasoning,
            total_cost=response.cost_usd,
        )
    choice = ChatCompletionChoice(message=message, stop_reason=stop)
    return ModelOutput(model=model, choices=[choice], usage=counts)


def _to_message(message: Message) -> ChatMessage:
    content: Any = message.content
    if not isinstance(content, str):
        content = [_to_content(part) for part in parts_of(message)]
    match message.role:
        case "system":
            return ChatMessageSystem(content=message.text)
        case "assistant":
            calls = [_to_call(call) for call in message.tool_calls]
            return ChatMessageAssistant(content=content, tool_calls=calls or None)
        case "tool":
            return ChatMessageTool(
                content=content, tool_call_id=message.tool_call_id, function=message.name
            )
    return ChatMessageUser(content=content)


def _to_content(part: object) -> ContentText | ContentImage:
    if isinstance(part, ImagePart):
        return ContentImage(image=part.source)
    return ContentText(text=getattr(part, "text", ""))


def _to_call(call: ToolCall) -> TheirCall:
    given = dict(call.input) if isinstance(call.input, Mapping) else {}
    return TheirCall(id=call.id or call.tool, function=call.tool, arguments=given)


def _from_message(message: ChatMessage) -> Message:
    if isinstance(message, ChatMessageAssistant):
        return Message("assistant", message.text, tool_calls=from_calls(message.tool_calls))
    if isinstance(message, ChatMessageTool):
        text = message.text
        if message.error is not None:
            text = f"error: {message.error.message}"
        name, call_id = message.function, message.tool_call_id
        return Message("tool", text, name=name, tool_call_id=call_id)
    if isinstance(message.content, str):
        return Message("user", message.content)
    return Message("user", tuple(_from_content(part) for part in message.content))


def _from_content(part: Any) -> Part:
    if isinstance(part, ContentText):
        return TextPart(part.text)
    if isinstance(part, ContentImage):
        return ImagePart(part.image)
    raise BadRequest(f"content of the type {part.type} cannot be passed on")
