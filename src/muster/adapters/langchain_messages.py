"""Messages, counts and callbacks of LangChain's. Only imported with LangChain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.outputs import LLMResult

from muster.adapters.failures import missing
from muster.pricing import cost_of
from muster.provider import Message, TokenUsage, ToolCall
from muster.providers.chat import ChatReply
from muster.providers.openai_chat import chat_message

__all__ = ("Listener", "from_messages", "reply", "to_messages")

_FINISH = ("finish_reason", "stop_reason", "done_reason", "status")
"""What services call it, as LangChain passes it on."""


def to_messages(
    messages: Sequence[Message], system: str | None, carried: Mapping[int, object]
) -> list[BaseMessage]:
    """A conversation as LangChain keeps it; `carried` are answers of its own, by index."""
    found: list[BaseMessage] = [SystemMessage(system)] if system else []
    for index, message in enumerate(messages):
        own = carried.get(index)
        found.append(own if isinstance(own, AIMessage) else _to_message(message))
    return found


def from_messages(messages: Sequence[BaseMessage]) -> tuple[Message, ...]:
    """LangChain's messages as ours."""
    return tuple(_from_message(message) for message in messages)


def reply(answer: BaseMessage, who: str) -> ChatReply:
    """What a chat model has answered, whole or put together from a stream."""
    if not isinstance(answer, AIMessage):
        raise missing(who, "message of the model's")
    said = answer.response_metadata
    usage, model = _usage(answer), said.get("model_name") or said.get("model")
    return ChatReply(
        message=_from_message(answer),
        token_usage=usage,
        finish_reason=_finish(said),
        cost_usd=_cost(model, usage, said),
        model=model,
        raw={"id": answer.id, "model": model},
        carry=answer,
    )


class Listener(AsyncCallbackHandler):
    """Hears what the models of a chain have used, and whether they came to an end."""

    def __init__(self) -> None:
        self.usages: list[TokenUsage | None] = []
        self.unfinished = False
        self.characters = 0
        self.finish_reason: str | None = None
        self.model: str | None = None
        self._costs: list[float | None] = []
        self._streamed: set[UUID] = set()

    async def on_llm_new_token(self, token: str, *, run_id: UUID, **_: Any) -> None:
        """A piece of a stream."""
        self._streamed.add(run_id)
        self.characters += len(token)

    async def on_llm_end(self, response: LLMResult, *, run_id: UUID, **_: Any) -> None:
        """A model has answered."""
        for generation in (one for many in response.generations for one in many[:1]):
            message = getattr(generation, "message", None)
            if not isinstance(message, AIMessage):
                continue
            said = message.response_metadata
            usage = _usage(message)
            self.model = said.get("model_name") or said.get("model") or self.model
            self.finish_reason = _finish(said)
            self.usages.append(usage)
            self._costs.append(_cost(self.model, usage, said))
            if run_id in self._streamed and self.finish_reason is None:
                self.unfinished = True

    def cost(self) -> float | None:
        """Of all models; `None` as soon as one is not known."""
        known = [cost for cost in self._costs if cost is not None]
        return sum(known) if known and len(known) == len(self._costs) else None


def _to_message(message: Message) -> BaseMessage:
    content: Any = chat_message(message)["content"] or ""
    match message.role:
        case "system":
            return SystemMessage(content)
        case "tool":
            return ToolMessage(content, tool_call_id=message.tool_call_id or "", name=message.name)
        case "assistant":
            calls = [
                {
                    "name": call.tool,
                    "args": dict(call.input) if isinstance(call.input, Mapping) else {},
                    "id": call.id,
                    "type": "tool_call",
                }
                for call in message.tool_calls
            ]
            return AIMessage(content, tool_calls=calls)
    return HumanMessage(content)


def _from_message(message: BaseMessage) -> Message:
    if isinstance(message, AIMessage):
        calls = [ToolCall(c["name"], c["args"], id=c["id"]) for c in message.tool_calls]
        calls += [
            ToolCall(call["name"] or "", call["args"] or "", id=call["id"])
            for call in message.invalid_tool_calls
        ]
        return Message(
            "assistant",
            str(message.text),
            tool_calls=tuple(calls),
            token_usage=_usage(message),
        )
    if isinstance(message, ToolMessage):
        call_id = message.tool_call_id
        return Message("tool", str(message.text), name=message.name, tool_call_id=call_id)
    role = "system" if isinstance(message, SystemMessage) else "user"
    return Message(role, str(message.text))


def _usage(message: AIMessage) -> TokenUsage | None:
    usage = message.usage_metadata
    if usage is None:
        return None
    given, made = usage.get("input_token_details", {}), usage.get("output_token_details", {})
    return TokenUsage(
        usage["input_tokens"],
        usage["output_tokens"],
        cached=given.get("cache_read"),
        reasoning=made.get("reasoning"),
    )


def _finish(said: Mapping[str, Any]) -> str | None:
    return next((str(said[name]) for name in _FINISH if said.get(name)), None)


def _cost(model: str | None, usage: TokenUsage | None, said: Mapping[str, Any]) -> float | None:
    if model is None:
        return None
    return cost_of(model, usage, provider=said.get("model_provider"))
