"""A connection to an MCP server by the official `mcp` package, which is imported with this module.

The package's client must be entered and left within one task, so each connection has a task of its
own, and whoever calls a tool talks to that. The handshake of all published protocols before 2026-07
is tried first; a server that refuses it gets the newer one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from mcp.client import Client, Transport
from mcp.shared.exceptions import MCPError
from mcp.types import CONNECTION_CLOSED, METHOD_NOT_FOUND, Implementation
from mcp.types import UNSUPPORTED_PROTOCOL_VERSION as UNSUPPORTED_VERSION

import muster
from muster.tools.base import ToolFailed
from muster.tools.mcp_result import result_text
from muster.tools.mcp_session import ConnectionLost, ListedTool, McpFailed, SessionExpired

__all__ = ("Channel", "ClientSession")

CLOSE_SECONDS = 6.0
"""A server that is being ended needs up to five."""
MAX_PAGES = 100

# The package logs tracebacks of what we tell in one line; without any handler they would go to
# standard error.
logging.getLogger("mcp").addHandler(logging.NullHandler())


class Channel(Protocol):
    """The way to a server: a process or a URL."""

    def connect(self) -> Transport:
        """The streams for one client."""
        ...

    async def ended(self) -> None:
        """Returns when nobody is there any more."""
        ...

    def trouble(self) -> str:
        """What the channel knows of a failure; empty for nothing."""
        ...


class ClientSession:
    """An open connection; see `McpSession`."""

    def __init__(self, channel: Channel, mode: str) -> None:
        self.tools: tuple[ListedTool, ...] = ()
        self._channel = channel
        self._mode = mode
        self._client: Client | None = None
        self._closing = asyncio.Event()
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None
        self._failure: BaseException | None = None

    @classmethod
    async def open(cls, make_channel: Callable[[], Channel], timeout: float) -> ClientSession:
        """Connect, shake hands, list the tools, all within `timeout` seconds.

        Raises:
            McpFailed: the text says why.
        """
        end = asyncio.get_running_loop().time() + timeout
        try:
            return await cls._open(make_channel(), "legacy", end, timeout)
        except _OtherProtocol:
            return await cls._open(make_channel(), "auto", end, timeout)

    @classmethod
    async def _open(cls, channel: Channel, mode: str, end: float, timeout: float) -> ClientSession:
        session = cls(channel, mode)
        session._task = asyncio.create_task(session._run(), name="mcp connection")
        left = end - asyncio.get_running_loop().time()
        try:
            await asyncio.wait({session._ready}, timeout=left)
            if not session._ready.done():
                trouble = channel.trouble()
                said = f"; {trouble}" if trouble else ""
                raise McpFailed(f"no answer to `initialize` within {timeout:g} s{said}")
            session._ready.result()
        except BaseException:
            await session.aclose()
            raise
        return session

    @property
    def alive(self) -> bool:
        """False once the server is gone, or a call has found it so."""
        return self._task is not None and not self._task.done() and not self._closing.is_set()

    async def call(self, tool: str, arguments: Mapping[str, Any], timeout: float) -> str:
        """See `McpSession`."""
        if self._client is None or not self.alive:
            raise SessionExpired("the connection is closed")
        try:
            async with asyncio.timeout(timeout):
                result = await self._client.call_tool(tool, dict(arguments))
        except TimeoutError:
            raise ToolFailed(f'no answer from the tool "{tool}" within {timeout:g} s') from None
        except MCPError as error:
            if str(error) == "Session terminated":
                self._closing.set()
                raise SessionExpired("the server has ended the session") from None
            if error.code == CONNECTION_CLOSED or not self.alive:
                raise await self._lost(error) from None
            raise ToolFailed(error.message) from None
        except asyncio.CancelledError:
            raise
        except Exception as error:
            if not self.alive:
                raise await self._lost(error) from None
            raise ToolFailed(str(error) or type(error).__name__) from error
        blocks = [block.model_dump(mode="json", by_alias=True) for block in result.content]
        return result_text(blocks, result.structured_content, is_error=bool(result.is_error))

    async def aclose(self) -> None:
        """See `McpSession`."""
        self._closing.set()
        task = self._task
        if task is None or task is asyncio.current_task():
            return
        if not self._ready.done():
            task.cancel()  # it waits for the server, and not for us
        try:
            await asyncio.wait({task}, timeout=CLOSE_SECONDS)
        finally:
            if not task.done():
                task.cancel()
        await asyncio.wait({task}, timeout=CLOSE_SECONDS)

    # --- the connection's own task ---

    async def _run(self) -> None:
        try:
            async with self._new_client() as client:
                self._client = client
                self.tools = await _list_tools(client)
                if not self._ready.done():
                    self._ready.set_result(None)
                await self._until_over()
        except asyncio.CancelledError as error:
            self._fail(error)
            raise
        except BaseException as error:
            self._fail(error)
            if not isinstance(error, Exception):
                raise
        finally:
            self._closing.set()

    def _new_client(self) -> Client:
        info = Implementation(name="muster", version=muster.__version__)
        return Client(self._channel.connect(), mode=self._mode, cache=None, client_info=info)

    async def _until_over(self) -> None:
        gone = asyncio.ensure_future(self._channel.ended())
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait({gone, closing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            closing.cancel()

    def _fail(self, error: BaseException) -> None:
        self._failure = _first(error)
        if self._ready.done():
            return
        code = getattr(self._failure, "code", None)
        if self._mode == "legacy" and code in (METHOD_NOT_FOUND, UNSUPPORTED_VERSION):
            self._ready.set_exception(_OtherProtocol())
        else:
            self._ready.set_exception(McpFailed(self._reason(self._failure)))
        self._ready.exception()  # nobody may be waiting any more, and that is no mistake

    async def _lost(self, error: Exception) -> ConnectionLost:
        """Wait for the end, so that exit code and last words are known."""
        await self.aclose()
        return ConnectionLost(f"the connection broke: {self._reason(self._failure or error)}")

    def _reason(self, error: BaseException) -> str:
        trouble = self._channel.trouble()
        if isinstance(error, McpFailed):
            return str(error)
        if trouble and isinstance(error, MCPError | asyncio.CancelledError):
            return trouble  # the package's own words are "Connection closed", or less
        text = str(error) or type(error).__name__
        return f"{text} ({trouble})" if trouble and trouble not in text else text


class _OtherProtocol(Exception):
    """The server wants no handshake of the older kind."""


async def _list_tools(client: Client) -> tuple[ListedTool, ...]:
    found: list[ListedTool] = []
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        page = await client.list_tools(cursor=cursor)
        found += [
            ListedTool(tool.name, tool.description or "", tool.input_schema) for tool in page.tools
        ]
        if not page.next_cursor or page.next_cursor == cursor:
            return tuple(found)
        cursor = page.next_cursor
    raise McpFailed(f"its list of tools has no end: more than {MAX_PAGES} pages")


def _first(error: BaseException) -> BaseException:
    """What really happened, out of the groups that task groups wrap around it."""
    while isinstance(error, BaseExceptionGroup):
        others = [inner for inner in error.exceptions if not _is_noise(inner)]
        error = (others or error.exceptions)[0]
    return error


def _is_noise(error: BaseException) -> bool:
    return isinstance(error, asyncio.CancelledError)
