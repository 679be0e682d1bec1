"""`provider: litellm`: the models that LiteLLM reaches, one turn at a time.

LiteLLM's retries, fallbacks and caches stay off: Muster has its own. What it makes up is taken for
what it is: the `stop` at the end of a stream that broke off, and counts of tokens that no service
has reported.
"""

from __future__ import annotations

import os
from contextlib import aclosing
from typing import Any

from muster.adapters.extras import load
from muster.adapters.failures import cut_short, missing, translated
from muster.capabilities import Capabilities
from muster.pricing import cost_of
from muster.provider import BadProviderOutput, Message, TokenUsage, ToolCall
from muster.providers.chat import ChatReply, ChatTurn
from muster.providers.endpoint import ModelSettings, model_of
from muster.providers.openai_chat import chat_message, chat_tool, response_format
from muster.providers.settings import secrets_in
from muster.providers.wire import parsed_arguments
from muster.target import ResolvedTarget

__all__ = ("LiteLLMProvider",)


class LiteLLMSettings(ModelSettings):
    """Settings of `provider: litellm`; `model` is LiteLLM's name, e.g. `anthropic/claude-…`."""


class LiteLLMProvider:
    """A chat model that is called through LiteLLM, in this process."""

    Settings = LiteLLMSettings
    capabilities = Capabilities(streaming=True, tools=True, history=True, batch=False)

    def __init__(self, target: ResolvedTarget) -> None:
        """Raises `UsageError` when no model is named, or LiteLLM is not installed."""
        # Without this, the import itself asks the network for a list of prices.
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        self._litellm = load("litellm", extra="litellm", target=target)
        self._litellm.suppress_debug_info = True
        self._litellm.telemetry = False
        self.settings = LiteLLMSettings.model_validate(dict(target.config))
        self.max_file_bytes = self.settings.max_file_bytes
        self._who = target.name
        self._model = model_of(self.settings, target, ())
        self._fixed = self._options()
        self._secrets = tuple(secrets_in(target.config))
        self.priced_as = self._seller()

    async def complete(self, turn: ChatTurn) -> ChatReply:
        """Answer one turn. Raises a `ProviderError`."""
        # An error of LiteLLM's own with no answer behind it is about an answer it could not read.
        async with translated(self._who, self._secrets, invented=BadProviderOutput):
            answer = await self._litellm.acompletion(**self._call(turn))
            if turn.on_chunk is None:
                return self._reply(answer, _usage(getattr(answer, "usage", None)))
            return await self._streamed(answer, turn)

    def _options(self) -> dict[str, Any]:
        settings = self.settings
        key = settings.api_key.get_secret_value() if settings.api_key is not None else None
        options = {
            "model": self._model,
            "api_base": settings.base_url,
            "api_key": key,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "timeout": settings.read_timeout_seconds,
            "extra_headers": {n: v.get_secret_value() for n, v in settings.headers.items()},
            "extra_body": settings.extra_body,
        }
        kept = {name: value for name, value in options.items() if value not in (None, {})}
        return {**kept, "num_retries": 0, "max_retries": 0, "caching": False}

    def _seller(self) -> tuple[str, str]:
        """The model and who sells it, as price lists have them."""
        seller, _, model = self._model.rpartition("/")
        return model, seller.partition("/")[0] or "openai"

    def _call(self, turn: ChatTurn) -> dict[str, Any]:
        system = [{"role": "system", "content": turn.system_prompt}] if turn.system_prompt else []
        call = {**self._fixed, "messages": [*system, *map(chat_message, turn.messages)]}
        if turn.tools:
            call["tools"] = [chat_tool(tool) for tool in turn.tools]
        if turn.response_schema is not None:
            call["response_format"] = response_format(turn.response_schema)
        bound = self.settings.bounded(turn.max_output_tokens)
        if bound is not None:
            call["max_tokens"] = bound
        if turn.on_chunk is not None:
            call |= {"stream": True, "stream_options": {"include_usage": True}}
        return call

    async def _streamed(self, stream: Any, turn: ChatTurn) -> ChatReply:
        said = 0
        assert turn.on_chunk is not None
        async with aclosing(stream):
            async for chunk in stream:
                text = chunk.choices[0].delta.content if chunk.choices else None
                if text:
                    said += len(text)
                    turn.on_chunk(text)
        if stream.received_finish_reason is None:
            raise cut_short(self._who, said)
        reported = [u for c in stream.chunks if (u := getattr(c, "usage", None)) is not None]
        whole = self._litellm.stream_chunk_builder(stream.chunks)
        return self._reply(whole, _usage(reported[-1]) if reported else None)

    def _reply(self, answer: Any, usage: TokenUsage | None) -> ChatReply:
        if not answer.choices:
            raise missing(self._who, "choices")
        choice = answer.choices[0]
        said = choice.message
        calls = tuple(
            ToolCall(c.function.name or "", parsed_arguments(c.function.arguments or ""), id=c.id)
            for c in said.tool_calls or ()
        )
        model, seller = self.priced_as
        model = answer.model or model
        return ChatReply(
            message=Message("assistant", said.content or "", tool_calls=calls),
            token_usage=usage,
            finish_reason=choice.finish_reason,
            cost_usd=cost_of(model.rpartition("/")[2], usage, provider=seller),
            model=model,
            raw={"id": answer.id, "model": answer.model, "finish_reason": choice.finish_reason},
        )


def _usage(usage: Any) -> TokenUsage | None:
    """The counts; zeros are what LiteLLM puts where the service has reported nothing."""
    if usage is None or not (usage.prompt_tokens or usage.completion_tokens):
        return None
    return TokenUsage(
        usage.prompt_tokens,
        usage.completion_tokens,
        cached=getattr(usage.prompt_tokens_details, "cached_tokens", None),
        reasoning=getattr(usage.completion_tokens_details, "reasoning_tokens", None),
    )
