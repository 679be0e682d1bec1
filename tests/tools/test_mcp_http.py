"""MCP servers behind URLs: which transport is spoken, and what happens when they go away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from node_servers import everything

from llmock import free_port
from muster.target import Secret
from muster.tools.base import Toolbox, ToolFailed, open_toolbox
from muster.tools.definitions import McpServer
from muster.tools.mcp import McpServers

pytest.importorskip("mcp")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
async def servers() -> AsyncIterator[McpServers]:
    async with McpServers(startup_timeout=10) as opened:
        yield opened


@asynccontextmanager
async def serving(handler: Handler, port: int = 0) -> AsyncIterator[str]:
    runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def failure(box: Toolbox, name: str, arguments: dict[str, Any] | None = None) -> str:
    with pytest.raises(ToolFailed) as caught:
        await box.call(name, arguments or {})
    return str(caught.value)


# --- the protocol, spoken by somebody else's server -----------------------------------------------


@pytest.mark.node
@pytest.mark.parametrize(("transport", "path"), [("streamableHttp", "/mcp"), ("sse", "/sse")])
async def test_a_server_of_others(servers: McpServers, transport: str, path: str) -> None:
    with everything(transport) as port:
        server = McpServer(name="ev", url=f"http://127.0.0.1:{port}{path}")
        box = await open_toolbox([server], servers=servers)
        assert box.warnings == []
        assert await box.call("ev__echo", {"message": "hi"}) == "Echo: hi"
        assert "5" in await box.call("ev__get-sum", {"a": 2, "b": 3})
        assert "[image/png, 4,033 bytes]" in await box.call("ev__get-tiny-image", {})
        await servers.aclose()


@pytest.mark.node
async def test_a_server_that_was_started_anew_gets_a_new_session(servers: McpServers) -> None:
    port = free_port()
    server = McpServer(name="ev", url=f"http://127.0.0.1:{port}/mcp")
    with everything("streamableHttp", port):
        box = await open_toolbox([server], servers=servers)
        assert await box.call("ev__echo", {"message": "one"}) == "Echo: one"
    said = await failure(box, "ev__echo", {"message": "two"})
    assert said.startswith('MCP server "ev"')
    with everything("streamableHttp", port):
        assert await box.call("ev__echo", {"message": "three"}) == "Echo: three"
        await servers.aclose()


async def test_nobody_there(servers: McpServers) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    box = await open_toolbox([McpServer(name="a", url=f"{url}/mcp?key=1")], servers=servers)
    (warning,) = box.warnings
    assert warning.startswith(f'MCP server "a": {url}: ')
    assert "key=1" not in warning


async def test_a_wrong_key_is_told_by_its_status(servers: McpServers) -> None:
    seen: list[str | None] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization"))
        return web.Response(status=401, text="who are you?")

    headers = {"Authorization": Secret("Bearer top-secret-1")}
    async with serving(handle) as url:
        server = McpServer(name="a", url=f"{url}/mcp", headers=headers)
        box = await open_toolbox([server], servers=servers)
    assert box.warnings == ['MCP server "a": HTTP 401 Unauthorized; its tools are not available']
    assert set(seen) == {"Bearer top-secret-1"}


async def test_one_that_takes_the_request_and_never_answers() -> None:
    async def handle(_: web.Request) -> web.Response:
        await asyncio.sleep(60)
        raise AssertionError

    async with McpServers(startup_timeout=0.3) as servers, serving(handle) as url:
        start = time.monotonic()
        box = await open_toolbox([McpServer(name="a", url=f"{url}/mcp")], servers=servers)
        assert box.warnings == [
            f'MCP server "a": {url}: no answer to `initialize` within 0.3 s; its tools are not '
            "available"
        ]
        assert time.monotonic() - start < 3


# --- ark's simple form ----------------------------------------------------------------------------


class Simple:
    """A server as ark's users write them; everything else is 404."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.authorization: list[str | None] = []
        self.calls: list[Any] = []
        self.status = 200
        self.answer: Any = {
            "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
        }

    async def __call__(self, request: web.Request) -> web.Response:
        self.paths.append(f"{request.method} {request.path}")
        self.authorization.append(request.headers.get("Authorization"))
        if request.path == "/x/tools/list":
            schema = {"type": "object", "properties": {"q": {"type": "string"}}}
            tool = {"name": "find", "description": "Finds.", "inputSchema": schema}
            return web.json_response({"tools": [tool]})
        if request.path == "/x/tools/call":
            self.calls.append(await request.json())
            return web.json_response(self.answer, status=self.status)
        return web.Response(status=404)


@pytest.mark.parametrize("transport", [None, "simple-http"])
async def test_simple_form(servers: McpServers, transport: Any) -> None:
    simple = Simple()
    async with serving(simple) as url:
        server = McpServer(
            name="s",
            url=f"{url}/x",
            transport=transport,
            headers={"Authorization": Secret("Bearer abcd")},
        )
        box = await open_toolbox([server], servers=servers)
        assert box.warnings == []
        assert [tool.name for tool in box.tools] == ["s__find"]
        assert box.tools[0].parameters["properties"] == {"q": {"type": "string"}}
        assert await box.call("s__find", {"q": "ü"}) == "one\ntwo"
        assert simple.calls == [{"name": "find", "arguments": {"q": "ü"}}]
        assert set(simple.authorization) == {"Bearer abcd"}
        if transport is not None:
            assert simple.paths == ["POST /x/tools/list", "POST /x/tools/call"]


@pytest.mark.parametrize(
    ("status", "answer", "said"),
    [
        (500, {"oh": "no"}, 'tools/call returned status 500: {"oh": "no"}'),
        (200, [], "tools/call did not answer with a JSON object"),
        (200, {"content": [{"type": "text", "text": "dry"}], "isError": True}, "dry"),
    ],
)
async def test_simple_form_that_fails(
    servers: McpServers, status: int, answer: Any, said: str
) -> None:
    simple = Simple()
    simple.status, simple.answer = status, answer
    async with serving(simple) as url:
        server = McpServer(name="s", url=f"{url}/x", transport="simple-http")
        box = await open_toolbox([server], servers=servers)
        assert await failure(box, "s__find") == said


async def test_neither_form_is_spoken(servers: McpServers) -> None:
    async def handle(_: web.Request) -> web.Response:
        return web.Response(status=404)

    async with serving(handle) as url:
        box = await open_toolbox([McpServer(name="a", url=f"{url}/mcp")], servers=servers)
    assert box.warnings == [
        'MCP server "a": streamable HTTP: HTTP 404 Not Found; simple HTTP: tools/list returned '
        "status 404; its tools are not available"
    ]


async def test_simple_form_that_is_gone(servers: McpServers) -> None:
    simple = Simple()
    port = free_port()
    async with serving(simple, port) as url:
        server = McpServer(name="s", url=f"{url}/x", transport="simple-http")
        box = await open_toolbox([server], servers=servers)
    said = await failure(box, "s__find")
    assert said.startswith('MCP server "s": tools/call request failed: ')
    async with serving(simple, port):
        assert await box.call("s__find", {}) == "one\ntwo"
