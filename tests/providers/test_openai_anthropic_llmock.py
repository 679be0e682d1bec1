"""Both built-in model providers against `llmock`, a server that others wrote."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from llmock import journal, llmock
from muster.provider import (
    BadProviderOutput,
    ProviderError,
    ProviderRequest,
    ProviderResponse,
    ProviderUnavailable,
    RateLimited,
    TokenUsage,
    Tool,
)
from muster.providers.anthropic import AnthropicProvider
from muster.providers.chat import ChatProvider
from muster.providers.openai import OpenAIProvider
from muster.target import ResolvedTarget

pytestmark = pytest.mark.node

USAGE = {
    "prompt_tokens": 11,
    "completion_tokens": 7,
    "total_tokens": 18,
    "input_tokens": 11,
    "output_tokens": 7,
}
LONG = "The quick brown fox jumps over the lazy dog, again and again and again."
TWO_CALLS = [
    {"name": "get_weather", "arguments": '{"city": "Oslo"}'},
    {"name": "get_weather", "arguments": '{"city": "Rome"}'},
]
FIXTURES: list[dict[str, Any]] = [
    {"match": {"hasToolResult": True}, "response": {"content": "Both sunny.", "usage": USAGE}},
    {
        "match": {"userMessage": "weather"},
        "response": {"toolCalls": TWO_CALLS, "usage": USAGE},
    },
    {
        "match": {"userMessage": "fail429"},
        "response": {
            "error": {"message": "slow down", "type": "rate_limit_error"},
            "status": 429,
        },
    },
    {"match": {}, "response": {"content": LONG, "usage": USAGE}},
]
WEATHER = Tool("get_weather", "The weather.", {"type": "object", "properties": {}})
APIS = pytest.mark.parametrize("api", ["chat", "responses", "anthropic"])
STREAMED = pytest.mark.parametrize("streamed", [False, True])


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with llmock(FIXTURES) as url:
        yield url


async def ask(url: str, api: str, streamed: bool = False, **request: Any) -> ProviderResponse:
    if api == "anthropic":
        config = {"base_url": url, "model": "claude-sonnet-4-5"}
        model: Any = AnthropicProvider(_target(config, "anthropic"))
    else:
        config = {"base_url": url, "model": "gpt-4o-mini", "api_format": api}
        model = OpenAIProvider(_target(config, "openai"))
    chat = ChatProvider(model)
    try:
        on_chunk = request.pop("on_chunk", print if streamed else None)
        return await chat.invoke(ProviderRequest(on_chunk=on_chunk, **request))
    finally:
        await chat.aclose()


def _target(config: dict[str, Any], provider: str) -> ResolvedTarget:
    settings = {**config, "api_key": "test-key"}
    return ResolvedTarget(name=provider, provider=provider, config=settings, env={})


@APIS
@STREAMED
async def test_an_answer(server: str, api: str, streamed: bool) -> None:
    response = await ask(server, api, streamed, question="hello", system_prompt="Be kind.")
    assert (response.text, response.finish_reason) == (LONG, "stop")
    assert response.token_usage == TokenUsage(11, 7)
    assert response.cost_usd is not None
    assert response.cost_usd > 0


@APIS
async def test_streaming(server: str, api: str) -> None:
    chunks: list[str] = []
    response = await ask(server, api, question="hello", on_chunk=chunks.append)
    assert len(chunks) > 2
    assert "".join(chunks) == response.text == LONG


@APIS
@STREAMED
async def test_tools(server: str, api: str, streamed: bool) -> None:
    async def call_tool(name: str, arguments: Any) -> str:
        return f"sunny in {arguments['city']}"

    response = await ask(
        server, api, streamed, question="weather?", tools=(WEATHER,), call_tool=call_tool
    )
    assert response.text == "Both sunny."
    assert [call.output for call in response.tool_calls] == ["sunny in Oslo", "sunny in Rome"]
    assert response.token_usage == TokenUsage(22, 14)
    shown = str(journal(server)[-1]["body"])
    assert "sunny in Oslo" in shown
    assert "sunny in Rome" in shown


@APIS
@STREAMED
async def test_rate_limits(server: str, api: str, streamed: bool) -> None:
    with pytest.raises(RateLimited, match="slow down") as caught:
        await ask(server, api, streamed, question="fail429")
    assert caught.value.retryable
    assert caught.value.retry_after is not None
    assert caught.value.retry_after > 0


@pytest.mark.parametrize(
    ("chaos", "kind"),
    [
        ("drop", ProviderUnavailable),
        ("malformed", BadProviderOutput),
        ("disconnect", ProviderUnavailable),
        ("ratelimit", RateLimited),
    ],
)
async def test_chaos(chaos: str, kind: type[ProviderError]) -> None:
    with llmock(FIXTURES, f"--chaos-{chaos}", "1") as url:
        for api in ("chat", "responses", "anthropic"):
            for streamed in (False, True):
                with pytest.raises(kind) as caught:
                    await ask(url, api, streamed, question="hello")
                assert type(caught.value) is kind
                assert caught.value.retryable
                if kind is RateLimited:
                    assert caught.value.retry_after is not None
