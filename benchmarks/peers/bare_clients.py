"""Bare aiohttp: the least that a program can do. No checks, and the standard library's JSON."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import aiohttp
from model_server import MODEL, TOOL_NAME

from peers.model_clients import DESCRIPTION, MAX_TOKENS, QUESTION, SCHEMA, SUNNY, Seen

__all__ = ("BareAnthropic", "BareOpenAI")


class _Bare:
    path: ClassVar[str]
    ask: ClassVar[dict[str, Any]]

    def __init__(self, url: str) -> None:
        self.url = url + self.path
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def post(self, body: dict[str, Any]) -> Any:
        async with self.session.post(self.url, json=body) as answer:
            return json.loads(await answer.read())


class BareOpenAI(_Bare):
    path = "/v1/chat/completions"
    ask: ClassVar[dict[str, Any]] = {
        "model": MODEL["openai"],
        "messages": [{"role": "user", "content": QUESTION}],
    }

    async def plain(self) -> str:
        text: str = (await self.post(self.ask))["choices"][0]["message"]["content"]
        return text

    async def stream(self, seen: Seen) -> tuple[str, str | None]:
        texts, finish = [], None
        async with self.session.post(self.url, json={**self.ask, "stream": True}) as answer:
            async for line in answer.content:
                if line.startswith(b"data: {"):
                    choice = json.loads(line[6:])["choices"][0]
                    finish = choice["finish_reason"] or finish
                    if text := choice["delta"].get("content"):
                        if not texts:
                            seen()
                        texts.append(text)
        return "".join(texts), finish

    async def tool(self) -> str:
        function = {"name": TOOL_NAME, "description": DESCRIPTION, "parameters": SCHEMA}
        body = {**self.ask, "tools": [{"type": "function", "function": function}]}
        asked = (await self.post(body))["choices"][0]["message"]
        results = [
            {"role": "tool", "tool_call_id": call["id"], "content": SUNNY}
            for call in asked["tool_calls"]
            if json.loads(call["function"]["arguments"])["city"]
        ]
        said = await self.post({**body, "messages": [*body["messages"], asked, *results]})
        text: str = said["choices"][0]["message"]["content"]
        return text


class BareAnthropic(_Bare):
    path = "/v1/messages"
    ask: ClassVar[dict[str, Any]] = {
        "model": MODEL["anthropic"],
        "max_tokens": MAX_TOKENS,
        "messages": [{"role": "user", "content": QUESTION}],
    }

    async def plain(self) -> str:
        text: str = (await self.post(self.ask))["content"][0]["text"]
        return text

    async def stream(self, seen: Seen) -> tuple[str, str | None]:
        texts, finish = [], None
        async with self.session.post(self.url, json={**self.ask, "stream": True}) as answer:
            async for line in answer.content:
                if line.startswith(b"data: {"):
                    event = json.loads(line[6:])
                    if event["type"] == "content_block_delta":
                        if not texts:
                            seen()
                        texts.append(event["delta"]["text"])
                    elif event["type"] == "message_delta":
                        finish = event["delta"]["stop_reason"]
        return "".join(texts), finish

    async def tool(self) -> str:
        tool = {"name": TOOL_NAME, "description": DESCRIPTION, "input_schema": SCHEMA}
        body = {**self.ask, "tools": [tool]}
        asked = (await self.post(body))["content"]
        results = [
            {"type": "tool_result", "tool_use_id": block["id"], "content": SUNNY}
            for block in asked
            if block["type"] == "tool_use" and block["input"]["city"]
        ]
        more = [{"role": "assistant", "content": asked}, {"role": "user", "content": results}]
        said = await self.post({**body, "messages": [*body["messages"], *more]})
        text: str = said["content"][0]["text"]
        return text
