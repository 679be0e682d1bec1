"""MCP servers as tools: one connection per server for all agents of a run.

A server that fails takes only its own tools away, with a warning that names it and the reason. A
connection that breaks is opened again at the next call.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from muster.config.secrets import Masker, environment_secrets, secret_values
from muster.provider import Tool
from muster.providers.http_errors import origin_of
from muster.tools.base import BoundTool, ToolFailed
from muster.tools.definitions import McpServer
from muster.tools.mcp_session import (
    ConnectionLost,
    ListedTool,
    McpFailed,
    McpSession,
    SessionExpired,
)

__all__ = ("BoundServer", "McpServers")

RETRY_SECONDS = 30.0
"""A server that could not be started is left alone for so long."""

MAX_NAME = 64
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_-]")
_Key: TypeAlias = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class BoundServer:
    """What one server has for one agent."""

    bound: tuple[BoundTool, ...] = ()
    warnings: tuple[str, ...] = ()


class McpServers:
    """The connections of a run, each opened when it is first wanted; `aclose` at the run's end."""

    def __init__(self, *, startup_timeout: float | None = None) -> None:
        self._startup_timeout = startup_timeout  # instead of the servers' own
        self._connections: dict[_Key, _Connection] = {}
        self._is_closed = False

    async def bind(self, server: McpServer) -> BoundServer:
        """The server's tools that the agent may use; a server that fails has none, and a
        warning."""
        connection = self._connection(server)
        try:
            session = await connection.session(RETRY_SECONDS)
        except McpFailed as error:
            reason = connection.masker.mask(str(error))
            text = f'MCP server "{server.name}": {reason}; its tools are not available'
            return BoundServer(warnings=(text,))
        warnings: list[str] = []
        bound: dict[str, BoundTool] = {}
        for tool in _allowed(server, session.tools, warnings):
            name = exposed_name(server.name, tool.name)
            if name in bound:
                warnings.append(f'MCP server "{server.name}": lists "{tool.name}" twice')
            else:
                bound[name] = self._bind_tool(server, connection, name, tool)
        return BoundServer(tuple(bound.values()), tuple(warnings))

    async def aclose(self) -> None:
        """Close all connections at once; the processes are gone when this returns."""
        self._is_closed = True
        await asyncio.gather(*(item.aclose() for item in self._connections.values()))

    async def __aenter__(self) -> McpServers:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _connection(self, server: McpServer) -> _Connection:
        if self._is_closed:
            raise RuntimeError("the MCP servers of this run are closed")
        key = _key(server)
        if key not in self._connections:
            startup = self._startup_timeout or server.startup_timeout_seconds
            self._connections[key] = _Connection(server, startup)
        return self._connections[key]

    def _bind_tool(
        self, server: McpServer, connection: _Connection, name: str, tool: ListedTool
    ) -> BoundTool:
        async def call(arguments: Mapping[str, Any]) -> str:
            return await connection.call(server, tool.name, arguments)

        return BoundTool(
            Tool(name, tool.description, tool.parameters),
            call,
            f'MCP server "{server.name}"',
            server.max_bytes,
        )


def exposed_name(server: str, tool: str) -> str:
    """`<server>__<tool>`, in the letters and the length that model APIs take."""
    name = _NOT_IN_NAMES.sub("_", f"{server}__{tool}")
    if len(name) <= MAX_NAME:
        return name
    digest = hashlib.sha256(f"{server}__{tool}".encode()).hexdigest()[:8]
    return f"{name[: MAX_NAME - 9]}_{digest}"


class _Connection:
    """One server, opened again when it is needed and gone."""

    def __init__(self, server: McpServer, startup_timeout: float) -> None:
        secrets = secret_values(server.headers) | secret_values(server.env)
        self.masker = Masker(secrets | environment_secrets(server.env))
        self._server = server
        self._startup_timeout = startup_timeout
        self._lock = asyncio.Lock()
        self._session: McpSession | None = None
        self._failure: tuple[float, str] | None = None

    async def session(self, patience: float = 0.0) -> McpSession:
        """The open connection. A failure of the last `patience` seconds, or one that came while
        this call was waiting, counts for this call too.

        Raises:
            McpFailed: it cannot be opened.
        """
        loop = asyncio.get_running_loop()
        since = loop.time() - patience
        async with self._lock:
            if self._session is not None and self._session.alive:
                return self._session
            if self._failure is not None and self._failure[0] > since:
                raise McpFailed(self._failure[1])
            await self._close_session()
            try:
                self._session = await _open(self._server, self._startup_timeout)
            except McpFailed as error:
                self._failure = (loop.time(), str(error))
                raise
            self._failure = None
            return self._session

    async def call(self, server: McpServer, tool: str, arguments: Mapping[str, Any]) -> str:
        """The tool's text. Raises ToolFailed."""
        try:
            return await self._call(server, tool, arguments)
        except ToolFailed as error:
            raise ToolFailed(self.masker.mask(str(error))) from None

    async def _call(self, server: McpServer, tool: str, arguments: Mapping[str, Any]) -> str:
        who = f'MCP server "{server.name}"'
        try:
            for is_last in (False, True):
                session = await self.session()
                try:
                    return await session.call(tool, arguments, server.timeout_seconds)
                except SessionExpired:
                    # Nothing was done: with a new session it may be.
                    if is_last:
                        raise
        except ConnectionLost as error:
            raise ToolFailed(f"{who}: {error}") from None
        except McpFailed as error:
            raise ToolFailed(f"{who} is not available: {error}") from None
        raise AssertionError("one of the two rounds has answered")

    async def aclose(self) -> None:
        async with self._lock:
            await self._close_session()

    async def _close_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.aclose()


async def _open(server: McpServer, timeout: float) -> McpSession:
    transport = server.transport or _transport_of(server)
    if transport == "simple-http":
        return await _open_simple(server, timeout)
    if importlib.util.find_spec("mcp") is None:
        raise McpFailed('the package "mcp" is not installed: pip install "muster-ai[mcp]"')
    from muster.tools.mcp_client import ClientSession

    if transport == "stdio":
        from muster.tools.mcp_stdio import StdioChannel

        if not server.command:
            raise McpFailed("no `command` is given")
        return await ClientSession.open(
            lambda: StdioChannel(server.command, server.env, server.cwd), timeout
        )
    return await _open_http(server, transport, timeout)


async def _open_http(server: McpServer, transport: str | None, timeout: float) -> McpSession:
    """`None`: streamable HTTP, and where that is not understood, ark's simple form."""
    from muster.tools.mcp_client import ClientSession
    from muster.tools.mcp_http import HttpChannel

    channels: list[HttpChannel] = []

    def channel() -> HttpChannel:
        channels.append(
            HttpChannel(
                _url(server),
                server.headers,
                is_sse=transport == "sse",
                read_seconds=server.timeout_seconds,
            )
        )
        return channels[-1]

    try:
        return await ClientSession.open(channel, timeout)
    except McpFailed as error:
        last = channels[-1]
        if not last.answered:
            raise McpFailed(f"{origin_of(_url(server))}: {error}") from None
        if transport is not None or last.status in (401, 403, 429):
            raise
        try:
            return await _open_simple(server, timeout)
        except McpFailed as other:
            raise McpFailed(f"streamable HTTP: {error}; simple HTTP: {other}") from None


async def _open_simple(server: McpServer, timeout: float) -> McpSession:
    from muster.tools.mcp_simple import SimpleSession

    return await SimpleSession.open(_url(server), server.headers, timeout)


def _url(server: McpServer) -> str:
    if not server.url:
        raise McpFailed("no `url` is given")
    return server.url


def _transport_of(server: McpServer) -> str | None:
    if server.command:
        return "stdio"
    return "sse" if urlsplit(server.url or "").path.endswith("/sse") else None


def _allowed(
    server: McpServer, tools: tuple[ListedTool, ...], warnings: list[str]
) -> list[ListedTool]:
    if server.allow is None:
        return list(tools)
    for pattern in server.allow:
        if not any(fnmatchcase(tool.name, pattern) for tool in tools):
            known = ", ".join(tool.name for tool in tools) or "none"
            warnings.append(
                f'MCP server "{server.name}": no tool is called "{pattern}" (it has: {known})'
            )
    return [
        tool for tool in tools if any(fnmatchcase(tool.name, pattern) for pattern in server.allow)
    ]


def _key(server: McpServer) -> _Key:
    """What makes two servers the same one, whatever agents call them."""
    return (
        server.url,
        server.command,
        tuple(sorted(server.env.items())),
        server.cwd,
        server.transport,
        tuple(sorted(server.headers.items())),
    )
