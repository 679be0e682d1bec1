"""This project's providers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model_server import MODEL, TOOL_NAME

from muster.provider import ProviderRequest, Tool
from muster.providers.anthropic import AnthropicProvider
from muster.providers.chat import ChatModel, ChatProvider
from muster.providers.openai import OpenAIProvider
from muster.target import ResolvedTarget
from peers.model_clients import DESCRIPTION, QUESTION, SCHEMA, SUNNY, Seen

__all__ = ("MusterAnthropic", "MusterOpenAI")

TOOL = Tool(TOOL_NAME, DESCRIPTION, SCHEMA)


async def _weather(name: str, arguments: Mapping[str, Any]) -> str:
    assert arguments["city"]
    return SUNNY


class _Muster:
    def __init__(self, model: ChatModel) -> None:
        self.provider = ChatProvider(model)

    async def plain(self) -> str:
        return (await self.provider.invoke(ProviderRequest(question=QUESTION))).text

    async def stream(self, seen: Seen) -> tuple[str, str | None]:
        texts: list[str] = []

        def take(text: str) -> None:
            if not texts:
                seen()
            texts.append(text)

        answer = await self.provider.invoke(ProviderRequest(question=QUESTION, on_chunk=take))
        return "".join(texts), answer.finish_reason

    async def tool(self) -> str:
        request = ProviderRequest(question=QUESTION, tools=(TOOL,), call_tool=_weather)
        answer = await self.provider.invoke(request)
        assert len(answer.output) == 3
        return answer.text


def _target(kind: str, base_url: str) -> ResolvedTarget:
    config = {"base_url": base_url, "model": MODEL[kind], "api_key": "sk-of-a-benchmark"}
    return ResolvedTarget(name="bench", provider=kind, config=config, env={})


class MusterOpenAI(_Muster):
    def __init__(self, url: str) -> None:
        super().__init__(OpenAIProvider(_target("openai", f"{url}/v1")))


class MusterAnthropic(_Muster):
    def __init__(self, url: str) -> None:
        super().__init__(AnthropicProvider(_target("anthropic", url)))
