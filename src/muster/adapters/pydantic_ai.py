"""`provider: pydantic-ai`: a model of PydanticAI's, by its name, or an agent of one's own.

A model (`model: openai:gpt-4o`) answers one turn at a time, so that Muster's tool loop, limits and
budgets are around it. An agent (`agent: package.module:agent`) runs its own loop, with the
request's tools beside its own.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from typing import Any

from pydantic import AliasChoices, Field, model_validator

from muster.adapters.extras import load, load_own
from muster.adapters.failures import cut_short, missing, translated
from muster.capabilities import Capabilities
from muster.errors import UsageError
from muster.provider import (
    BadProviderOutput,
    BudgetExceeded,
    LimitExceeded,
    Message,
    OnChunk,
    ProviderRequest,
    ProviderResponse,
    TokenUsage,
    Tool,
)
from muster.providers.chat import ChatReply, ChatTurn
from muster.providers.conversation import chat_messages, system_text
from muster.providers.endpoint import ModelSettings
from muster.providers.seconds import within
from muster.providers.settings import secrets_in
from muster.target import ResolvedTarget

__all__ = ("PydanticAIAgent", "PydanticAIModel", "pydantic_ai_provider")

CAPABILITIES = Capabilities(streaming=True, tools=True, history=True, batch=False)


class PydanticAISettings(ModelSettings):
    """Settings of `provider: pydantic-ai`: either `model` or `agent`."""

    model: str | None = Field(None, validation_alias=AliasChoices("model", "deployment", "variant"))
    """A model by PydanticAI's name, e.g. `openai:gpt-4o`."""
    agent: str | None = None
    """An `Agent`, as `package.module:name`; modules beside the targets file are found first."""

    @model_validator(mode="after")
    def _one_of_them(self) -> PydanticAISettings:
        if (self.model is None) == (self.agent is None):
            raise ValueError("give either `model` or `agent`")
        return self


def pydantic_ai_provider(target: ResolvedTarget) -> PydanticAIModel | PydanticAIAgent:
    """The provider of a target.

    Raises:
        UsageError: PydanticAI, or what it needs for the model, is not installed.
        MusterError: there is no such agent.
    """
    load("pydantic_ai", extra="pydantic-ai", target=target)
    settings = PydanticAISettings.model_validate(dict(target.config))
    if settings.agent is None:
        return PydanticAIModel(settings, target)
    return PydanticAIAgent(load_own(settings.agent, "agent", target=target), target)


pydantic_ai_provider.Settings = PydanticAISettings  # type: ignore[attr-defined]


class PydanticAIModel:
    """A chat model that PydanticAI calls."""

    capabilities = CAPABILITIES

    def __init__(self, settings: PydanticAISettings, target: ResolvedTarget) -> None:
        self.settings = settings
        self.max_file_bytes = settings.max_file_bytes
        self._who = target.name
        self._secrets = tuple(secrets_in(target.config))
        self._clients: list[Any] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._model = self._made()
        self.priced_as = (self._model.model_name, self._model.system)

    async def complete(self, turn: ChatTurn) -> ChatReply:
        """Answer one turn. Raises a `ProviderError`."""
        from pydantic_ai.direct import model_request, model_request_stream

        from muster.adapters.pydantic_ai_messages import is_whole

        model, (messages, asked, wanted) = self._of_this_loop(), self._call(turn)
        given: Any = {"model_settings": asked, "model_request_parameters": wanted}
        async with translated(self._who, self._secrets, invented=BadProviderOutput):
            if turn.on_chunk is None:
                return self._reply(await model_request(model, messages, **given))
            async with model_request_stream(model, messages, **given) as stream:
                said = await _pass_on(stream, turn.on_chunk)
            response = stream.get()
            if not is_whole(response):
                raise cut_short(self._who, said)
            return self._reply(response)

    async def aclose(self) -> None:
        """Close the connections."""
        clients, self._clients = self._clients, []
        for client in clients:
            await client.close()

    def _of_this_loop(self) -> Any:
        """The model; a new one in another event loop, since connections belong to theirs."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None:
                self._clients = []
                self._model = self._made()
            self._loop = loop
        return self._model

    def _made(self) -> Any:
        from pydantic_ai.models import infer_model
        from pydantic_ai.providers import infer_provider_class

        settings = self.settings
        key = settings.api_key.get_secret_value() if settings.api_key is not None else None
        own = {"base_url": settings.base_url, "api_key": key}
        own = {name: value for name, value in own.items() if value is not None}

        def provider(name: str) -> Any:
            kind = infer_provider_class(name)
            made = kind(**own)
            client = getattr(made, "client", None)
            if client is not None and hasattr(client, "max_retries"):
                client.max_retries = 0  # retries are the wrapper's
            if inspect.iscoroutinefunction(getattr(client, "close", None)):
                self._clients.append(client)
            return made

        assert settings.model is not None
        try:
            return infer_model(settings.model, provider_factory=provider)
        except Exception as error:  # unknown models, packages that are not there, missing keys
            raise UsageError(f'target "{self._who}": {error}') from None

    def _call(self, turn: ChatTurn) -> tuple[list[Any], dict[str, Any], Any]:
        from pydantic_ai import messages as theirs
        from pydantic_ai.models import ModelRequestParameters
        from pydantic_ai.output import OutputObjectDefinition

        from muster.adapters.pydantic_ai_messages import to_definition, to_history

        carried = {i: c for i, c in turn.carried.items() if isinstance(c, theirs.ModelResponse)}
        history = to_history(turn.messages, carried)
        if turn.system_prompt:
            system = theirs.SystemPromptPart(content=turn.system_prompt)
            history.insert(0, theirs.ModelRequest(parts=[system]))
        wanted = ModelRequestParameters(function_tools=[to_definition(tool) for tool in turn.tools])
        if turn.response_schema is not None:
            wanted.output_mode = "native"
            wanted.output_object = OutputObjectDefinition(json_schema=dict(turn.response_schema))
        return history, self._options(turn.max_output_tokens), wanted

    def _options(self, bound: int | None) -> dict[str, Any]:
        settings = self.settings
        options = {
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "max_tokens": settings.bounded(bound),
            "timeout": settings.read_timeout_seconds,
            "extra_headers": {n: v.get_secret_value() for n, v in settings.headers.items()},
            "extra_body": settings.extra_body,
        }
        return {name: value for name, value in options.items() if value not in (None, {})}

    def _reply(self, response: Any) -> ChatReply:
        from muster.adapters.pydantic_ai_messages import cost, from_response, tokens

        if not response.parts and response.finish_reason is None:
            raise missing(self._who, "content")
        return ChatReply(
            message=from_response(response),
            token_usage=tokens(response),
            finish_reason=response.finish_reason,
            cost_usd=cost(response),
            model=response.model_name,
            raw={"id": response.provider_response_id, "model": response.model_name},
            carry=response,
        )


class PydanticAIAgent:
    """An agent of PydanticAI's, with its own tools, prompts and output."""

    capabilities = CAPABILITIES

    def __init__(self, agent: Any, target: ResolvedTarget) -> None:
        """Raises `UsageError` when it is no agent."""
        from pydantic_ai.agent import AbstractAgent

        if not isinstance(agent, AbstractAgent):
            raise UsageError(
                f'target "{target.name}": `agent` must be a PydanticAI Agent, '
                f"not {type(agent).__name__}"
            )
        self.agent = agent
        self._who = target.name
        self._secrets = tuple(secrets_in(target.config))

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        """Let the agent work to its end. Raises a `ProviderError`."""
        running = self._run(request)
        seconds = request.limits.max_seconds
        return await (running if seconds is None else within(seconds, running, who=self._who))

    async def _run(self, request: ProviderRequest) -> ProviderResponse:
        from pydantic_ai import Agent
        from pydantic_ai.usage import UsageLimits

        from muster.adapters.pydantic_ai_messages import content, is_whole, to_history

        *earlier, question = await chat_messages(request)
        asked = {"max_tokens": request.limits.max_output_tokens}
        ledger = _Ledger(request)
        async with (
            translated(self._who, self._secrets),
            self.agent.iter(
                content(question),
                message_history=to_history(earlier) or None,
                instructions=system_text(request),
                model_settings={k: v for k, v in asked.items() if v is not None} or None,
                usage_limits=UsageLimits(request_limit=None),  # the ledger counts
                toolsets=[_toolset(request)] if request.call_tool is not None else None,
            ) as run,
        ):
            node = run.next_node
            said = -1
            while not Agent.is_end_node(node):
                if Agent.is_model_request_node(node):
                    ledger.check()
                    if request.on_chunk is not None:
                        async with node.stream(run.ctx) as stream:
                            said = await _pass_on(stream, request.on_chunk)
                elif Agent.is_call_tools_node(node):
                    if said >= 0 and not is_whole(node.model_response):
                        raise cut_short(self._who, said)
                    ledger.add(node.model_response)
                node = await run.next(node)
            return ledger.response(run)


class _Ledger:
    """The turns of one run, and what they have used."""

    def __init__(self, request: ProviderRequest) -> None:
        self.limits = request.limits
        self.turns = 0
        self.usages: list[TokenUsage | None] = []
        self.costs: list[float | None] = []
        self.last: Any = None

    def check(self) -> None:
        """Raise before a turn that the limits do not allow."""
        limits = self.limits
        spent, money = self.usage(), sum(cost or 0.0 for cost in self.costs)
        used = spent.total if spent is not None else 0
        error: LimitExceeded | None = None
        if limits.max_turns is not None and self.turns >= limits.max_turns:
            error = LimitExceeded(f"max_turns is {limits.max_turns}")
        elif limits.max_total_tokens is not None and used >= limits.max_total_tokens:
            error = BudgetExceeded(f"max_total_tokens is {limits.max_total_tokens:,}")
        elif limits.max_cost_usd is not None and money >= limits.max_cost_usd:
            error = BudgetExceeded(f"max_cost_usd is {limits.max_cost_usd:g}")
        self.turns += 1
        if error is not None:
            error.token_usage, error.cost_usd = spent, money or None
            raise error

    def add(self, response: Any) -> None:
        """A turn has been answered."""
        from muster.adapters.pydantic_ai_messages import cost, tokens

        self.usages.append(tokens(response))
        self.costs.append(cost(response))
        self.last = response

    def usage(self) -> TokenUsage | None:
        """What was reported so far."""
        known = [usage for usage in self.usages if usage is not None]
        return sum(known[1:], known[0]) if known else None

    def response(self, run: Any) -> ProviderResponse:
        """The answer, with the messages of the run."""
        from muster.adapters.pydantic_ai_messages import from_response, tool_result

        output: list[Message] = []
        for message in run.new_messages():
            if message.kind == "response":
                output.append(from_response(message))
            else:
                results = (p for p in message.parts if getattr(p, "tool_call_id", None))
                output += [tool_result(part) for part in results]
        final = run.result.output
        if not isinstance(final, str):  # the agent's own type, made by a tool of its own
            from pydantic_core import to_jsonable_python

            output.append(Message("assistant", to_jsonable_python(final)))
        known = None not in self.usages
        costs = [cost for cost in self.costs if cost is not None]
        return ProviderResponse(
            tuple(output),
            token_usage=self.usage() if known else None,
            cost_usd=sum(costs) if costs and len(costs) == len(self.costs) else None,
            finish_reason=getattr(self.last, "finish_reason", None),
            model=getattr(self.last, "model_name", None),
        )


async def _pass_on(stream: Any, on_chunk: OnChunk) -> int:
    """Hand the text of a stream over; how many characters there were."""
    from pydantic_ai import messages as theirs

    said = 0
    async for event in stream:
        text = ""
        if isinstance(event, theirs.PartStartEvent) and isinstance(event.part, theirs.TextPart):
            text = event.part.content
        elif isinstance(event, theirs.PartDeltaEvent):
            delta = event.delta
            text = delta.content_delta if isinstance(delta, theirs.TextPartDelta) else ""
        if text:
            said += len(text)
            on_chunk(text)
    return said


def _toolset(request: ProviderRequest) -> Any:
    """The request's tools beside the agent's own."""
    from pydantic_ai.tools import Tool as TheirTool
    from pydantic_ai.toolsets import FunctionToolset

    def made(tool: Tool) -> Any:
        async def call(**arguments: Any) -> str:
            return await _called(request, tool.name, arguments)

        schema = dict(tool.parameters)
        return TheirTool.from_schema(call, tool.name, tool.description or None, schema)

    return FunctionToolset([made(tool) for tool in request.tools])


async def _called(request: ProviderRequest, name: str, arguments: Mapping[str, Any]) -> str:
    assert request.call_tool is not None
    try:
        return await request.call_tool(name, arguments)
    except BudgetExceeded:
        raise
    except Exception as error:
        return f"error: {str(error) or type(error).__name__}"
