"""Messages and counts, from Muster to PydanticAI and back. Only imported with PydanticAI."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic_ai import messages as theirs
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.usage import RequestUsage

from muster.pricing import cost_of
from muster.provider import ImagePart, Message, TextPart, TokenUsage, Tool, ToolCall
from muster.providers.conversation import parts_of

__all__ = (
    "content",
    "cost",
    "from_response",
    "is_whole",
    "to_definition",
    "to_history",
    "tokens",
    "tool_result",
)


def to_history(
    messages: Sequence[Message], carried: dict[int, theirs.ModelResponse] | None = None
) -> list[theirs.ModelMessage]:
    """A conversation as PydanticAI keeps it; `carried` are answers of its own, by index."""
    history: list[theirs.ModelMessage] = []
    for index, message in enumerate(messages):
        if carried and index in carried:
            history.append(carried[index])
        elif message.role == "assistant":
            history.append(theirs.ModelResponse(parts=_said(message)))
        elif message.role == "tool":
            part = theirs.ToolReturnPart(
                tool_name=message.name or "",
                content=message.text,
                tool_call_id=message.tool_call_id or "",
            )
            history.append(theirs.ModelRequest(parts=[part]))
        elif message.role == "system":
            system = theirs.SystemPromptPart(content=message.text)
            history.append(theirs.ModelRequest(parts=[system]))
        else:
            history.append(theirs.ModelRequest(parts=[theirs.UserPromptPart(content(message))]))
    return history


def content(message: Message) -> str | list[theirs.UserContent]:
    """The content of a user's message."""
    if isinstance(message.content, str):
        return message.content
    return [_user_content(part) for part in parts_of(message)]


def from_response(response: theirs.ModelResponse) -> Message:
    """The assistant's message. Thoughts are left out."""
    calls = tuple(
        ToolCall(part.tool_name, _arguments(part.args), id=part.tool_call_id)
        for part in response.parts
        if isinstance(part, theirs.ToolCallPart)
    )
    texts = (part.content for part in response.parts if isinstance(part, theirs.TextPart))
    return Message("assistant", "".join(texts), tool_calls=calls, token_usage=tokens(response))


def tool_result(part: theirs.ToolReturnPart | theirs.RetryPromptPart) -> Message:
    """What a tool has answered, or why it was not called."""
    said = part.model_response_str() if isinstance(part, theirs.ToolReturnPart) else None
    text = said if said is not None else f"error: {part.content}"
    return Message("tool", text, name=part.tool_name, tool_call_id=part.tool_call_id)


def is_whole(response: theirs.ModelResponse) -> bool:
    """Whether a streamed answer came to its end, as the service has said.

    PydanticAI puts a `finish_reason` of its own where a stream had none; what the service said is
    among the details. Models that call no service say nothing.
    """
    if response.state != "complete":
        return False
    said = response.provider_details or {}
    return response.provider_url is None or "finish_reason" in said or "refusal" in said


def tokens(response: theirs.ModelResponse) -> TokenUsage | None:
    """The counts of one answer; `None` when the service has reported none."""
    usage: RequestUsage = response.usage
    if getattr(usage, "unmeasured_requests", 0) or not (usage.input_tokens or usage.output_tokens):
        return None
    reasoning = usage.details.get("reasoning_tokens") or getattr(
        usage, "output_reasoning_tokens", None
    )
    return TokenUsage(
        usage.input_tokens,
        usage.output_tokens,
        cached=usage.cache_read_tokens or None,
        reasoning=reasoning or None,
    )


def cost(response: theirs.ModelResponse) -> float | None:
    """USD by the price list, from who has sold it."""
    if response.model_name is None:
        return None
    written = response.usage.cache_write_tokens
    seller = response.provider_name
    return cost_of(response.model_name, tokens(response), provider=seller, cache_write=written)


def to_definition(tool: Tool) -> ToolDefinition:
    """A tool that the model is offered."""
    return ToolDefinition(
        name=tool.name,
        description=tool.description,
        parameters_json_schema=dict(tool.parameters),
    )


def _said(message: Message) -> list[theirs.ModelResponsePart]:
    parts: list[theirs.ModelResponsePart] = []
    if message.text:
        parts.append(theirs.TextPart(message.text))
    for call in message.tool_calls:
        given: Any = call.input
        parts.append(
            theirs.ToolCallPart(tool_name=call.tool, args=given, tool_call_id=call.id or "")
        )
    return parts


def _user_content(part: object) -> theirs.UserContent:
    if isinstance(part, ImagePart):
        if part.source.startswith("data:"):
            return theirs.BinaryContent.from_data_uri(part.source)
        return theirs.ImageUrl(part.source)
    assert isinstance(part, TextPart)
    return part.text


def _arguments(args: str | dict[str, Any] | None) -> object:
    if not isinstance(args, str):
        return args or {}
    try:
        return json.loads(args) if args.strip() else {}
    except ValueError:
        return args
