"""`provider: openai-agents`: an agent of the OpenAI Agents SDK, with its tools and handoffs.

Two of the SDK's habits are off: it sends traces of every run to OpenAI, and it takes a stream that
broke off for a whole answer. So nothing is traced, and answers are asked for in one piece; a
listener gets the text at the end.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from typing import Any

from muster.adapters.extras import load, load_own
from muster.adapters.failures import translated
from muster.capabilities import Capabilities
from muster.errors import UsageError
from muster.pricing import cost_of
from muster.provider import (
    BudgetExceeded,
    ImagePart,
    Message,
    ProviderRequest,
    ProviderResponse,
    TokenUsage,
    ToolCall,
)
from muster.providers.chat import refused_call
from muster.providers.conversation import chat_messages, parts_of, system_text
from muster.providers.seconds import within
from muster.providers.settings import ProviderSettings, secrets_in
from muster.providers.wire import parsed_arguments
from muster.target import ResolvedTarget

__all__ = ("OpenAIAgentsProvider",)


class OpenAIAgentsSettings(ProviderSettings):
    """Settings of `provider: openai-agents`."""

    agent: str
    """An `Agent`, as `package.module:name`; modules beside the targets file are found first."""


class OpenAIAgentsProvider:
    """Lets the SDK's runner work an agent to its end."""

    Settings = OpenAIAgentsSettings
    capabilities = Capabilities(streaming=False, tools=True, history=True, batch=False)

    def __init__(self, target: ResolvedTarget) -> None:
        """Raises `MusterError` when the SDK is not installed, or there is no such agent."""
        self._sdk = load("agents", extra="openai-agents", target=target)
        settings = OpenAIAgentsSettings.model_validate(dict(target.config))
        self.agent = load_own(settings.agent, "agent", target=target)
        if not isinstance(self.agent, self._sdk.Agent):
            found = type(self.agent).__name__
            raise UsageError(f'target "{target.name}": `agent` must be an Agent, not {found}')
        self._who = target.name
        self._secrets = tuple(secrets_in(target.config))

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        """Let the agent work to its end. Raises a `ProviderError`."""
        running = self._run(request)
        seconds = request.limits.max_seconds
        return await (running if seconds is None else within(seconds, running, who=self._who))

    async def _run(self, request: ProviderRequest) -> ProviderResponse:
        given = [row for message in await chat_messages(request) for row in _rows(message)]
        ledger = _ledger(self._sdk, request)
        async with translated(self._who, self._secrets):
            result = await self._sdk.Runner.run(
                self._of(request),
                given,
                max_turns=request.limits.max_turns,
                hooks=ledger,
                run_config=self._sdk.RunConfig(
                    tracing_disabled=True,
                    tool_not_found_behavior="return_error_to_model",
                    tool_error_formatter=lambda args: f"error: {args.default_message}",
                ),
            )
        if request.on_chunk is not None and isinstance(result.final_output, str):
            request.on_chunk(result.final_output)
        output = _messages(result.new_items)
        final = result.final_output
        if not isinstance(final, str):
            final = json.dumps(_plain(final), ensure_ascii=False)
        if not output or output[-1].role != "assistant" or output[-1].text != final:
            output.append(Message("assistant", final))
        return ProviderResponse(
            tuple(output),
            token_usage=ledger.usage() if ledger.all_known else None,
            cost_usd=ledger.cost(),
            model=ledger.model,
        )

    def _of(self, request: ProviderRequest) -> Any:
        """The agent with the request's system prompt, tools and bound."""
        changed: dict[str, Any] = {}
        system = system_text(request)
        if system is not None:
            changed["instructions"] = _instructions(self.agent.instructions, system)
        if request.tools and request.call_tool is not None:
            own = [self._tool(request, tool.name) for tool in request.tools]
            changed["tools"] = [*self.agent.tools, *own]
        bound = request.limits.max_output_tokens
        if bound is not None:
            settings = self._sdk.ModelSettings(max_tokens=bound)
            changed["model_settings"] = self.agent.model_settings.resolve(settings)
        return self.agent.clone(**changed) if changed else self.agent

    def _tool(self, request: ProviderRequest, name: str) -> Any:
        tool = next(tool for tool in request.tools if tool.name == name)

        async def called(_: Any, arguments: str) -> str:
            assert request.call_tool is not None
            given: Any = parsed_arguments(arguments)
            refusal = refused_call(name, given, request.tools)
            if refusal is not None:
                return f"error: {refusal}"
            try:
                return await request.call_tool(name, given)
            except BudgetExceeded:
                raise
            except Exception as error:
                return f"error: {str(error) or type(error).__name__}"

        return self._sdk.FunctionTool(
            name=name,
            description=tool.description,
            params_json_schema=dict(tool.parameters),
            on_invoke_tool=called,
            strict_json_schema=False,
        )


def _ledger(sdk: Any, request: ProviderRequest) -> Any:
    """The SDK's hooks, which see each turn: they hold the budgets, and count."""

    class Ledger(sdk.RunHooks):  # type: ignore[misc]
        def __init__(self) -> None:
            self.model: str | None = None
            self.usages: list[TokenUsage | None] = []
            self.costs: list[float | None] = []

        @property
        def all_known(self) -> bool:
            return bool(self.usages) and None not in self.usages

        def usage(self) -> TokenUsage | None:
            known = [usage for usage in self.usages if usage is not None]
            return sum(known[1:], known[0]) if known else None

        def cost(self) -> float | None:
            known = [cost for cost in self.costs if cost is not None]
            return sum(known) if known and len(known) == len(self.costs) else None

        async def on_llm_start(self, *_: Any) -> None:
            limits, spent = request.limits, self.usage()
            used = spent.total if spent is not None else 0
            money = sum(cost or 0.0 for cost in self.costs)
            text = None
            if limits.max_total_tokens is not None and used >= limits.max_total_tokens:
                text = f"{used:,} tokens are used and max_total_tokens is {limits.max_total_tokens}"
            elif limits.max_cost_usd is not None and money >= limits.max_cost_usd:
                text = f"${money:.4f} are spent and max_cost_usd is {limits.max_cost_usd:g}"
            if text is not None:
                raise BudgetExceeded(text, token_usage=spent, cost_usd=money or None)

        async def on_llm_end(self, _: Any, agent: Any, response: Any) -> None:
            model = agent.model
            self.model = model if isinstance(model, str) else getattr(model, "model", None)
            usage = _usage(response.usage)
            self.usages.append(usage)
            self.costs.append(cost_of(str(self.model), usage) if self.model else None)

    return Ledger()


def _usage(usage: Any) -> TokenUsage | None:
    """The counts; zeros are what the SDK puts where the service has reported nothing."""
    if not (usage.input_tokens or usage.output_tokens):
        return None
    given, made = usage.input_tokens_details, usage.output_tokens_details
    return TokenUsage(
        usage.input_tokens,
        usage.output_tokens,
        cached=getattr(given, "cached_tokens", None) or None,
        reasoning=getattr(made, "reasoning_tokens", None) or None,
    )


def _instructions(own: Any, system: str) -> Any:
    """The agent's own instructions, and the request's system prompt after them."""
    if own is None:
        return system
    if isinstance(own, str):
        return f"{own}\n\n{system}"

    async def both(context: Any, agent: Any) -> str:
        said = own(context, agent)
        said = await said if inspect.isawaitable(said) else said
        return f"{said}\n\n{system}" if said else system

    return both


def _rows(message: Message) -> list[dict[str, Any]]:
    """A message as items of the Responses API, which is what the SDK keeps."""
    if message.role == "tool":
        call_id = message.tool_call_id
        return [{"type": "function_call_output", "call_id": call_id, "output": message.text}]
    rows: list[dict[str, Any]] = []
    if message.role == "assistant":
        if message.text:
            rows.append({"role": "assistant", "content": message.text})
        rows += [
            {
                "type": "function_call",
                "call_id": call.id,
                "name": call.tool,
                "arguments": json.dumps(call.input),
            }
            for call in message.tool_calls
        ]
        return rows
    if isinstance(message.content, str):
        return [{"role": message.role, "content": message.content}]
    parts = [
        {"type": "input_image", "image_url": part.source, "detail": "auto"}
        if isinstance(part, ImagePart)
        else {"type": "input_text", "text": getattr(part, "text", "")}
        for part in parts_of(message)
    ]
    return [{"role": message.role, "content": parts}]


def _messages(items: Sequence[Any]) -> list[Message]:
    """What the run has made: messages, tool calls and their results."""
    found: list[Message] = []
    for item in items:
        raw = item.raw_item
        if item.type == "message_output_item":
            texts = (getattr(p, "text", None) or getattr(p, "refusal", None) for p in raw.content)
            found.append(Message("assistant", "".join(text for text in texts if text)))
        elif item.type == "tool_call_item" and getattr(raw, "call_id", None):
            given = parsed_arguments(getattr(raw, "arguments", "") or "")
            call = ToolCall(getattr(raw, "name", raw.type), given, id=raw.call_id)
            found.append(Message("assistant", "", tool_calls=(call,)))
        elif item.type == "tool_call_output_item":
            call_id = raw.get("call_id") if isinstance(raw, dict) else None
            found.append(Message("tool", str(item.output), tool_call_id=call_id))
    return found


def _plain(value: Any) -> Any:
    from pydantic_core import to_jsonable_python

    return to_jsonable_python(value)
