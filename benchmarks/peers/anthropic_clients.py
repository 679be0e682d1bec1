"""The official Anthropic SDK."""

from __future__ import annotations

from typing import Any

from model_server import MODEL, TOOL_NAME

from peers.model_clients import DESCRIPTION, MAX_TOKENS, QUESTION, SCHEMA, SUNNY, Seen

__all__ = ("AnthropicSdk",)

KEY = "sk-of-a-benchmark"
ASK: dict[str, Any] = {"model": MODEL["anthropic"], "max_tokens": MAX_TOKENS}
TOOL = {"name": TOOL_NAME, "description": DESCRIPTION, "input_schema": SCHEMA}


class AnthropicSdk:
    def __init__(self, url: str) -> None:
        import anthropic

        self.client: Any = anthropic.AsyncAnthropic(base_url=url, api_key=KEY)

    async def plain(self) -> str:
        messages = [{"role": "user", "content": QUESTION}]
        answer = await self.client.messages.create(messages=messages, **ASK)
        text: str = answer.content[0].text
        return text

    async def stream(self, seen: Seen) -> tuple[str, str | None]:
        """By `create(stream=True)`, which is the faster of the SDK's two ways."""
        texts: list[str] = []
        finish = None
        messages = [{"role": "user", "content": QUESTION}]
        async for event in await self.client.messages.create(messages=messages, stream=True, **ASK):
            if event.type == "content_block_delta":
                if not texts:
                    seen()
                texts.append(event.delta.text)
            elif event.type == "message_delta":
                finish = event.delta.stop_reason
        return "".join(texts), finish

    async def tool(self) -> str:
        messages: list[Any] = [{"role": "user", "content": QUESTION}]
        asked = await self.client.messages.create(messages=messages, tools=[TOOL], **ASK)
        results = [
            {"type": "tool_result", "tool_use_id": block.id, "content": SUNNY}
            for block in asked.content
            if block.type == "tool_use" and block.input["city"]
        ]
        messages += [
            {"role": "assistant", "content": asked.content},
            {"role": "user", "content": results},
        ]
        answer = await self.client.messages.create(messages=messages, tools=[TOOL], **ASK)
        text: str = answer.content[0].text
        return text
