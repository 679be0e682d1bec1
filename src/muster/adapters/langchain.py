"""`provider: langchain`: a chat model of LangChain's, or any other Runnable: a chain, an agent.

A chat model answers one turn at a time, within Muster's tool loop, limits and budgets. Any other
Runnable does what it does; how many tokens it has used, by which models, and whether their streams
came to an end, is heard from its callbacks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from muster.adapters.extras import load, load_own
from muster.adapters.failures import cut_short, translated
from muster.capabilities import Capabilities
from muster.errors import UsageError
from muster.provider import (
    BadProviderOutput,
    Message,
    OnChunk,
    ProviderRequest,
    ProviderResponse,
    TokenUsage,
)
from muster.providers.chat import ChatReply, ChatTurn
from muster.providers.conversation import chat_messages, system_text
from muster.providers.openai_chat import chat_tool, response_format
from muster.providers.prompt import render_prompt
from muster.providers.seconds import within
from muster.providers.settings import ProviderSettings, secrets_in
from muster.target import ResolvedTarget
from muster.tasks import surely

__all__ = ("LangChainModel", "LangChainRunnable", "langchain_provider")


class LangChainSettings(ProviderSettings):
    """Settings of `provider: langchain`."""

    runnable: str
    """A Runnable, as `package.module:name`; modules beside the targets file are found first."""
    input: Literal["messages", "text"] = "messages"
    """What a Runnable that is no chat model is given: the conversation, or one text."""
    input_key: str | None = None
    """Where its input stands, for one that takes a mapping: `{input_key: …}`."""
    output_key: str | None = None
    """Where its answer stands in a mapping; without, its last message, or the whole as JSON."""
    finish_reason_required: bool = True
    """A stream of a model's that ends without a finish reason is an error. Set it to false for
    models that never name one."""


def langchain_provider(target: ResolvedTarget) -> LangChainModel | LangChainRunnable:
    """The provider of a target.

    Raises:
        UsageError: LangChain is not installed, or the object is no Runnable.
        MusterError: there is no such object.
    """
    load("langchain_core", extra="langchain", target=target)
    from langchain_core.language_models import BaseChatModel
    from langchain_core.runnables import Runnable

    settings = LangChainSettings.model_validate(dict(target.config))
    runnable = load_own(settings.runnable, "runnable", target=target)
    if isinstance(runnable, BaseChatModel):
        return LangChainModel(runnable, settings, target)
    if not isinstance(runnable, Runnable):
        found = type(runnable).__name__
        raise UsageError(f'target "{target.name}": `runnable` must be a Runnable, not {found}')
    return LangChainRunnable(runnable, settings, target)


langchain_provider.Settings = LangChainSettings  # type: ignore[attr-defined]


class LangChainModel:
    """A chat model of LangChain's."""

    capabilities = Capabilities(streaming=True, tools=True, history=True, batch=False)

    def __init__(self, model: Any, settings: LangChainSettings, target: ResolvedTarget) -> None:
        self.model = model
        self.settings = settings
        self._who = target.name
        self._secrets = tuple(secrets_in(target.config))

    async def complete(self, turn: ChatTurn) -> ChatReply:
        """Answer one turn. Raises a `ProviderError`."""
        return await surely(self._complete(turn))

    async def _complete(self, turn: ChatTurn) -> ChatReply:
        from muster.adapters.langchain_messages import reply, to_messages

        model, messages = self.model, to_messages(turn.messages, turn.system_prompt, turn.carried)
        options: dict[str, Any] = {}
        if turn.max_output_tokens is not None:
            options["max_tokens"] = turn.max_output_tokens
        if turn.response_schema is not None:
            options["response_format"] = response_format(turn.response_schema)
        async with translated(self._who, self._secrets, invented=BadProviderOutput):
            if turn.tools:
                model = model.bind_tools([chat_tool(tool) for tool in turn.tools])
            if turn.on_chunk is None:
                return reply(await model.ainvoke(messages, **options), self._who)
            whole: Any = None
            said = 0
            async for chunk in model.astream(messages, **options):
                whole = chunk if whole is None else whole + chunk
                if text := chunk.text:
                    said += len(text)
                    turn.on_chunk(text)
            answer = None if whole is None else reply(whole, self._who)
            if answer is None or (
                answer.finish_reason is None and self.settings.finish_reason_required
            ):
                raise cut_short(self._who, said)
            return answer


class LangChainRunnable:
    """A chain or an agent."""

    capabilities = Capabilities(tools=False, history=True, batch=False)

    def __init__(self, runnable: Any, settings: LangChainSettings, target: ResolvedTarget) -> None:
        self.runnable = runnable
        self.settings = settings
        self._who = target.name
        self._secrets = tuple(secrets_in(target.config))
        if settings.input == "text":  # one text holds the conversation too, as a transcript
            self.capabilities = Capabilities(tools=False, batch=False)

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        """Let it work to its end. Raises a `ProviderError`."""
        running = self._run(request)
        seconds = request.limits.max_seconds
        return await (running if seconds is None else within(seconds, running, who=self._who))

    async def _run(self, request: ProviderRequest) -> ProviderResponse:
        from muster.adapters.langchain_messages import Listener, to_messages

        given: Any
        before = 0
        if self.settings.input == "text":
            given = render_prompt(request, files="inline")
        else:
            given = to_messages(await chat_messages(request), system_text(request), {})
            before = len(given)
        if self.settings.input_key is not None:
            given = {self.settings.input_key: given}
        heard = Listener()
        async with translated(self._who, self._secrets):
            answer = await surely(
                self._answer(given, {"callbacks": [heard]}, request.on_chunk),
            )
        if heard.unfinished and self.settings.finish_reason_required:
            raise cut_short(self._who, heard.characters)
        return ProviderResponse(
            self._output(answer, before),
            token_usage=_sum(heard.usages),
            cost_usd=heard.cost(),
            finish_reason=heard.finish_reason,
            model=heard.model,
        )

    async def _answer(self, given: Any, config: dict[str, Any], on_chunk: OnChunk | None) -> Any:
        if on_chunk is None or hasattr(self.runnable, "stream_mode"):
            return await self.runnable.ainvoke(given, config)  # a graph streams its steps
        whole: Any = None
        async for chunk in self.runnable.astream(given, config):
            whole = chunk if whole is None else whole + chunk
            piece = chunk.get(self.settings.output_key) if isinstance(chunk, Mapping) else chunk
            text = piece if isinstance(piece, str) else getattr(piece, "text", "")
            if text:
                on_chunk(str(text))
        return whole

    def _output(self, answer: Any, before: int) -> tuple[Message, ...]:
        from langchain_core.messages import BaseMessage

        from muster.adapters.langchain_messages import from_messages

        key = self.settings.output_key
        if key is not None:
            if not isinstance(answer, Mapping) or key not in answer:
                raise BadProviderOutput(f'{self._who}: the answer has no "{key}"', retryable=False)
            answer = answer[key]
        elif isinstance(answer, Mapping) and isinstance(answer.get("messages"), list):
            answer = answer["messages"][before:]  # as agents answer: what they were given first
        if isinstance(answer, BaseMessage):
            answer = [answer]
        if isinstance(answer, list) and all(isinstance(item, BaseMessage) for item in answer):
            return from_messages(answer)
        if hasattr(answer, "model_dump"):
            answer = answer.model_dump(mode="json")
        text = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
        return (Message("assistant", text),)


def _sum(usages: list[TokenUsage | None]) -> TokenUsage | None:
    """The sum; `None` as soon as one of them is not known."""
    known = [usage for usage in usages if usage is not None]
    return sum(known[1:], known[0]) if known and len(known) == len(usages) else None
