"""What every kind of MCP connection offers, and how it says that it is gone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = ("ConnectionLost", "ListedTool", "McpFailed", "McpSession", "SessionExpired")


class McpFailed(Exception):
    """A server cannot be used; the text says why, without naming the server."""


class ConnectionLost(McpFailed):
    """The connection broke during a call, which may or may not have had its effect."""


class SessionExpired(ConnectionLost):
    """The server has forgotten us, and has not looked at the call."""


@dataclass(frozen=True, slots=True)
class ListedTool:
    """A tool as its server describes it."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object"})


class McpSession(Protocol):
    """An open connection."""

    tools: tuple[ListedTool, ...]

    @property
    def alive(self) -> bool:
        """Whether it is worth asking."""
        ...

    async def call(self, tool: str, arguments: Mapping[str, Any], timeout: float) -> str:
        """The result's text. Raises ToolFailed (its text is for the model) or ConnectionLost."""
        ...

    async def aclose(self) -> None:
        """Close it; processes are gone when this returns."""
        ...
