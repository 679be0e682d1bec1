"""Targets as the tools of an MCP server, by the official `mcp` package, imported with this module.

Each target is a tool `ask_<target>`. What a target says as it comes is told as progress.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from mcp import types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

import muster
from muster.errors import nearest
from muster.provider import ProviderError, ProviderRequest
from muster.serving.asgi import AsgiBridge
from muster.serving.calls import RunningCall
from muster.serving.http import Face, HttpServer
from muster.serving.pipes import LineTooLong, Pipes
from muster.serving.refusal import Refusal
from muster.serving.served import Served, ServedTargets, tool_names
from muster.serving.stdio import first_of
from muster.store.rows import whole

__all__ = ("mcp_http_face", "serve_stdio")

PATH = "/mcp"
MAX_SESSIONS = 1000
SIGN_OF_LIFE_SECONDS = 10.0
"""After so long a silence a client that asks for progress is told that its call is under way, so
that it does not give up a target that waits for its turn. Clients wait for 30 or 60 s."""

SCHEMA = {
    "type": "object",
    "properties": {
        "question": {"type": "string", "description": "What is asked."},
        "system_prompt": {
            "type": "string",
            "description": "How to answer; without it the target's own way holds.",
        },
    },
    "required": ["question"],
    "additionalProperties": False,
}

# The package logs tracebacks of what we tell in one line; without any handler they would go to
# standard error.
logging.getLogger("mcp").addHandler(logging.NullHandler())


class McpTools:
    """The tools, and the calls under way."""

    def __init__(self, targets: ServedTargets, *, tell: Callable[[str], None]) -> None:
        self._targets = targets
        self._tell = tell
        self._names = tool_names(targets.names)
        self._count = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def under_way(self) -> int:
        """Calls without an answer."""
        return self._count

    async def idle(self) -> None:
        """Wait until no call is under way."""
        await self._idle.wait()

    def server(self) -> Server[Any]:
        """What the package serves."""
        return Server(
            "muster",
            version=muster.__version__,
            instructions="Each tool asks a model or an agent a question; its text is the answer.",
            on_list_tools=self._list,
            on_call_tool=self._call,
        )

    async def _list(
        self, context: ServerRequestContext[Any], params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        return types.ListToolsResult(
            tools=[
                types.Tool(
                    name=tool,
                    description=f'Ask "{target}" a question.',
                    input_schema=SCHEMA,
                )
                for tool, target in self._names.items()
            ]
        )

    async def _call(
        self, context: ServerRequestContext[Any], params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        name = self._names.get(params.name)
        served = self._targets.find(name) if name is not None else None
        if served is None:
            near = nearest(params.name[:100], self._names)
            hint = f"near: {near[0]}; " if near else ""
            known = ", ".join(self._names)
            return _failed(f'no tool "{params.name[:100]}" ({hint}known: {known})')
        given = params.arguments or {}
        trouble = _mistake(given)
        if trouble is not None:
            return _failed(f"{params.name}: {trouble}")
        self._count += 1
        self._idle.clear()
        try:
            return await self._ask(context, served, given)
        finally:
            self._count -= 1
            if not self._count:
                self._idle.set()

    async def _ask(
        self, context: ServerRequestContext[Any], served: Served, given: dict[str, Any]
    ) -> types.CallToolResult:
        request = ProviderRequest(
            question=given["question"], system_prompt=given.get("system_prompt")
        )
        wants_progress = bool(context.meta and context.meta.get("progress_token") is not None)
        call = RunningCall(served.provider, request, target=served.name, stream=wants_progress)
        progress = 0.0
        try:
            while True:
                item = await call.next_within(SIGN_OF_LIFE_SECONDS if wants_progress else None)
                if item is None:
                    progress += 1  # it has to grow
                    await context.session.report_progress(progress)
                elif isinstance(item, str):
                    progress += len(item)
                    await context.session.report_progress(progress, message=whole(item))
                elif not isinstance(item, list):
                    return types.CallToolResult(
                        content=[types.TextContent(type="text", text=whole(item.text))]
                    )
        except ProviderError as error:
            return _failed(f"{error.kind}: {self._targets.said(error)}")
        finally:
            await call.close()


def _mistake(given: dict[str, Any]) -> str | None:
    """What is wrong with a tool's arguments."""
    for name, value in given.items():
        if name not in SCHEMA["properties"]:  # type: ignore[operator]
            return f'no argument "{name[:100]}": expected question and, if need be, system_prompt'
        if not isinstance(value, str):
            return f"{name} must be text, not {type(value).__name__}"
    return None if "question" in given else "question is missing"


def _failed(text: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)], is_error=True)


# --- over HTTP ----------------------------------------------------------------------------------


@asynccontextmanager
async def mcp_http_face(
    targets: ServedTargets, *, tell: Callable[[str], None]
) -> AsyncIterator[Face]:
    """What an `HttpServer` needs to be an MCP server over streamable HTTP."""
    tools = McpTools(targets, tell=tell)
    manager = StreamableHTTPSessionManager(tools.server(), max_sessions=MAX_SESSIONS)
    bridge = AsgiBridge(manager.handle_request)

    async def answer(server: HttpServer, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/health":
            return web.Response(body=b'{"status":"ok"}', content_type="application/json")
        if request.path.rstrip("/") != PATH:
            raise Refusal(404, f"there is nothing at {request.path[:100]}: MCP is served at {PATH}")
        if request.method == "GET":
            server.is_endless()  # the server's own messages to the client, of which there are none
        return await bridge.answer(server, request)

    async def stop() -> int:
        return 0  # calls under way are requests under way

    async with manager.run():
        try:
            yield Face(answer, PATH, stop)
        finally:
            await bridge.aclose()


# --- over standard input and output -------------------------------------------------------------


async def serve_stdio(
    targets: ServedTargets,
    *,
    tell: Callable[[str], None],
    stop: asyncio.Event,
    hurry: asyncio.Event,
    grace: float,
) -> int:
    """Serve until the client goes, or `stop` is set; then the calls under way have `grace`
    seconds, or until `hurry` is set.

    Returns:
        How many calls were cut off.
    """
    tools = McpTools(targets, tell=tell)
    server = tools.server()
    pipes = await Pipes().open()
    channel: Any = _TextChannel(pipes)

    async def run() -> None:
        async with stdio_server(channel, channel) as (reading, writing):
            await server.run(reading, writing, server.create_initialization_options())

    running = asyncio.ensure_future(run())
    cut = 0
    try:
        await first_of(stop.wait(), asyncio.shield(running), pipes.broken())
        if not running.done() and not pipes.is_broken:
            await first_of(tools.idle(), hurry.wait(), pipes.broken(), timeout=grace)
        cut = tools.under_way
    finally:
        running.cancel()
        await asyncio.wait({running}, timeout=5.0)
        await pipes.close()
    if running.done() and not running.cancelled() and running.exception() is not None:
        tell(f"the connection broke: {running.exception()}")
    return cut


class _TextChannel:
    """`Pipes` as the files that the package wants: lines of text to read, and to write."""

    def __init__(self, pipes: Pipes) -> None:
        self._pipes = pipes

    async def __aiter__(self) -> AsyncIterator[str]:
        async for lines in self._pipes.batches():
            for line in lines:
                if not isinstance(line, LineTooLong) and line.strip():
                    yield line.decode("utf-8", "replace")

    async def write(self, text: str) -> None:
        self._pipes.write(text.encode())

    async def flush(self) -> None:
        await self._pipes.drain()
