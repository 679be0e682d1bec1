"""MCP servers as child processes: good ones, and all the ways in which they go wrong."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from children import all_gone, is_alive, pids_in
from muster.target import Secret
from muster.tools.base import Toolbox, ToolFailed, ToolRecord, open_toolbox
from muster.tools.definitions import McpServer
from muster.tools.mcp import McpServers

pytest.importorskip("mcp")

ROGUE = Path(__file__).parent / "rogue_server.py"


def rogue(mode: str, *more: object, name: str = "r", **fields: Any) -> McpServer:
    command = (sys.executable, "-S", str(ROGUE), mode, *map(str, more))
    return McpServer(name=name, command=command, **fields)


@pytest.fixture
async def servers() -> AsyncIterator[McpServers]:
    async with McpServers(startup_timeout=10) as opened:
        yield opened


async def box_of(servers: McpServers, *sources: McpServer) -> Toolbox:
    return await open_toolbox(sources, servers=servers)


async def failure(box: Toolbox, name: str, arguments: dict[str, Any] | None = None) -> str:
    with pytest.raises(ToolFailed) as caught:
        await box.call(name, arguments or {})
    return str(caught.value)


async def test_tools_are_named_after_their_server(servers: McpServers) -> None:
    box = await box_of(servers, rogue("echo", name="files", guidance="Use it well."))
    assert [tool.name for tool in box.tools] == ["files__go", "files__other"]
    assert box.tools[0].description == "The tool go."
    assert box.tools[0].parameters == {"type": "object"}
    assert box.guidance == (("files", "Use it well."),)
    assert box.warnings == []
    assert json.loads(await box.call("files__go", {"a": [1, None]})) == {"a": [1, None]}


async def test_all_pages_of_the_list_are_read(servers: McpServers) -> None:
    box = await box_of(servers, rogue("pages"))
    assert [tool.name for tool in box.tools] == ["r__page-0", "r__page-1", "r__page-2"]


async def test_allow_lists_are_globs_and_typing_errors_are_told(servers: McpServers) -> None:
    box = await box_of(servers, rogue("echo", allow=("g*", "delte")))
    assert [tool.name for tool in box.tools] == ["r__go"]
    assert box.warnings == ['MCP server "r": no tool is called "delte" (it has: go, other)']


async def test_agents_share_a_connection(servers: McpServers, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    one = await box_of(servers, rogue("echo", pids, name="one", allow=("go",)))
    two = await box_of(servers, rogue("echo", pids, name="two", timeout_seconds=5))
    assert await one.call("one__go", {}) == await two.call("two__go", {}) == "{}"
    assert len(pids.read_text().split()) == 1


async def test_one_that_cannot_be_started_takes_only_its_own_tools_away(
    servers: McpServers,
) -> None:
    missing = McpServer(name="missing", command=("/does/not/exist",))
    box = await box_of(servers, missing, rogue("echo"))
    assert [tool.name for tool in box.tools] == ["r__go", "r__other"]
    assert box.warnings == [
        'MCP server "missing": cannot start /does/not/exist: [Errno 2] No such file or directory: '
        "'/does/not/exist'; its tools are not available"
    ]


async def test_one_that_ends_at_once_is_quoted(servers: McpServers) -> None:
    code = "import sys; print('no licence found', file=sys.stderr); sys.exit(3)"
    box = await box_of(servers, McpServer(name="a", command=(sys.executable, "-S", "-c", code)))
    assert box.warnings == [
        'MCP server "a": the process ended with exit code 3; its last words: no licence found; '
        "its tools are not available"
    ]


async def test_one_that_never_answers_initialize(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    async with McpServers(startup_timeout=1) as servers:
        start = time.monotonic()
        box = await box_of(servers, rogue("mute", pids))
        assert box.tools == ()
        assert box.warnings == [
            'MCP server "r": no answer to `initialize` within 1 s; its last words: waiting for '
            "the database; its tools are not available"
        ]
        assert await all_gone([int(pid) for pid in pids.read_text().split()])
        # What has just failed is not waited for again by the next agent.
        again = await box_of(servers, rogue("mute", pids))
        assert again.warnings == box.warnings
        assert time.monotonic() - start < 4
    assert len(pids.read_text().split()) == 1


async def test_one_that_dies_during_a_call_and_is_started_again(
    servers: McpServers, tmp_path: Path
) -> None:
    marker, pids = tmp_path / "marker", tmp_path / "pids"
    box = await box_of(servers, rogue("dies-once", pids))
    said = await failure(box, "r__go", {"marker": str(marker)})
    assert said == ('MCP server "r": the connection broke: the process ended with exit code 1')
    assert json.loads(await box.call("r__go", {"marker": str(marker)})) == {"marker": str(marker)}
    assert len(pids.read_text().split()) == 2


async def test_the_last_words_of_one_that_dies(servers: McpServers) -> None:
    box = await box_of(servers, rogue("dies"))
    assert await failure(box, "r__go") == (
        'MCP server "r": the connection broke: the process ended with exit code 7; its last words: '
        "Traceback: the disk is on fire"
    )


async def test_death_is_seen_though_a_child_holds_the_pipe(
    servers: McpServers, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    box = await box_of(servers, rogue("dies-but-a-child-holds-the-pipe", pids))
    start = time.monotonic()
    assert "exit code 9" in await failure(box, "r__go")
    assert time.monotonic() - start < 5
    assert await all_gone(await pids_in(pids, 2))


async def test_one_that_closes_its_output(servers: McpServers, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    box = await box_of(servers, rogue("closes-output", pids))
    assert (await failure(box, "r__go")).startswith('MCP server "r": the connection broke: ')
    assert await all_gone(await pids_in(pids, 1))


async def test_a_call_has_its_time(servers: McpServers) -> None:
    box = await box_of(servers, rogue("hangs", timeout_seconds=0.2))
    start = time.monotonic()
    assert await failure(box, "r__go") == 'no answer from the tool "go" within 0.2 s'
    assert time.monotonic() - start < 2


async def test_a_result_of_fifty_megabytes_is_cut(servers: McpServers) -> None:
    box = await box_of(servers, rogue("huge"))
    start = time.monotonic()
    result = await box.call("r__go", {})
    assert result[:1_000_000] == "x" * 1_000_000
    assert result[1_000_000:] == (
        "\n[error: the result is too large: cut to 1,000,000 bytes of 50,000,000 bytes]"
    )
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("mode", "result"),
    [
        ("binary", "[image/png, 12,345 bytes]"),
        ("nul", "[binary data, 7 bytes]"),
        ("structured", '{"a": [1, 2]}'),
        ("chatty", "done"),
    ],
)
async def test_what_a_model_sees(servers: McpServers, mode: str, result: str) -> None:
    box = await box_of(servers, rogue(mode))
    assert await box.call("r__go", {}) == result


@pytest.mark.parametrize(
    ("mode", "text"), [("is-error", "the well is dry"), ("rpc-error", "no such bucket")]
)
async def test_errors_of_a_tool_are_its_own_words(
    servers: McpServers, mode: str, text: str
) -> None:
    box = await box_of(servers, rogue(mode))
    assert await failure(box, "r__go") == text


async def test_ten_calls_at_once(servers: McpServers) -> None:
    box = await box_of(servers, rogue("slow"))
    took = []
    for _ in range(3):  # the machine may be busy with other tests
        start = time.monotonic()
        results = await asyncio.gather(*(box.call("r__go", {"seconds": 0.1}) for _ in range(10)))
        took.append(time.monotonic() - start)
        assert results == ["done"] * 10
    assert min(took) < 0.3


async def test_calls_are_observed(servers: McpServers) -> None:
    seen: list[ToolRecord] = []
    sources = [rogue("echo"), rogue("hangs", name="h", timeout_seconds=0.1)]
    box = await open_toolbox(sources, servers=servers, on_call=seen.append)
    await box.call("r__go", {"a": 1})
    await failure(box, "h__go")
    await failure(box, "r__og")
    assert [(item.name, item.arguments, item.result, item.source) for item in seen] == [
        ("r__go", {"a": 1}, '{"a": 1}', 'MCP server "r"'),
        ("h__go", {}, None, 'MCP server "h"'),
        ("r__og", {}, None, "nobody"),
    ]
    assert [item.error for item in seen] == [
        None,
        'no answer from the tool "go" within 0.1 s',
        'there is no tool "r__og" (near: r__go; known: r__go, r__other, h__go, h__other)',
    ]
    assert seen[1].duration_ms >= 100


async def test_the_environment_of_a_server_is_what_it_is_given(
    servers: McpServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-for-servers")
    box = await box_of(servers, rogue("environment", env={"BUCKET": "b1"}))
    environment = json.loads(await box.call("r__go", {}))
    assert environment["BUCKET"] == "b1"
    assert "OPENAI_API_KEY" not in environment
    assert "PATH" in environment


async def test_secrets_are_not_in_warnings(servers: McpServers) -> None:
    code = "import os, sys; print('bad token ' + os.environ['T'], file=sys.stderr); sys.exit(1)"
    command = (sys.executable, "-S", "-c", code)
    server = McpServer(name="a", command=command, env={"T": Secret("s3cret-value")})
    box = await box_of(servers, server)
    assert "bad token **********" in box.warnings[0]
    assert "s3cret-value" not in box.warnings[0]


@pytest.mark.parametrize("mode", ["echo", "child", "ignores-eof"])
async def test_no_process_is_left(mode: str, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    async with McpServers() as servers:
        await box_of(servers, rogue(mode, pids))
        started = await pids_in(pids, 2 if mode == "child" else 1)
        assert all(map(is_alive, started))
    assert await all_gone(started)


@pytest.mark.parametrize("moment", ["initialize", "call"])
async def test_no_process_is_left_by_a_cancelled_run(moment: str, tmp_path: Path) -> None:
    pids = tmp_path / "pids"

    async def run() -> None:
        async with McpServers() as servers:
            box = await box_of(servers, rogue("mute" if moment == "initialize" else "hangs", pids))
            await box.call("r__go", {})

    before = asyncio.all_tasks()
    task = asyncio.create_task(run())
    started = await pids_in(pids, 1)
    if moment == "call":
        await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await all_gone(started)
    assert asyncio.all_tasks() == before


async def test_closing_ends_calls_under_way(tmp_path: Path) -> None:
    servers = McpServers()
    box = await box_of(servers, rogue("hangs"))
    call = asyncio.create_task(failure(box, "r__go"))
    await asyncio.sleep(0.1)
    await servers.aclose()
    assert (await call).startswith('MCP server "r": the connection broke: ')
