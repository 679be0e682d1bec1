"""Clients of a model's API, all with the same three calls: an answer, a stream, a tool round trip.

Each is imported in the process that measures it only (`client_worker.py`), and some of these in an
environment without Muster. Every client is one object, kept for all calls, as its manual has it;
what would call home in the background is switched off. `WIRES` says who takes part.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Protocol

__all__ = ("QUESTION", "SCHEMA", "SUNNY", "WIRES", "Client", "Seen", "client")

QUESTION = "hello"
SUNNY = "sunny"
"""What the tool answers with."""
DESCRIPTION = "The weather of a city."
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
MAX_TOKENS = 1024

Seen = Callable[[], None]
"""Called by a client when the first text of a stream has reached it."""


class Client(Protocol):
    """A contender. All answers are texts."""

    async def plain(self) -> str:
        """One question, one answer."""
        ...

    async def stream(self, seen: Seen) -> tuple[str, str | None]:
        """The text of a stream, and the finish reason that the client tells, if it does."""
        ...

    async def tool(self) -> str:
        """The answer after one call of the tool."""
        ...


WIRES: dict[str, dict[str, str]] = {
    "openai": {
        "aiohttp": "peers.bare_clients:BareOpenAI",
        "muster": "peers.muster_clients:MusterOpenAI",
        "openai SDK": "peers.openai_clients:OpenAISdk",
        "openai SDK, aiohttp": "peers.openai_clients:OpenAISdkOnAiohttp",
        "LiteLLM": "peers.library_clients:LiteLLMOpenAI",
        "any-llm": "peers.library_clients:AnyLLMOpenAI",
        "PydanticAI": "peers.library_clients:PydanticOpenAI",
        "openai-agents": "peers.openai_clients:OpenAIAgents",
        "LangChain": "peers.library_clients:LangChainOpenAI",
    },
    "anthropic": {
        "aiohttp": "peers.bare_clients:BareAnthropic",
        "muster": "peers.muster_clients:MusterAnthropic",
        "anthropic SDK": "peers.anthropic_clients:AnthropicSdk",
        "LiteLLM": "peers.library_clients:LiteLLMAnthropic",
        "any-llm": "peers.library_clients:AnyLLMAnthropic",
        "PydanticAI": "peers.library_clients:PydanticAnthropic",
        "LangChain": "peers.library_clients:LangChainAnthropic",
    },
}


@functools.cache
def client(wire: str, name: str, url: str) -> Client:
    """The contender for a server at `url`, which is without `/v1`; the same one each time."""
    module, _, kind = WIRES[wire][name].partition(":")
    made: Client = getattr(importlib.import_module(module), kind)(url)
    return made
