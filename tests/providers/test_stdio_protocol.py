"""The protocol's page: its schema, its transcript, and what its tables say."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import fields as dataclass_fields
from dataclasses import replace

import msgspec
import pytest
from jsonschema import Draft202012Validator

from manual import ROOT, blocks_of, first_column, section_of
from muster import __version__
from muster.capabilities import Capabilities
from muster.provider import ImagePart, Limits, Message, ProviderRequest, Tool
from muster.providers import stdio_messages as wire
from muster.providers.stdio_schema import protocol_schema
from stdio_children import Children

PAGE = ROOT / "docs" / "providers" / "stdio-protocol.md"
SCHEMA = protocol_schema()


def validator(side: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": f"#/$defs/{side}", "$defs": SCHEMA["$defs"]})


def transcript() -> list[tuple[str, dict]]:
    (block,) = (block for block in blocks_of(PAGE) if block.kind == "jsonl")
    rows = [json.loads(line) for line in block.text.splitlines()]
    assert all(len(row) == 1 for row in rows)
    return [next(iter(row.items())) for row in rows]


def test_the_transcript_is_of_the_schema() -> None:
    for side, message in transcript():
        errors = [error.message for error in validator(f"from_{side}").iter_errors(message)]
        assert errors == [], message
    methods = {message.get("method") for _, message in transcript()}
    assert methods == {
        *("initialize", "invoke", "cancel", "ping", "shutdown", "chunk", "tool_call"),
        None,
    }


def test_the_transcript_happens() -> None:
    """Its lines of Muster's, sent to the child, bring about those of the child's."""
    child = subprocess.Popen(
        [sys.executable, "agent.py"],
        cwd=ROOT / "examples" / "stdio" / "python",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        for side, message in transcript():
            if side == "muster":
                child.stdin.write(json.dumps(message).encode() + b"\n")
                child.stdin.flush()
            else:
                assert json.loads(child.stdout.readline()) == message
        assert child.wait(10) == 0
    finally:
        child.kill()
        child.stdin.close()
        child.stdout.close()
        child.wait()


async def test_what_muster_sends_is_of_the_schema(tmp_path) -> None:
    provider = Children(tmp_path)(
        """
        got = open("got", "ab", buffering=0)
        calls = {}
        def read():
            line = sys.stdin.buffer.readline()
            got.write(line)
            return json.loads(line) if line else sys.exit(0)
        def answer(message):
            if message.get("method") == "invoke":
                calls[message["id"]] = message
                say(id="a", method="ping")
                say(id="b", method="sing", params={})
                say(id=message["id"], method="tool_call",
                    params={"invoke_id": message["id"], "name": "get_weather"})
            elif message.get("id") in calls and question(calls[message["id"]]) != "wait":
                text(calls[message["id"]], message["result"]["output"])
        serve(answer)
        """,
        settings={"mark": "!"},
    )

    async def call_tool(name, arguments):
        return "sunny"

    request = ProviderRequest(
        question="x",
        system_prompt="s",
        tools=(Tool("get_weather", "d"),),
        call_tool=call_tool,
        input_files=(tmp_path,),
        images=(ImagePart("http://x"),),
        messages=(Message("user", "m"),),
        response_schema={},
        metadata={"a": "b"},
        limits=Limits(max_seconds=30.0, max_cost_usd=1.0),
    )
    assert (await provider.invoke(request)).text == "sunny"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await provider.invoke(replace(request, question="wait"))
    await provider.aclose()
    lines = [json.loads(line) for line in (tmp_path / "got").read_text().splitlines()]
    for line in lines:
        assert [error.message for error in validator("from_muster").iter_errors(line)] == []
    assert [line.get("method") for line in lines if "method" in line] == [
        *("initialize", "invoke", "invoke", "cancel", "shutdown")
    ]
    assert lines[0]["params"]["client"] == {"name": "muster", "version": __version__}


@pytest.mark.parametrize(
    ("side", "message"),
    [
        ("from_child", {"id": 1, "result": {}}),
        ("from_child", {"jsonrpc": "2.0", "result": {"text": "a"}}),
        ("from_child", {"jsonrpc": "2.0", "id": 1, "result": {"text": "a", "output": []}}),
        ("from_child", {"jsonrpc": "2.0", "id": 1, "result": {"text": "a", "usage": {}}}),
        ("from_child", {"jsonrpc": "2.0", "id": 1, "error": {"message": "a"}}),
        (
            "from_child",
            {
                "jsonrpc": "2.0",
                "id": 1,
                "error": {"code": 1, "message": "a", "data": {"kind": "x"}},
            },
        ),
        ("from_child", {"jsonrpc": "2.0", "method": "chunk", "params": {"text": "a"}}),
        ("from_child", {"jsonrpc": "2.0", "id": 1, "method": "invoke", "params": {"question": ""}}),
        ("from_muster", {"jsonrpc": "2.0", "id": 1, "method": "invoke", "params": {}}),
        ("from_muster", {"jsonrpc": "2.0", "method": "ping"}),
    ],
)
def test_the_schema_refuses(side: str, message: dict) -> None:
    assert list(validator(side).iter_errors(message))


# --- the tables -----------------------------------------------------------------------------------


def fields(kind: type) -> list[str]:
    return [field.name for field in msgspec.structs.fields(kind)]


def table(title: str, header: str) -> list[str]:
    """The first column of the table below `header` in a section."""
    (found,) = (
        part
        for part in section_of("providers/stdio-protocol.md", title).split("\n\n")
        if part.startswith(f"| {header} |")
    )
    return first_column(found)


def test_the_tables_name_every_field() -> None:
    assert table("`initialize`", "param") == fields(wire.Initialize)
    assert table("`initialize`", "result") == fields(wire.Initialized)
    assert table("`invoke`", "param") == fields(wire.Invoke)
    assert table("`invoke`", "result") == fields(wire.Answer)
    assert table("Errors", "`data`")[1:] == fields(wire.ErrorData)
    kinds = section_of("providers/stdio-protocol.md", "Errors")
    assert [kind for kind in wire.ERRORS if kind != "provider_error" and kind not in kinds] == []


def test_a_request_is_sent_whole() -> None:
    """Whatever a `ProviderRequest` has is a param, but for who watches the turns."""
    names = {field.name for field in dataclass_fields(ProviderRequest)}
    assert names - set(fields(wire.Invoke)) == {"watch"}


def test_the_capabilities_are_those_of_muster() -> None:
    section = section_of("providers/stdio-protocol.md", "`initialize`")
    known = {field.name for field in dataclass_fields(Capabilities)}
    assert [name for name in known - {"embeddings", "batch"} if f"`{name}`" not in section] == []
