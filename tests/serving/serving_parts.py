"""Targets served within the test's own loop, and clients that say exactly what they send."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muster.config.targets import load_catalog
from muster.provider import ProviderRequest
from muster.providers import providers
from muster.providers.chat import ChatProvider
from muster.providers.openai import OpenAIProvider
from muster.registry import Registry
from muster.serving.http import HttpServer, HttpSettings
from muster.serving.openai_api import openai_face
from muster.serving.served import ServedTargets
from muster.target import ResolvedTarget
from muster.targets import Overrides, TargetPool

TOKEN = "sesame-open"


@dataclass(frozen=True)
class Reply:
    """What came over a socket."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        return self.json["error"]["message"]

    @property
    def code(self) -> str:
        return self.json["error"]["code"]


@dataclass
class Site:
    """A running server."""

    server: HttpServer
    port: int
    told: list[str]

    def client(self, model: str, **settings: Any) -> ChatProvider:
        """Our own provider, pointed here. The caller closes it."""
        config = {
            "model": model,
            "endpoint": f"http://127.0.0.1:{self.port}/v1",
            "api_key": TOKEN,
            **settings,
        }
        target = ResolvedTarget(name="client", provider="openai", config=config)
        return ChatProvider(OpenAIProvider(target))

    async def ask(self, body: Any, **more: Any) -> Reply:
        """One chat completion request; `body` is made JSON unless it is bytes."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.send("POST", "/v1/chat/completions", data, **more)

    async def send(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str | None] = {}
    ) -> Reply:
        """One request on a connection of its own; a header that is `None` is left out."""
        given = {
            "Host": f"127.0.0.1:{self.port}",
            "Authorization": f"Bearer {TOKEN}",
            "Content-Length": str(len(body)),
            **headers,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in given.items() if value is not None)
        reader, writer = await self.connect()
        writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
        try:
            return await read_reply(reader)
        finally:
            writer.close()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)


async def read_reply(reader: asyncio.StreamReader) -> Reply:
    """One answer, with a length or in chunks."""
    async with asyncio.timeout(10):
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
        }
        body = b""
        if headers.get("transfer-encoding") == "chunked":
            while size := int((await reader.readline()).strip() or b"0", 16):
                body += await reader.readexactly(size)
                await reader.readexactly(2)
        else:
            body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Reply(int(first.split()[1]), headers, body)


def events_of(reply: Reply) -> list[Any]:
    """The events of a stream; the last is `[DONE]` when it is whole."""
    lines = [line for line in reply.body.decode().split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines), lines
    data = [line.removeprefix("data: ") for line in lines]
    return [row if row == "[DONE]" else json.loads(row) for row in data]


def targets_of(
    folder: Path, given: Mapping[str, Any], text: str = "", *, names: Sequence[str] = ()
) -> tuple[TargetPool, ServedTargets]:
    """Targets made of Python objects, and those of `text`, entries of a targets file."""
    registry = Registry("provider", builtins=dict(providers._builtins))
    rows = text
    for number, (name, obj) in enumerate(given.items()):
        registry.register(f"given-{number}", lambda _, obj=obj: obj)
        rows += f"\n  - name: {name}\n    provider: given-{number}"
    (folder / "targets.yaml").write_text("targets:\n" + rows + "\n")
    catalog = load_catalog(folder, env={})
    pool = TargetPool(catalog, registry, Overrides(max_retries=0))
    return pool, ServedTargets(
        pool, names or catalog.names, env={"SERVICE_KEY": "a-very-secret-key"}
    )


class Serve:
    """Starts servers; they stop with the test."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.folder = folder
        self.stack = stack

    async def __call__(
        self,
        given: Mapping[str, Any] | None = None,
        text: str = "",
        *,
        tool_seconds: float = 60.0,
        **settings: Any,
    ) -> Site:
        pool, targets = targets_of(self.folder, given or {}, text)
        self.stack.push_async_callback(pool.aclose)
        told: list[str] = []
        face = await self.stack.enter_async_context(
            openai_face(targets, tell=told.append, tool_seconds=tool_seconds)
        )
        chosen = HttpSettings(**{"token": TOKEN, **settings})
        server = HttpServer(face.answer, chosen, tell=told.append)
        port = await server.start()
        self.stack.push_async_callback(server.stop, 0.0)
        return Site(server, port, told)


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


async def echo(request: ProviderRequest) -> str:
    return f"you said: {request.question}"
