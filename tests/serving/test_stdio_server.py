"""`muster serve-provider TARGET` over the stdio protocol: line by line, and by our own client."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from serving_parts import targets_of

from muster.capabilities import Capabilities
from muster.provider import (
    FilePart,
    ImagePart,
    Limits,
    Message,
    ProviderRequest,
    ProviderResponse,
    RateLimited,
    TextPart,
    TokenUsage,
    Tool,
    ToolCall,
)
from muster.providers.stdio import StdioProvider
from muster.serving.pipes import LineTooLong
from muster.serving.stdio import StdioSession
from muster.target import ResolvedTarget

MUSTER = [sys.executable, "-m", "muster"]


class Talk:
    """A session in this process: what is sent to it, and what it says."""

    def __init__(self, folder: Path, provider: Any) -> None:
        self.pool, targets = targets_of(folder, {"it": provider})
        self.said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.told: list[str] = []
        (served,) = targets
        self.session = StdioSession(served, targets, self._write, tell=self.told.append)

    def _write(self, data: bytes) -> None:
        assert data.endswith(b"\n")
        for line in data.splitlines():
            self.said.put_nowait(json.loads(line))

    async def send(self, message: Any) -> None:
        line = message if isinstance(message, bytes) else json.dumps(message).encode()
        await self.session.take(line)

    async def ask(self, method: str, params: Any, number: int | str = 1) -> None:
        await self.send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(5):
            return await self.said.get()

    async def start(self) -> dict[str, Any]:
        client = {"name": "test", "version": "1"}
        await self.ask("initialize", {"protocol_version": 1, "client": client, "target": "x"}, 0)
        return (await self.next())["result"]


@pytest.fixture
async def talk(tmp_path: Path) -> AsyncIterator[Any]:
    made: list[Talk] = []

    def begin(provider: Any) -> Talk:
        made.append(Talk(tmp_path, provider))
        return made[-1]

    yield begin
    for each in made:
        await each.session.close()
        await each.pool.aclose()


async def echo(request: ProviderRequest) -> str:
    return request.question


async def test_initialize(talk: Any) -> None:
    class Able:
        capabilities = Capabilities(tools=True, images=False, max_context_tokens=9)

        async def invoke(self, request: ProviderRequest) -> str:
            return ""

    it = talk(Able())
    result = await it.start()
    assert result["protocol_version"] == 1
    assert result["name"] == "muster it"
    assert result["capabilities"] == {"tools": True, "images": False, "max_context_tokens": 9}


async def test_everything_of_a_request_arrives(talk: Any) -> None:
    asked: list[ProviderRequest] = []

    async def note(request: ProviderRequest) -> str:
        asked.append(request)
        return "noted"

    it = talk(note)
    await it.start()
    await it.ask(
        "invoke",
        {
            "question": "What?",
            "system_prompt": "Be brief.",
            "guidelines": "Kindly.",
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "a"}]},
                {"role": "assistant", "content": "b", "tool_calls": [{"tool": "t", "id": "1"}]},
                {
                    "role": "user",
                    "content": [
                        {"type": "file", "path": "/f"},
                        {"type": "image", "source": "data:,"},
                    ],
                },
            ],
            "input_files": ["/tmp/a.txt"],
            "images": [{"source": "/tmp/b.png", "media_type": "image/png"}],
            "eval_case_id": "case",
            "attempt": 2,
            "cwd": "/tmp",
            "tools": [{"name": "t", "description": "d", "parameters": {"type": "object"}}],
            "limits": {"max_output_tokens": 5},
            "response_schema": {"type": "object"},
            "metadata": {"k": "v"},
        },
    )
    assert (await it.next())["result"] == {"text": "noted"}
    (request,) = asked
    assert request == ProviderRequest(
        question="What?",
        system_prompt="Be brief.",
        guidelines="Kindly.",
        messages=(
            Message("user", (TextPart("a"),)),
            Message("assistant", "b", tool_calls=(ToolCall("t", {}, id="1"),)),
            Message("user", (FilePart(Path("/f")), ImagePart("data:,"))),
        ),
        input_files=(Path("/tmp/a.txt"),),
        images=(ImagePart("/tmp/b.png", "image/png"),),
        eval_case_id="case",
        attempt=2,
        cwd=Path("/tmp"),
        tools=(Tool("t", "d", {"type": "object"}),),
        limits=Limits(max_output_tokens=5, max_turns=None),
        response_schema={"type": "object"},
        metadata={"k": "v"},
    )


async def test_answers_chunks_and_tools(talk: Any) -> None:
    async def works(request: ProviderRequest) -> ProviderResponse:
        assert request.call_tool is not None
        assert request.on_chunk is not None
        request.on_chunk("so ")
        good = await request.call_tool("t", {"a": 1})
        try:
            bad = await request.call_tool("t", {"a": 2})
        except Exception as error:
            bad = f"({error})"
        calls = (ToolCall("t", {"a": 1}, id="1", output=good),)
        return ProviderResponse(
            [Message("assistant", "", tool_calls=calls), Message("assistant", f"{good} {bad}")],
            token_usage=TokenUsage(3, 2, cached=1),
            cost_usd=0.5,
            finish_reason="stop",
            model="m",
        )

    it = talk(works)
    await it.start()
    await it.ask("invoke", {"question": "?", "call_tool": True, "on_chunk": True}, 7)
    assert await it.next() == {
        "jsonrpc": "2.0",
        "method": "chunk",
        "params": {"invoke_id": 7, "text": "so "},
    }
    first = await it.next()
    assert first["method"] == "tool_call"
    assert first["params"] == {"invoke_id": 7, "name": "t", "arguments": {"a": 1}}
    await it.send({"jsonrpc": "2.0", "id": first["id"], "result": {"output": "fine"}})
    second = await it.next()
    result = {"output": "error: no such city", "is_error": True}
    await it.send({"jsonrpc": "2.0", "id": second["id"], "result": result})
    answer = await it.next()
    assert answer["id"] == 7
    assert answer["result"]["output"][-1] == {
        "role": "assistant",
        "content": "fine (no such city)",
    }
    assert answer["result"]["token_usage"] == {"input": 3, "output": 2, "cached": 1}
    assert answer["result"]["cost_usd"] == 0.5
    assert answer["result"]["model"] == "m"
    # An answer to a call that is over, or was never made, is nothing to speak of.
    await it.send({"jsonrpc": "2.0", "id": 99, "result": {"output": "late"}})
    await it.ask("ping", None, "p")
    assert await it.next() == {"jsonrpc": "2.0", "id": "p", "result": {}}


async def test_errors_are_typed(talk: Any) -> None:
    async def fails(request: ProviderRequest) -> str:
        raise RateLimited("a-very-secret-key is too fast", retry_after=3, status=429)

    it = talk(fails)
    await it.start()
    await it.ask("invoke", {"question": "?"})
    assert (await it.next())["error"] == {
        "code": -32000,
        "message": "********** is too fast",
        "data": {
            "kind": "rate_limited",
            "retryable": True,
            "retry_after": 3.0,
            "status": 429,
        },
    }


async def test_cancel_and_shutdown(talk: Any) -> None:
    async def hangs(request: ProviderRequest) -> str:
        await asyncio.sleep(60)
        return ""

    it = talk(hangs)
    await it.start()
    await it.ask("invoke", {"question": "?"}, 1)
    await it.ask("invoke", {"question": "?"}, 2)
    await asyncio.sleep(0)
    await it.send({"jsonrpc": "2.0", "method": "cancel", "params": {"invoke_id": 1}})
    answer = await it.next()
    assert (answer["id"], answer["error"]["code"]) == (1, -32800)
    await it.ask("shutdown", None, 3)
    answers = [await it.next(), await it.next()]
    assert (answers[0]["id"], answers[0]["error"]["code"]) == (2, -32800)
    assert answers[1] == {"jsonrpc": "2.0", "id": 3, "result": {}}
    assert it.session.is_over


@pytest.mark.parametrize(
    ("line", "number", "code"),
    [
        (b"hello", None, -32700),
        (b"\xff", None, -32700),
        (b'{"method": "x", "params": ' + b"[" * 5000, None, -32700),
        (LineTooLong(), None, -32700),
        (b"[]", None, -32600),
        (b'{"id": 1.5, "method": "ping"}', None, -32600),
        (b'{"jsonrpc": "2.0"}', None, -32600),
        (b'{"id": 4, "method": "nope"}', 4, -32601),
        (b'{"id": 4, "method": "invoke"}', 4, -32602),
        (b'{"id": 4, "method": "invoke", "params": {"question": 1}}', 4, -32602),
        (
            b'{"id": 4, "method": "invoke", "params": {"question": "", "messages": [{}]}}',
            4,
            -32602,
        ),
        (b'{"id": "a", "method": "invoke", "params": {"question": ""}}', "a", -32600),
    ],
)
async def test_bad_lines(talk: Any, line: Any, number: Any, code: int) -> None:
    it = talk(echo)
    await it.start()
    await it.session.take(line)
    answer = await it.next()
    assert (answer["id"], answer["error"]["code"]) == (number, code)
    await it.ask("invoke", {"question": "still here"}, 5)
    assert (await it.next())["result"]["text"] == "still here"


async def test_what_needs_no_answer_gets_none(talk: Any) -> None:
    it = talk(echo)
    await it.start()
    for line in (
        b"",
        b"  ",
        b'{"method": "nope"}',
        b'{"method": "cancel"}',
        b'{"method": "cancel", "params": {"invoke_id": 77}}',
        b'{"method": "invoke", "params": {"question": ""}}',
        b'{"id": 5, "result": {}}',
    ):
        await it.session.take(line)
    await it.ask("ping", None, 6)
    assert (await it.next())["id"] == 6


async def test_the_order_of_things(talk: Any) -> None:
    it = talk(echo)
    await it.ask("invoke", {"question": "?"})
    assert (await it.next())["error"]["message"] == "initialize comes first"
    client = {"name": "test", "version": "1"}
    given = {"protocol_version": 2, "client": client, "target": "x", "settings": {"a": 1}}
    await it.ask("initialize", given)
    assert (await it.next())["result"]["protocol_version"] == 1
    assert it.told == ["settings are left alone (a): those of targets.yaml hold"]


# --- the command, by our own client -------------------------------------------------------------

TARGETS = """
targets:
  - name: agent
    provider: function
    function: agent:agent
  - name: slow
    provider: mock
    delay: 60
"""
AGENT = """
import sys

async def agent(request):
    print("this is no line of the protocol")
    if request.question == "usage":
        return {"output": "counted", "token_usage": {"input": 2, "output": 1}}
    if request.tools:
        yield_ = await request.call_tool("add", {"a": 1, "b": 2})
        return f"the sum is {yield_}"
    if request.on_chunk:
        request.on_chunk("you ")
        request.on_chunk("said: ")
    return f"you said: {request.question}"
"""


def client_of(folder: Path, target: str, *more: str) -> StdioProvider:
    (folder / "targets.yaml").write_text(TARGETS)
    (folder / "agent.py").write_text(AGENT)
    command = [*MUSTER, "serve-provider", target, *more]
    return StdioProvider(
        ResolvedTarget(name="there", provider="stdio", config={"command": command}, base_dir=folder)
    )


async def test_by_our_own_client(tmp_path: Path) -> None:
    client = client_of(tmp_path, "agent")
    try:
        heard: list[str] = []
        response = await client.invoke(ProviderRequest(question="hi ä🎉", on_chunk=heard.append))
        assert response.text == "you said: hi ä🎉"
        assert heard == ["you ", "said: "]
        response = await client.invoke(ProviderRequest(question="usage"))
        assert response.token_usage == TokenUsage(2, 1)

        async def add(name: str, arguments: Any) -> str:
            return str(arguments["a"] + arguments["b"])

        asked = ProviderRequest(question="?", tools=(Tool("add"),), call_tool=add)
        assert (await client.invoke(asked)).text == "the sum is 3"
        many = await asyncio.gather(
            *(client.invoke(ProviderRequest(question=str(n))) for n in range(200))
        )
        assert [answer.text for answer in many] == [f"you said: {n}" for n in range(200)]
        big = "x" * 1_000_000
        assert (await client.invoke(ProviderRequest(question=big))).text == f"you said: {big}"
    finally:
        await client.aclose()


async def start(folder: Path, target: str) -> asyncio.subprocess.Process:
    client_of(folder, target)
    return await asyncio.create_subprocess_exec(
        *MUSTER,
        "serve-provider",
        target,
        "--grace",
        "0.2",
        cwd=folder,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


HELLO = {"protocol_version": 1, "client": {"name": "t", "version": "1"}, "target": "t"}


def line(number: int, method: str, params: Any) -> bytes:
    row = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
    return json.dumps(row).encode() + b"\n"


@pytest.mark.parametrize("end", ["input", "output", "term"])
async def test_it_ends_with_its_client(tmp_path: Path, end: str) -> None:
    child = await start(tmp_path, "slow")
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(line(0, "initialize", HELLO))
    async with asyncio.timeout(20):
        await child.stdout.readline()
        child.stdin.write(line(1, "invoke", {"question": "?"}) + line(2, "ping", None))
        assert json.loads(await child.stdout.readline())["id"] == 2
        if end == "input":
            child.stdin.close()
        elif end == "output":
            child._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]
        else:
            child.send_signal(signal.SIGTERM)
        code = await child.wait()
        if end != "output":
            said = json.loads(await child.stdout.readline())
            assert (said["id"], said["error"]["code"]) == (1, -32800)
    assert child.stderr is not None
    assert await child.stderr.read() == b""
    assert code == (143 if end == "term" else 0)


async def test_a_file_of_requests(tmp_path: Path) -> None:
    """Input and output may be files; what was asked is answered, though the input has ended."""
    client_of(tmp_path, "agent")
    asked = tmp_path / "in.jsonl"
    asked.write_bytes(line(0, "initialize", HELLO) + line(1, "invoke", {"question": "hi"}))
    with asked.open("rb") as given, (tmp_path / "out.jsonl").open("wb") as out:
        child = await asyncio.create_subprocess_exec(
            *MUSTER, "serve-provider", "agent", cwd=tmp_path, stdin=given, stdout=out,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(20):
            _, err = await child.communicate()
    assert child.returncode == 0
    rows = [json.loads(row) for row in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert rows[1] == {"jsonrpc": "2.0", "id": 1, "result": {"text": "you said: hi"}}
    assert err == b"this is no line of the protocol\n"
    assert os.path.getsize(tmp_path / "out.jsonl") > 0
