"""The HTTP client against a server whose bytes the test decides."""

from __future__ import annotations

import asyncio
import email.utils
import gc
import gzip
import time

import pytest

from muster.provider import (
    AuthenticationFailed,
    BadProviderOutput,
    BadRequest,
    ProviderError,
    ProviderTimeout,
    ProviderUnavailable,
    QuotaExhausted,
    RateLimited,
)
from muster.providers.transport import HttpClient, error_for_payload, error_for_status
from raw_server import RawServer, Request, events, reply

HEADERS = {"X-Test": "1"}


async def send(client: HttpClient, url: str, method: str = "POST"):
    try:
        return await client.send(method, url, headers=HEADERS, body=b"{}")
    finally:
        await client.aclose()


async def test_sends_and_reads() -> None:
    async with RawServer(reply({"ok": True}, status=201, headers={"X-Answer": "yes"})) as server:
        got = await send(HttpClient(), f"{server.url}/a/b?c=d")
    assert (got.status, got.body, got.headers["x-answer"]) == (201, b'{"ok": true}', "yes")
    (request,) = server.requests
    assert (request.method, request.path, request.body) == ("POST", "/a/b?c=d", b"{}")
    assert request.headers["x-test"] == "1"


async def test_large_bodies_pass_both_ways() -> None:
    body = b"x" * (3 * 2**20)

    async def echo(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(request.body))
        await writer.drain()

    async with RawServer(echo) as server:
        client = HttpClient()
        got = await client.send("POST", server.url, headers={}, body=body)
        await client.aclose()
    assert got.body == body


def test_a_second_event_loop_works_and_old_ones_are_let_go() -> None:
    client = HttpClient()

    async def once() -> int:
        async with RawServer(reply("ok")) as server:
            return (await client.send("GET", server.url, headers={})).status

    async def last() -> int:
        status = await once()
        await client.aclose()
        return status

    assert [asyncio.run(once()), asyncio.run(once()), asyncio.run(last())] == [200, 200, 200]
    assert client._sessions == {}


async def test_connections_are_used_again() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    connections = 0

    async def keep_alive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while await reader.readline():
            while (await reader.readline()).strip():
                pass
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(keep_alive, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    client = HttpClient()
    for _ in range(5):
        await client.send("GET", url, headers={})
    async with client.stream("GET", url, headers={}) as stream:
        assert await stream.read() == b"ok"
    await client.send("GET", url, headers={})
    await client.aclose()
    server.close()
    assert connections == 1


async def test_refused_connection() -> None:
    async with RawServer(b"") as server:
        url = server.url
    with pytest.raises(ProviderUnavailable, match=r"127\.0\.0\.1.*no connection") as caught:
        await send(HttpClient(), f"{url}/path?key=secret")
    assert caught.value.retryable
    assert "secret" not in str(caught.value)


async def test_unknown_host() -> None:
    with pytest.raises(ProviderUnavailable, match="no such host"):
        await send(HttpClient(), "http://nonesuch.invalid/")


@pytest.mark.parametrize("url", ["not a url", "ftp://127.0.0.1/", "http://", "http://127.0.0.1:x"])
async def test_no_url(url: str) -> None:
    with pytest.raises(BadRequest):
        await send(HttpClient(), url)


async def test_a_header_with_a_line_break_is_not_sent() -> None:
    client = HttpClient()
    async with RawServer(reply("ok")) as server:
        with pytest.raises(BadRequest, match="cannot be sent"):
            await client.send("GET", server.url, headers={"X-Key": "a\r\nX-Other: b"})
    await client.aclose()
    assert server.requests == []


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"", ProviderUnavailable),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", ProviderUnavailable),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nha", ProviderUnavailable),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", BadProviderOutput),
    ],
)
async def test_broken_answers(answer: bytes, kind: type[ProviderError]) -> None:
    async with RawServer(answer) as server:
        with pytest.raises(kind):
            await send(HttpClient(), server.url)


async def test_reset() -> None:
    async def reset(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await writer.drain()
        writer.transport.abort()

    async with RawServer(reset) as server:
        with pytest.raises(ProviderUnavailable):
            await send(HttpClient(), server.url)


async def test_stalls() -> None:
    async def silent(request: Request, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    async def stalling(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await asyncio.sleep(30)

    for answer in (silent, stalling):
        async with RawServer(answer) as server:
            begun = time.monotonic()
            with pytest.raises(ProviderTimeout, match="sent nothing for too long"):
                await send(HttpClient(read_timeout=0.1), server.url)
            assert time.monotonic() - begun < 5


@pytest.mark.parametrize("headers", [{}, {"Content-Encoding": "gzip"}])
async def test_too_large(headers: dict[str, str]) -> None:
    body = gzip.compress(b"x" * 10**6) if headers else b"x" * 10**6
    async with RawServer(reply(body, headers=headers)) as server:
        with pytest.raises(BadProviderOutput, match="larger than 100,000 bytes") as caught:
            await send(HttpClient(max_body_bytes=100_000), server.url)
        assert not caught.value.retryable
        client = HttpClient(max_body_bytes=100_000)
        async with client.stream("GET", server.url, headers={}) as stream:
            with pytest.raises(BadProviderOutput):
                [chunk async for chunk in stream.chunks()]
        await client.aclose()


async def test_stream_gives_pieces_as_they_come() -> None:
    go_on = asyncio.Event()

    async def slow(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(events("one", ended=False))
        await go_on.wait()
        writer.write(b"b\r\ndata: two\n\n\r\n0\r\n\r\n")
        await writer.drain()

    client = HttpClient()
    async with (
        RawServer(slow) as server,
        client.stream("POST", server.url, headers={}, body=b"") as s,
    ):
        assert (s.status, s.headers["content-type"]) == (200, "text/event-stream")
        chunks = s.chunks()
        assert await anext(chunks) == b"data: one\n\n"
        go_on.set()
        assert await anext(chunks) == b"data: two\n\n"
        assert [chunk async for chunk in chunks] == []
    await client.aclose()


async def test_cancelling_closes_the_connection() -> None:
    started = asyncio.Event()

    async def silent(request: Request, writer: asyncio.StreamWriter) -> None:
        started.set()
        await asyncio.sleep(30)

    async with RawServer(silent) as server:
        client = HttpClient()
        call = asyncio.create_task(client.send("POST", server.url, headers={}, body=b""))
        await started.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(server.closed_early.wait(), 5)
        await client.aclose()


async def test_leaving_a_stream_closes_the_connection() -> None:
    async def endless(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(events("one", ended=False))
        await asyncio.sleep(30)

    async with RawServer(endless) as server:
        client = HttpClient()
        async with client.stream("GET", server.url, headers={}) as stream:
            assert await anext(stream.chunks())
        await asyncio.wait_for(server.closed_early.wait(), 5)
        await client.aclose()


async def test_redirects_stay_with_the_host() -> None:
    async with RawServer(reply("stolen")) as thief:
        away = reply("", status=307, headers={"Location": f"{thief.url}/keys?k=1"})
        near = reply("", status=307, headers={"Location": "/there"})
        async with RawServer([near, reply("found"), away]) as server:
            client = HttpClient()
            assert (await client.send("POST", server.url, headers={}, body=b"x")).body == b"found"
            assert [(r.path, r.body) for r in server.requests] == [("/", b"x"), ("/there", b"x")]
            got = await client.send("POST", server.url, headers=HEADERS, body=b"x")
            await client.aclose()
        assert got.status == 307
        assert thief.requests == []
    error = error_for_status(got.status, got.headers, got.body, who="t")
    assert isinstance(error, BadRequest)
    assert "redirected to http://127.0.0.1:" in str(error)
    assert "k=1" not in str(error)


async def test_endless_redirects_end() -> None:
    async with RawServer(reply("", status=302, headers={"Location": "/again"})) as server:
        with pytest.raises(BadRequest, match="redirects"):
            await send(HttpClient(), server.url, "GET")


async def test_a_post_is_not_turned_into_a_get() -> None:
    async with RawServer(reply("", status=302, headers={"Location": "/login"})) as server:
        assert (await send(HttpClient(), server.url)).status == 302
    assert len(server.requests) == 1


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with RawServer(reply("proxied")) as proxy, RawServer(reply("direct")) as server:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert (await send(HttpClient(), server.url)).body == b"direct"
        assert (await send(HttpClient(proxy_from_env=True), server.url)).body == b"proxied"


# --- what a status means ------------------------------------------------------------------------


def error(
    status: int, body: bytes | str = b"", headers: dict[str, str] | None = None
) -> ProviderError:
    data = body.encode() if isinstance(body, str) else body
    return error_for_status(status, headers or {}, data, who="t")


@pytest.mark.parametrize(
    ("status", "body", "kind", "retryable"),
    [
        (400, '{"error": {"message": "bad"}}', BadRequest, False),
        (401, "", AuthenticationFailed, False),
        (402, '{"error": {"message": "pay"}}', QuotaExhausted, False),
        (403, "", AuthenticationFailed, False),
        (404, "", BadRequest, False),
        (408, "", ProviderTimeout, True),
        (409, "", ProviderUnavailable, True),
        (413, "", BadRequest, False),
        (422, '{"detail": [{"msg": "no"}]}', BadRequest, False),
        (429, "", RateLimited, True),
        (429, '{"error": {"code": "insufficient_quota", "message": "m"}}', QuotaExhausted, False),
        (429, '{"error": {"type": "insufficient_quota"}}', QuotaExhausted, False),
        (400, '{"error": {"message": "Your credit balance is too low"}}', QuotaExhausted, False),
        (403, '{"error": {"code": "billing_not_active"}}', QuotaExhausted, False),
        (429, '{"error": {"message": "credits are rate limited"}}', RateLimited, True),
        (500, "", ProviderUnavailable, True),
        (502, "<html><title>Bad Gateway</title>", ProviderUnavailable, True),
        (504, "", ProviderTimeout, True),
        (
            529,
            '{"type": "error", "error": {"type": "overloaded_error"}}',
            ProviderUnavailable,
            True,
        ),
        (600, "", ProviderUnavailable, True),
        (204, "", BadProviderOutput, True),
    ],
)
def test_statuses(status: int, body: str, kind: type[ProviderError], retryable: bool) -> None:
    found = error(status, body)
    assert type(found) is kind
    assert (found.status, found.retryable) == (status, retryable)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"error": {"message": "no such model"}}', "no such model"),
        ('{"error": "plain"}', "plain"),
        ('{"message": "outer"}', "outer"),
        ('[{"error": {"message": "in a list", "status": "X"}}]', "in a list"),
        ('{"detail": "fast"}', "fast"),
        ("just words\n on lines", "just words on lines"),
        ("<!DOCTYPE html><html><title>Down for now</title>", "an HTML page (“Down for now”)"),
        ("<html></html>", "an HTML page"),
        ("{broken", "{broken"),
    ],
)
def test_the_servers_words(body: str, said: str) -> None:
    assert str(error(500, body)) == f"t: HTTP 500: {said}"


def test_long_words_are_cut_and_bytes_do_no_harm() -> None:
    assert len(str(error(500, "x" * 10_000))) < 400
    assert str(error(500, b"\xff\xfe\x00")).startswith("t: HTTP 500")
    assert str(error(500)) == "t: HTTP 500"


def test_secrets_are_masked() -> None:
    body = b'{"error": {"message": "Incorrect API key provided: sk-123"}}'
    found = error_for_status(401, {}, body, who="t", secrets=["sk-123", ""])
    assert str(found) == "t: HTTP 401: Incorrect API key provided: **********"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "Retry-After": "9"}, 0.25),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert error(429, headers=headers).retry_after == seconds
    assert error(503, headers=headers).retry_after == seconds
    assert error(400, headers=headers).retry_after is None


def test_retry_after_as_a_date() -> None:
    date = email.utils.formatdate(time.time() + 60, usegmt=True)
    seconds = error(429, headers={"Retry-After": date}).retry_after
    assert seconds is not None
    assert 50 < seconds <= 60


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        ({"type": "overloaded_error", "message": "Overloaded"}, ProviderUnavailable),
        ({"type": "rate_limit_error", "message": "m"}, RateLimited),
        ({"type": "server_error", "message": "m"}, ProviderUnavailable),
        ({"code": 429, "message": "m"}, RateLimited),
        ({"code": "rate_limit_exceeded", "message": "m"}, RateLimited),
        ({"code": "insufficient_quota", "message": "m"}, QuotaExhausted),
        ({"type": "invalid_request_error", "message": "m"}, BadRequest),
        ({"type": "authentication_error", "message": "m"}, AuthenticationFailed),
        ({"type": "timeout_error"}, ProviderTimeout),
        ({"message": "who knows"}, ProviderUnavailable),
        ("words only", ProviderUnavailable),
    ],
)
def test_error_objects(payload: object, kind: type[ProviderError]) -> None:
    found = error_for_payload(payload, who="t")
    assert type(found) is kind
    assert str(found).startswith("t: the server broke off with ")


def test_a_second_event_loop_closes_what_the_first_has_left(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = HttpClient()

    async def in_a_loop(*, last: bool) -> int:
        async with RawServer(reply({"ok": True})) as server:
            got = await client.send("POST", server.url, headers=HEADERS, body=b"{}")
            if last:
                await client.aclose()
        return got.status

    assert [asyncio.run(in_a_loop(last=last)) for last in (False, True)] == [200, 200]
    gc.collect()
    assert "Unclosed" not in caplog.text
