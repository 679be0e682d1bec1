"""`provider: llm`: the models of simonw's `llm` and of its plug-ins, by name, one turn at a time.

Asynchronous models are awaited, the others run on threads. Plug-ins keep their own clients, whose
retries cannot be turned off from here; nothing is written to `llm`'s log.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from pydantic import Field, SecretStr

from muster.adapters.extras import load
from muster.adapters.failures import cut_short, translated
from muster.capabilities import Capabilities
from muster.errors import UsageError
from muster.pricing import cost_of
from muster.provider import BadProviderOutput, ImagePart, Message, TokenUsage, ToolCall
from muster.providers.chat import ChatReply, ChatTurn
from muster.providers.conversation import parts_of
from muster.providers.settings import ProviderSettings, refuse_if_safe, secrets_in
from muster.providers.threads import DEFAULT_THREADS, Job, Threads
from muster.target import ResolvedTarget

__all__ = ("LLMProvider",)


class LLMSettings(ProviderSettings):
    """Settings of `provider: llm`."""

    model: str
    """A model's id or alias, as `llm models` lists them."""
    api_key: SecretStr | None = None
    """The key; without, `llm`'s own: its stored keys, or the plug-in's variable."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The model's options, as `-o` on `llm`'s command line."""


class LLMProvider:
    """A model that `llm` knows."""

    Settings = LLMSettings

    def __init__(self, target: ResolvedTarget) -> None:
        """Raises `UsageError` when `llm` is not installed, or knows no such model."""
        refuse_if_safe(target, "llm's plug-ins would be run")
        self._llm = load("llm", extra="llm", target=target)
        settings = LLMSettings.model_validate(dict(target.config))
        self._who = target.name
        self._secrets = tuple(secrets_in(target.config))
        self._model, self._waits = self._found(settings.model)
        self._options = settings.options
        self._key = settings.api_key.get_secret_value() if settings.api_key is not None else None
        self._limit = target.workers or DEFAULT_THREADS
        self._threads: Threads | None = None
        self.capabilities = Capabilities(
            streaming=bool(self._model.can_stream),
            tools=bool(self._model.supports_tools),
            structured_output=bool(self._model.supports_schema),
            images=any(kind.startswith("image/") for kind in self._model.attachment_types),
            history=True,
            batch=False,
        )

    async def complete(self, turn: ChatTurn) -> ChatReply:
        """Answer one turn. Raises a `ProviderError`."""
        async with translated(self._who, self._secrets, invented=BadProviderOutput):
            if self._waits:
                return await self._awaited(turn)
            if self._threads is None:
                self._threads = Threads(self._limit, name=self._who)
            return await self._threads.run(lambda job: self._called(turn, job))

    async def aclose(self) -> None:
        """Let the threads of synchronous models end."""
        if self._threads is not None:
            self._threads.close()
            self._threads = None

    def _found(self, name: str) -> tuple[Any, bool]:
        """The model, and whether it is asynchronous."""
        try:
            return self._llm.get_async_model(name), True
        except self._llm.UnknownModelError:
            pass
        try:
            return self._llm.get_model(name), False
        except self._llm.UnknownModelError as error:
            raise UsageError(f'target "{self._who}": {error}; `llm models` lists them') from None

    async def _awaited(self, turn: ChatTurn) -> ChatReply:
        response = self._prompt(turn)
        pieces: list[str] = []
        async for piece in response:
            pieces.append(piece)
            if turn.on_chunk is not None and piece:
                turn.on_chunk(piece)
        return self._reply(
            turn, response, pieces, await response.tool_calls(), await response.usage()
        )

    def _called(self, turn: ChatTurn, job: Job) -> ChatReply:
        response = self._prompt(turn)
        pieces: list[str] = []
        for piece in response:
            if job.abandoned:
                break
            pieces.append(piece)
            if turn.on_chunk is not None and piece:
                job.post(turn.on_chunk, piece)
        return self._reply(turn, response, pieces, response.tool_calls(), response.usage())

    def _prompt(self, turn: ChatTurn) -> Any:
        llm = self._llm
        options = dict(self._options)
        if turn.max_output_tokens is not None and "max_tokens" in self._model.Options.model_fields:
            given = options.get("max_tokens", turn.max_output_tokens)
            options["max_tokens"] = min(given, turn.max_output_tokens)
        more: dict[str, Any] = {"stream": turn.on_chunk is not None, "options": options}
        if self._key is not None:
            more["key"] = self._key
        if turn.tools:
            more["tools"] = [
                llm.Tool(t.name, t.description, dict(t.parameters)) for t in turn.tools
            ]
        if turn.response_schema is not None:
            more["schema"] = dict(turn.response_schema)
        if len(turn.messages) == 1:  # which every plug-in understands
            only = turn.messages[0]
            text, attached = self._content(only)
            return self._model.prompt(text, system=turn.system_prompt, attachments=attached, **more)
        messages = [llm.system(turn.system_prompt)] if turn.system_prompt else []
        messages += [self._message(message) for message in turn.messages]
        return self._model.prompt(messages=messages, system=turn.system_prompt, **more)

    def _message(self, message: Message) -> Any:
        from llm import parts

        text, attached = self._content(message)
        if message.role == "tool":
            result = parts.ToolResultPart(
                name=message.name or "", output=text, tool_call_id=message.tool_call_id
            )
            return parts.Message(role="tool", parts=[result])
        said: list[Any] = [parts.TextPart(text=text)] if text else []
        said += [parts.AttachmentPart(attachment=one) for one in attached]
        for call in message.tool_calls:
            given = dict(call.input) if isinstance(call.input, Mapping) else {}
            said.append(parts.ToolCallPart(call.tool, given, call.id))
        return parts.Message(role=message.role, parts=said)

    def _content(self, message: Message) -> tuple[str, list[Any]]:
        if isinstance(message.content, str):
            return message.content, []
        attached = []
        for part in parts_of(message):
            if isinstance(part, ImagePart) and part.source.startswith("data:"):
                head, _, data = part.source.partition(",")
                kind = head.removeprefix("data:").partition(";")[0]
                image = self._llm.Attachment(type=kind, content=base64.b64decode(data))
                attached.append(image)
            elif isinstance(part, ImagePart):
                attached.append(self._llm.Attachment(url=part.source))
        return message.text, attached

    def _reply(
        self, turn: ChatTurn, response: Any, pieces: list[str], calls: Any, usage: Any
    ) -> ChatReply:
        said = response.response_json or {}
        finish = said.get("finish_reason")
        # Of other plug-ins' streams nobody tells whether they came to an end.
        named = said.get("object") == "chat.completion.chunk" or not (pieces or calls)
        if finish is None and named and turn.on_chunk is not None:
            raise cut_short(self._who, len("".join(pieces)))
        counts = None
        if usage.input is not None and usage.output is not None:
            counts = TokenUsage(usage.input, usage.output, cached=_cached(usage.details))
        model = said.get("model") or response.resolved_model or self._model.model_id
        asked = tuple(ToolCall(c.name, c.arguments, id=c.tool_call_id) for c in calls)
        return ChatReply(
            message=Message("assistant", "".join(pieces), tool_calls=asked),
            token_usage=counts,
            finish_reason=finish,
            cost_usd=cost_of(model, counts),
            model=model,
            raw={"id": said.get("id"), "model": model},
        )


def _cached(details: Any) -> int | None:
    given = (details or {}).get("prompt_tokens_details") or {}
    cached = given.get("cached_tokens")
    return cached if isinstance(cached, int) else None
