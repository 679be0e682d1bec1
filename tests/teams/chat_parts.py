"""Agents with the tool loop of a real chat model, whose turns the test makes up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from team_parts import Ran, Said

from muster.provider import Message, ProviderRequest, TokenUsage, ToolCall
from muster.providers.chat import ChatProvider, ChatReply, ChatTurn

__all__ = ("calls_of", "chat", "last", "reply", "to")


class Turns:
    """A chat model made of functions from the prompt and the number of the turn to a reply."""

    def __init__(self, request: ProviderRequest, script: Callable[..., Any]) -> None:
        self.request, self.script, self.turn = request, script, 0

    async def complete(self, turn: ChatTurn) -> ChatReply:
        self.turn += 1
        said = self.script(self.request.eval_case_id, self.turn, turn)
        if asyncio.iscoroutine(said):
            said = await said
        return said if isinstance(said, ChatReply) else reply(said)


def reply(text: str = "", *calls: tuple[str, Any], tokens: int = 10, **more: Any) -> ChatReply:
    made = tuple(ToolCall(name, given, id=f"c{n}") for n, (name, given) in enumerate(calls))
    usage = TokenUsage(tokens, 0)
    message = Message("assistant", text, tool_calls=made)
    return ChatReply(message=message, token_usage=usage, **more)


def to(*roles: str, **more: Any) -> ChatReply:
    """A turn that hands a task to each of them."""
    tasks = [("delegate", {"role": role, "prompt": f"for {role}"}) for role in roles]
    return reply("", *tasks, **more)


def chat(script: Callable[..., Any]) -> Callable[[ProviderRequest], Said]:
    """Agents that have the tool loop of a real chat model."""
    return lambda request: ChatProvider(Turns(request, script)).invoke(request)


def last(turn: ChatTurn) -> str:
    return turn.messages[-1].text


def calls_of(ran: Ran) -> list[tuple[str, str, str | None]]:
    with ran.journal() as journal:
        return [(call.name, call.status, call.result) for call in journal.calls(ran.id)]
