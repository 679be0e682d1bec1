"""Where an agent's tools come from, in the form that everything else reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

__all__ = ("McpServer", "PythonTool", "ToolSource", "WebhookTool", "name_of")

_EMPTY: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class McpServer:
    """An MCP server that an agent may use; its tools are called `<name>__<tool>`."""

    name: str
    url: str | None = None
    command: tuple[str, ...] = ()
    """For `stdio`: the program and its arguments."""
    env: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    cwd: Path | None = None
    transport: Literal["stdio", "streamable-http", "sse", "simple-http"] | None = None
    """`None`: found out (`/sse` at the end of the URL, else streamable HTTP, else ark's simple
    form)."""
    headers: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    """Secrets in it are `Secret` strings."""
    allow: tuple[str, ...] | None = None
    """Only these tools (as the server calls them; globs); `None`: all."""
    timeout_seconds: float = 60.0
    """Bound on one call."""
    startup_timeout_seconds: float = 30.0
    """Bound on connecting and listing the tools."""
    max_bytes: int = 1_000_000
    """Bound on the text of one result: more is cut."""
    guidance: str | None = None
    """Goes into the system prompt of every agent that has the server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookTool:
    """An HTTP endpoint as a tool."""

    name: str
    url: str
    description: str = ""
    method: Literal["GET", "POST", "PUT", "PATCH"] = "POST"
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object"})
    headers: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    timeout_seconds: float = 30.0
    max_bytes: int = 1_000_000
    allow_hosts: tuple[str, ...] = ()
    """Private, loopback and link-local addresses are refused, except of these hosts: names,
    `*.example.org`, addresses or networks (`10.1.0.0/16`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonTool:
    """A Python function as a tool: `package.module:function`, found beside the manifest too."""

    path: str
    name: str | None = None
    description: str | None = None
    search: Path | None = None
    timeout_seconds: float | None = None
    max_bytes: int = 1_000_000


ToolSource: TypeAlias = McpServer | WebhookTool | PythonTool


def name_of(source: WebhookTool | PythonTool) -> str:
    """What the model calls the tool."""
    if isinstance(source, WebhookTool):
        return source.name
    return source.name or source.path.rpartition(":")[2].rpartition(".")[2]
