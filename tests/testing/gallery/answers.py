"""Wrong in what they say of the answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import msgspec

from gallery.base import Wrong
from muster.pricing import cost_of
from muster.provider import ProviderRequest, ProviderResponse, TokenUsage
from muster.providers.chat import ChatReply, ChatTurn
from muster.providers.openai import OpenAIProvider
from muster.providers.openai_chat import ChatCompletions, _Stream
from muster.providers.openai_types import Choice
from muster.providers.sse import SseEvent
from muster.testing.environment import Environment


def changed(response: ProviderResponse, **fields: Any) -> ProviderResponse:
    known = {
        name: getattr(response, name)
        for name in ("token_usage", "cost_usd", "raw", "finish_reason", "model")
    }
    return ProviderResponse(response.output, **{**known, **fields})


class SkipsLineBreaks(Wrong):
    breaks = "chunks-join"

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        on_chunk = request.on_chunk
        if on_chunk is None:
            return await self.right.invoke(request)
        listen = on_chunk
        return await self.right.invoke(
            replace(request, on_chunk=lambda text: listen(text) if text != "\n" else None)
        )


class CountsCachedTokensApart(Wrong):
    breaks = "usage-monotonic"

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        response = await self.right.invoke(request)
        usage = response.token_usage
        if usage is None or usage.cached is None:
            return response
        apart = TokenUsage(usage.input - usage.cached, usage.output, cached=usage.cached)
        return changed(response, token_usage=apart)


class _SummingStream(_Stream):
    def take(self, event: SseEvent) -> bool:
        before = self.last.usage
        ended = super().take(event)
        usage = self.last.usage
        if before is not None and usage is not None and usage is not before:
            usage.prompt_tokens = (usage.prompt_tokens or 0) + (before.prompt_tokens or 0)
            usage.completion_tokens = (usage.completion_tokens or 0) + (
                before.completion_tokens or 0
            )
        return ended


class _ForgetfulStream(_Stream):
    def take_choice(self, choice: Choice) -> None:
        if choice.finish_reason is not None and choice.delta is not None:
            choice.delta.content = None
        super().take_choice(choice)


class _WithStream(ChatCompletions):
    stream: ClassVar[type[_Stream]]

    async def complete(self, turn: ChatTurn) -> ChatReply:
        if turn.on_chunk is None:
            return await super().complete(turn)
        stream = self.stream(self, turn.on_chunk)
        await self.api.stream(msgspec.json.encode(self.body(turn)), stream.take)
        return stream.reply()


class _WrongStream(Wrong):
    stream: ClassVar[type[_Stream]]

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        model = self.right.model
        assert isinstance(model, OpenAIProvider)
        kind = type("_Wire", (_WithStream,), {"stream": self.stream})
        model._wire = kind(model._connect().api, model.endpoint)


class AddsUpGrowingCounts(_WrongStream):
    breaks = "usage-monotonic"
    stream = _SummingStream


class SkipsTextBesideTheFinishReason(_WrongStream):
    breaks = "chunks-join"
    stream = _ForgetfulStream


class CountsForItsWholeLife(Wrong):
    breaks = "usage-monotonic"
    hides = 1  # concurrent calls
    total = TokenUsage()

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        response = await self.right.invoke(request)
        if response.token_usage is None:
            return response
        self.total += response.token_usage
        return changed(response, token_usage=self.total)


class CountsTheLastTurnOnly(Wrong):
    breaks = "usage-sums-over-turns"

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        response = await self.right.invoke(request)
        return changed(response, token_usage=response.output[-1].token_usage)


class InventsAZero(Wrong):
    breaks = "usage-absent-when-unknown"

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        response = await self.right.invoke(request)
        return changed(response, token_usage=response.token_usage or TokenUsage(0, 0))


class ChargesCachedTokensInFull(Wrong):
    breaks = "cost-agrees"

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        response = await self.right.invoke(request)
        usage = response.token_usage
        if usage is None or response.cost_usd is None:
            return response
        in_full = TokenUsage(usage.input, usage.output)
        cost = cost_of(response.model or "", in_full, provider="openai")
        return changed(response, cost_usd=cost)
