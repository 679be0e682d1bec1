"""Each fault as our providers see it: the right error, and never half an answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from proxy_parts import Site, Start, ask

from muster.provider import (
    AuthenticationFailed,
    BadProviderOutput,
    ProviderError,
    ProviderUnavailable,
    QuotaExhausted,
    RateLimited,
)
from raw_server import RawServer, Request, events, reply

TEXT = "This is an answer of several words."
WORDS = TEXT.split(" ")


def chat_events() -> bytes:
    pieces = [word + " " * (number < len(WORDS) - 1) for number, word in enumerate(WORDS)]
    made: list[Any] = [
        {"id": "c", "choices": [{"index": 0, "delta": {"content": piece}}]} for piece in pieces
    ]
    made.append({"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    return events(*made, "[DONE]")


def message_events() -> bytes:
    usage = {"input_tokens": 3, "output_tokens": 1}
    message = {"id": "m", "role": "assistant", "content": [], "model": "m", "usage": usage}
    made: list[Any] = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    ]
    for number, word in enumerate(WORDS):
        piece = word + " " * (number < len(WORDS) - 1)
        delta = {"type": "text_delta", "text": piece}
        made.append({"type": "content_block_delta", "index": 0, "delta": delta})
    made += [
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn"},
            "usage": {"output_tokens": 9},
        },
        {"type": "message_stop"},
    ]
    return events(*made)


WHOLE = {
    "chat": {
        "id": "c",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": TEXT},
                "finish_reason": "stop",
            }
        ],
    },
    "anthropic": {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": TEXT}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 3, "output_tokens": 9},
    },
}


async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
    api = "anthropic" if request.path.endswith("/messages") else "chat"
    if not request.json().get("stream"):
        writer.write(reply(WHOLE[api]))
    else:
        writer.write(message_events() if api == "anthropic" else chat_events())
    await writer.drain()


@pytest.fixture
async def server() -> AsyncIterator[RawServer]:
    async with RawServer(answer) as running:
        yield running


async def asked(site: Site, api: str, streamed: bool) -> str:
    response = await ask(site.url, api, on_chunk=print if streamed else None)
    return response.text


APIS = pytest.mark.parametrize("api", ["chat", "anthropic"])
STREAMED = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])


@APIS
@STREAMED
@pytest.mark.parametrize(
    "case",
    [
        ({"status": 429}, RateLimited, True, "status 429"),
        ({"status": 500}, ProviderUnavailable, True, "status 500"),
        ({"status": 503}, ProviderUnavailable, True, "status 503"),
        ({"status": 529}, ProviderUnavailable, True, "status 529"),
        ({"status": 401}, AuthenticationFailed, False, "status 401"),
        (
            {"status": {"code": 429, "type": "insufficient_quota"}},
            QuotaExhausted,
            False,
            "status 429",
        ),
        ({"drop": "before_headers"}, ProviderUnavailable, True, "drop before_headers"),
        ({"drop": "after_headers"}, ProviderUnavailable, True, "drop after_headers"),
        ({"truncate": {"events": 3}}, ProviderUnavailable, True, "truncate"),
        ({"truncate": {"bytes": 20}}, ProviderUnavailable, True, "truncate"),
        ({"end_early": {"events": 3}}, BadProviderOutput, True, "end_early"),
        ({"end_early": {"bytes": 20}}, BadProviderOutput, True, "end_early"),
        ({"garbage": {"events": 2}}, BadProviderOutput, True, "garbage"),
        ({"garbage": {"events": 0}}, BadProviderOutput, True, "garbage"),
    ],
)
async def test_a_fault_is_the_right_error(
    server: RawServer,
    start: Start,
    api: str,
    streamed: bool,
    case: tuple[dict[str, Any], type[ProviderError], bool, str],
) -> None:
    fault, error, retryable, kind = case
    rule = {"name": "r", "times": 1, **fault}
    site = await start(to=server.url, rules=[rule])
    with pytest.raises(ProviderError) as caught:
        await asked(site, api, streamed)
    assert type(caught.value) is error
    assert caught.value.retryable == retryable
    assert await asked(site, api, streamed) == TEXT  # the rule was for one
    assert site.running.tally.faults == {("r", kind): 1}


async def test_retry_after(server: RawServer, start: Start) -> None:
    site = await start(to=server.url, rules=[{"status": {"code": 429, "retry_after": 1.5}}])
    with pytest.raises(RateLimited) as caught:
        await ask(site.url, "chat")
    assert caught.value.retry_after == 1.5
    _, headers, body = await site.post("/chat/completions", {})
    assert (headers["retry-after"], headers["x-muster-fault"]) == ("1.5", "status 429")
    assert b'"rate_limit_error"' in body
    plain = await start(to=server.url, rules=[{"status": 429}])
    assert "retry-after" not in (await plain.post("/chat/completions", {}))[1]
    assert server.requests == []  # it was not asked


async def test_a_burst(server: RawServer, start: Start) -> None:
    rule = {"every": 3, "burst": 2, "status": 429}
    site = await start(to=server.url, rules=[rule])
    statuses = [(await site.post("/chat/completions", {"n": n}))[0] for n in range(7)]
    assert statuses == [200, 200, 429, 429, 200, 429, 429]


async def test_latency_and_slow_bodies(server: RawServer, start: Start) -> None:
    site = await start(to=server.url, rules=[{"latency": 0.1, "slow": 6000}])
    began = time.perf_counter()
    assert await asked(site, "chat", False) == TEXT
    size = len(reply(WHOLE["chat"]).partition(b"\r\n\r\n")[2])
    assert time.perf_counter() - began >= 0.1 + size / 6000
    began = time.perf_counter()
    assert await asked(site, "anthropic", True) == TEXT
    assert time.perf_counter() - began >= 0.1 + len(message_events()) * 0.5 / 6000
    assert site.running.tally.faults == {("rule 1", "latency"): 2, ("rule 1", "slow"): 2}


async def test_where_a_stream_is_cut(server: RawServer, start: Start) -> None:
    body = {"stream": True}
    whole = (await (await start(to=server.url)).post("/chat/completions", body))[2]
    first = whole.partition(b"\n\n")[0] + b"\n\n"
    site = await start(to=server.url, rules=[{"end_early": {"events": 1}}])
    data = await site.raw(
        b"POST /c HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 15\r\n\r\n"
        b'{"stream":true}'
    )
    assert data.endswith(first + b"\r\n0\r\n\r\n")  # HTTP sees nothing wrong
    site = await start(to=server.url, rules=[{"truncate": {"events": 1}}])
    data = await site.raw(
        b"POST /c HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 15\r\n\r\n"
        b'{"stream":true}'
    )
    assert data.endswith(first + b"\r\n")


async def test_where_an_answer_in_one_piece_is_cut(server: RawServer, start: Start) -> None:
    whole = reply(WHOLE["chat"]).partition(b"\r\n\r\n")[2]
    site = await start(to=server.url, rules=[{"end_early": {"share": 0.25}}])
    _, headers, body = await site.post("/c", {})
    assert body == whole[: len(whole) // 4]
    assert headers["content-length"] == str(len(body))
    site = await start(to=server.url, rules=[{"truncate": {"bytes": 10}}])
    _, headers, body = await site.post("/c", {})
    assert (body, headers["content-length"]) == (whole[:10], str(len(whole)))


async def test_an_answer_that_is_over_before_its_fault(server: RawServer, start: Start) -> None:
    site = await start(to=server.url, rules=[{"name": "late", "truncate": {"events": 500}}])
    assert await asked(site, "chat", True) == TEXT
    assert site.running.tally.missed == {"late": 1}
    assert site.running.tally.faults == {}
    assert site.running.tally.lines()[1:] == ["no occasion: 1 × (late): the answer was over before"]


async def test_faults_of_recorded_answers(server: RawServer, start: Start, tmp_path: Any) -> None:
    cassette = tmp_path / "c.jsonl"
    site = await start(to=server.url, record=cassette)
    assert await asked(site, "chat", True) == TEXT
    rules = [{"every": 1, "times": 1, "end_early": {"events": 2}}]
    replaying = await start(replay=cassette, rules=rules, used_up="last")
    with pytest.raises(BadProviderOutput):
        await asked(replaying, "chat", True)
    assert await asked(replaying, "chat", True) == TEXT
