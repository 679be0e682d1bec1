"""Servers that misbehave, through each kind of HTTP provider: typed errors, other cases whole."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from typing import Any

import pytest
from muster_project import Project, serving

from raw_server import Request, events, reply

NAMES = ("good-1", "reset", "stalls", "html", "busy", "cut", "empty", "quota", "good-2")

SUITE = "assertions: [{type: contains, value: Paris}]\ntests:\n" + "".join(
    f"  - {{id: {name}, input: please {name}}}\n" for name in NAMES
)

RETRIES = """
    max_retries: 1
    retry_initial_delay_ms: 1
    timeout_seconds: 0.8
    workers: 9
"""

TARGETS = {
    "openai": "    provider: openai\n    model: m\n    api_key: test\n    base_url: URL\n",
    "anthropic": "    provider: anthropic\n    model: m\n    api_key: test\n    base_url: URL\n",
    "http": "    provider: http\n    url: URL\n    response: {text: answer}\n",
}

GOOD: dict[str, dict[str, Any]] = {
    "openai": {
        "model": "m",
        "choices": [
            {"message": {"role": "assistant", "content": "Paris"}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    },
    "anthropic": {
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "Paris"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 3, "output_tokens": 1},
    },
    "http": {"answer": "Paris", "usage": {"input_tokens": 3, "output_tokens": 1}},
}


class Misbehaving:
    """Does to each request what its question says."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.seen: list[str] = []

    async def __call__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        asked = next(name for name in NAMES if f"please {name}" in request.body.decode())
        self.seen.append(asked)
        if asked == "reset":
            connection = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return
        whole = reply(GOOD[self.kind])
        if asked == "stalls":
            writer.write(whole[:-10])
            await writer.drain()
            await asyncio.Event().wait()
        writer.write(
            {
                "html": reply("<html><body>Gateway</body></html>", content_type="text/html"),
                "busy": reply(
                    {"error": {"type": "rate_limit_error", "message": "slow down"}},
                    status=429,
                    headers={"Retry-After": "0"},
                ),
                "quota": reply(
                    {"error": {"code": "insufficient_quota", "message": "pay first"}}, status=429
                ),
                "cut": whole[:-10],
                "empty": reply(b""),
            }.get(asked, whole)
        )
        await writer.drain()


@pytest.mark.parametrize("kind", list(TARGETS))
def test_each_failure_has_its_kind(project: Project, kind: str) -> None:
    server_side = Misbehaving(kind)
    with serving(server_side) as server:
        target = TARGETS[kind].replace("URL", server.url)
        project.write(".muster/targets.yaml", f"targets:\n  - name: default\n{target}{RETRIES}")
        project.write("capital.eval.yaml", SUITE)
        ended = project.eval("capital.eval.yaml")
    assert ended.code == 1
    rows = project.by_id()
    for name in ("good-1", "good-2"):
        assert rows[name]["execution_status"] == "ok"
        assert rows[name]["token_usage"]["input"] == 3
    bad = {name: row for name, row in rows.items() if not name.startswith("good")}
    assert all(row["execution_status"] == "execution_error" for row in bad.values())
    assert {name: row["error_kind"] for name, row in bad.items()} == {
        "reset": "provider_unavailable",
        "stalls": "timeout",
        "html": "bad_output",
        "busy": "rate_limited",
        "cut": "provider_unavailable",
        "empty": "bad_output",
        "quota": "quota_exhausted",
    }
    # A retry can help all of them but the last; none is tried more often than allowed.
    assert {name: row.get("attempts", 1) for name, row in bad.items()} == {
        **dict.fromkeys(bad, 2),
        "quota": 1,
    }
    assert sorted(server_side.seen) == sorted(
        name for name, row in rows.items() for _ in range(row.get("attempts", 1))
    )
    assert "Gateway" in rows["html"]["error"] or "HTML" in rows["html"]["error"]


STREAMS = {
    "good-1": events({"t": "Pa"}, {"t": "ris"}, "[DONE]"),
    "cut": events({"t": "Pa"}),
    "reset": events({"t": "Pa"}, ended=False),
    "html": reply("<!doctype html><p>Gateway", content_type="text/html"),
    "empty": events({"t": "Pa"}, '{"t": "ris', "[DONE]"),
}


def test_half_a_stream_is_no_answer(project: Project) -> None:
    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        asked = json.loads(request.body)["prompt"].split()[-1]
        writer.write(events({"t": "Pa"})[:-5] if asked == "stalls" else STREAMS[asked])
        await writer.drain()
        if asked == "stalls":
            await asyncio.Event().wait()

    names = [*STREAMS, "stalls"]
    with serving(answer) as server:
        target = f"    provider: http\n    url: {server.url}\n    stream: sse\n"
        target += "    response: {delta: t, done: '[DONE]'}\n"
        retries = RETRIES.replace("max_retries: 1", "max_retries: 0")
        project.write(".muster/targets.yaml", f"targets:\n  - name: default\n{target}{retries}")
        rows = "".join(f"  - {{id: {name}, input: please {name}}}\n" for name in names)
        suite = f"assertions: [{{type: contains, value: Pa}}]\ntests:\n{rows}"
        project.write("stream.eval.yaml", suite)
        ended = project.eval("stream.eval.yaml")
    assert ended.code == 1
    found = project.by_id()
    assert found["good-1"]["output"] == "Paris"
    assert {name: row.get("error_kind") for name, row in found.items()} == {
        "good-1": None,
        "cut": "bad_output",
        "reset": "provider_unavailable",
        "html": "bad_output",
        "empty": "bad_output",
        "stalls": "timeout",
    }
    assert all(row.get("output") is None for name, row in found.items() if name != "good-1")


def test_a_server_that_is_not_there(project: Project) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        target = TARGETS["openai"].replace("URL", url)
        project.write(".muster/targets.yaml", f"targets:\n  - name: default\n{target}{RETRIES}")
        project.write(
            "one.eval.yaml",
            "tests: [{id: a, input: q, assertions: [{type: is-json}]}]\n",
        )
        ended = project.eval("one.eval.yaml")
    assert ended.code == 1
    (row,) = project.rows()
    assert row["error_kind"] == "provider_unavailable"
    assert row.get("attempts", 1) == 2
    assert url.removeprefix("http://") in row["error"]
