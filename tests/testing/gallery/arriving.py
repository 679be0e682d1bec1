"""Wrong in what they pass on."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from gallery.base import Wrong
from muster.provider import ProviderRequest, ProviderResponse, TokenUsage


class ForgetsTheSystemPrompt(Wrong):
    breaks = "system-prompt-arrives"

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        return await self.right.invoke(replace(request, system_prompt=None))


class AsksTheFirstLine(Wrong):
    breaks = "question-arrives"

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        return await self.right.invoke(replace(request, question=request.question.split("\n")[0]))


class ForgetsTheConversation(Wrong):
    breaks = "history-arrives"

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        return await self.right.invoke(replace(request, messages=request.messages[-1:]))


class LooksAtNoFile(Wrong):
    breaks = "files-arrive"

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        return await self.right.invoke(replace(request, input_files=()))


class SpeaksAsciiOnly(Wrong):
    breaks = "unicode-prompt"

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        question = request.question.encode("ascii", "ignore").decode()
        return await self.right.invoke(replace(request, question=question))


class NeedsAFirstLetter(Wrong):
    breaks = "empty-prompt"

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        question = request.question[0].upper() + request.question[1:]
        asked = question if request.question[0] == "\0" else request.question
        return await self.right.invoke(replace(request, question=asked))


class CutsLongPrompts(Wrong):
    breaks = "large-prompt"

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        return await self.right.invoke(replace(request, question=request.question[:500_000]))


class KeepsTheRequestInItself(Wrong):
    breaks = "concurrent-calls"

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        self.request = request
        await asyncio.sleep(0)
        return await self.right.invoke(self.request)


class KeepsTheUsageInItself(Wrong):
    breaks = "concurrent-calls"
    usage: TokenUsage | None = None

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        self.usage = None
        response = await self.right.invoke(request)
        if response.token_usage is not None:
            self.usage = response.token_usage + self.usage
        return replace(response, token_usage=self.usage)
