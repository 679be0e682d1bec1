"""The Messages API against a server whose bytes the test decides: bodies, answers, broken answers.

`test_openai_anthropic_llmock.py` runs it against a server that others wrote.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import ValidationError

from muster.errors import UsageError
from muster.provider import (
    AuthenticationFailed,
    BadProviderOutput,
    BadRequest,
    ImagePart,
    Limits,
    Message,
    ProviderError,
    ProviderRequest,
    ProviderResponse,
    ProviderTimeout,
    ProviderUnavailable,
    QuotaExhausted,
    RateLimited,
    TextPart,
    TokenUsage,
    Tool,
    ToolCall,
)
from muster.providers.anthropic import AnthropicProvider
from muster.providers.chat import ChatProvider
from muster.target import ResolvedTarget, Secret
from raw_server import RawServer, Request, events, reply

WEATHER = Tool("get_weather", "The weather.", {"type": "object", "properties": {}})
USAGE = {
    "input_tokens": 10,
    "cache_read_input_tokens": 60,
    "cache_creation_input_tokens": 30,
    "output_tokens": 20,
}
INCLUSIVE = TokenUsage(100, 20, cached=60)
THINKING = {"type": "thinking", "thinking": "hm", "signature": "sig"}
REDACTED = {"type": "redacted_thinking", "data": "xyz"}
CALL = {"type": "tool_use", "id": "tu1", "name": "get_weather", "input": {"city": "Oslo"}}


def target(url: str | None, env: dict[str, str] | None = None, **config: Any) -> ResolvedTarget:
    settings = {"model": "claude-sonnet-4-5", **({"base_url": url} if url else {}), **config}
    return ResolvedTarget(name="claude", provider="anthropic", config=settings, env=env or {})


async def ask(url: str, config: dict[str, Any] | None = None, **request: Any) -> ProviderResponse:
    chat = ChatProvider(AnthropicProvider(target(url, **(config or {}))))
    try:
        return await chat.invoke(ProviderRequest(**{"question": "hello", **request}))
    finally:
        await chat.aclose()


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def message(*blocks: Any, stop: str | None = "end_turn", usage: Any = USAGE) -> dict[str, Any]:
    return {
        "id": "msg",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5-20250929",
        "content": list(blocks),
        "stop_reason": stop,
        "usage": usage,
    }


def streamed(*blocks: Any, stop: str | None = "end_turn") -> list[dict[str, Any]]:
    """The events of an answer with these blocks, each in two deltas."""
    start = message(stop=None, usage={**USAGE, "output_tokens": 1})
    sent: list[dict[str, Any]] = [{"type": "message_start", "message": start}, {"type": "ping"}]
    for index, block in enumerate(blocks):
        empty, deltas = dict(block), []
        if block["type"] == "text":
            empty["text"] = ""
            half = len(block["text"]) // 2
            parts = (block["text"][:half], block["text"][half:])
            deltas = [{"type": "text_delta", "text": part} for part in parts]
        elif block["type"] == "thinking":
            empty |= {"thinking": "", "signature": ""}
            deltas = [
                {"type": "thinking_delta", "thinking": block["thinking"]},
                {"type": "signature_delta", "signature": block["signature"]},
            ]
        elif block["type"] == "tool_use":
            empty["input"] = {}
            parts = ("", '{"city": ', '"Oslo"}')
            deltas = [{"type": "input_json_delta", "partial_json": part} for part in parts]
        sent.append({"type": "content_block_start", "index": index, "content_block": empty})
        sent += [{"type": "content_block_delta", "index": index, "delta": d} for d in deltas]
        sent.append({"type": "content_block_stop", "index": index})
    if stop is not None:
        last = {"stop_reason": stop, "stop_sequence": None}
        sent.append({"type": "message_delta", "delta": last, "usage": {"output_tokens": 20}})
        sent.append({"type": "message_stop"})
    return sent


# --- good answers -------------------------------------------------------------------------------


async def test_a_plain_answer() -> None:
    async with RawServer(reply(message(text("hel"), text("lo")))) as server:
        response = await ask(
            server.url,
            {"api_key": Secret("sk-ant"), "temperature": 0.5, "headers": {"anthropic-beta": "b"}},
            system_prompt="Be.",
            messages=(Message("system", "And kind."), Message("assistant", "yes ")),
            tools=(WEATHER,),
        )
    assert (response.text, response.finish_reason) == ("hello", "stop")
    assert response.token_usage == INCLUSIVE
    assert response.model == "claude-sonnet-4-5-20250929"
    assert response.cost_usd == pytest.approx((10 * 3 + 60 * 0.3 + 30 * 3.75 + 20 * 15) / 1e6)
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/v1/messages")
    assert request.headers["x-api-key"] == "sk-ant"
    assert request.headers["anthropic-version"] == "2023-06-01"
    assert request.headers["anthropic-beta"] == "b"
    assert request.json() == {
        "model": "claude-sonnet-4-5",
        "max_tokens": 8192,
        "temperature": 0.5,
        "system": "Be.\n\nAnd kind.",
        "messages": [
            {"role": "assistant", "content": [text("yes")]},
            {"role": "user", "content": [text("hello")]},
        ],
        "tools": [
            {
                "name": "get_weather",
                "description": "The weather.",
                "input_schema": {"type": "object", "properties": {}},
            }
        ],
    }


async def test_history_and_images_on_the_wire() -> None:
    calls = (
        ToolCall("get_weather", {"a": 1}, id="c1", status="ok"),
        ToolCall("get_weather", "{broken", id="c2", status="error"),
    )
    history = (
        Message("user", (TextPart("look"), ImagePart("data:image/png;base64,AA=="))),
        Message("user", (ImagePart("https://example.com/i.png"),)),
        Message("assistant", "  ", tool_calls=calls),
        Message("tool", "sunny", tool_call_id="c1"),
        Message("tool", "error: no", tool_call_id="c2"),
        Message("system", "Hurry."),
    )
    async with RawServer(reply(message(text("x")))) as server:
        await ask(server.url, messages=history)
    assert server.requests[0].json()["messages"] == [
        {
            "role": "user",
            "content": [
                text("look"),
                {
                    "type": "image",
                    "source": {"type": "base64", "media_type": "image/png", "data": "AA=="},
                },
                {"type": "image", "source": {"type": "url", "url": "https://example.com/i.png"}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "tool_use", "id": "c1", "name": "get_weather", "input": {"a": 1}},
                {
                    "type": "tool_use",
                    "id": "c2",
                    "name": "get_weather",
                    "input": {"arguments": "{broken"},
                },
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "sunny"},
                {
                    "type": "tool_result",
                    "tool_use_id": "c2",
                    "content": "error: no",
                    "is_error": True,
                },
                text("<system>\nHurry.\n</system>"),
                text("hello"),
            ],
        },
    ]


@pytest.mark.parametrize("stream", [False, True])
async def test_only_text_blocks_are_the_answer(stream: bool) -> None:
    blocks = (REDACTED, THINKING, text("so"))
    sent = events(*streamed(*blocks)) if stream else reply(message(*blocks))
    chunks: list[str] = []
    async with RawServer(sent) as server:
        response = await ask(server.url, on_chunk=chunks.append if stream else None)
    assert (response.text, response.finish_reason) == ("so", "stop")
    assert response.token_usage == INCLUSIVE
    assert chunks == (["s", "o"] if stream else [])


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "content_filter"),
        ("pause_turn", "pause_turn"),
    ],
)
async def test_stop_reasons(said: str, expected: str) -> None:
    async with RawServer(reply(message(text("x"), stop=said))) as server:
        assert (await ask(server.url)).finish_reason == expected


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, None),
        ({}, None),
        ({"input_tokens": 1, "output_tokens": 2}, TokenUsage(1, 2)),
        (
            {"input_tokens": 1, "output_tokens": 2, "cache_read_input_tokens": 0},
            TokenUsage(1, 2, cached=0),
        ),
    ],
)
async def test_usage(usage: Any, expected: TokenUsage | None) -> None:
    async with RawServer(reply(message(text("x"), usage=usage))) as server:
        response = await ask(server.url)
    assert response.token_usage == expected
    assert (response.cost_usd is None) is (expected is None)


@pytest.mark.parametrize("stream", [False, True])
async def test_tool_round_trip(stream: bool) -> None:
    async def call_tool(name: str, arguments: Any) -> str:
        assert (name, arguments) == ("get_weather", {"city": "Oslo"})
        return "sunny"

    blocks = (REDACTED, THINKING, text("Let me look."), CALL)
    if stream:
        answers = [events(*streamed(*blocks, stop="tool_use")), events(*streamed(text("Sunny.")))]
    else:
        answers = [reply(message(*blocks, stop="tool_use")), reply(message(text("Sunny.")))]
    async with RawServer(answers) as server:
        response = await ask(
            server.url, tools=(WEATHER,), call_tool=call_tool, on_chunk=print if stream else None
        )
    assert response.text == "Sunny."
    assert response.token_usage == INCLUSIVE + INCLUSIVE
    assert [m.role for m in response.output] == ["assistant", "tool", "assistant"]
    # The signed thoughts go back as they came.
    assert server.requests[1].json()["messages"][1:] == [
        {"role": "assistant", "content": list(blocks)},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "tu1", "content": "sunny"}],
        },
    ]


async def test_a_call_with_broken_arguments_is_told_to_the_model() -> None:
    async def call_tool(name: str, arguments: Any) -> str:
        raise AssertionError("must not be called")

    sent = streamed({**CALL, "input": {}}, stop="tool_use")
    cut = [event for event in sent if event.get("delta", {}).get("partial_json") != '"Oslo"}']
    async with RawServer([events(*cut), events(*streamed(text("ok")))]) as server:
        response = await ask(
            server.url, tools=(WEATHER,), call_tool=call_tool, on_chunk=lambda _: None
        )
    assert response.text == "ok"
    asked, answered = server.requests[1].json()["messages"][1:]
    assert asked["content"][0]["input"] == {"arguments": '{"city": '}
    assert answered["content"][0]["is_error"] is True


async def test_thinking_budget() -> None:
    async with RawServer(reply(message(text("x")))) as server:
        await ask(server.url, {"thinking_budget": 2000})
        await ask(server.url, {"thinking_budget": 2000, "max_output_tokens": 5000})
        await ask(server.url, {"max_output_tokens": 5000}, limits=Limits(max_output_tokens=10))
    bodies = [request.json() for request in server.requests]
    assert bodies[0]["thinking"] == {"type": "enabled", "budget_tokens": 2000}
    assert [body["max_tokens"] for body in bodies] == [10_192, 5000, 10]
    with pytest.raises(ValidationError, match="must be below max_output_tokens"):
        AnthropicProvider(target(None, thinking_budget=2000, max_output_tokens=2000))


# --- structured output --------------------------------------------------------------------------

SCHEMA = {"type": "object", "title": "Verdict", "properties": {"ok": {"type": "boolean"}}}


@pytest.mark.parametrize("stream", [False, True])
async def test_structured_output(stream: bool) -> None:
    filled = {"type": "tool_use", "id": "t", "name": "Verdict", "input": {"city": "Oslo"}}
    blocks = (THINKING, filled)
    chunks: list[str] = []
    sent = streamed(*blocks, stop="tool_use")
    answer = events(*sent) if stream else reply(message(*blocks, stop="tool_use"))
    async with RawServer(answer) as server:
        response = await ask(
            server.url, response_schema=SCHEMA, on_chunk=chunks.append if stream else None
        )
    assert (response.text, response.finish_reason) == ('{"city":"Oslo"}', "stop")
    assert response.tool_calls == ()
    assert "".join(chunks) == ('{"city": "Oslo"}' if stream else "")
    body = server.requests[0].json()
    assert body["tool_choice"] == {"type": "tool", "name": "Verdict"}
    assert body["tools"][0]["input_schema"] == SCHEMA


@pytest.mark.parametrize("stream", [False, True])
async def test_a_schema_that_is_no_object(stream: bool) -> None:
    filled = {"type": "tool_use", "id": "t", "name": "answer", "input": {"value": [1, 2]}}
    sent = streamed(filled, stop="tool_use")
    sent = [event for event in sent if event["type"] != "content_block_delta"]
    piece = {"type": "input_json_delta", "partial_json": '{"value": [1, 2]}'}
    sent.insert(-3, {"type": "content_block_delta", "index": 0, "delta": piece})
    chunks: list[str] = []
    async with RawServer(events(*sent) if stream else reply(message(filled))) as server:
        response = await ask(
            server.url,
            response_schema={"type": "array"},
            on_chunk=chunks.append if stream else None,
        )
    assert response.text == "[1,2]"
    assert chunks == (["[1,2]"] if stream else [])


async def test_a_schema_beside_tools_and_thinking() -> None:
    async with RawServer(reply(message(text("x")))) as server:
        taken = Tool("Verdict")
        await ask(server.url, response_schema=SCHEMA, tools=(taken,))
        await ask(server.url, {"thinking_budget": 2000}, response_schema=SCHEMA)
    beside, thinking = (request.json() for request in server.requests)
    assert [tool["name"] for tool in beside["tools"]] == ["Verdict", "Verdict_"]
    assert beside["tool_choice"] == {"type": "any"}
    assert thinking["tool_choice"] == {"type": "auto"}


async def test_an_answer_cut_short_is_not_taken_for_structured_output() -> None:
    filled = {"type": "tool_use", "id": "t", "name": "Verdict", "input": {}}
    async with RawServer(reply(message(filled, stop="max_tokens"))) as server:
        response = await ask(server.url, response_schema=SCHEMA)
    assert (response.text, response.finish_reason) == ("", "length")


# --- no half answer passes for a whole one ------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (reply(""), "the answer is empty"),
        (reply('{"content": [{"ty'), "not valid JSON"),
        (reply("<!DOCTYPE html>", content_type="text/html"), "HTML page"),
        (reply({"stop_reason": "end_turn"}), "no content"),
        (reply(message(text("half"), stop=None)), "no stop reason"),
        (reply(message({**CALL, "id": None}, stop="tool_use")), "without name or id"),
        (reply({"content": "text"}), "not of the expected shape"),
    ],
)
async def test_broken_answers(answer: bytes, said: str, stream: bool) -> None:
    async with RawServer(answer) as server:
        with pytest.raises(BadProviderOutput, match=said) as caught:
            await ask(server.url, on_chunk=print if stream else None)
    assert str(caught.value).startswith("claude: ")


HALF = streamed(text("half of the answer"), stop=None)


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (HALF, "broke off after 18 characters"),
        ([*HALF, {"type": "message_stop"}], "without a stop reason"),
        ([], "without a stop reason"),
        ([*HALF, '{"type": "content_bl'], "not valid JSON"),
        ([*HALF, "[]"], "not of the expected shape"),
    ],
)
async def test_broken_streams(sent: list[Any], said: str) -> None:
    async with RawServer(events(*sent)) as server:
        with pytest.raises(BadProviderOutput, match=said):
            await ask(server.url, on_chunk=print)


async def test_a_stream_needs_no_end_after_its_stop_reason() -> None:
    async with RawServer(events(*streamed(text("whole"))[:-1])) as server:
        assert (await ask(server.url, on_chunk=print)).text == "whole"


async def test_a_delta_that_comes_after_the_end_of_its_block() -> None:
    sent = streamed(text("good "))
    late = {"type": "text_delta", "text": "day"}
    sent.insert(-2, {"type": "content_block_delta", "index": 0, "delta": late})
    chunks: list[str] = []
    async with RawServer(events(*sent)) as server:
        response = await ask(server.url, on_chunk=chunks.append)
    assert response.text == "".join(chunks) == "good day"


async def test_a_stream_that_breaks_off_between_two_blocks() -> None:
    sent = streamed(text("the first one"), text("the second"), stop=None)
    async with RawServer(events(*sent[:6])) as server:
        with pytest.raises(BadProviderOutput, match="broke off after 13 characters"):
            await ask(server.url, on_chunk=print)


async def test_a_stream_cut_off_within_the_protocol() -> None:
    async with RawServer(events(*HALF, ended=False)) as server:
        with pytest.raises(ProviderUnavailable):
            await ask(server.url, on_chunk=print)


async def test_a_stream_that_stalls() -> None:
    async def stall(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(events(*HALF, ended=False))
        await asyncio.sleep(60)

    async with RawServer(stall) as server:
        with pytest.raises(ProviderTimeout):
            await ask(server.url, {"read_timeout_seconds": 0.1}, on_chunk=print)
        await asyncio.wait_for(server.closed_early.wait(), 5)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"type": "overloaded_error", "message": "Overloaded"}, ProviderUnavailable),
        ({"type": "rate_limit_error", "message": "slow down"}, RateLimited),
        ({"type": "billing_error", "message": "pay"}, QuotaExhausted),
        ({"type": "invalid_request_error", "message": "no"}, BadRequest),
        ({"type": "api_error", "message": "oh"}, ProviderUnavailable),
    ],
)
async def test_errors_within_a_good_status(
    error: Any, kind: type[ProviderError], stream: bool
) -> None:
    body = {"type": "error", "error": error}
    async with RawServer(events(*HALF, body) if stream else reply(body)) as server:
        with pytest.raises(kind) as caught:
            await ask(server.url, on_chunk=print if stream else None)
    assert type(caught.value) is kind


async def test_statuses() -> None:
    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    credit = {"type": "error", "error": {"message": "Your credit balance is too low"}}
    for answer, kind, said in (
        (reply(overloaded, status=529, headers={"Retry-After": "2"}), ProviderUnavailable, "529"),
        (reply(credit, status=400), QuotaExhausted, "credit"),
        (reply("", status=413), BadRequest, "413"),
    ):
        async with RawServer(answer) as server:
            with pytest.raises(kind, match=said):
                await ask(server.url)


# --- settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "base_url", ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/messages"]
)
def test_base_urls(base_url: str) -> None:
    assert AnthropicProvider(target(base_url)).url == "http://h:1/v1/messages"


async def test_the_environment_completes_a_target() -> None:
    async with RawServer(reply(message(text("x")))) as server:
        env = {"ANTHROPIC_BASE_URL": server.url, "ANTHROPIC_API_KEY": "k", "AGENT_MODEL": "m"}
        bare = ResolvedTarget(name="claude", provider="anthropic", config={}, env=env)
        chat = ChatProvider(AnthropicProvider(bare))
        await chat.invoke(ProviderRequest(question="q"))
        await chat.aclose()
    (request,) = server.requests
    assert request.headers["x-api-key"] == "k"
    assert request.json()["model"] == "m"


async def test_a_missing_key_names_its_variable() -> None:
    chat = ChatProvider(AnthropicProvider(target(None)))
    with pytest.raises(AuthenticationFailed, match="ANTHROPIC_API_KEY is not set; required for"):
        await chat.invoke(ProviderRequest(question="q"))


def test_a_missing_model() -> None:
    bare = ResolvedTarget(name="claude", provider="anthropic", config={}, env={})
    with pytest.raises(UsageError, match='target "claude": no model'):
        AnthropicProvider(bare)
