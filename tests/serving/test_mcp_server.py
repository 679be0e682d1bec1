"""Targets as MCP tools, called by our own MCP client and by the official one."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from muster.errors import MusterError
from muster.provider import ProviderRequest, RateLimited
from muster.target import Secret
from muster.tools.base import Toolbox, ToolFailed, open_toolbox
from muster.tools.definitions import McpServer
from muster.tools.mcp import McpServers

pytest.importorskip("mcp")

from serving_parts import TOKEN, Site, targets_of

from muster.serving.http import HttpServer, HttpSettings
from muster.serving.mcp_server import mcp_http_face
from muster.serving.served import tool_names

TARGETS = """
targets:
  - name: fast
    provider: mock
    replies:
      - {contains: fail, error: {kind: rate_limited, message: slow down}}
    default: {text: hello from fast}
  - name: v1.2 large
    provider: mock
    response: hello from large
  - name: slow
    provider: mock
    delay: 60
"""
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}


@pytest.fixture
async def servers() -> AsyncIterator[McpServers]:
    async with McpServers(startup_timeout=20) as opened:
        yield opened


@asynccontextmanager
async def site_of(folder: Path, given: dict[str, Any], **settings: Any) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        pool, targets = targets_of(folder, given)
        stack.push_async_callback(pool.aclose)
        told: list[str] = []
        face = await stack.enter_async_context(mcp_http_face(targets, tell=told.append))
        server = HttpServer(
            face.answer, HttpSettings(**{"token": TOKEN, **settings}), tell=told.append
        )
        port = await server.start()
        stack.push_async_callback(server.stop, 0.0)
        yield Site(server, port, told)


def http(site: Site) -> McpServer:
    headers = {"Authorization": Secret(f"Bearer {TOKEN}")}
    return McpServer(name="m", url=f"http://127.0.0.1:{site.port}/mcp", headers=headers)


async def failure(box: Toolbox, name: str, arguments: dict[str, Any]) -> str:
    with pytest.raises(ToolFailed) as caught:
        await box.call(name, arguments)
    return str(caught.value)


async def test_over_standard_input(servers: McpServers, tmp_path: Path) -> None:
    (tmp_path / "targets.yaml").write_text(TARGETS)
    command = (sys.executable, "-m", "muster", "serve-provider", "fast", "v1.2 large", "--mcp")
    source = McpServer(name="m", command=command, cwd=tmp_path)
    box = await open_toolbox((source,), servers=servers)
    assert [tool.name for tool in box.tools] == ["m__ask_fast", "m__ask_v1_2_large"]
    assert box.tools[0].description == 'Ask "fast" a question.'
    assert box.tools[0].parameters["required"] == ["question"]
    assert await box.call("m__ask_fast", {"question": "hi"}) == "hello from fast"
    assert await box.call("m__ask_v1_2_large", {"question": "hi"}) == "hello from large"
    assert "rate_limited: slow down" in await failure(box, "m__ask_fast", {"question": "fail"})


async def test_over_http(servers: McpServers, tmp_path: Path) -> None:
    asked: list[ProviderRequest] = []

    async def echo(request: ProviderRequest) -> str:
        asked.append(request)
        if request.question == "fail":
            raise RateLimited("a-very-secret-key is too fast")
        return f"you said: {request.question}"

    async with site_of(tmp_path, {"it": echo}) as site:
        box = await open_toolbox((http(site),), servers=servers)
        answers = await asyncio.gather(
            *(box.call("m__ask_it", {"question": str(n)}) for n in range(20))
        )
        assert answers == [f"you said: {n}" for n in range(20)]
        await box.call("m__ask_it", {"question": "x", "system_prompt": "Be brief."})
        assert asked[-1].system_prompt == "Be brief."
        told = await failure(box, "m__ask_it", {"question": "fail"})
        assert told.endswith("rate_limited: ********** is too fast")
        for arguments, expected in (
            ({}, "question is missing"),
            ({"question": 5}, "question must be text, not int"),
            ({"question": "x", "temperature": 1}, 'no argument "temperature"'),
        ):
            assert expected in await failure(box, "m__ask_it", arguments)
        await servers.aclose()
        assert site.told == []


async def test_chunks_are_progress(tmp_path: Path) -> None:
    from mcp.client import Client
    from mcp.client.streamable_http import streamable_http_client

    async def count(request: ProviderRequest) -> AsyncIterator[str]:
        for text in ("one ", "two ", "three"):
            yield text
            await asyncio.sleep(0.01)

    heard: list[tuple[float, str | None]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, message))

    async with site_of(tmp_path, {"it": count}, token=None) as site:
        url = f"http://127.0.0.1:{site.port}/mcp"
        async with Client(streamable_http_client(url), mode="legacy", cache=None) as client:
            result: Any = await client.call_tool(
                "ask_it", {"question": "?"}, progress_callback=on_progress
            )
    assert result.content[0].text == "one two three"
    assert heard == [(4.0, "one "), (8.0, "two "), (13.0, "three")]


async def test_a_target_that_waits_its_turn_shows_that_it_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mcp.client import Client
    from mcp.client.streamable_http import streamable_http_client

    monkeypatch.setattr("muster.serving.mcp_server.SIGN_OF_LIFE_SECONDS", 0.02)
    heard: list[tuple[float, str | None]] = []
    twice = asyncio.Event()

    async def patient(request: ProviderRequest) -> str:
        await twice.wait()
        return "at last"

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, message))
        if len(heard) == 2:
            twice.set()

    async with site_of(tmp_path, {"it": patient}, token=None) as site:
        url = f"http://127.0.0.1:{site.port}/mcp"
        async with Client(streamable_http_client(url), mode="legacy", cache=None) as client:
            result: Any = await client.call_tool(
                "ask_it", {"question": "?"}, progress_callback=on_progress
            )
    assert result.content[0].text == "at last"
    assert heard[:2] == [(1.0, None), (2.0, None)]


async def test_the_guard_stands_before_it(tmp_path: Path) -> None:
    async def echo(request: ProviderRequest) -> str:
        return request.question

    body = json.dumps(INITIALIZE).encode()
    good = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    async with site_of(tmp_path, {"it": echo}, max_body=5000) as site:
        for path, headers, data, status in (
            ("/mcp", {"Authorization": None}, body, 401),
            ("/mcp", {"Host": "evil.example"}, body, 403),
            ("/mcp", {"Origin": "http://evil.example"}, body, 403),
            ("/v1/models", {}, body, 404),
            ("/mcp", {}, b"x" * 5001, 413),
            ("/mcp", {}, b"{", 400),
            ("/mcp", {}, body, 200),
            ("/health", {"Authorization": None}, b"", 200),
        ):
            method = "GET" if path == "/health" else "POST"
            reply = await site.send(method, path, data, headers={**good, **headers})
            assert reply.status == status, (path, headers, reply.body)
        assert site.told == []


async def test_a_client_that_listens_does_not_hold_up_the_end(tmp_path: Path) -> None:
    async def echo(request: ProviderRequest) -> str:
        return request.question

    async with site_of(tmp_path, {"it": echo}) as site:
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
        }
        reply = await site.send("POST", "/mcp", json.dumps(INITIALIZE).encode(), headers=headers)
        session = reply.headers["mcp-session-id"]
        reader, writer = await site.connect()
        writer.write(
            f"GET /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
            f"Accept: text/event-stream\r\nMcp-Session-Id: {session}\r\n\r\n".encode()
        )
        async with asyncio.timeout(5):
            assert b" 200 " in await reader.readline()
            assert await site.server.stop(30.0) == 0
            await reader.read()
        writer.close()


def test_names_of_tools() -> None:
    assert tool_names(["a", "b/c", "ü"]) == {"ask_a": "a", "ask_b_c": "b/c", "ask__": "ü"}
    with pytest.raises(MusterError, match=r'"b/c" and "b\.c" would both be the tool ask_b_c'):
        tool_names(["b/c", "b.c"])


@pytest.mark.parametrize("end", ["input", "term"])
async def test_it_ends_with_its_client(tmp_path: Path, end: str) -> None:
    (tmp_path / "targets.yaml").write_text(TARGETS)
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "muster", "serve-provider", "slow", "--mcp", "--grace", "0.2",
        cwd=tmp_path, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    arguments = {"name": "ask_slow", "arguments": {"question": "?"}}
    rows = [
        INITIALIZE,
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": arguments},
        {"jsonrpc": "2.0", "id": 2, "method": "ping"},
    ]
    async with asyncio.timeout(30):
        for row in rows:
            child.stdin.write(json.dumps(row).encode() + b"\n")
            if "id" in row and row["id"] != 1:
                assert json.loads(await child.stdout.readline())["id"] == row["id"]
        if end == "input":
            child.stdin.close()
        else:
            child.terminate()
        code = await child.wait()
        assert await child.stderr.read() == b""
    assert code == (143 if end == "term" else 0)
