"""Proxies within the test's own loop, servers behind them, and our providers before them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from muster.provider import ProviderRequest, ProviderResponse
from muster.providers.anthropic import AnthropicProvider
from muster.providers.chat import ChatProvider
from muster.providers.openai import OpenAIProvider
from muster.proxy.running import ProxySettings, RunningProxy, proxy
from muster.target import ResolvedTarget

KEY = "sk-test-0123456789abcdef"


@dataclass
class Site:
    """A running proxy and what it told."""

    running: RunningProxy
    told: list[str]
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.running.base_url

    @property
    def port(self) -> int:
        return int(self.url.split(":")[2].split("/")[0])

    async def stop(self) -> None:
        """As at the end of the command."""
        assert await self.running.stop(5) == 0
        if self.running.relay.writer is not None:
            self.running.relay.writer.close()

    async def post(
        self, path: str, body: Any, headers: Mapping[str, str] = {}
    ) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own, read to the end of the connection."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {
            "Host": f"127.0.0.1:{self.port}",
            "Connection": "close",
            "Content-Length": str(len(data)),
            **headers,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        return parsed(await self.raw(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + data))

    async def raw(self, data: bytes) -> bytes:
        """Everything that comes back for these bytes, until the connection ends."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            async with asyncio.timeout(10):
                return await reader.read()
        finally:
            writer.close()


def parsed(data: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers in lower case, and the body without its chunks' sizes."""
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    pairs = (line.partition(": ") for line in lines)
    headers = {name.lower(): value for name, _, value in pairs}
    if headers.get("transfer-encoding") == "chunked":
        body = unchunked(body)
    return int(first.split()[1]), headers, body


def unchunked(body: bytes) -> bytes:
    """What is there of a chunked body."""
    parts = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        count = int(size, 16)
        parts.append(rest[:count])
        body = rest[count + 2 :]
    return b"".join(parts)


@dataclass
class Start:
    """Makes proxies that end with the test."""

    folder: Path
    stack: AsyncExitStack

    async def __call__(self, rules: list[dict[str, Any]] | None = None, **settings: Any) -> Site:
        if rules is not None:
            settings["chaos"] = self.folder / "plan.yaml"
            settings["chaos"].write_text(yaml.safe_dump({"seed": 1, "rules": rules}))
        told: list[str] = []
        events: list[dict[str, Any]] = []
        running = await self.stack.enter_async_context(
            proxy(ProxySettings(**settings), tell=told.append, emit=events.append)
        )
        return Site(running, told, events)


async def ask(
    url: str,
    api: str,
    question: str = "hello",
    *,
    on_chunk: Callable[[str], None] | None = None,
    key: str = KEY,
    **request: Any,
) -> ProviderResponse:
    """Ask through one of our own providers: `chat`, `responses` or `anthropic`."""
    config: dict[str, Any] = {"base_url": url, "api_key": key}
    if api == "anthropic":
        config["model"] = "claude-sonnet-4-5"
        target = ResolvedTarget(name="a", provider="anthropic", config=config, env={})
        chat = ChatProvider(AnthropicProvider(target))
    else:
        config |= {"model": "gpt-4o-mini", "api_format": api}
        target = ResolvedTarget(name="o", provider="openai", config=config, env={})
        chat = ChatProvider(OpenAIProvider(target))
    try:
        return await chat.invoke(ProviderRequest(question=question, on_chunk=on_chunk, **request))
    finally:
        await chat.aclose()


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
