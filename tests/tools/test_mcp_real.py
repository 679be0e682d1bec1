"""MCP servers that others wrote, as child processes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llmock import node_command
from muster.tools.base import ToolFailed, open_toolbox
from muster.tools.definitions import McpServer
from muster.tools.mcp import McpServers

pytest.importorskip("mcp")


@pytest.fixture
async def servers() -> AsyncIterator[McpServers]:
    async with McpServers() as opened:
        yield opened


async def test_time(servers: McpServers) -> None:
    pytest.importorskip("mcp_server_time")
    command = (sys.executable, "-m", "mcp_server_time")
    box = await open_toolbox([McpServer(name="time", command=command)], servers=servers)
    assert box.warnings == []
    arguments = {"source_timezone": "UTC", "target_timezone": "Asia/Tokyo", "time": "16:30"}
    assert '"time_difference": "+9.0h"' in await box.call("time__convert_time", arguments)
    with pytest.raises(ToolFailed, match="Invalid timezone"):
        await box.call("time__get_current_time", {"timezone": "Moon/Crater"})


async def test_git(servers: McpServers, tmp_path: Path) -> None:
    pytest.importorskip("mcp_server_git")
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    subprocess.run(["git", "init", "-q", "-b", "trunk", str(tmp_path)], check=True)
    (tmp_path / "new.txt").write_text("x")
    command = (sys.executable, "-m", "mcp_server_git", "--repository", str(tmp_path))
    box = await open_toolbox([McpServer(name="git", command=command)], servers=servers)
    assert box.warnings == []
    status = await box.call("git__git_status", {"repo_path": str(tmp_path)})
    assert "On branch trunk" in status
    assert "new.txt" in status


@pytest.mark.node
async def test_everything(servers: McpServers) -> None:
    command = (str(node_command("mcp-server-everything")), "stdio")
    box = await open_toolbox([McpServer(name="ev", command=command)], servers=servers)
    assert box.warnings == []
    assert await box.call("ev__echo", {"message": "hi"}) == "Echo: hi"
    image = await box.call("ev__get-tiny-image", {})
    assert "[image/png, 4,033 bytes]" in image
    structured = await box.call("ev__get-structured-content", {"location": "Chicago"})
    assert '"temperature":' in structured
    with pytest.raises(ToolFailed, match="message"):
        await box.call("ev__echo", {})


@pytest.mark.node
async def test_what_the_filesystem_server_refuses(servers: McpServers, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "a.txt").write_text("hello")
    (tmp_path / "secret.txt").write_text("no")
    command = (str(node_command("mcp-server-filesystem")), str(inside))
    server = McpServer(name="fs", command=command, allow=("read_*",))
    box = await open_toolbox([server], servers=servers)
    assert {tool.name for tool in box.tools} == {
        "fs__read_file",
        "fs__read_text_file",
        "fs__read_media_file",
        "fs__read_multiple_files",
    }
    assert await box.call("fs__read_text_file", {"path": str(inside / "a.txt")}) == "hello"
    with pytest.raises(ToolFailed, match=r"^Access denied - path outside allowed directories"):
        await box.call("fs__read_text_file", {"path": str(tmp_path / "secret.txt")})
