"""The OpenAI family against a server whose bytes the test decides: bodies, answers, broken answers.

`test_openai_anthropic_llmock.py` runs it against a server that others wrote.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

import pytest

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
from muster.providers.chat import ChatProvider
from muster.providers.openai import OpenAIProvider
from muster.target import ResolvedTarget, Secret
from raw_server import RawServer, Request, events, reply

WEATHER = Tool("get_weather", "The weather.", {"type": "object", "properties": {}})
USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "total_tokens": 120,
    "prompt_tokens_details": {"cached_tokens": 40},
    "completion_tokens_details": {"reasoning_tokens": 5},
}
INCLUSIVE = TokenUsage(100, 20, cached=40, reasoning=5)


def target(url: str, provider: str = "openai", **config: Any) -> ResolvedTarget:
    settings = {"base_url": url, "model": "gpt-4o-mini", **config}
    return ResolvedTarget(name="my-gpt", provider=provider, config=settings, env={})


async def ask(
    url: str, *, provider: str = "openai", config: dict[str, Any] | None = None, **request: Any
) -> ProviderResponse:
    chat = ChatProvider(OpenAIProvider(target(url, provider, **(config or {}))))
    try:
        return await chat.invoke(ProviderRequest(**{"question": "hello", **request}))
    finally:
        await chat.aclose()


def completion(content: Any = "hi", finish: str | None = "stop", **message: Any) -> dict[str, Any]:
    return {
        "id": "x",
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content, **message},
                "finish_reason": finish,
            }
        ],
        "usage": USAGE,
    }


def delta(finish: str | None = None, **content: Any) -> dict[str, Any]:
    return {"id": "x", "choices": [{"index": 0, "delta": content, "finish_reason": finish}]}


LAST = {"id": "x", "model": "gpt-4o-mini", "choices": [], "usage": USAGE}
GOOD_STREAM = events(
    delta(role="assistant", content=""), delta(content="hel"), delta(content="lo"),
    delta("stop"), LAST, "[DONE]",
)  # fmt: skip


# --- good answers -------------------------------------------------------------------------------


async def test_a_plain_answer() -> None:
    async with RawServer(reply(completion())) as server:
        response = await ask(server.url, config={"api_key": Secret("sk-1")}, system_prompt="Be.")
    assert (response.text, response.finish_reason) == ("hi", "stop")
    assert response.token_usage == INCLUSIVE
    assert response.model == "gpt-4o-mini-2024-07-18"
    assert response.cost_usd == pytest.approx((60 * 0.15 + 40 * 0.075 + 20 * 0.6) / 1e6)
    assert isinstance(response.raw, dict)
    assert response.raw["id"] == "x"
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/v1/chat/completions")
    assert request.headers["authorization"] == "Bearer sk-1"
    assert request.json() == {
        "model": "gpt-4o-mini",
        "messages": [
            {"role": "system", "content": "Be."},
            {"role": "user", "content": "hello"},
        ],
    }


async def test_settings_reach_the_wire() -> None:
    config = {
        "api_key": "k",
        "temperature": 0,
        "top_p": 0.5,
        "max_output_tokens": 50,
        "reasoning_effort": "low",
        "seed": 7,
        "organization": "org",
        "project": "proj",
        "headers": {"X-Team": "a"},
        "extra_body": {"logprobs": True, "seed": 8},
    }
    async with RawServer(reply(completion())) as server:
        await ask(server.url, config=config, limits=Limits(max_output_tokens=80))
        await ask(server.url, config=config, limits=Limits(max_output_tokens=10))
    first, second = server.requests
    body = first.json()
    del body["messages"]
    assert body == {
        "model": "gpt-4o-mini",
        "temperature": 0.0,
        "top_p": 0.5,
        "max_tokens": 50,
        "reasoning_effort": "low",
        "seed": 8,
        "logprobs": True,
    }
    assert second.json()["max_tokens"] == 10
    assert first.headers["openai-organization"] == "org"
    assert first.headers["openai-project"] == "proj"
    assert first.headers["x-team"] == "a"


async def test_history_tools_and_images_on_the_wire() -> None:
    history = (
        Message("user", (TextPart("look"), ImagePart("data:image/png;base64,AA=="))),
        Message("assistant", "", tool_calls=(ToolCall("get_weather", {"a": 1}, id="c9"),)),
        Message("tool", "sunny", tool_call_id="c9"),
        Message("user", "hm", name="Zoë K"),
    )
    async with RawServer(reply(completion())) as server:
        await ask(server.url, messages=history, tools=(WEATHER,))
    body = server.requests[0].json()
    assert body["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "c9",
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": '{"a":1}'},
                }
            ],
        },
        {"role": "tool", "content": "sunny", "tool_call_id": "c9"},
        {"role": "user", "content": "hm", "name": "Zo__K"},
        {"role": "user", "content": "hello"},
    ]
    assert body["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "get_weather",
                "description": "The weather.",
                "parameters": {"type": "object", "properties": {}},
            },
        }
    ]


STRICT = {
    "type": "object",
    "title": "My answer!",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}
LOOSE = {"type": "object", "properties": {"n": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("schema", "name", "strict"),
    [
        (STRICT, "My_answer", True),
        (LOOSE, "answer", False),
        ({**STRICT, "properties": {"n": {"type": "array", "items": LOOSE}}}, "My_answer", False),
        ({"anyOf": [STRICT, LOOSE]}, "answer", False),
    ],
)
async def test_structured_output(schema: dict[str, Any], name: str, strict: bool) -> None:
    async with RawServer(reply(completion('{"n": 1}'))) as server:
        response = await ask(server.url, response_schema=schema)
        await ask(server.url, provider="deepseek", response_schema=schema)
    assert response.text == '{"n": 1}'
    asked, as_object = (request.json() for request in server.requests)
    assert asked["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": name, "schema": schema, "strict": strict},
    }
    assert as_object["response_format"] == {"type": "json_object"}
    assert '"properties"' in as_object["messages"][0]["content"] or "anyOf" in schema


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "content_filter"),
        ("max_tokens", "length"),
        ("eos", "stop"),
        ("something_else", "something_else"),
        (None, None),
    ],
)
async def test_finish_reasons(said: str | None, expected: str | None) -> None:
    async with RawServer(reply(completion("half an", said))) as server:
        assert (await ask(server.url)).finish_reason == expected


async def test_a_refusal_is_its_text() -> None:
    async with RawServer(reply(completion(None, refusal="I will not."))) as server:
        response = await ask(server.url)
    assert (response.text, response.finish_reason) == ("I will not.", "content_filter")


async def test_content_in_parts() -> None:
    parts = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "so"}]
    async with RawServer(reply(completion(parts))) as server:
        assert (await ask(server.url)).text == "so"


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, None),
        ({}, None),
        ({"prompt_tokens": 3, "completion_tokens": None}, TokenUsage(3, 0)),
        (
            {"prompt_tokens": 3, "completion_tokens": 4, "prompt_cache_hit_tokens": 2},
            TokenUsage(3, 4, cached=2),
        ),
        ({"prompt_tokens": 0, "completion_tokens": 0}, TokenUsage(0, 0)),
    ],
)
async def test_usage_is_never_invented(usage: Any, expected: TokenUsage | None) -> None:
    async with RawServer(reply({**completion(), "usage": usage})) as server:
        response = await ask(server.url)
    assert response.token_usage == expected
    assert (response.cost_usd is None) is (expected is None)


@pytest.mark.parametrize("cost", [0.125, {"total_cost": 0.125}])
async def test_a_cost_that_the_server_tells_wins(cost: Any) -> None:
    body = {**completion(), "usage": {**USAGE, "cost": cost}}
    async with RawServer(reply(body)) as server:
        assert (await ask(server.url, provider="openrouter")).cost_usd == 0.125


async def test_a_model_of_ones_own_has_no_price() -> None:
    async with RawServer(reply(completion())) as server:
        response = await ask(server.url, provider="vllm")
    assert response.token_usage == INCLUSIVE
    assert response.cost_usd is None


# --- streams ------------------------------------------------------------------------------------


async def test_a_stream() -> None:
    chunks: list[str] = []
    async with RawServer(GOOD_STREAM) as server:
        response = await ask(server.url, on_chunk=chunks.append)
    assert chunks == ["hel", "lo"]
    assert (response.text, response.finish_reason) == ("hello", "stop")
    assert response.token_usage == INCLUSIVE
    assert response.model == "gpt-4o-mini"
    body = server.requests[0].json()
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True}


async def test_a_service_that_refuses_to_be_asked_for_usage() -> None:
    async with RawServer(GOOD_STREAM) as server:
        response = await ask(server.url, provider="mistral", on_chunk=print)
    assert "stream_options" not in server.requests[0].json()
    assert response.token_usage == INCLUSIVE


async def test_a_stream_without_usage() -> None:
    async with RawServer(events(delta(content="x"), delta("length"), "[DONE]")) as server:
        response = await ask(server.url, on_chunk=print)
    assert (response.token_usage, response.cost_usd) == (None, None)
    assert (response.finish_reason, response.model) == ("length", "gpt-4o-mini")


async def test_a_server_that_does_not_stream() -> None:
    chunks: list[str] = []
    async with RawServer(reply(completion("all at once"))) as server:
        response = await ask(server.url, on_chunk=chunks.append)
    assert (response.text, chunks) == ("all at once", ["all at once"])


async def test_a_stream_whose_server_does_not_close() -> None:
    async def lingering(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(GOOD_STREAM.removesuffix(b"0\r\n\r\n"))
        await asyncio.sleep(60)

    async with RawServer(lingering) as server:
        assert (await ask(server.url, on_chunk=print)).text == "hello"
        await asyncio.wait_for(server.closed_early.wait(), 5)


def piece(index: int | None, arguments: str, **more: Any) -> dict[str, Any]:
    function = {"arguments": arguments, **({"name": more.pop("name")} if "name" in more else {})}
    return {
        **({} if index is None else {"index": index}), **more, "function": function,
    }  # fmt: skip


@pytest.mark.parametrize(
    "pieces",
    [
        [  # as OpenAI does
            [piece(0, "", id="a", name="get_weather"), piece(1, "", id="b", name="get_weather")],
            [piece(0, '{"city":')],
            [piece(0, ' "Oslo"}')],
            [piece(1, '{"city": "Rome"}')],
        ],
        [  # all numbered 0, or not at all
            [piece(0, '{"city": "Oslo"}', id="a", name="get_weather")],
            [piece(0, '{"city": "Rome"}', id="b", name="get_weather")],
        ],
        [
            [piece(None, '{"city": ', id="a", name="get_weather")],
            [piece(None, '"Oslo"}')],
            [piece(None, '{"city": "Rome"}', id="b", name="get_weather")],
        ],
    ],
)
async def test_tool_calls_in_pieces(pieces: list[list[dict[str, Any]]]) -> None:
    stream = events(*(delta(tool_calls=each) for each in pieces), delta("tool_calls"), "[DONE]")
    async with RawServer(stream) as server:
        response = await ask(server.url, tools=(WEATHER,), on_chunk=print)
    assert [(c.id, c.tool, c.input) for c in response.tool_calls] == [
        ("a", "get_weather", {"city": "Oslo"}),
        ("b", "get_weather", {"city": "Rome"}),
    ]


# --- the tool loop over the wire ----------------------------------------------------------------


def asks(arguments: Any, **more: Any) -> dict[str, Any]:
    call = {"id": "c1", "type": "function", **more}
    call["function"] = {"name": "get_weather", "arguments": arguments}
    return completion(None, "tool_calls", tool_calls=[call], reasoning_content="thought")


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        ('{"city": "Oslo"}', {"city": "Oslo"}),
        ("", {}),
        ("null", {}),
        ({"city": "B"}, {"city": "B"}),
    ],
)
async def test_tool_round_trip(arguments: Any, given: Any, streamed: bool) -> None:
    seen = []

    async def call_tool(name: str, arguments: Any) -> str:
        seen.append((name, arguments))
        return "sunny"

    async with RawServer([reply(asks(arguments)), reply(completion("It is sunny."))]) as server:
        response = await ask(
            server.url,
            tools=(WEATHER,),
            call_tool=call_tool,
            on_chunk=print if streamed else None,
        )
    assert seen == [("get_weather", given)]
    assert response.text == "It is sunny."
    assert response.token_usage == INCLUSIVE + INCLUSIVE
    first, asked, result = server.requests[1].json()["messages"]
    assert first["role"] == "user"
    assert asked["tool_calls"][0]["id"] == "c1"
    assert json.loads(asked["tool_calls"][0]["function"]["arguments"]) == given
    assert result == {"role": "tool", "tool_call_id": "c1", "content": "sunny"}


async def test_arguments_that_are_no_json_are_told_to_the_model() -> None:
    async def call_tool(name: str, arguments: Any) -> str:
        raise AssertionError("must not be called")

    async with RawServer([reply(asks('{"city": ')), reply(completion("ok"))]) as server:
        response = await ask(server.url, tools=(WEATHER,), call_tool=call_tool)
    assert response.text == "ok"
    _, asked, result = server.requests[1].json()["messages"]
    assert asked["tool_calls"][0]["function"]["arguments"] == '{"city": '
    assert result["content"].startswith("error: the arguments of get_weather are not a JSON object")


async def test_what_servers_want_back_with_tool_calls() -> None:
    async def call_tool(name: str, arguments: Any) -> str:
        return "sunny"

    signed = {"google": {"thought_signature": "abc"}}
    answers = [reply(asks("{}", extra_content=signed)), reply(completion())]
    async with RawServer(answers) as server:
        await ask(server.url, tools=(WEATHER,), call_tool=call_tool)
    asked = server.requests[1].json()["messages"][1]
    assert asked["tool_calls"][0]["extra_content"] == signed
    assert asked["reasoning_content"] == "thought"


# --- no half answer passes for a whole one ------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (reply(""), "the answer is empty"),
        (reply('{"choices": [{"mess'), 'not valid JSON: {"choices"'),
        (reply("plain words"), "not valid JSON: plain words"),
        (reply("<html><p>Hi", content_type="text/html"), "HTML page, not JSON; is base_url right"),
        (reply({"choices": []}), "no choices"),
        (reply({"object": "chat.completion"}), "no choices"),
        (reply({"choices": [{"finish_reason": "stop"}]}), "no message"),
        (reply({"choices": "none"}), "not of the expected shape"),
        (reply([1]), "not of the expected shape"),
        (reply(b'{"choices": "\xff"}'), "not"),
        (reply('data: {"choices": []}\n\n', content_type="text/plain"), "not valid JSON"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_broken_answers(answer: bytes, said: str, streamed: bool) -> None:
    async with RawServer(answer) as server:
        with pytest.raises(BadProviderOutput, match=said) as caught:
            await ask(server.url, on_chunk=print if streamed else None)
    assert str(caught.value).startswith("my-gpt: ")
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("stream", "said"),
    [
        (events(delta(content="half of the ans")), "broke off after 15 characters"),
        (events(delta(content="half"), "[DONE]"), "without a finish reason"),
        (events(delta(content="half"), LAST), "without a finish reason"),
        (events(LAST, "[DONE]"), "without a finish reason"),
        (events("[DONE]"), "without a finish reason"),
        (events(), "without a finish reason"),
        (events(delta(content="a"), '{"choices": [{"del', "[DONE]"), "not valid JSON"),
        (events(delta(content="a"), '"text"', "[DONE]"), "not of the expected shape"),
        (events(delta(content="a"), "<html>", "[DONE]"), "HTML page"),
    ],
)
async def test_broken_streams(stream: bytes, said: str) -> None:
    async with RawServer(stream) as server:
        with pytest.raises(BadProviderOutput, match=said):
            await ask(server.url, on_chunk=print)


async def test_a_broken_stream_tells_its_usage() -> None:
    async with RawServer(events(delta(content="a"), LAST)) as server:
        with pytest.raises(BadProviderOutput) as caught:
            await ask(server.url, on_chunk=print)
    assert caught.value.token_usage == INCLUSIVE


async def test_a_stream_cut_off_within_the_protocol() -> None:
    async with RawServer(events(delta(content="half"), ended=False)) as server:
        with pytest.raises(ProviderUnavailable, match=r"my-gpt: http://127.*broke off"):
            await ask(server.url, on_chunk=print)


async def test_a_stream_that_is_reset() -> None:
    async def reset(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(events(delta(content="half"), ended=False))
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.transport.abort()

    async with RawServer(reset) as server:
        with pytest.raises(ProviderUnavailable):
            await ask(server.url, on_chunk=print)


async def test_a_stream_that_stalls() -> None:
    async def stall(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(events(delta(content="half"), ended=False))
        await asyncio.sleep(60)

    async with RawServer(stall) as server:
        with pytest.raises(ProviderTimeout, match="sent nothing for too long"):
            await ask(server.url, config={"read_timeout_seconds": 0.1}, on_chunk=print)
        await asyncio.wait_for(server.closed_early.wait(), 5)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"type": "server_error", "message": "The server had an error"}, ProviderUnavailable),
        ({"code": 429, "message": "slow down"}, RateLimited),
        ({"code": "insufficient_quota", "message": "spent"}, QuotaExhausted),
        ({"type": "invalid_request_error", "message": "no"}, BadRequest),
        ("out of memory", ProviderUnavailable),
    ],
)
async def test_errors_within_a_good_status(
    error: Any, kind: type[ProviderError], streamed: bool
) -> None:
    answer = events(delta(content="a"), {"error": error}) if streamed else reply({"error": error})
    async with RawServer(answer) as server:
        with pytest.raises(kind) as caught:
            await ask(server.url, on_chunk=print if streamed else None)
    assert type(caught.value) is kind


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_error_within_a_choice(streamed: bool) -> None:
    choice = {"index": 0, "finish_reason": "error", "error": {"code": 502, "message": "upstream"}}
    body = {"choices": [choice]}
    async with RawServer(events(body) if streamed else reply(body)) as server:
        with pytest.raises(ProviderUnavailable, match="upstream"):
            await ask(server.url, on_chunk=print if streamed else None)


@pytest.mark.parametrize("streamed", [False, True])
async def test_statuses(streamed: bool) -> None:
    quota = {"error": {"type": "insufficient_quota", "message": "You exceeded your quota"}}
    for answer, kind in (
        (reply(quota, status=429), QuotaExhausted),
        (reply({}, status=429, headers={"Retry-After": "3"}), RateLimited),
        (
            reply("<html><title>502</title>", status=502, content_type="text/html"),
            ProviderUnavailable,
        ),
    ):
        async with RawServer(answer) as server:
            with pytest.raises(kind) as caught:
                await ask(server.url, on_chunk=print if streamed else None)
        assert caught.value.retry_after == (3 if kind is RateLimited else None)


# --- keys ---------------------------------------------------------------------------------------


async def test_a_key_is_never_shown() -> None:
    words = {"error": {"message": "Incorrect API key provided: sk-secret, team t-secret"}}
    config = {"api_key": Secret("sk-secret"), "headers": {"X-Team": Secret("t-secret")}}
    async with RawServer(reply(words, status=401)) as server:
        with pytest.raises(AuthenticationFailed) as caught:
            await ask(server.url, config=config)
        provider = OpenAIProvider(target(server.url, **config))
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(provider.endpoint)


async def test_without_a_key_only_this_machine_is_called() -> None:
    model = OpenAIProvider(target("https://models.example.com/v1"))
    with pytest.raises(AuthenticationFailed, match="OPENAI_API_KEY is not set; required for the"):
        await ChatProvider(model).invoke(ProviderRequest(question="hello"))
    async with RawServer(reply(completion())) as server:
        await ask(server.url)
    assert "authorization" not in server.requests[0].headers


# --- the Responses API --------------------------------------------------------------------------

RESPONSES = {"api_format": "responses", "api_key": "k"}
RESPONSES_USAGE = {
    "input_tokens": 100,
    "output_tokens": 20,
    "input_tokens_details": {"cached_tokens": 40},
    "output_tokens_details": {"reasoning_tokens": 5},
}
TEXT_ITEM = {
    "type": "message",
    "role": "assistant",
    "content": [{"type": "output_text", "text": "hi", "annotations": []}],
}
THOUGHT_ITEM = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"}
CALL_ITEM = {"type": "function_call", "call_id": "c1", "name": "get_weather", "arguments": "{}"}


def answer(*items: Any, **more: Any) -> dict[str, Any]:
    base = {
        "id": "r",
        "status": "completed",
        "model": "gpt-5",
        "error": None,
        "output": list(items),
    }
    return {**base, "usage": RESPONSES_USAGE, **more}


async def test_responses() -> None:
    schema = {"type": "object", "properties": {}}
    config = {**RESPONSES, "max_output_tokens": 9, "reasoning_effort": "high"}
    async with RawServer(reply(answer(THOUGHT_ITEM, TEXT_ITEM))) as server:
        response = await ask(
            server.url,
            config=config,
            system_prompt="Be.",
            messages=(Message("assistant", (TextPart("a"), ImagePart("https://e.com/i.png"))),),
            tools=(WEATHER,),
            response_schema=schema,
        )
    assert (response.text, response.finish_reason, response.model) == ("hi", "stop", "gpt-5")
    assert response.token_usage == INCLUSIVE
    assert response.cost_usd is not None
    (request,) = server.requests
    assert request.path == "/v1/responses"
    assert request.json() == {
        "model": "gpt-4o-mini",
        "instructions": "Be.",
        "reasoning": {"effort": "high"},
        "max_output_tokens": 9,
        "input": [
            {
                "role": "assistant",
                "content": [
                    {"type": "output_text", "text": "a"},
                    {
                        "type": "input_image",
                        "image_url": "https://e.com/i.png",
                        "detail": "auto",
                    },
                ],
            },
            {"role": "user", "content": "hello"},
        ],
        "tools": [
            {
                "type": "function",
                "name": "get_weather",
                "description": "The weather.",
                "parameters": {"type": "object", "properties": {}},
                "strict": False,
            }
        ],
        "text": {
            "format": {"type": "json_schema", "name": "answer", "schema": schema, "strict": False}
        },
    }


async def test_responses_tool_round_trip() -> None:
    async def call_tool(name: str, arguments: Any) -> str:
        return "sunny"

    answers = [reply(answer(THOUGHT_ITEM, CALL_ITEM)), reply(answer(TEXT_ITEM))]
    async with RawServer(answers) as server:
        response = await ask(server.url, config=RESPONSES, tools=(WEATHER,), call_tool=call_tool)
    assert [m.role for m in response.output] == ["assistant", "tool", "assistant"]
    assert server.requests[1].json()["input"] == [
        {"role": "user", "content": "hello"},
        THOUGHT_ITEM,
        CALL_ITEM,
        {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
    ]


async def test_responses_history_with_tools() -> None:
    history = (
        Message("assistant", "wait", tool_calls=(ToolCall("get_weather", {"a": 1}, id="c9"),)),
        Message("tool", "sunny", tool_call_id="c9"),
    )
    async with RawServer(reply(answer(TEXT_ITEM))) as server:
        await ask(server.url, config=RESPONSES, messages=history)
    assert server.requests[0].json()["input"][:3] == [
        {"role": "assistant", "content": "wait"},
        {"type": "function_call", "call_id": "c9", "name": "get_weather", "arguments": '{"a":1}'},
        {"type": "function_call_output", "call_id": "c9", "output": "sunny"},
    ]


@pytest.mark.parametrize(
    ("more", "finish"),
    [
        ({"incomplete_details": {"reason": "max_output_tokens"}}, "length"),
        ({"incomplete_details": {"reason": "content_filter"}}, "content_filter"),
        ({}, "incomplete"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_responses_cut_short(more: dict[str, Any], finish: str, streamed: bool) -> None:
    body = answer(TEXT_ITEM, CALL_ITEM, status="incomplete", **more)
    last = {"type": "response.incomplete", "response": body}
    async with RawServer(events(last) if streamed else reply(body)) as server:
        response = await ask(server.url, config=RESPONSES, on_chunk=print if streamed else None)
    assert response.finish_reason == finish


async def test_responses_refusal() -> None:
    item = {"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}
    async with RawServer(reply(answer(item))) as server:
        response = await ask(server.url, config=RESPONSES)
    assert (response.text, response.finish_reason) == ("No.", "content_filter")


def text_delta(text: str) -> dict[str, Any]:
    return {"type": "response.output_text.delta", "delta": text}


@pytest.mark.parametrize("repeated", [True, False])
async def test_responses_stream(repeated: bool) -> None:
    chunks: list[str] = []
    last = answer(*([TEXT_ITEM] if repeated else []))
    stream = events(
        {"type": "response.created", "response": answer(status="in_progress")},
        text_delta("h"),
        text_delta("i"),
        {"type": "response.output_item.done", "item": TEXT_ITEM},
        {"type": "response.completed", "response": last},
    )
    async with RawServer(stream) as server:
        response = await ask(server.url, config=RESPONSES, on_chunk=chunks.append)
    assert chunks == ["h", "i"]
    assert (response.text, response.token_usage) == ("hi", INCLUSIVE)


FAILED = answer(status="failed", error={"code": "server_error", "message": "sorry"})


@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        (reply(FAILED), ProviderUnavailable),
        (reply(answer(TEXT_ITEM, status="in_progress")), BadProviderOutput),
        (reply(answer()), BadProviderOutput),
        (reply({"status": "completed"}), BadProviderOutput),
        (reply(answer({**CALL_ITEM, "call_id": None})), BadProviderOutput),
        (events(text_delta("half")), BadProviderOutput),
        (events(text_delta("half"), "[DONE]"), BadProviderOutput),
        (events(text_delta("half"), '{"type": "resp'), BadProviderOutput),
        (events({"type": "response.failed", "response": FAILED}), ProviderUnavailable),
        (events({"type": "error", "code": "rate_limit_exceeded", "message": "m"}), RateLimited),
        (events({"type": "error", "error": {"code": "insufficient_quota"}}), QuotaExhausted),
        (events({"error": {"type": "server_error"}}), ProviderUnavailable),
    ],
)
async def test_responses_broken(sent: bytes, kind: type[ProviderError]) -> None:
    async with RawServer(sent) as server:
        streamed = b"event-stream" in sent
        with pytest.raises(kind) as caught:
            await ask(server.url, config=RESPONSES, on_chunk=print if streamed else None)
    assert type(caught.value) is kind


def test_no_http_library_is_imported_before_the_first_call() -> None:
    code = (
        "import sys\n"
        "from muster.providers.anthropic import AnthropicProvider as A\n"
        "from muster.providers.openai import OpenAIProvider as O\n"
        "from muster.target import ResolvedTarget as T\n"
        "for kind in (A, O): kind(T(name='t', provider='openai', config={'model': 'm'}, env={}))\n"
        "sys.exit(not {'aiohttp', 'genai_prices'}.isdisjoint(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
