"""Libraries over several APIs: LiteLLM, any-llm, PydanticAI, LangChain."""

from __future__ import annotations

import os
from typing import Any

from model_server import MODEL, TOOL_NAME

from peers.model_clients import MAX_TOKENS, QUESTION, SUNNY, Seen
from peers.openai_clients import FUNCTION, KEY, Completions

__all__ = (
    "AnyLLMAnthropic",
    "AnyLLMOpenAI",
    "LangChainAnthropic",
    "LangChainOpenAI",
    "LiteLLMAnthropic",
    "LiteLLMOpenAI",
    "PydanticAnthropic",
    "PydanticOpenAI",
)


# --- LiteLLM --------------------------------------------------------------------------------------


class _LiteLLM(Completions):
    wire: str
    path: str

    def __init__(self, url: str) -> None:
        os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it fetches its prices
        import litellm

        litellm.suppress_debug_info = True
        self.acompletion: Any = litellm.acompletion
        self.where = {
            "model": f"{self.wire}/{MODEL[self.wire]}",
            "api_base": url + self.path,
            "api_key": KEY,
        }

    async def create(self, messages: list[Any], **more: Any) -> Any:
        return await self.acompletion(messages=messages, **self.where, **more)


class LiteLLMOpenAI(_LiteLLM):
    wire = "openai"
    path = "/v1"


class LiteLLMAnthropic(_LiteLLM):
    wire = "anthropic"
    path = ""


# --- any-llm --------------------------------------------------------------------------------------


class _AnyLLM(Completions):
    wire: str
    path: str

    def __init__(self, url: str) -> None:
        import any_llm

        self.model = any_llm.AnyLLM.create(self.wire, api_key=KEY, api_base=url + self.path)

    async def create(self, messages: list[Any], **more: Any) -> Any:
        return await self.model.acompletion(MODEL[self.wire], messages, **more)


class AnyLLMOpenAI(_AnyLLM):
    wire = "openai"
    path = "/v1"


class AnyLLMAnthropic(_AnyLLM):
    wire = "anthropic"
    path = ""

    async def create(self, messages: list[Any], **more: Any) -> Any:
        return await super().create(messages, max_tokens=MAX_TOKENS, **more)


# --- PydanticAI -----------------------------------------------------------------------------------


class _Pydantic:
    """Its direct calls, which cost less than an agent; an agent for the tool."""

    def __init__(self, model: Any) -> None:
        from pydantic_ai import Agent, direct, messages

        self.model = model
        self.direct = direct
        self.events = (messages.PartStartEvent, messages.PartDeltaEvent)
        self.request = messages.ModelRequest.user_text_prompt
        self.agent = Agent(model)

        @self.agent.tool_plain
        async def get_weather(city: str) -> str:
            """The weather of a city."""
            assert city
            return SUNNY

    async def plain(self) -> str:
        answer = await self.direct.model_request(self.model, [self.request(QUESTION)])
        return "".join(part.content for part in answer.parts if part.part_kind == "text")

    async def stream(self, seen: Seen) -> tuple[str, str | None]:
        texts: list[str] = []
        start, delta = self.events
        asked = [self.request(QUESTION)]
        async with self.direct.model_request_stream(self.model, asked) as answer:
            async for event in answer:
                text = ""
                if isinstance(event, delta):
                    text = getattr(event.delta, "content_delta", "")
                elif isinstance(event, start):
                    text = getattr(event.part, "content", "")
                if text:
                    if not texts:
                        seen()
                    texts.append(text)
            return "".join(texts), answer.get().finish_reason

    async def tool(self) -> str:
        return str((await self.agent.run(QUESTION)).output)


class PydanticOpenAI(_Pydantic):
    def __init__(self, url: str) -> None:
        from pydantic_ai.models.openai import OpenAIChatModel
        from pydantic_ai.providers.openai import OpenAIProvider

        provider = OpenAIProvider(base_url=f"{url}/v1", api_key=KEY)
        super().__init__(OpenAIChatModel(MODEL["openai"], provider=provider))


class PydanticAnthropic(_Pydantic):
    def __init__(self, url: str) -> None:
        from anthropic import AsyncAnthropic
        from pydantic_ai.models.anthropic import AnthropicModel
        from pydantic_ai.providers.anthropic import AnthropicProvider

        provider = AnthropicProvider(anthropic_client=AsyncAnthropic(base_url=url, api_key=KEY))
        # Without a bound it asks for so many tokens that it has to stream plain answers too.
        settings: Any = {"max_tokens": MAX_TOKENS}
        model = AnthropicModel(MODEL["anthropic"], provider=provider, settings=settings)
        super().__init__(model)


# --- LangChain ------------------------------------------------------------------------------------


class _LangChain:
    finish: str
    """What it calls the finish reason."""

    def __init__(self, model: Any) -> None:
        from langchain_core.messages import HumanMessage, ToolMessage

        self.model = model
        self.human, self.result = HumanMessage, ToolMessage
        self.with_tool = model.bind_tools([{"type": "function", "function": FUNCTION}])

    async def plain(self) -> str:
        return str((await self.model.ainvoke(QUESTION)).text)

    async def stream(self, seen: Seen) -> tuple[str, str | None]:
        texts: list[str] = []
        finish = None
        async for chunk in self.model.astream(QUESTION):
            finish = chunk.response_metadata.get(self.finish) or finish
            if text := str(chunk.text):
                if not texts:
                    seen()
                texts.append(text)
        return "".join(texts), finish

    async def tool(self) -> str:
        messages = [self.human(QUESTION)]
        asked = await self.with_tool.ainvoke(messages)
        messages.append(asked)
        for call in asked.tool_calls:
            assert call["name"] == TOOL_NAME
            assert call["args"]["city"]
            messages.append(self.result(SUNNY, tool_call_id=call["id"]))
        return str((await self.with_tool.ainvoke(messages)).text)


class LangChainOpenAI(_LangChain):
    finish = "finish_reason"

    def __init__(self, url: str) -> None:
        from langchain_openai import ChatOpenAI

        super().__init__(ChatOpenAI(model=MODEL["openai"], base_url=f"{url}/v1", api_key=KEY))


class LangChainAnthropic(_LangChain):
    finish = "stop_reason"

    def __init__(self, url: str) -> None:
        from langchain_anthropic import ChatAnthropic

        super().__init__(ChatAnthropic(model=MODEL["anthropic"], base_url=url, api_key=KEY))
