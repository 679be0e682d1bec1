"""`provider: inspect`: the models that Inspect reaches, one turn at a time.

Inspect's own retries, which have no end by default, are off, and so is its cache.
"""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic import Field

from muster.adapters.extras import load
from muster.adapters.failures import cut_short, missing, translated
from muster.capabilities import Capabilities
from muster.errors import UsageError
from muster.pricing import cost_of
from muster.provider import BadProviderOutput, Message
from muster.providers.chat import ChatReply, ChatTurn
from muster.providers.endpoint import ModelSettings, model_of
from muster.providers.settings import secrets_in
from muster.target import ResolvedTarget

__all__ = ("InspectProvider",)


class InspectSettings(ModelSettings):
    """Settings of `provider: inspect`; `model` is Inspect's name, e.g. `openai/gpt-4o`."""

    model_args: dict[str, Any] = Field(default_factory=dict)
    """What the model's own class takes, as `-M` on Inspect's command line."""


class InspectProvider:
    """A chat model that is called through Inspect."""

    Settings = InspectSettings
    capabilities = Capabilities(streaming=False, tools=True, history=True, batch=False)

    def __init__(self, target: ResolvedTarget) -> None:
        """Raises `UsageError` when Inspect, or what it needs for the model, is not installed."""
        load("inspect_ai.model", extra="inspect", target=target)
        self.settings = InspectSettings.model_validate(dict(target.config))
        self.max_file_bytes = self.settings.max_file_bytes
        self._who = target.name
        self._name = model_of(self.settings, target, ())
        self._secrets = tuple(secrets_in(target.config))
        seller, _, model = self._name.partition("/")
        self.priced_as = (model, seller)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._model = self._made()

    async def complete(self, turn: ChatTurn) -> ChatReply:
        """Answer one turn. Raises a `ProviderError`."""
        from muster.adapters.inspect_messages import (
            FINISH_REASONS,
            from_calls,
            from_usage,
            to_messages,
            to_tool,
        )

        async with translated(self._who, self._secrets, invented=BadProviderOutput):
            # The model's own class is asked: what Inspect puts around it is for its own runs.
            output = await self._of_this_loop().api.generate(
                to_messages(turn.messages, turn.system_prompt),
                [to_tool(tool) for tool in turn.tools],
                "auto",
                self._config(turn),
            )
            if isinstance(output, tuple):
                output = output[0]
            if isinstance(output, Exception):
                raise output
        if output.error:
            raise BadProviderOutput(f"{self._who}: {output.error}")
        if output.empty:
            raise missing(self._who, "choices")
        message, stop = output.message, output.stop_reason
        if stop == "unknown" and not message.text and not message.tool_calls:
            raise cut_short(self._who, 0)
        usage = from_usage(output.usage)
        if turn.on_chunk is not None and message.text:
            turn.on_chunk(message.text)
        model = output.model or self.priced_as[0]
        return ChatReply(
            message=Message("assistant", message.text, tool_calls=from_calls(message.tool_calls)),
            token_usage=usage,
            finish_reason=FINISH_REASONS.get(stop, stop),
            cost_usd=cost_of(model, usage, provider=self.priced_as[1]),
            model=model,
            raw={"model": model, "stop_reason": stop},
        )

    async def aclose(self) -> None:
        """Close the connections."""
        if self._loop is not None:
            self._loop = None
            model, self._model = self._model, None
            await model.api.aclose()

    def _of_this_loop(self) -> Any:
        """The model; a new one in another event loop, since connections belong to theirs."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None or self._model is None:
                self._model = self._made()
            self._loop = loop
        return self._model

    def _made(self) -> Any:
        from inspect_ai.model import get_model

        settings = self.settings
        key = settings.api_key.get_secret_value() if settings.api_key is not None else None
        try:
            model = get_model(
                self._name,
                base_url=settings.base_url,
                api_key=key,
                memoize=False,
                **settings.model_args,
            )
        except Exception as error:  # unknown models, packages that are not there, missing keys
            raise UsageError(f'target "{self._who}": {error}') from None
        client = getattr(model.api, "client", None)
        if client is not None and hasattr(client, "max_retries"):
            client.max_retries = 0  # the vendors' own, beneath Inspect's
        return model

    def _config(self, turn: ChatTurn) -> Any:
        from inspect_ai.model import GenerateConfig, ResponseSchema

        settings = self.settings
        config = GenerateConfig(
            max_retries=0,
            timeout=None,
            max_tokens=settings.bounded(turn.max_output_tokens),
            temperature=settings.temperature,
            top_p=settings.top_p,
            extra_headers={n: v.get_secret_value() for n, v in settings.headers.items()} or None,
            extra_body=settings.extra_body or None,
        )
        if turn.response_schema is not None:
            schema: Any = dict(turn.response_schema)
            config.response_schema = ResponseSchema(name="answer", json_schema=schema)
        return config
