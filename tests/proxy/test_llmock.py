"""Recorded from a server that others wrote, by our own providers, and replayed without it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from proxy_parts import KEY, Start, ask, lines_of

from llmock import llmock
from muster.provider import Message, ProviderResponse, RateLimited, TokenUsage, Tool

pytestmark = pytest.mark.node

USAGE = {
    "prompt_tokens": 11,
    "completion_tokens": 7,
    "total_tokens": 18,
    "input_tokens": 11,
    "output_tokens": 7,
}
LONG = "The quick brown fox jumps over the lazy dog, again and again and again — für immer."
TWO_CALLS = [
    {"name": "get_weather", "arguments": '{"city": "Oslo"}'},
    {"name": "get_weather", "arguments": '{"city": "Rome"}'},
]
FIXTURES: list[dict[str, Any]] = [
    {"match": {"hasToolResult": True}, "response": {"content": "Both sunny.", "usage": USAGE}},
    {"match": {"userMessage": "weather"}, "response": {"toolCalls": TWO_CALLS, "usage": USAGE}},
    {
        "match": {"userMessage": "fail429"},
        "response": {"error": {"message": "slow down", "type": "rate_limit_error"}, "status": 429},
    },
    {"match": {}, "response": {"content": LONG, "usage": USAGE}},
]
WEATHER = Tool("get_weather", "The weather.", {"type": "object", "properties": {}})


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with llmock(FIXTURES) as url:
        yield url


async def call_tool(name: str, arguments: Any) -> str:
    return f"sunny in {arguments['city']}"


async def session(url: str, api: str, key: str = KEY) -> list[Any]:
    """An answer, a stream, and a round of tools streamed and not; what came of each."""
    if api == "anthropic":
        url = url.removesuffix("/v1")
    found: list[Any] = []
    for streamed in (False, True):
        chunks: list[str] = []
        on_chunk = chunks.append if streamed else None
        plain = await ask(url, api, on_chunk=on_chunk, key=key)
        tools = await ask(
            url,
            api,
            "weather",
            on_chunk=on_chunk,
            key=key,
            tools=(WEATHER,),
            call_tool=call_tool,
        )
        found += [told(plain), told(tools), "".join(chunks)]
        if streamed:
            assert len(chunks) > 3
    with pytest.raises(RateLimited) as caught:
        await ask(url, api, "fail429", key=key)
    return [*found, caught.value.status, str(caught.value).partition("HTTP")[2]]


def told(response: ProviderResponse) -> tuple[Any, ...]:
    messages = [
        (message.role, message.content, message.tool_call_id, _calls(message))
        for message in response.output
    ]
    return response.text, messages, response.token_usage, response.finish_reason


def _calls(message: Message) -> list[tuple[Any, ...]]:
    return [(call.id, call.tool, call.input, call.output) for call in message.tool_calls]


@pytest.mark.parametrize("api", ["chat", "responses", "anthropic"])
async def test_a_replay_is_what_was_recorded(
    server: str, start: Start, tmp_path: Path, api: str
) -> None:
    cassette = tmp_path / "calls.jsonl"
    direct = await session(f"{server}/v1", api)
    site = await start(to=f"{server}/v1", record=cassette)
    recorded = await session(site.url, api)
    await site.stop()
    assert (recorded[0][0], recorded[1][0]) == (LONG, "Both sunny.")
    assert recorded[0][2] == TokenUsage(11, 7)
    assert [part[0] for part in recorded[:2]] == [part[0] for part in direct[:2]]
    assert site.running.tally.recorded == len(lines_of(cassette)) == 7
    assert KEY not in cassette.read_text()

    # Nothing is behind this one, and the key is another.
    replaying = await start(replay=cassette)
    assert replaying.url.endswith("/v1")
    assert await session(replaying.url, api, key="another-key-of-nobody") == recorded
    assert replaying.running.tally.sources == {"replay": 7}
