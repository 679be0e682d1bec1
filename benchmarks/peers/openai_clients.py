"""The official OpenAI SDK, those whose objects are shaped like its own, and openai-agents."""

from __future__ import annotations

import json
from typing import Any

from model_server import MODEL, TOOL_NAME

from peers.model_clients import DESCRIPTION, QUESTION, SCHEMA, SUNNY, Seen

__all__ = ("KEY", "Completions", "OpenAIAgents", "OpenAISdk", "OpenAISdkOnAiohttp")

KEY = "sk-of-a-benchmark"
FUNCTION = {"name": TOOL_NAME, "description": DESCRIPTION, "parameters": SCHEMA}


class Completions:
    """The three calls, for whatever answers `create` with OpenAI's objects."""

    async def create(self, messages: list[Any], **more: Any) -> Any:
        raise NotImplementedError

    async def plain(self) -> str:
        answer = await self.create([{"role": "user", "content": QUESTION}])
        text: str = answer.choices[0].message.content
        return text

    async def stream(self, seen: Seen) -> tuple[str, str | None]:
        texts: list[str] = []
        finish = None
        messages = [{"role": "user", "content": QUESTION}]
        async for chunk in await self.create(messages, stream=True):
            for choice in chunk.choices:
                finish = choice.finish_reason or finish
                if text := choice.delta.content:
                    if not texts:
                        seen()
                    texts.append(text)
        return "".join(texts), finish

    async def tool(self) -> str:
        tools = [{"type": "function", "function": FUNCTION}]
        messages: list[Any] = [{"role": "user", "content": QUESTION}]
        asked = (await self.create(messages, tools=tools)).choices[0].message
        messages.append(asked)
        for call in asked.tool_calls:
            assert json.loads(call.function.arguments)["city"]
            messages.append({"role": "tool", "tool_call_id": call.id, "content": SUNNY})
        answer = await self.create(messages, tools=tools)
        text: str = answer.choices[0].message.content
        return text


class OpenAISdk(Completions):
    """As it comes, on httpx."""

    def __init__(self, url: str) -> None:
        import openai

        self.client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY)

    async def create(self, messages: list[Any], **more: Any) -> Any:
        return await self.client.chat.completions.create(
            model=MODEL["openai"], messages=messages, **more
        )


class OpenAISdkOnAiohttp(OpenAISdk):
    """On aiohttp, as its manual advises for many calls at once."""

    def __init__(self, url: str) -> None:
        import openai

        self.client = openai.AsyncOpenAI(
            base_url=f"{url}/v1", api_key=KEY, http_client=openai.DefaultAioHttpClient()
        )


class OpenAIAgents:
    """An agent of openai-agents on Chat Completions; its reports to OpenAI are off."""

    def __init__(self, url: str) -> None:
        import agents
        import openai

        agents.set_tracing_disabled(True)
        self.client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY)
        model = agents.OpenAIChatCompletionsModel(MODEL["openai"], self.client)

        async def get_weather(city: str) -> str:
            """The weather of a city."""
            assert city
            return SUNNY

        self.run = agents.Runner.run
        self.run_streamed = agents.Runner.run_streamed
        self.agent: Any = agents.Agent(name="bench", model=model)
        self.with_tool: Any = agents.Agent(
            name="bench", model=model, tools=[agents.function_tool(get_weather)]
        )

    async def plain(self) -> str:
        return str((await self.run(self.agent, QUESTION)).final_output)

    async def stream(self, seen: Seen) -> tuple[str, str | None]:
        texts: list[str] = []
        async for event in self.run_streamed(self.agent, QUESTION).stream_events():
            if event.type == "raw_response_event":
                data = event.data
                if data.type == "response.output_text.delta":
                    if not texts:
                        seen()
                    texts.append(data.delta)
        return "".join(texts), None  # it tells no finish reason

    async def tool(self) -> str:
        return str((await self.run(self.with_tool, QUESTION)).final_output)
