"""ark's simple form of MCP over HTTP, which is not the protocol of that name: no session, no
handshake, `POST <url>/tools/list` and `POST <url>/tools/call`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from muster.provider import ProviderError
from muster.providers.transport import HttpClient, HttpReply
from muster.tools.base import ToolFailed
from muster.tools.mcp_result import result_text
from muster.tools.mcp_session import ConnectionLost, ListedTool, McpFailed

__all__ = ("SimpleSession",)

MAX_BODY_BYTES = 64 * 2**20


class SimpleSession:
    """A server that answers in the simple form; see `McpSession`."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self.tools: tuple[ListedTool, ...] = ()
        self._url = url.rstrip("/")
        self._headers = {"Content-Type": "application/json", **headers}
        self._http = HttpClient(max_body_bytes=MAX_BODY_BYTES)
        self._is_closed = False

    @classmethod
    async def open(cls, url: str, headers: Mapping[str, str], timeout: float) -> SimpleSession:
        """Ask for the tools.

        Raises:
            McpFailed: the text says why.
        """
        session = cls(url, headers)
        try:
            async with asyncio.timeout(timeout):
                reply = await session._post("tools/list", b"")
            session.tools = _listed(_checked(reply, "tools/list"))
        except TimeoutError:
            await session.aclose()
            raise McpFailed(f"no answer to tools/list within {timeout:g} s") from None
        except ProviderError as error:
            await session.aclose()
            raise McpFailed(f"tools/list request failed: {error.message}") from None
        except BaseException:
            await session.aclose()
            raise
        return session

    @property
    def alive(self) -> bool:
        """There is no connection that could break."""
        return not self._is_closed

    async def call(self, tool: str, arguments: Mapping[str, Any], timeout: float) -> str:
        """See `McpSession`."""
        body = json.dumps({"name": tool, "arguments": dict(arguments)}).encode()
        try:
            async with asyncio.timeout(timeout):
                reply = await self._post("tools/call", body)
        except TimeoutError:
            raise ToolFailed(f'no answer from the tool "{tool}" within {timeout:g} s') from None
        except ProviderError as error:
            raise ConnectionLost(f"tools/call request failed: {error.message}") from None
        try:
            answer = _checked(reply, "tools/call")
        except McpFailed as error:
            raise ToolFailed(str(error)) from None
        content = answer.get("content")
        blocks = [block for block in content if isinstance(block, Mapping)] if content else []
        structured = answer.get("structuredContent")
        return result_text(blocks, structured, is_error=bool(answer.get("isError")))

    async def aclose(self) -> None:
        """See `McpSession`."""
        self._is_closed = True
        await self._http.aclose()

    async def _post(self, path: str, body: bytes) -> HttpReply:
        return await self._http.send(
            "POST", f"{self._url}/{path}", headers=self._headers, body=body
        )


def _checked(reply: HttpReply, path: str) -> Mapping[str, Any]:
    if not 200 <= reply.status < 300:
        said = reply.body[:500].decode("utf-8", "replace").strip()
        raise McpFailed(f"{path} returned status {reply.status}{': ' if said else ''}{said}")
    try:
        answer = json.loads(reply.body)
    except ValueError:
        raise McpFailed(f"{path} did not answer with JSON") from None
    if not isinstance(answer, dict):
        raise McpFailed(f"{path} did not answer with a JSON object")
    return answer


def _listed(answer: Mapping[str, Any]) -> tuple[ListedTool, ...]:
    tools = answer.get("tools")
    if not isinstance(tools, list):
        raise McpFailed("tools/list did not answer with a list of `tools`")
    return tuple(
        ListedTool(
            str(tool["name"]),
            str(tool.get("description") or ""),
            tool.get("inputSchema") or {"type": "object"},
        )
        for tool in tools
        if isinstance(tool, dict) and tool.get("name")
    )
