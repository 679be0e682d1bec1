"""The OpenAI-compatible server, asked by our own `openai` provider and over plain sockets."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from serving_parts import TOKEN, Serve, echo, events_of, user

from muster.capabilities import Capabilities
from muster.provider import (
    AuthenticationFailed,
    BadProviderOutput,
    BadRequest,
    BudgetExceeded,
    ImagePart,
    LimitExceeded,
    Limits,
    Message,
    ProviderError,
    ProviderFailed,
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
from muster.providers.chat import ChatReply, ChatTurn

WEATHER = Tool(
    "get_weather",
    "The weather of a city.",
    {"type": "object", "properties": {"city": {"type": "string"}}},
)
WEATHER_WIRE = {
    "type": "function",
    "function": {"name": WEATHER.name, "description": WEATHER.description, "parameters": {}},
}
GIF = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAAC"


class Noted:
    """Answers with `response`, and keeps what it was asked."""

    def __init__(self, response: Any = "noted", capabilities: Capabilities | None = None) -> None:
        self.response = response
        self.asked: list[ProviderRequest] = []
        if capabilities is not None:
            self.capabilities = capabilities

    async def invoke(self, request: ProviderRequest) -> Any:
        self.asked.append(request)
        return self.response


class Model:
    """A chat model: asks for the weather of two cities, and then says what it was told."""

    def __init__(self) -> None:
        self.turns: list[ChatTurn] = []

    async def complete(self, turn: ChatTurn) -> ChatReply:
        self.turns.append(turn)
        results = [message.text for message in turn.messages if message.role == "tool"]
        if turn.tools and not results:
            if turn.on_chunk is not None:
                turn.on_chunk("Let me see. ")
            calls = (
                ToolCall("get_weather", {"city": "Oslo"}, id="a"),
                ToolCall("get_weather", {"city": "Rome"}, id="b"),
            )
            return ChatReply(
                message=Message("assistant", "Let me see. ", tool_calls=calls),
                finish_reason="tool_calls",
                token_usage=TokenUsage(10, 5),
            )
        text = " and ".join(results) or "no tools"
        if turn.on_chunk is not None:
            turn.on_chunk(text)
        return ChatReply(
            message=Message("assistant", text),
            finish_reason="stop",
            token_usage=TokenUsage(20, 3, cached=4, reasoning=1),
        )


async def weather(name: str, arguments: Any) -> str:
    return f"{arguments['city']}: sunny"


# --- answers ------------------------------------------------------------------------------------


async def test_an_answer_with_its_account(serve: Serve) -> None:
    usage = TokenUsage(11, 7, cached=3, reasoning=2)
    noted = Noted(ProviderResponse("Hi Ada.", token_usage=usage, cost_usd=0.25))
    site = await serve({"fast": noted})
    client = site.client("fast", max_output_tokens=99, temperature=0.5)
    response = await client.invoke(
        ProviderRequest(
            question="How are you?",
            system_prompt="Be kind.",
            messages=(Message("user", "I am Ada."), Message("assistant", "Hello.")),
        )
    )
    await client.aclose()
    assert response.text == "Hi Ada."
    assert response.token_usage == usage
    assert response.cost_usd == 0.25
    assert response.finish_reason == "stop"
    assert response.model == "fast"
    (asked,) = noted.asked
    assert asked.question == "How are you?"
    assert asked.system_prompt == "Be kind."
    assert asked.messages == (Message("user", "I am Ada."), Message("assistant", "Hello."))
    assert asked.limits == Limits(max_output_tokens=99)
    assert asked.on_chunk is None
    assert asked.call_tool is None


async def test_what_is_not_known_is_absent(serve: Serve) -> None:
    site = await serve({"fast": echo})
    reply = await site.ask({"model": "fast", "messages": [user("hi")]})
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    answer = reply.json
    assert answer.pop("id").startswith("chatcmpl-")
    assert answer.pop("created") > 1_700_000_000
    assert answer == {
        "object": "chat.completion",
        "model": "fast",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "you said: hi", "refusal": None},
                "finish_reason": "stop",
                "logprobs": None,
            }
        ],
        "usage": None,
    }


async def test_settings_that_change_nothing_are_named(serve: Serve) -> None:
    site = await serve({"fast": echo})
    body = {"model": "fast", "messages": [user("hi")], "temperature": 0, "seed": 4, "top_p": None}
    reply = await site.ask(body)
    assert reply.headers["x-muster-ignored"] == "temperature, seed"


async def test_fifty_at_once_are_not_mixed_up(serve: Serve) -> None:
    site = await serve({"fast": echo})
    client = site.client("fast")
    questions = [f"question {number} äß🎉" for number in range(50)]
    answers = await asyncio.gather(
        *(client.invoke(ProviderRequest(question=question)) for question in questions)
    )
    await client.aclose()
    assert [answer.text for answer in answers] == [f"you said: {text}" for text in questions]


async def test_models_and_health(serve: Serve) -> None:
    site = await serve({"fast": echo, "team/one": echo})
    listed = (await site.send("GET", "/v1/models")).json
    assert listed["object"] == "list"
    assert [row["id"] for row in listed["data"]] == ["fast", "team/one"]
    one = (await site.send("GET", "/v1/models/team/one")).json
    assert one["id"] == "team/one"
    assert one["object"] == "model"
    missing = await site.send("GET", "/v1/models/fsat")
    assert missing.status == 404
    assert missing.message == 'no target "fsat" is served (near: fast; served: fast, team/one)'
    health = await site.send("GET", "/health", headers={"Authorization": None})
    assert (health.status, health.json) == (200, {"status": "ok"})


# --- streams ------------------------------------------------------------------------------------


async def pieces(request: ProviderRequest) -> AsyncIterator[Any]:
    for text in ("one, ", "two, ", "three"):
        yield text
        await asyncio.sleep(0.001)
    yield {"token_usage": {"input": 5, "output": 3}}


async def test_a_stream(serve: Serve) -> None:
    site = await serve({"fast": pieces})
    client = site.client("fast")
    heard: list[str] = []
    response = await client.invoke(ProviderRequest(question="count", on_chunk=heard.append))
    await client.aclose()
    assert heard == ["one, ", "two, ", "three"]
    assert response.text == "one, two, three"
    assert response.token_usage == TokenUsage(5, 3)
    assert response.finish_reason == "stop"


async def test_events_of_a_stream(serve: Serve) -> None:
    site = await serve({"fast": pieces, "whole": echo})
    asked = {"model": "fast", "messages": [user("count")], "stream": True}
    reply = await site.ask(asked)
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    *events, done = events_of(reply)
    assert done == "[DONE]"
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    assert len({event["id"] for event in events}) == 1
    deltas = [event["choices"][0]["delta"] for event in events]
    assert deltas == [
        {"role": "assistant", "content": ""},
        {"content": "one, "},
        {"content": "two, "},
        {"content": "three"},
        {},
    ]
    assert [event["choices"][0]["finish_reason"] for event in events] == [None] * 4 + ["stop"]
    with_usage = events_of(await site.ask({**asked, "stream_options": {"include_usage": True}}))
    assert with_usage[-2]["choices"] == []
    assert with_usage[-2]["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": 3,
        "total_tokens": 8,
    }
    # A target that does not stream gives its answer in one piece.
    whole = events_of(await site.ask({**asked, "model": "whole"}))
    assert whole[1]["choices"][0]["delta"] == {"content": "you said: count"}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_half_a_character_does_not_break_an_answer(serve: Serve, stream: bool) -> None:
    async def cut(request: ProviderRequest) -> str:
        return "cut \ud83d here"

    site = await serve({"fast": cut})
    reply = await site.ask({"model": "fast", "messages": [user("?")], "stream": stream})
    assert reply.status == 200
    assert "cut \ufffd here" in reply.body.decode()
    asked = b'{"model": "fast", "messages": [{"role": "user", "content": "\\ud83d"}]}'
    reply = await site.ask(asked)
    assert reply.message.endswith("is half of a character (a surrogate without its pair)")


async def test_a_stream_that_pauses_shows_that_it_lives(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muster.serving.openai_api.KEEP_ALIVE_SECONDS", 0.02)

    async def count(request: ProviderRequest) -> AsyncIterator[str]:
        yield "one "
        await asyncio.sleep(0.1)
        yield "two"

    site = await serve({"fast": count})
    reply = await site.ask({"model": "fast", "messages": [user("?")], "stream": True})
    lines = [line for line in reply.body.decode().split("\n\n") if line]
    assert lines.count(": keep-alive") >= 2
    client = site.client("fast")
    heard: list[str] = []
    await client.invoke(ProviderRequest(question="?", on_chunk=heard.append))
    await client.aclose()
    assert heard == ["one ", "two"]


async def test_a_stream_that_breaks_is_no_half_answer(serve: Serve) -> None:
    async def breaks(request: ProviderRequest) -> AsyncIterator[str]:
        yield "half of an ans"
        await asyncio.sleep(0.01)
        raise ProviderUnavailable("the line went dead")

    site = await serve({"fast": breaks})
    reply = await site.ask({"model": "fast", "messages": [user("?")], "stream": True})
    assert reply.status == 200
    last = events_of(reply)[-1]
    assert last["error"]["message"] == "the line went dead"
    client = site.client("fast")
    heard: list[str] = []
    with pytest.raises(ProviderError, match="the line went dead"):
        await client.invoke(ProviderRequest(question="?", on_chunk=heard.append))
    await client.aclose()
    assert heard == ["half of an ans"]


# --- errors -------------------------------------------------------------------------------------

ERRORS = [
    (RateLimited("slow down", retry_after=7), 429, RateLimited),
    (RateLimited("slow down"), 429, RateLimited),
    (QuotaExhausted("no money"), 429, QuotaExhausted),
    (ProviderUnavailable("gone"), 503, ProviderUnavailable),
    (ProviderTimeout("late"), 504, ProviderTimeout),
    (BadRequest("no"), 400, BadRequest),
    (AuthenticationFailed("wrong key"), 401, AuthenticationFailed),
    (BadProviderOutput("gibberish"), 502, ProviderUnavailable),
    (ProviderFailed("exit 3"), 500, ProviderUnavailable),
    (LimitExceeded("too many turns"), 422, BadRequest),
    (BudgetExceeded("spent"), 402, QuotaExhausted),
]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("error", "status", "kind"), ERRORS, ids=[f"{row[0].kind}-{row[0]}" for row in ERRORS]
)
async def test_errors_of_a_target(
    serve: Serve, error: ProviderError, status: int, kind: type[ProviderError], stream: bool
) -> None:
    async def fails(request: ProviderRequest) -> str:
        raise error

    site = await serve({"fast": fails})
    body = {"model": "fast", "messages": [user("?")], "stream": stream}
    reply = await site.ask(body)
    assert reply.status == status
    assert reply.message == error.message
    assert set(reply.json["error"]) == {"message", "type", "param", "code"}
    assert reply.headers["x-should-retry"] == str(error.retryable).lower()
    after = reply.headers.get("retry-after")
    assert after == (None if error.retry_after is None else "7")
    client = site.client("fast")
    on_chunk = [].append if stream else None
    with pytest.raises(kind) as caught:
        await client.invoke(ProviderRequest(question="?", on_chunk=on_chunk))
    await client.aclose()
    assert type(caught.value) is kind
    assert caught.value.retry_after == error.retry_after


async def test_errors_hide_secrets(serve: Serve) -> None:
    async def fails(request: ProviderRequest) -> str:
        raise BadRequest("key a-very-secret-key is unknown " + "x" * 5000)

    site = await serve({"fast": fails})
    reply = await site.ask({"model": "fast", "messages": [user("?")]})
    assert reply.message.startswith("key ********** is unknown xxx")
    assert len(reply.message) == 2000


async def test_a_defect_is_told_once_and_the_rest_goes_on(serve: Serve) -> None:
    class Broken:
        __module__ = "muster.tests"  # so that nothing watches over it

        async def invoke(self, request: ProviderRequest) -> ProviderResponse:
            raise ZeroDivisionError("at the heart")

    site = await serve({"broken": Broken(), "fast": echo})
    for stream in (False, True):
        reply = await site.ask({"model": "broken", "messages": [user("?")], "stream": stream})
        assert reply.status == 500
        assert "at the heart" not in reply.message
    assert site.told == ["a request failed: ZeroDivisionError: at the heart"] * 2
    assert (await site.ask({"model": "fast", "messages": [user("?")]})).status == 200


async def test_a_client_that_is_gone_takes_its_call_with_it(serve: Serve) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def hangs(request: ProviderRequest) -> str:
        began.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        return ""

    site = await serve({"slow": hangs})
    for stream in (False, True):
        began.clear()
        ended.clear()
        body = json.dumps({"model": "slow", "messages": [user("?")], "stream": stream}).encode()
        _, writer = await site.connect()
        head = f"Host: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {len(body)}"
        writer.write(f"POST /v1/chat/completions HTTP/1.1\r\n{head}\r\n\r\n".encode() + body)
        async with asyncio.timeout(5):
            await began.wait()
            writer.close()
            await ended.wait()


# --- tools --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_chat_model_is_asked_for_one_turn_at_a_time(serve: Serve, stream: bool) -> None:
    model = Model()
    site = await serve({"fast": model})
    client = site.client("fast")
    heard: list[str] = []
    response = await client.invoke(
        ProviderRequest(
            question="Oslo or Rome?",
            system_prompt="Be brief.",
            tools=(WEATHER,),
            call_tool=weather,
            on_chunk=heard.append if stream else None,
        )
    )
    await client.aclose()
    assert response.text == "Oslo: sunny and Rome: sunny"
    assert response.token_usage == TokenUsage(30, 8, cached=4, reasoning=1)
    assert heard == (["Let me see. ", "Oslo: sunny and Rome: sunny"] if stream else [])
    first, second = model.turns
    assert first.tools == (WEATHER,)
    assert [message.role for message in second.messages] == ["user", "assistant", "tool", "tool"]
    assert second.system_prompt == "Be brief."
    calls = second.messages[1].tool_calls
    assert [(call.tool, call.input) for call in calls] == [
        ("get_weather", {"city": "Oslo"}),
        ("get_weather", {"city": "Rome"}),
    ]
    ids = [message.tool_call_id for message in second.messages[2:]]
    assert ids == [call.id for call in calls] == ["a", "b"]


async def test_no_tools_without_the_clients_will(serve: Serve) -> None:
    site = await serve({"fast": Model()})
    body = {"model": "fast", "messages": [user("?")], "tools": [WEATHER_WIRE]}
    reply = await site.ask({**body, "tool_choice": "none"})
    assert reply.json["choices"][0]["message"]["content"] == "no tools"


class Agent:
    """A tool loop of its own: two tools at once, then one more, then the answer."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        try:
            assert request.call_tool is not None
            call = request.call_tool
            both = await asyncio.gather(*(call("get_weather", {"city": c}) for c in ("A", "B")))
            if request.on_chunk is not None:
                request.on_chunk("Both: ")
            third = await call("get_weather", {"city": "C"})
            return ProviderResponse(
                "Both: " + "; ".join([*both, third]), token_usage=TokenUsage(9, 9)
            )
        finally:
            self.ended.set()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_an_agents_own_loop_waits_for_the_clients_tools(serve: Serve, stream: bool) -> None:
    site = await serve({"agent": Agent()})
    client = site.client("agent")
    called: list[str] = []

    async def call_tool(name: str, arguments: Any) -> str:
        called.append(arguments["city"])
        await asyncio.sleep(0.01 if arguments["city"] == "A" else 0)
        return f"{arguments['city']} is fine"

    heard: list[str] = []
    response = await client.invoke(
        ProviderRequest(
            question="?",
            tools=(WEATHER,),
            call_tool=call_tool,
            on_chunk=heard.append if stream else None,
        )
    )
    await client.aclose()
    assert response.text == "Both: A is fine; B is fine; C is fine"
    assert called == ["A", "B", "C"]
    assert [len(message.tool_calls) for message in response.output if message.tool_calls] == [2, 1]
    assert "".join(heard) == ("Both: Both: A is fine; B is fine; C is fine" if stream else "")


MOCK = """
  - name: script
    provider: mock
    replies:
      - contains: weather
        tool_calls: [{tool: get_weather, input: {city: Oslo}}, {tool: nope, input: {}}]
        usage: {input: 10, output: 5}
    default: {text: done, usage: {input: 20, output: 3}}
"""


async def test_usage_of_a_suspended_call_is_told_turn_by_turn(serve: Serve) -> None:
    site = await serve(text=MOCK)
    client = site.client("script")
    response = await client.invoke(
        ProviderRequest(question="the weather?", tools=(WEATHER,), call_tool=weather)
    )
    await client.aclose()
    assert response.text == "done"
    assert response.token_usage == TokenUsage(30, 8)
    usages = [message.token_usage for message in response.output if message.role == "assistant"]
    assert usages == [TokenUsage(10, 5), TokenUsage(20, 3)]
    # The tool that is not there was refused on the spot, and not asked of the client.
    assert [call.tool for call in response.tool_calls] == ["get_weather"]


async def first_leg(site: Any, model: str) -> dict[str, Any]:
    body = {"model": model, "messages": [user("?")], "tools": [WEATHER_WIRE]}
    reply = await site.ask(body)
    assert reply.json["choices"][0]["finish_reason"] == "tool_calls"
    message = reply.json["choices"][0]["message"]
    return {**body, "messages": [*body["messages"], message]}


def result(call: dict[str, Any], text: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call["id"], "content": text}


async def test_results_that_are_missing_can_follow(serve: Serve) -> None:
    site = await serve({"agent": Agent()})
    body = await first_leg(site, "agent")
    one, two = body["messages"][-1]["tool_calls"]
    reply = await site.ask({**body, "messages": [*body["messages"], result(one, "x")]})
    assert (reply.status, reply.code) == (400, "tool_result_missing")
    both = [*body["messages"], result(two, "y"), result(one, "x")]
    reply = await site.ask({**body, "messages": both})
    (third,) = reply.json["choices"][0]["message"]["tool_calls"]
    said = {"role": "assistant", "content": None, "tool_calls": [third]}
    reply = await site.ask({**body, "messages": [*both, said, result(third, "z")]})
    assert reply.json["choices"][0]["message"]["content"] == "Both: x; y; z"
    reply = await site.ask({**body, "messages": [*both, said, result(third, "z")]})
    assert (reply.status, reply.code) == (400, "tool_call_not_found")


async def test_a_call_waits_for_tools_only_so_long(serve: Serve) -> None:
    agent = Agent()
    site = await serve({"agent": agent}, tool_seconds=0.05)
    body = await first_leg(site, "agent")
    async with asyncio.timeout(5):
        await agent.ended.wait()
    rows = [result(call, "x") for call in body["messages"][-1]["tool_calls"]]
    reply = await site.ask({**body, "messages": [*body["messages"], *rows]})
    assert (reply.status, reply.code) == (400, "tool_call_not_found")
    assert "longer than 0.05 s (--tool-timeout)" in reply.message


async def test_stopping_ends_calls_that_wait(serve: Serve) -> None:
    agent = Agent()
    site = await serve({"agent": agent})
    await first_leg(site, "agent")
    await serve.stack.aclose()
    assert agent.ended.is_set()


# --- what else a request may hold ---------------------------------------------------------------


async def test_a_schema_for_the_answer(serve: Serve) -> None:
    noted = Noted()
    site = await serve({"fast": noted})
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    for wanted, expected in (
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}, schema),
        ({"type": "json_object"}, {"type": "object"}),
        ({"type": "text"}, None),
    ):
        body = {"model": "fast", "messages": [user("?")], "response_format": wanted}
        assert (await site.ask(body)).status == 200
        assert noted.asked[-1].response_schema == expected


async def test_images_and_files(serve: Serve) -> None:
    seen: list[tuple[ProviderRequest, list[bytes]]] = []

    async def looks(request: ProviderRequest) -> str:
        seen.append((request, [path.read_bytes() for path in request.input_files]))
        return "seen"

    site = await serve({"fast": looks})
    file = {"filename": "../../notes.txt", "file_data": base64.b64encode(b"Notes.").decode()}
    content = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": GIF}},
        {"type": "file", "file": file},
        {"type": "file", "file": {**file, "file_data": "data:text/plain;base64,TW9yZS4="}},
    ]
    earlier = {"role": "user", "content": [{"type": "text", "text": "a"}, content[1]]}
    messages = [
        earlier,
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": content},
    ]
    assert (await site.ask({"model": "fast", "messages": messages})).status == 200
    ((request, contents),) = seen
    assert request.question == "What is this?"
    assert request.images == (ImagePart(GIF, "image/gif"),)
    assert request.messages[0].content == (TextPart("a"), ImagePart(GIF, "image/gif"))
    assert contents == [b"Notes.", b"More."]
    assert [path.name for path in request.input_files] == [".._.._notes.txt".lstrip(".")] * 2
    folder = request.input_files[0].parent
    async with asyncio.timeout(5):
        while folder.exists():
            await asyncio.sleep(0.01)


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("no JSON", {}, "the body is not JSON"),
    ("a path", {"content": [{"type": "image_url", "image_url": "/etc/passwd"}]}, "data: or http"),
    ("a file id", {"content": [{"type": "file", "file": {"file_id": "f-1"}}]}, "`file_data`"),
    (
        "bad base64",
        {"content": [{"type": "file", "file": {"file_data": "§"}}]},
        "`file_data` is not base64",
    ),
    ("audio", {"content": [{"type": "input_audio"}]}, 'type "input_audio" is not supported'),
    ("a role", {"role": "function"}, 'no role "function"'),
    ("the assistant last", {"role": "assistant"}, 'must be from "user", or the result of a "tool"'),
    ("a nameless result", {"role": "tool"}, "needs `tool_call_id`"),
    ("a content", {"content": 5}, "Expected `str | array | null`, got `int`"),
]


@pytest.mark.parametrize(
    ("message", "expected"), [row[1:] for row in REFUSED[1:]], ids=[row[0] for row in REFUSED[1:]]
)
async def test_messages_that_are_refused(
    serve: Serve, message: dict[str, Any], expected: str
) -> None:
    site = await serve({"fast": echo, "chat": Model()})
    model = "chat" if message.get("role") == "tool" else "fast"
    last = {"role": "user", "content": "x", **message}
    earlier = user("hi")
    reply = await site.ask({"model": model, "messages": [earlier, last]})
    if message.get("role") == "function":
        reply = await site.ask({"model": model, "messages": [last, earlier]})
    assert reply.status == 400, reply.body
    assert expected in reply.message


FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"n": 2}, "`n` is not supported"),
    ({"logprobs": True}, "`logprobs` is not supported"),
    ({"top_logprobs": 2}, "`logprobs` is not supported"),
    ({"messages": [{"role": "user"}]}, "a user message needs `content`"),
    ({"stop": ["\n"]}, "`stop` is not supported"),
    ({"functions": [{}]}, "given as `tools`"),
    ({"modalities": ["audio"]}, "answers are text"),
    ({"tool_choice": "required"}, "a target chooses its tools itself"),
    ({"max_tokens": 0}, "max_tokens must be 1 or more, not 0"),
    ({"tools": [WEATHER_WIRE, WEATHER_WIRE]}, 'two tools have the name "get_weather"'),
    ({"tools": [{"type": "web_search"}]}, 'a tool of type "web_search" is not supported'),
    ({"response_format": {"type": "json_schema"}}, "has no schema"),
    ({"messages": []}, "there is no user message"),
    ({"messages": [{"role": "system", "content": "x"}]}, "there is no user message"),
    ({"model": 4}, "Expected `str`, got `int` - at `$.model`"),
    ({"stream": "yes"}, "at `$.stream`"),
]


@pytest.mark.parametrize(("field", "expected"), FIELDS, ids=[str(row[0])[:40] for row in FIELDS])
async def test_fields_that_are_refused(serve: Serve, field: dict[str, Any], expected: str) -> None:
    site = await serve({"fast": echo})
    reply = await site.ask({"model": "fast", "messages": [user("?")], **field})
    assert reply.status == 400, reply.body
    assert expected in reply.message
    assert reply.json["error"]["type"] == "invalid_request_error"


async def test_what_a_target_has_not_is_refused_before_the_call(serve: Serve) -> None:
    noted = Noted(
        capabilities=Capabilities(
            tools=False, images=False, files=False, history=False, structured_output=False
        )
    )
    site = await serve({"plain": noted})
    image = [{"type": "image_url", "image_url": {"url": GIF}}]
    file = [{"type": "file", "file": {"file_data": "YQ=="}}]
    for more, missing in (
        ({"tools": [WEATHER_WIRE]}, "tools"),
        ({"messages": [{"role": "user", "content": image}]}, "images"),
        ({"messages": [{"role": "user", "content": file}]}, "files"),
        ({"messages": [user("a"), user("b")]}, "history"),
        ({"response_format": {"type": "json_object"}}, "structured_output"),
    ):
        reply = await site.ask({"model": "plain", "messages": [user("?")], **more})
        assert (reply.status, reply.code) == (400, "target_refused")
        assert reply.message.startswith(f'target "plain" does not support {missing}')
    assert noted.asked == []


# --- the official client ------------------------------------------------------------------------


@pytest.mark.skipif(
    importlib.util.find_spec("openai") is None, reason="the openai package is not installed"
)
async def test_the_official_client(serve: Serve, tmp_path: Path) -> None:
    import openai

    site = await serve({"fast": pieces, "model": Model()}, MOCK)
    async with openai.AsyncOpenAI(
        base_url=f"http://127.0.0.1:{site.port}/v1", api_key=TOKEN, max_retries=0
    ) as client:
        assert [row.id async for row in client.models.list()] == ["script", "fast", "model"]
        made: Any = client.chat.completions.create
        messages: list[Any] = [user("count")]
        answer = await made(model="fast", messages=messages)
        assert answer.choices[0].message.content == "one, two, three"
        assert answer.usage.total_tokens == 8
        heard, usage = "", None
        async for chunk in await made(
            model="fast", messages=messages, stream=True, stream_options={"include_usage": True}
        ):
            heard += (chunk.choices[0].delta.content or "") if chunk.choices else ""
            usage = chunk.usage or usage
        assert heard == "one, two, three"
        assert usage.total_tokens == 8
        for model, expected in (("model", "Oslo and Rome"), ("script", "done")):
            messages = [user("the weather?")]
            asked = await made(model=model, messages=messages, tools=[WEATHER_WIRE])
            said = asked.choices[0].message
            assert asked.choices[0].finish_reason == "tool_calls"
            messages.append(said)
            for call in said.tool_calls:
                city = json.loads(call.function.arguments)["city"]
                messages.append({"role": "tool", "tool_call_id": call.id, "content": city})
            answer = await made(model=model, messages=messages, tools=[WEATHER_WIRE])
            assert answer.choices[0].message.content == expected
        with pytest.raises(openai.NotFoundError, match='no target "gone" is served'):
            await made(model="gone", messages=messages)
