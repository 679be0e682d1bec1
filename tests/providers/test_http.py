"""Services described in targets.yaml, against real servers on loopback."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from muster.provider import (
    AuthenticationFailed,
    BadProviderOutput,
    BadRequest,
    Limits,
    Message,
    Provider,
    ProviderError,
    ProviderRequest,
    ProviderResponse,
    ProviderTimeout,
    ProviderUnavailable,
    RateLimited,
    TokenUsage,
    Tool,
)
from muster.providers.create import create_provider
from muster.target import ResolvedTarget, Secret


@dataclass
class Call:
    """A request as the server saw it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Handler = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Server:
    url: str = ""
    calls: list[Call] = field(default_factory=list)
    connections: int = 0

    @property
    def call(self) -> Call:
        assert len(self.calls) == 1
        return self.calls[0]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[Server]:
    """A server that reads each request whole and lets `handler` write what it likes."""
    server = Server()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                lines = head.split("\r\n")
                method, path, _ = lines[0].split(" ", 2)
                headers = {
                    name.lower(): value.strip()
                    for name, _, value in (line.partition(":") for line in lines[1:] if line)
                }
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                server.calls.append(Call(method, path, headers, body))
                await handler(writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    listener = await asyncio.start_server(connected, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()


def saying(
    body: Any, *, status: str = "200 OK", kind: str = "application/json", more: str = ""
) -> Handler:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def handle(writer: asyncio.StreamWriter) -> None:
        writer.write(
            f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n{more}"
            "\r\n".encode()
            + data
        )

    return handle


def streaming(*events: Any, whole: bool = True) -> Handler:
    """Server-sent events; texts stand as they are, other values become `data:` lines."""

    async def handle(writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for event in events:
            text = event if isinstance(event, str) else f"data: {json.dumps(event)}"
            piece = f"{text}\n\n".encode()
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        if whole:
            writer.write(b"0\r\n\r\n")
        else:
            writer.close()

    return handle


def http(url: str, **config: Any) -> Provider:
    return create_provider(
        ResolvedTarget(name="web", provider="http", config={"url": url, **config})
    )


async def ask(url: str, request: ProviderRequest | None = None, **config: Any) -> ProviderResponse:
    provider = http(url, **config)
    try:
        return await provider.invoke(request or ProviderRequest(question="2+2?"))
    finally:
        await provider.aclose()  # type: ignore[attr-defined]


async def failing(handler: Handler, **config: Any) -> ProviderError:
    async with serving(handler) as server:
        with pytest.raises(ProviderError) as failure:
            await ask(f"{server.url}/chat", **config)
    assert str(failure.value).startswith("web: ")
    return failure.value


# --- what is sent -------------------------------------------------------------------------------


async def test_the_least_that_can_be_said() -> None:
    async with serving(saying({"text": "4"})) as server:
        response = await ask(f"{server.url}/chat")
    assert response.text == "4"
    assert (server.call.method, server.call.path) == ("POST", "/chat")
    assert server.call.json == {"prompt": "2+2?"}
    assert server.call.headers["content-type"] == "application/json"


async def test_templates_fill_everything() -> None:
    request = ProviderRequest(
        question='Say "hi" & <go>',
        system_prompt="Short.",
        guidelines="Kind.",
        messages=(Message("user", "a"), Message("assistant", "b")),
        eval_case_id="case/1 ü",
        attempt=2,
        metadata={"suite": "s"},
        tools=(Tool("look", "Looks."),),
        limits=Limits(max_output_tokens=9),
        response_schema={"type": "object"},
    )
    async with serving(saying({"text": "4"})) as server:
        await ask(
            server.url + "/v1/{{ case_id }}",
            request,
            method="PUT",
            model="m-1",
            headers={"X-Case": "case {{ attempt + 1 }}", "Authorization": Secret("Bearer k")},
            query={"suite": "{{ metadata.suite }}", "n": 2, "none": None},
            body={
                "q": "{{ question }}",
                "m": "{{ messages }}",
                "h": "{{ history }}",
                "try": "{{ attempt }}",
                "text": "Q: {{ question }} ({{ model | upper }})",
                "list": ["{{ system_prompt }}", True],
                "tools": "{{ tools }}",
                "max": "{{ max_output_tokens }}",
                "schema": "{{ response_schema }}",
                "guidelines": "{{ guidelines }}",
            },
        )
    call = server.call
    assert (call.method, call.path) == ("PUT", "/v1/case%2F1%20%C3%BC?suite=s&n=2")
    assert (call.headers["x-case"], call.headers["authorization"]) == ("case 3", "Bearer k")
    history = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert call.json == {
        "q": 'Say "hi" & <go>',
        "m": [
            {"role": "system", "content": "Short.\n\nKind."},
            *history,
            {"role": "user", "content": 'Say "hi" & <go>'},
        ],
        "h": history,
        "try": 2,
        "text": 'Q: Say "hi" & <go> (M-1)',
        "list": ["Short.", True],
        "tools": [{"name": "look", "description": "Looks.", "parameters": {"type": "object"}}],
        "max": 9,
        "schema": {"type": "object"},
        "guidelines": "Kind.",
    }


async def test_what_has_no_value_is_left_out() -> None:
    async with serving(saying({"text": "4"})) as server:
        await ask(
            server.url,
            query={"case": "{{ case_id }}"},
            body={"system": "{{ system_prompt }}", "note": "[{{ system_prompt }}]", "fixed": None},
        )
    assert server.call.path == "/"
    assert server.call.json == {"note": "[]", "fixed": None}


@pytest.mark.parametrize(
    ("body", "sent", "kind"),
    [
        ("Q: {{ question }}", b"Q: 2+2?", "text/plain; charset=utf-8"),
        ('{"q": {{ question | tojson }}}', b'{"q": "2+2?"}', "application/json"),
        ("{{ question }}", b"2+2?", "text/plain; charset=utf-8"),
        ("{{ messages }}", b'[{"role":"user","content":"2+2?"}]', "application/json"),
        ({}, b"{}", "application/json"),
    ],
)
async def test_bodies(body: Any, sent: bytes, kind: str) -> None:
    async with serving(saying({"text": "4"})) as server:
        await ask(server.url, body=body)
    assert server.call.body == sent
    assert server.call.headers["content-type"] == kind


async def test_get_has_no_body_and_ones_own_headers_win() -> None:
    async with serving(saying({"text": "4"})) as server:
        await ask(
            server.url + "/find",
            method="GET",
            query={"q": "{{ question }}"},
            headers={"accept": "x/y", "content-type": "z/z"},
        )
    call = server.call
    assert (call.method, call.path, call.body) == ("GET", "/find?q=2%2B2?", b"")
    assert (call.headers["accept"], call.headers["content-type"]) == ("x/y", "z/z")


async def test_files_go_into_the_prompt(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("forty-two")
    request = ProviderRequest(question="?", input_files=(tmp_path / "a.txt",), cwd=tmp_path)
    async with serving(saying({"text": "4"})) as server:
        await ask(server.url, request)
    assert server.call.json == {"prompt": '<file path="a.txt">\nforty-two\n</file>\n\n?'}


async def test_one_connection_serves_many_calls() -> None:
    async with serving(saying({"text": "4"})) as server:
        provider = http(server.url)
        for _ in range(5):
            await provider.invoke(ProviderRequest(question="?"))
        await provider.aclose()  # type: ignore[attr-defined]
    assert (len(server.calls), server.connections) == (5, 1)


# --- what is understood -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        {"choices": [{"message": {"role": "assistant", "content": "4"}}]},
        {"text": "4"},
        {"output": "4"},
        {"answer": 4},
        {"response": "4"},
        {"content": [{"type": "thinking"}, {"type": "text", "text": "4"}]},
        {"message": {"role": "assistant", "content": "4"}},
        {"result": "4", "error": None},
        {"output": [{"role": "assistant", "content": "4"}]},
        "4",
    ],
)
async def test_the_usual_places(answer: Any) -> None:
    async with serving(saying(answer)) as server:
        assert (await ask(server.url)).text == "4"


@pytest.mark.parametrize(
    "usage",
    [
        {"usage": {"prompt_tokens": 7, "completion_tokens": 3}},
        {"usage": {"input_tokens": 7, "output_tokens": 3}},
        {"token_usage": {"input": 7, "output": 3}},
    ],
)
async def test_the_usual_counts(usage: Any) -> None:
    answer = {"text": "4", "cost_usd": 0.5, "model": "m-2", "finish_reason": "length", **usage}
    async with serving(saying(answer)) as server:
        response = await ask(server.url)
    assert response.token_usage == TokenUsage(7, 3)
    assert (response.cost_usd, response.model, response.finish_reason) == (0.5, "m-2", "length")
    assert response.raw == answer


async def test_paths_of_ones_own() -> None:
    answer = {
        "data": [{"said": "4"}],
        "n": {"in": 7, "out": 0, "hit": 2, "think": 1},
        "bill": {"usd": 2},
        "by": "m-3",
        "why": "stop",
    }
    async with serving(saying(answer)) as server:
        response = await ask(
            server.url,
            response={
                "text": "data[0].said",
                "usage": {
                    "input": "n.in",
                    "output": "n.out",
                    "cached": "n.hit",
                    "reasoning": "n.think",
                },
                "cost": "bill.usd",
                "model": "by",
                "finish_reason": "why",
            },
        )
    assert response.text == "4"
    assert response.token_usage == TokenUsage(7, 0, cached=2, reasoning=1)
    assert (response.cost_usd, response.model, response.finish_reason) == (2, "m-3", "stop")


async def test_messages_with_tool_calls() -> None:
    messages = [
        {"role": "assistant", "content": "", "toolCalls": [{"tool": "look", "input": {"at": 1}}]},
        {"role": "assistant", "content": "4"},
    ]
    async with serving(saying({"trace": messages})) as server:
        response = await ask(server.url, response={"messages": "trace"})
    assert (response.text, response.tool_calls[0].tool) == ("4", "look")


async def test_plain_text_is_the_answer() -> None:
    heard: list[str] = []
    async with serving(saying("fünf".encode(), kind="text/plain")) as server:
        request = ProviderRequest(question="?", on_chunk=heard.append)
        response = await ask(server.url, request)
    assert response.text == "fünf"
    assert heard == ["fünf"]
    assert response.token_usage is None


async def test_a_body_as_it_stands() -> None:
    async with serving(saying(b"<html>4</html>", kind="text/html")) as server:
        response = await ask(server.url, response={"format": "text"})
    assert response.text == "<html>4</html>"


# --- what is not an answer ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("handler", "config", "message"),
    [
        (saying(b"<!DOCTYPE html><title>x</title>", kind="text/html"), {}, "an HTML page"),
        (
            saying(b"four", kind="text/plain"),
            {"response": {"text": "text"}},
            "is not JSON .*: four",
        ),
        (saying(b'{"text": "4', kind="application/json"), {}, "is not JSON .*truncated"),
        (saying(b"four", kind="text/plain"), {"response": {"format": "json"}}, "is not JSON"),
        (saying(b"", kind="text/plain"), {}, "the answer is empty"),
        (saying(b"\xff\xfe", kind="text/plain"), {}, "neither JSON nor UTF-8 text"),
        (saying({"said": "4", "n": 1}), {}, "no text at any of the usual places in an answer with"),
        (
            saying({"text": "4"}),
            {"response": {"text": "a.b"}},
            "no text at `a.b` in an answer with",
        ),
        (saying({"text": "4"}), {"response": {"messages": "m"}}, "no messages at `m`"),
        (saying({"text": "4", "usage": {"input_tokens": "7"}}), {}, "input must be a whole number"),
        (saying({"text": "4", "cost_usd": -1}), {}, "the cost is no number from 0 up"),
        (saying(b"x" * 2000, kind="text/plain"), {"max_body_bytes": 1000}, "larger than 1,000"),
    ],
)
async def test_answers_that_are_not_understood(
    handler: Handler, config: dict[str, Any], message: str
) -> None:
    failure = await failing(handler, **config)
    assert isinstance(failure, BadProviderOutput)
    with pytest.raises(BadProviderOutput, match=message):
        raise failure


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("400 Bad Request", BadRequest),
        ("401 Unauthorized", AuthenticationFailed),
        ("429 Too Many Requests", RateLimited),
        ("503 Service Unavailable", ProviderUnavailable),
        ("504 Gateway Timeout", ProviderTimeout),
    ],
)
@pytest.mark.parametrize("stream", [None, "sse"])
async def test_statuses(status: str, kind: type[ProviderError], stream: str | None) -> None:
    body = {"error": {"message": "the key k-secret is not welcome"}}
    handler = saying(body, status=status, more="Retry-After: 7\r\n")
    failure = await failing(
        handler, stream=stream, headers={"Authorization": Secret("Bearer k-secret")}
    )
    assert type(failure) is kind
    assert failure.status == int(status[:3])
    assert failure.retry_after == (7 if failure.retryable else None)
    assert "is not welcome" in str(failure)
    assert "k-secret" not in str(failure)


async def test_an_error_in_a_good_status() -> None:
    failure = await failing(saying({"text": "", "error": {"type": "rate_limit_error"}}))
    assert isinstance(failure, RateLimited)
    failure = await failing(saying({"oops": "no ink"}), response={"error": "oops"})
    assert "no ink" in str(failure)


async def test_a_server_that_resets() -> None:
    async def reset(writer: asyncio.StreamWriter) -> None:
        socket = writer.get_extra_info("socket")
        linger = struct.pack("ii", 1, 0)
        socket.setsockopt(1, 13, linger)  # SOL_SOCKET, SO_LINGER: close with a reset
        writer.transport.abort()

    assert isinstance(await failing(reset), ProviderUnavailable)


async def test_a_server_that_breaks_off() -> None:
    async def breaks(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        await writer.drain()
        writer.close()

    failure = await failing(breaks)
    assert isinstance(failure, ProviderUnavailable)
    assert "the connection broke" in str(failure)


@pytest.mark.parametrize("stream", [None, "sse"])
async def test_a_server_that_stalls(stream: str | None) -> None:
    release = asyncio.Event()

    async def stalls(writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 100\r\n\r\n"
            b'data: {"text": "a"}\n\n'
        )
        await writer.drain()
        await release.wait()

    failure = await failing(stalls, read_timeout_seconds=0.1, stream=stream)
    release.set()
    assert isinstance(failure, ProviderTimeout)
    assert failure.retryable


async def test_nobody_there() -> None:
    with pytest.raises(ProviderUnavailable, match=r"web: .*no connection"):
        await ask("http://127.0.0.1:9/chat")


async def test_a_cancelled_call_closes_its_connection() -> None:
    arrived, closed = asyncio.Event(), asyncio.Event()

    async def waits(writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await writer.wait_closed()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await reader.readuntil(b"\r\n\r\n")
        while await reader.read(1024):
            pass
        closed.set()
        writer.close()

    listener = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    provider = http(f"http://127.0.0.1:{port}/")
    call = asyncio.create_task(provider.invoke(ProviderRequest(question="?")))
    await arrived.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    async with asyncio.timeout(10):
        await closed.wait()
    await provider.aclose()  # type: ignore[attr-defined]
    listener.close()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"body": {"x": "{{ metadata.absent }}"}}, "'dict object' has no attribute 'absent'"),
        ({"body": {"x": "{{ question.__class__.__mro__ }}"}}, "is unsafe|has no attribute"),
        ({"body": {"x": "{{ 1 // 0 }}"}}, "division"),
        ({"headers": {"X": "{{ question }}\nY: z"}}, "the header X would hold a line break"),
    ],
)
async def test_a_template_that_cannot_be_filled(config: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        await ask("http://127.0.0.1:9/", **config)


# --- streams ------------------------------------------------------------------------------------

CHAT = (
    {"choices": [{"delta": {"role": "assistant", "content": ""}}], "model": "m-1"},
    {"choices": [{"delta": {"content": "fo"}}]},
    ": a comment",
    {"choices": [{"delta": {"content": "ur"}, "finish_reason": "stop"}]},
    {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}},
    "data: [DONE]",
)


async def heard_from(handler: Handler, **response: Any) -> tuple[ProviderResponse, list[str]]:
    heard: list[str] = []
    request = ProviderRequest(question="?", on_chunk=heard.append)
    async with serving(handler) as server:
        return await ask(server.url, request, stream="sse", response=response), heard


async def test_a_stream_in_the_usual_form() -> None:
    response, heard = await heard_from(streaming(*CHAT))
    assert (response.text, heard) == ("four", ["fo", "ur"])
    assert response.token_usage == TokenUsage(7, 3)
    assert (response.finish_reason, response.model) == ("stop", "m-1")


async def test_a_stream_in_a_form_of_its_own() -> None:
    response, heard = await heard_from(
        streaming(
            {"piece": {"said": "fo"}},
            {"piece": {"said": "ur"}, "n": {"i": 1, "o": 1}},
            {"n": {"i": 1, "o": 2}, "price": 0.25},
            "event: end\ndata: {}",
        ),
        delta="piece.said",
        done="end",
        usage={"input": "n.i", "output": "n.o"},
        cost="price",
    )
    assert (response.text, heard) == ("four", ["fo", "ur"])
    assert (response.token_usage, response.cost_usd) == (TokenUsage(1, 2), 0.25)


async def test_the_last_event_may_hold_the_accounting() -> None:
    response, _ = await heard_from(
        streaming({"text": "4"}, 'event: end\ndata: {"token_usage": {"input": 1, "output": 2}}'),
        done="end",
    )
    assert (response.text, response.token_usage) == ("4", TokenUsage(1, 2))


async def test_a_server_that_answers_whole_though_asked_to_stream() -> None:
    response, heard = await heard_from(saying({"text": "4"}))
    assert (response.text, heard) == ("4", ["4"])


@pytest.mark.parametrize(
    ("handler", "response", "message"),
    [
        (streaming(*CHAT[:-1]), {"done": "[DONE]"}, r"the stream ended without `\[DONE\]`"),
        (streaming({"text": "4"}), {"finish_reason": "why"}, "ended without a finish reason"),
        (streaming(), {}, "the stream held no text"),
        (streaming({"text": "4"}, "data: {oops"), {}, "an event of the stream is not JSON"),
        (streaming({"text": "4"}, {"error": {"message": "no ink"}}), {}, "no ink"),
        (streaming({"text": "4"}, 'event: error\ndata: {"message": "no ink"}'), {}, "no ink"),
        (streaming({"text": "4"}, whole=False), {}, "the connection broke"),
    ],
)
async def test_streams_that_are_no_whole_answer(
    handler: Handler, response: dict[str, Any], message: str
) -> None:
    failure = await failing(handler, stream="sse", response=response)
    with pytest.raises(ProviderError, match=message):
        raise failure


async def test_a_stream_gives_its_connection_back() -> None:
    async with serving(streaming(*CHAT)) as server:
        provider = http(server.url, stream="sse", response={"done": "[DONE]"})
        for _ in range(3):
            assert (await provider.invoke(ProviderRequest(question="?"))).text == "four"
        await provider.aclose()  # type: ignore[attr-defined]
    assert (len(server.calls), server.connections) == (3, 1)


# --- settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "field", "message"),
    [
        ({}, ("url",), "Field required"),
        ({"url": "localhost:80"}, (), "must begin with http:// or https://"),
        ({"url": "http://x", "method": "FETCH"}, ("method",), "'GET', 'POST'"),
        ({"url": "http://x", "body": {"a": "{{ questoin }}"}}, ("body",), 'mean "question"'),
        ({"url": "http://x", "body": "{{ question"}, ("body",), "unexpected end of template"),
        ({"url": "http://x", "body": "{{ model }}"}, (), "the target has none"),
        (
            {"url": "http://x", "headers": {"a": "{% if %}"}},
            ("headers", "a"),
            "template '{% if %}'",
        ),
        ({"url": "http://x", "response": {"text": "a["}}, ("response", "text"), "not a JMESPath"),
        ({"url": "http://x", "response": {"delta": "a"}}, (), "are for `stream: sse`"),
    ],
)
def test_settings_that_are_wrong(
    config: dict[str, Any], field: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValidationError, match=message) as error:
        create_provider(ResolvedTarget(name="web", provider="http", config=config))
    assert error.value.errors()[0]["loc"] == field
