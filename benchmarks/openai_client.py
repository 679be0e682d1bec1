"""What the `openai` provider costs a call, beside bare aiohttp and the official SDK.

    python benchmarks/openai_client.py [--calls 20000] [--concurrency 64] [--rounds 3] [--uvloop]

A server process on loopback answers as Chat Completions does. Every client makes the same calls,
in turns, `--rounds` times; shown are the medians of the client's own CPU and, for plain calls, of
calls a second. Bare is aiohttp. The `openai` package takes part if it is installed.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

import model_server
from measure import Row, command_line, tell

from muster.provider import Message, ProviderRequest, Tool
from muster.providers.chat import ChatProvider
from muster.providers.openai import OpenAIProvider
from muster.target import ResolvedTarget

DELTAS = 500
HISTORY = tuple(
    Message("user" if number % 2 == 0 else "assistant", "x" * 2000) for number in range(50)
)
TOOL = Tool(model_server.TOOL_NAME, "The weather of a city.", {"type": "object", "properties": {}})
MODEL = model_server.MODEL["openai"]
PLAIN = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
LONG = {
    "model": MODEL,
    "messages": [{"role": m.role, "content": m.content} for m in HISTORY] + PLAIN["messages"],
}

Call = Callable[[], Awaitable[None]]


# --- the clients --------------------------------------------------------------------------------


class Muster:
    """This project's provider."""

    name = "muster"

    def __init__(self, url: str) -> None:
        target = ResolvedTarget(
            name="bench", provider="openai", config={"base_url": url, "model": MODEL}, env={}
        )
        self.provider = ChatProvider(OpenAIProvider(target))

    async def plain(self) -> None:
        response = await self.provider.invoke(ProviderRequest(question="hello"))
        assert response.text

    async def history(self) -> None:
        request = ProviderRequest(question="hello", messages=HISTORY)
        assert (await self.provider.invoke(request)).text

    async def stream(self) -> None:
        chunks: list[str] = []
        request = ProviderRequest(question="hello", on_chunk=chunks.append)
        response = await self.provider.invoke(request)
        assert len(chunks) == DELTAS
        assert response.finish_reason == "stop"

    async def tool(self) -> None:
        async def call(name: str, arguments: Any) -> str:
            return "sunny"

        request = ProviderRequest(question="weather?", tools=(TOOL,), call_tool=call)
        response = await self.provider.invoke(request)
        assert len(response.output) == 3

    async def aclose(self) -> None:
        await self.provider.aclose()


class Aiohttp:
    """The least that a program can do: no checks, the standard library's JSON."""

    name = "aiohttp"

    def __init__(self, url: str) -> None:
        import aiohttp

        self.url = f"{url}/v1/chat/completions"
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def post(self, body: dict[str, Any]) -> Any:
        async with self.session.post(self.url, json=body) as answer:
            return json.loads(await answer.read())

    async def plain(self) -> None:
        assert (await self.post(PLAIN))["choices"][0]["message"]["content"]

    async def history(self) -> None:
        assert (await self.post(LONG))["choices"][0]["message"]["content"]

    async def stream(self) -> None:
        count = 0
        async with self.session.post(self.url, json={**PLAIN, "stream": True}) as answer:
            async for line in answer.content:
                if line.startswith(b"data: {"):
                    delta = json.loads(line[6:])["choices"][0]["delta"]
                    count += "content" in delta
        assert count == DELTAS

    async def tool(self) -> None:
        schema = {"name": TOOL.name, "description": TOOL.description, "parameters": {}}
        body = {**PLAIN, "tools": [{"type": "function", "function": schema}]}
        message = (await self.post(body))["choices"][0]["message"]
        result = {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}
        await self.post({**body, "messages": [*body["messages"], message, result]})

    async def aclose(self) -> None:
        await self.session.close()


class OpenAISdk:
    """The official SDK."""

    name = "openai SDK"

    def __init__(self, url: str) -> None:
        import openai

        self.client: Any = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x")

    async def plain(self) -> None:
        answer = await self.client.chat.completions.create(**PLAIN)
        assert answer.choices[0].message.content

    async def history(self) -> None:
        answer = await self.client.chat.completions.create(**LONG)
        assert answer.choices[0].message.content

    async def stream(self) -> None:
        count = 0
        async for chunk in await self.client.chat.completions.create(**PLAIN, stream=True):
            count += bool(chunk.choices[0].delta.content)
        assert count == DELTAS

    async def tool(self) -> None:
        schema = {"name": TOOL.name, "description": TOOL.description, "parameters": {}}
        body = {**PLAIN, "tools": [{"type": "function", "function": schema}]}
        message = (await self.client.chat.completions.create(**body)).choices[0].message
        result = {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}
        messages = [*body["messages"], message, result]
        await self.client.chat.completions.create(**{**body, "messages": messages})

    async def aclose(self) -> None:
        await self.client.close()


# --- the measurement ----------------------------------------------------------------------------


async def measure(call: Call, calls: int, concurrency: int) -> tuple[float, float]:
    """Calls a second, and CPU seconds of this process a call."""
    left = calls

    async def work() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await call()

    await asyncio.gather(*(call() for _ in range(min(concurrency, calls))))
    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(work() for _ in range(concurrency)))
    return calls / (time.perf_counter() - wall), (time.process_time() - cpu) / calls


KINDS = (
    # what, share of the calls, unit, per, target
    ("plain", 1.0, "CPU of a call", 1, 150.0),
    ("history", 0.2, "CPU of a call, 100 kB of history", 1, 400.0),
    ("stream", 0.02, "CPU of a streamed delta", DELTAS, 10.0),
    ("tool", 0.5, "CPU of a tool round trip", 1, 500.0),
)
CALLS_A_SECOND = 6000


async def compare(url: str, options: argparse.Namespace) -> list[Row]:
    """A row for each kind of call and client."""
    kinds: list[Any] = [Aiohttp, Muster]
    if importlib.util.find_spec("openai") is not None:
        kinds.append(OpenAISdk)
    clients = [kind(url) for kind in kinds]
    rows: list[Row] = []
    for what, share, title, per, limit in KINDS:
        found: dict[str, list[tuple[float, float]]] = {client.name: [] for client in clients}
        calls = max(options.concurrency, int(options.calls * share))
        for _ in range(options.rounds or 3):
            for client in clients:
                count = calls if client.name != OpenAISdk.name else max(64, calls // 10)
                call = getattr(client, what)
                found[client.name].append(await measure(call, count, options.concurrency))
        rows += cpu_rows(title, found, per, limit)
        if what == "plain":
            rows += rate_rows(found, options.concurrency)
    for client in clients:
        await client.aclose()
    return rows


def cpu_rows(
    title: str, found: dict[str, list[tuple[float, float]]], per: int, limit: float
) -> list[Row]:
    """The clients' CPU in microseconds."""
    rows = []
    bare = statistics.median(cpu for _, cpu in found[Aiohttp.name])
    for name, rounds in found.items():
        cpu = statistics.median(cpu for _, cpu in rounds)
        value, ours = cpu / per * 1e6, name == Muster.name
        target, met = (f"≤ {limit:g} µs", value <= limit) if ours else ("", None)
        rows.append(Row(title, name, value, "µs", cpu / bare, target, met))
    return rows


def rate_rows(found: dict[str, list[tuple[float, float]]], concurrency: int) -> list[Row]:
    """Calls a second; here a higher ratio is a better one."""
    rows = []
    bare = statistics.median(rate for rate, _ in found[Aiohttp.name])
    for name, rounds in found.items():
        rate, ours = statistics.median(rate for rate, _ in rounds), name == Muster.name
        target, met = (f"≥ {CALLS_A_SECOND:,}/s", rate >= CALLS_A_SECOND) if ours else ("", None)
        title = f"calls a second, {concurrency} at a time"
        rows.append(Row(title, name, rate, "/s", rate / bare, target, met))
    return rows


def main() -> None:
    """Start the server, compare, end the server."""
    parser = command_line(__doc__)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--uvloop", action="store_true", help="run the clients on uvloop")
    options = parser.parse_args()
    with model_server.running(DELTAS) as url:
        if options.uvloop:
            import uvloop

            rows = uvloop.run(compare(url, options))
        else:
            rows = asyncio.run(compare(url, options))
    tell(rows, options)


if __name__ == "__main__":
    main()
