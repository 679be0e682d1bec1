"""The toolbox: one name, one tool; results of bounded size; all calls seen."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from muster.errors import ConfigError
from muster.provider import Tool
from muster.tools.base import (
    BoundTool,
    Toolbox,
    ToolFailed,
    ToolRecord,
    name_clashes,
    open_toolbox,
)
from muster.tools.definitions import McpServer, PythonTool, ToolSource, WebhookTool
from muster.tools.mcp import McpServers, exposed_name
from muster.tools.output import bounded_text, is_binary


def bound(name: str, answer: object = "ok", source: str = "engine", **more: Any) -> BoundTool:
    async def call(_: Mapping[str, Any]) -> str:
        if isinstance(answer, BaseException):
            raise answer
        return str(answer)

    return BoundTool(Tool(name), call, source, **more)


async def test_order_is_mcp_then_webhooks_then_python_then_builtins() -> None:
    sources: list[ToolSource] = [
        PythonTool(path="os.path:basename", name="base"),
        WebhookTool(name="hook", url="http://example.org"),
    ]
    async with McpServers() as servers:
        box = await open_toolbox(sources, builtins=[bound("delegate")], servers=servers)
    assert [tool.name for tool in box.tools] == ["hook", "base", "delegate"]
    assert box["delegate"].source == "engine"


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (
            [WebhookTool(name="a", url="http://x"), PythonTool(path="m:f.a")],
            'the name "a" is given twice: by webhook tool 1 (http://x) and by Python tool 2 '
            "(m:f.a)",
        ),
        (
            [McpServer(name="s", url="http://x"), McpServer(name="s", command=("run", "it"))],
            'the name "s" is given twice: by MCP server 1 (http://x) and by MCP server 2 (run it)',
        ),
        (
            [WebhookTool(name="delegate", url="http://x")],
            'the name "delegate" is given twice: by webhook tool 1 (http://x) and by engine',
        ),
    ],
)
async def test_two_sources_that_want_one_name(sources: list[ToolSource], message: str) -> None:
    builtins = [bound("delegate")]
    assert [str(problem) for problem in name_clashes(sources, builtins)] == [message]
    async with McpServers() as servers:
        with pytest.raises(ConfigError) as caught:
            await open_toolbox(sources, builtins=builtins, servers=servers)
    assert str(caught.value) == message


def test_two_tools_of_one_name_from_the_same_source() -> None:
    with pytest.raises(ConfigError, match='the name "a" is given twice: by x and by x'):
        Toolbox([bound("a", source="x"), bound("a", source="x")])


async def test_unknown_names() -> None:
    box = Toolbox([bound(f"tool-{number}") for number in range(30)])
    with pytest.raises(ToolFailed) as caught:
        await box.call("tol-3", {})
    assert str(caught.value).startswith('there is no tool "tol-3" (near: tool-3; known: tool-0, ')
    assert str(caught.value).endswith("tool-19, and 10 more)")


async def test_what_a_tool_raises_is_its_failure() -> None:
    box = Toolbox([bound("a", KeyError("x")), bound("b", ToolFailed("no")), bound("c", OSError())])
    for name, text in (("a", "'x'"), ("b", "no"), ("c", "OSError")):
        with pytest.raises(ToolFailed) as caught:
            await box.call(name, {})
        assert str(caught.value) == text


async def test_a_cancelled_call_is_recorded() -> None:
    started = asyncio.Event()

    async def wait(_: Mapping[str, Any]) -> str:
        started.set()
        await asyncio.Event().wait()
        return ""

    seen: list[ToolRecord] = []
    box = Toolbox([BoundTool(Tool("w"), wait, "here")], on_call=seen.append)
    task = asyncio.create_task(box.call("w", {"a": 1}))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [(item.name, item.result, item.error) for item in seen] == [("w", None, "cancelled")]


async def test_large_results_and_errors_are_cut() -> None:
    seen: list[ToolRecord] = []
    box = Toolbox(
        [
            bound("ok", "é" * 60, max_bytes=101),
            bound("failed", ToolFailed("x" * 2_000_000)),
        ],
        on_call=seen.append,
    )
    note = "\n[error: the result is too large: cut to 101 bytes of 120 bytes]"
    assert await box.call("ok", {}) == "é" * 50 + note
    with pytest.raises(ToolFailed) as caught:
        await box.call("failed", {})
    assert len(str(caught.value)) < 1_000_100
    assert str(caught.value).endswith("cut to 1,000,000 bytes of 2,000,000 bytes]")
    assert seen[0].result == "é" * 50 + note
    assert seen[1].error == str(caught.value)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("", ""),
        ("é", "é"),
        ("a\x00b", "[binary data, 3 bytes]"),
        ("a\ud800b", "a?b"),
    ],
)
def test_texts(text: str, seen: str) -> None:
    assert bounded_text(text) == seen


@pytest.mark.parametrize(
    ("data", "kind", "binary"),
    [
        (b"{}", "application/json", False),
        (b"\x89PNG\r\n\x1a\n\x00", None, True),
        (b"<svg/>", "image/svg+xml", False),
        (b"abc", "image/png", True),
        ("naïve".encode("latin-1"), "text/plain; charset=latin-1", False),
        (b"\xff\xfe\x00\x01 and so on", "application/octet-stream", True),
        ("ü".encode()[:1], None, False),
        (b"plain", "application/octet-stream", False),
        (b"a\x00b", "text/plain", True),
    ],
)
def test_what_is_binary(data: bytes, kind: str | None, binary: bool) -> None:
    assert is_binary(data, kind) is binary


def test_names_that_model_apis_take() -> None:
    assert exposed_name("files", "read_file") == "files__read_file"
    assert exposed_name("my server", "a.b/c") == "my_server__a_b_c"
    long = exposed_name("server", "x" * 100)
    assert len(long) == 64
    assert long != exposed_name("server", "x" * 101)
