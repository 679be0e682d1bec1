"""What the HTTP server does with clients that mean it ill, or do not know better."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
from serving_parts import TOKEN, Serve, Site, echo, read_reply, user

from muster.errors import MusterError
from muster.provider import ProviderRequest
from muster.serving.http import HttpServer, HttpSettings

GOOD = {"model": "fast", "messages": [user("hi")]}
HEAD = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"


async def still_answers(site: Site) -> None:
    reply = await site.ask(GOOD)
    assert (reply.status, reply.json["choices"][0]["message"]["content"]) == (200, "you said: hi")


async def raw(site: Site, data: bytes) -> tuple[Any, bytes]:
    """The answer to exactly these bytes, and what is left until the server closes."""
    reader, writer = await site.connect()
    try:
        writer.write(data)
        reply = await read_reply(reader)
        async with asyncio.timeout(5):
            return reply, await reader.read()
    finally:
        writer.close()


# --- who may ask --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, "no token: expected the header"),
        ("Bearer wrong-token", "the token is wrong: expected"),
        (f"Basic {TOKEN}", "the token is wrong: expected"),
        ("Bearer ", "no token: expected"),
        (f"Bearer {TOKEN}x", "the token is wrong"),
        ("Bearer ä", "the token is wrong"),
    ],
)
async def test_the_token(serve: Serve, given: str | None, expected: str) -> None:
    site = await serve({"fast": echo})
    for path in ("/v1/chat/completions", "/v1/models", "/nowhere"):
        reply = await site.send("POST", path, b"{}", headers={"Authorization": given})
        assert (reply.status, reply.code) == (401, "invalid_api_key")
        assert reply.message.startswith(expected)
        assert reply.headers["www-authenticate"] == "Bearer"
        assert TOKEN not in reply.message
    await still_answers(site)


async def test_no_token_is_asked_for_when_none_is_set(serve: Serve) -> None:
    site = await serve({"fast": echo}, token=None)
    assert (await site.ask(GOOD, headers={"Authorization": None})).status == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST.:1234", 200),
        ("127.0.0.1:80", 200),
        ("127.9.9.9", 200),
        ("[::1]:8093", 200),
        ("muster.example:80", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("192.168.0.1", 403),
        ("", 403),
        (None, 400),
    ],
)
async def test_the_host(serve: Serve, host: str | None, status: int) -> None:
    site = await serve({"fast": echo}, allow_hosts=("Muster.example",))
    reply = await site.ask(GOOD, headers={"Host": host})
    assert reply.status == status
    if status == 403:
        assert reply.code == "host_not_allowed"
        assert "(--allow-host NAME adds a name)" in reply.message
    await still_answers(site)


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:3000", 200),
        ("https://muster.example", 200),
        ("http://evil.example", 403),
        ("null", 403),
        ("http://[bad", 403),
    ],
)
async def test_pages_of_others_may_not_ask(serve: Serve, origin: str, status: int) -> None:
    """A page may send a simple POST to loopback without asking; without a token it would count."""
    site = await serve({"fast": echo}, token=None, allow_hosts=("muster.example",))
    reply = await site.ask(GOOD, headers={"Origin": origin, "Content-Type": "text/plain"})
    assert reply.status == status


# --- what they ask ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status", "expected"),
    [
        ("GET", "/v1/chat/completions", 405, "GET is not allowed here: expected POST"),
        ("DELETE", "/v1/models", 405, "DELETE is not allowed here: expected GET or HEAD"),
        ("POST", "/v1/completions", 404, "there is nothing at /v1/completions: POST"),
        ("GET", "/v1/../health", 404, "there is nothing at"),
        ("GET", "/" + "x" * 3000, 404, "there is nothing at /xxx"),
    ],
)
async def test_paths_and_methods(
    serve: Serve, method: str, path: str, status: int, expected: str
) -> None:
    site = await serve({"fast": echo})
    reply = await site.send(method, path)
    assert reply.status == status
    assert expected in reply.message
    assert len(reply.message) < 300
    if status == 405:
        assert reply.headers["allow"] == expected.partition("expected ")[2].replace(" or ", ", ")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "the body is not JSON"),
        (b"{", "the body is not JSON"),
        (b"\xff\xfe{}", "the body is not JSON"),
        (b"[]", "Expected `object`, got `array`"),
        (b"null", "Expected `object`, got `null`"),
        (b"{}", "missing required field `model`"),
        (b'{"model": "fast"}', "missing required field `messages`"),
        (
            b'{"model": "fast", "messages": [1]}',
            "Expected `object`, got `int` - at `$.messages[0]`",
        ),
        (b'{"model": "fast", "messages": [], "stop": ' + b"[" * 100_000, "the body is not JSON"),
        (b'{"model": "\\ud800", "messages": []}', "the body is not JSON"),
    ],
)
async def test_bodies(serve: Serve, body: bytes, expected: str) -> None:
    site = await serve({"fast": echo})
    reply = await site.ask(body)
    assert reply.status == 400
    assert expected in reply.message
    assert len(reply.message) < 400
    await still_answers(site)


async def test_a_body_that_is_too_large(serve: Serve) -> None:
    site = await serve({"fast": echo}, max_body=1000)
    reply, rest = await raw(site, f"{HEAD}Content-Length: 1001\r\n\r\n".encode())
    assert (reply.status, reply.code, rest) == (413, "body_too_large", b"")
    chunk = b"400\r\n" + b"x" * 1024 + b"\r\n"
    reply, rest = await raw(site, f"{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode() + chunk)
    assert (reply.status, reply.code, rest) == (413, "body_too_large", b"")
    compressed = {"Content-Encoding": "gzip"}
    assert (await site.ask(GOOD, headers=compressed)).status == 415
    await still_answers(site)


@pytest.mark.parametrize(
    ("head", "first"),
    [
        ("Content-Length: 500", b'{"mod'),
        ("Transfer-Encoding: chunked", b'5\r\n{"mod\r\n'),
        ("Transfer-Encoding: chunked", b"zz\r\n"),
    ],
    ids=["length", "chunked", "broken"],
)
async def test_a_body_that_never_ends(serve: Serve, head: str, first: bytes) -> None:
    site = await serve({"fast": echo}, body_seconds=0.2)
    began = time.monotonic()
    reader, writer = await site.connect()
    writer.write(f"{HEAD}{head}\r\nExpect: 100-continue\r\n\r\n".encode())
    async with asyncio.timeout(5):
        await reader.readuntil(b"\r\n\r\n")  # the body is waited for
        writer.write(first)
        reply = await read_reply(reader)
        rest = await reader.read()
    writer.close()
    assert (reply.status, reply.code, rest) == (408, "body_timeout", b"")
    assert reply.message == "the body did not come within 0.2 s"
    assert time.monotonic() - began < 4
    await still_answers(site)


async def test_bodies_of_many_are_bounded_together(serve: Serve) -> None:
    """Eight of the largest size may be held; the ninth is told to come again."""
    site = await serve({"fast": echo}, max_body=1000, body_seconds=10)
    opened = [await site.connect() for _ in range(8)]
    for _, writer in opened:
        writer.write(f"{HEAD}Content-Length: 1000\r\n\r\n".encode() + b"x" * 999)
    while site.server._held < 8 * 999:
        await asyncio.sleep(0.01)
    body = json.dumps({**GOOD, "messages": [user("x" * 100)]}).encode()
    reply = await site.ask(body)
    assert (reply.status, reply.code, reply.headers["retry-after"]) == (503, "overloaded", "1")
    for _, writer in opened:
        writer.close()
    while site.server._held:
        await asyncio.sleep(0.01)
    await still_answers(site)


async def test_a_client_that_waits_to_be_asked_for_its_body(serve: Serve) -> None:
    site = await serve({"fast": echo})
    reader, writer = await site.connect()
    body = json.dumps(GOOD).encode()
    writer.write(f"{HEAD}Expect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n".encode())
    async with asyncio.timeout(5):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body)
    assert (await read_reply(reader)).status == 200
    writer.close()


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
        b"hello\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"X%d: y\r\n" % n for n in range(300)) + b"\r\n",
    ],
    ids=["tls", "words", "negative", "smuggled", "long header", "many headers"],
)
async def test_what_is_no_http(serve: Serve, data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    site = await serve({"fast": echo})
    reply, rest = await raw(site, data)
    assert (reply.status, rest) == (400, b"")
    assert reply.message.startswith("not a good HTTP request: ")
    assert caplog.records == []
    await still_answers(site)


async def test_two_hosts(serve: Serve) -> None:
    site = await serve({"fast": echo})
    reply, _ = await raw(site, HEAD.encode() + b"Host: evil.example\r\nContent-Length: 0\r\n\r\n")
    assert reply.status == 400


# --- connections --------------------------------------------------------------------------------


async def test_idle_connections_lock_nobody_out(serve: Serve) -> None:
    site = await serve({"fast": echo}, max_connections=20)
    idle = [await site.connect() for _ in range(300)]
    await still_answers(site)
    client = site.client("fast")
    answers = await asyncio.gather(
        *(client.invoke(ProviderRequest(question=str(n))) for n in range(10))
    )
    await client.aclose()
    assert [answer.text for answer in answers] == [f"you said: {n}" for n in range(10)]
    assert len(site.server._open) <= 20
    assert site.told == [
        "20 connections are open (--max-connections): idle ones are closed to make room"
    ]
    ended = sum(reader.at_eof() or reader.exception() is not None for reader, _ in idle)
    assert ended >= 280
    for _, writer in idle:
        writer.close()


async def test_idle_connections_are_closed_in_time(serve: Serve) -> None:
    """Also one that sends its headers a byte at a time, and never all of them."""
    site = await serve({"fast": echo}, idle_seconds=0.3)
    quiet, _ = await site.connect()
    slow, writer = await site.connect()
    used, used_writer = await site.connect()
    used_writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (await read_reply(used)).status == 200
    async with asyncio.timeout(10):
        for letter in b"GET /health HTTP/1.1\r\nX-Slow: " + b"x" * 1000:
            try:
                writer.write(bytes([letter]))
                await writer.drain()
            except ConnectionError:
                break
            await asyncio.sleep(0.05)
        for reader in (quiet, slow, used):
            with suppress(ConnectionError):
                assert await reader.read() == b""
    assert len(site.server._open) == 0
    await still_answers(site)


async def test_no_room_when_all_are_busy(serve: Serve) -> None:
    release = asyncio.Event()

    async def waits(request: ProviderRequest) -> str:
        await release.wait()
        return "done"

    site = await serve({"slow": waits}, max_connections=3)
    body = {"model": "slow", "messages": [user("?")]}
    busy = [asyncio.create_task(site.ask(body)) for _ in range(3)]
    while len(site.server._tasks) < 3:
        await asyncio.sleep(0.01)
    reader, writer = await site.connect()
    refused = await read_reply(reader)
    writer.close()
    assert (refused.status, refused.message) == (503, "no room for another connection")
    assert refused.headers["retry-after"] == "1"
    release.set()
    assert [reply.status for reply in await asyncio.gather(*busy)] == [200] * 3
    assert site.told == ["3 connections are open (--max-connections): new ones are refused"]
    assert (await site.ask(body)).status == 200


async def test_requests_are_bounded(serve: Serve) -> None:
    release = asyncio.Event()

    async def waits(request: ProviderRequest) -> str:
        await release.wait()
        return "done"

    site = await serve({"slow": waits}, max_requests=2)
    body = {"model": "slow", "messages": [user("?")]}
    busy = [asyncio.create_task(site.ask(body)) for _ in range(2)]
    while len(site.server._tasks) < 2:
        await asyncio.sleep(0.01)
    reply = await site.ask(body)
    assert (reply.status, reply.code) == (503, "overloaded")
    assert reply.message == "2 requests are under way (--max-requests); try again later"
    release.set()
    assert [reply.status for reply in await asyncio.gather(*busy)] == [200, 200]


async def test_a_client_that_does_not_read(serve: Serve) -> None:
    ended = asyncio.Event()

    async def floods(request: ProviderRequest) -> Any:
        try:
            for _ in range(10_000):
                yield "x" * 10_000
                await asyncio.sleep(0)
        finally:
            ended.set()

    site = await serve({"flood": floods, "fast": echo}, write_seconds=0.3)
    body = json.dumps({"model": "flood", "messages": [user("?")], "stream": True}).encode()
    _, writer = await site.connect()
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(f"{HEAD}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    async with asyncio.timeout(10):
        await ended.wait()
        while site.server._tasks:
            await asyncio.sleep(0.01)
    await still_answers(site)
    writer.close()


async def test_one_connection_answers_in_order(serve: Serve) -> None:
    site = await serve({"fast": echo})
    reader, writer = await site.connect()
    for number in range(40):
        body = json.dumps({"model": "fast", "messages": [user(str(number))]})
        writer.write(f"{HEAD}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    for number in range(40):
        said = (await read_reply(reader)).json["choices"][0]["message"]["content"]
        assert said == f"you said: {number}"
    writer.close()


# --- starting and stopping ----------------------------------------------------------------------


async def test_a_port_that_is_taken(serve: Serve) -> None:
    site = await serve({"fast": echo})
    settings = HttpSettings(token=None, port=site.port)
    server = HttpServer(site.server._handler, settings, tell=print)
    with pytest.raises(MusterError, match=rf"cannot listen on 127.0.0.1:{site.port}: "):
        await server.start()


@pytest.mark.parametrize("grace", [5.0, 0.05], ids=["in time", "too late"])
async def test_stopping_lets_calls_end(serve: Serve, grace: float) -> None:
    began, release = asyncio.Event(), asyncio.Event()

    async def waits(request: ProviderRequest) -> str:
        began.set()
        await release.wait()
        return "done"

    site = await serve({"slow": waits})
    idle, _ = await site.connect()
    asked = asyncio.create_task(site.ask({"model": "slow", "messages": [user("?")]}))
    await began.wait()
    stopping = asyncio.create_task(site.server.stop(grace))
    if grace > 1:
        await asyncio.sleep(0)
        release.set()
    async with asyncio.timeout(5):
        cut = await stopping
        reply = await asked
        await idle.read()
    assert cut == (0 if grace > 1 else 1)
    assert reply.status == (200 if grace > 1 else 503)
    assert reply.headers["connection"] == "close"
    if grace < 1:
        assert reply.message == "the server is being stopped"
    with pytest.raises(ConnectionRefusedError):
        await site.connect()


async def test_everything_is_gone_after_the_end(serve: Serve) -> None:
    before = asyncio.all_tasks()
    async with AsyncExitStack() as stack:
        site = await Serve(serve.folder, stack)({"fast": echo})
        for _ in range(5):
            await site.connect()
        await still_answers(site)
    await asyncio.sleep(0.01)
    assert asyncio.all_tasks() == before
