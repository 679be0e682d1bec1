"""What an agent may call: tools of all kinds, under one name each, behind one `call`.

    servers = McpServers()                       # one for a run: its agents share connections
    async with await open_toolbox(agent.tools, servers=servers) as toolbox:
        ProviderRequest(…, tools=toolbox.tools, call_tool=toolbox.call)

A tool that fails raises `ToolFailed`, whose text is for the model. What was called, with what and
what came of it, is told to `on_call`; the toolbox itself keeps nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias

from muster.errors import ConfigError, Problem, nearest
from muster.provider import Tool
from muster.tools.definitions import McpServer, PythonTool, ToolSource, WebhookTool, name_of
from muster.tools.output import MAX_BYTES, bounded_text

if TYPE_CHECKING:
    from muster.tools.mcp import McpServers
    from muster.tools.webhook import Webhooks

__all__ = (
    "BoundTool",
    "OnCall",
    "ToolFailed",
    "ToolRecord",
    "Toolbox",
    "name_clashes",
    "open_toolbox",
)

MAX_NAMED = 20
"""Of the tools that there are, in the message that says that one is not there."""


class ToolFailed(Exception):
    """A tool could not do what it was asked; the text is for the model, without `error:`."""


@dataclass(frozen=True, slots=True)
class BoundTool:
    """A tool and the way to call it."""

    tool: Tool
    call: Callable[[Mapping[str, Any]], Awaitable[str]]
    """Answers with text, or raises `ToolFailed`."""
    source: str
    """Where it comes from, for people: `MCP server "files"`, `webhook tool "search"`."""
    max_bytes: int = MAX_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolRecord:
    """One call, once it is over."""

    name: str
    arguments: Mapping[str, Any]
    result: str | None
    """What the model was given; `None` when the call failed."""
    error: str | None
    duration_ms: float
    source: str


OnCall: TypeAlias = Callable[[ToolRecord], None]


class Toolbox:
    """What one agent may call. `call` is a request's `call_tool`."""

    def __init__(
        self,
        bound: Iterable[BoundTool] = (),
        *,
        guidance: Sequence[tuple[str, str]] = (),
        warnings: Sequence[str] = (),
        on_call: OnCall | None = None,
        close: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Raises ConfigError when two tools have the same name."""
        self._bound: dict[str, BoundTool] = {}
        for item in bound:
            other = self._bound.setdefault(item.tool.name, item)
            if other is not item:
                raise ConfigError(_clash(item.tool.name, other.source, item.source))
        self.tools: tuple[Tool, ...] = tuple(item.tool for item in self._bound.values())
        self.guidance: tuple[tuple[str, str], ...] = tuple(guidance)
        """Name of an MCP server, and what its user says of its use; for the system prompt."""
        self.warnings: list[str] = list(warnings)
        self._on_call = on_call
        self._close = close

    def __getitem__(self, name: str) -> BoundTool:
        return self._bound[name]

    async def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Call the tool `name`; its text, cut where it is too large.

        Raises:
            ToolFailed: there is no such tool, or it failed; the text is for the model.
        """
        start = time.monotonic()
        bound = self._bound.get(name)
        source = "nobody" if bound is None else bound.source
        result: str | None = None
        error: str | None = None
        try:
            if bound is None:
                raise ToolFailed(self._unknown(name))
            result = bounded_text(await bound.call(arguments), bound.max_bytes)
        except asyncio.CancelledError:
            error = "cancelled"
            raise
        except Exception as failure:
            error = bounded_text(str(failure) or type(failure).__name__)
            if isinstance(failure, ToolFailed) and error == str(failure):
                raise
            raise ToolFailed(error) from failure
        finally:
            if self._on_call is not None:
                self._on_call(
                    ToolRecord(
                        name=name,
                        arguments=arguments,
                        result=result,
                        error=error,
                        duration_ms=(time.monotonic() - start) * 1000,
                        source=source,
                    )
                )
        return result

    async def aclose(self) -> None:
        """Give back what belongs to this toolbox alone; shared connections stay open."""
        if self._close is not None:
            await self._close()

    async def __aenter__(self) -> Toolbox:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _unknown(self, name: str) -> str:
        near = nearest(name, self._bound)
        hint = f"near: {near[0]}; " if near else ""
        known = ", ".join(list(self._bound)[:MAX_NAMED]) or "none"
        if len(self._bound) > MAX_NAMED:
            known += f", and {len(self._bound) - MAX_NAMED} more"
        return f'there is no tool "{name}" ({hint}known: {known})'


async def open_toolbox(
    sources: Sequence[ToolSource] = (),
    *,
    builtins: Sequence[BoundTool] = (),
    servers: McpServers,
    webhooks: Webhooks | None = None,
    on_call: OnCall | None = None,
) -> Toolbox:
    """The tools of `sources`, those of MCP servers first, then webhooks, Python, `builtins`.

    MCP servers are asked at the same time. One that fails costs its own tools and is told in
    `warnings`; the others are not affected. `webhooks` are connections to share; without it, the
    toolbox has its own.

    Raises:
        ConfigError: two tools have the same name.
        CodeError: a Python tool cannot be imported.
    """
    if problems := name_clashes(sources, builtins):
        raise ConfigError(problems)
    python = [_python_tool(source) for source in sources if isinstance(source, PythonTool)]
    hooks, own = _webhook_tools(sources, webhooks)
    mcp = [source for source in sources if isinstance(source, McpServer)]
    listed = await asyncio.gather(*(servers.bind(server) for server in mcp))
    return Toolbox(
        [*(tool for tools in listed for tool in tools.bound), *hooks, *python, *builtins],
        guidance=[(server.name, server.guidance) for server in mcp if server.guidance],
        warnings=[warning for tools in listed for warning in tools.warnings],
        on_call=on_call,
        close=own.aclose if own is not None else None,
    )


def name_clashes(
    sources: Sequence[ToolSource], builtins: Sequence[BoundTool] = ()
) -> list[Problem]:
    """The names that two sources want, as far as they are known before any server is asked."""
    problems: list[Problem] = []
    for named in (_server_names(sources), _tool_names(sources, builtins)):
        seen: dict[str, str] = {}
        for name, source in named:
            other = seen.setdefault(name, source)
            if other is not source:
                problems.append(_clash(name, other, source))
    return problems


def _server_names(sources: Sequence[ToolSource]) -> list[tuple[str, str]]:
    servers = [source for source in sources if isinstance(source, McpServer)]
    return [
        (server.name, f"MCP server {number} ({server.url or ' '.join(server.command)})")
        for number, server in enumerate(servers, 1)
    ]


def _tool_names(
    sources: Sequence[ToolSource], builtins: Sequence[BoundTool]
) -> list[tuple[str, str]]:
    named = []
    for number, source in enumerate(sources, 1):
        if isinstance(source, WebhookTool):
            named.append((name_of(source), f"webhook tool {number} ({source.url})"))
        elif isinstance(source, PythonTool):
            named.append((name_of(source), f"Python tool {number} ({source.path})"))
    return named + [(item.tool.name, item.source) for item in builtins]


def _clash(name: str, first: str, second: str) -> Problem:
    return Problem(f'the name "{name}" is given twice: by {first} and by {second}')


def _python_tool(source: PythonTool) -> BoundTool:
    from muster.tools.python import bind_python

    return bind_python(source)


def _webhook_tools(
    sources: Sequence[ToolSource], webhooks: Webhooks | None
) -> tuple[list[BoundTool], Webhooks | None]:
    """The tools, and the connections that are theirs alone."""
    wanted = [source for source in sources if isinstance(source, WebhookTool)]
    if not wanted:
        return [], None
    from muster.tools.webhook import Webhooks

    shared = webhooks or Webhooks()
    return [shared.bind(source) for source in wanted], None if webhooks else shared
