"""What the proxy does with clients and servers that mean it ill."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from proxy_parts import Site, Start, parsed

from muster.errors import UsageError
from raw_server import RawServer, Request, reply


def message(body: bytes) -> str:
    return str(json.loads(body)["error"]["message"])


async def sent(site: Site, text: str) -> tuple[int, str]:
    status, _, body = parsed(await site.raw(text.encode()))
    return status, message(body)


@pytest.mark.parametrize(
    ("text", "status", "expected"),
    [
        ("GET /v1/x HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403, 'the Host "evil.example"'),
        ("GET /v1/x HTTP/1.1\r\n\r\n", 400, "Missing 'Host' header"),
        (
            "GET /v1/x HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\r\n",
            403,
            "pages of",
        ),
        ("nonsense\r\n\r\n", 400, "not a good HTTP request"),
        ("CONNECT a:1 HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, "not as an HTTP proxy"),
        (
            "GET /v1/x HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
            "Upgrade: websocket\r\n\r\n",
            501,
            "WebSockets are not passed on",
        ),
        (
            "GET /v2/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            404,
            "the base URL here ends with /v1",
        ),
        ("GET /v1x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404, "/v1x"),
    ],
)
async def test_what_is_refused(start: Start, text: str, status: int, expected: str) -> None:
    async with RawServer([reply(b"never")]) as server:
        site = await start(to=f"{server.url}/v1")
        found, told = await sent(site, text)
        assert (found, server.requests) == (status, [])
        assert expected in told


async def test_what_goes_to_the_server_and_comes_back(start: Start) -> None:
    more = {"X-Request-Id": "r", "Keep-Alive": "timeout=5", "Alt-Svc": 'h3=":443"'}
    async with RawServer([reply(b"yes", status=418, headers=more)]) as server:
        site = await start(to=f"{server.url}/v1/")
        head = (
            "PUT /v1/a%2Fb?q=%20x&q=2 HTTP/1.1\r\nHost: localhost\r\nX-Mine: 1\r\nX-Hop: 2\r\n"
            "Connection: close, X-Hop\r\nAccept-Encoding: gzip\r\nContent-Length: 2\r\n\r\nhi"
        )
        status, headers, body = parsed(await site.raw(head.encode()))
        assert (status, body) == (418, b"yes")
        assert headers["x-request-id"] == "r"
        assert not {"keep-alive", "alt-svc"} & set(headers)
        (request,) = server.requests
        assert (request.method, request.body) == ("PUT", b"hi")
        assert request.path in ("/v1/a%2Fb?q=%20x&q=2", "/v1/a%2Fb?q=+x&q=2")
        assert request.headers["host"] == server.url.removeprefix("http://")
        assert request.headers["x-mine"] == "1"
        assert request.headers["accept-encoding"] == "identity"
        assert "x-hop" not in request.headers


async def test_an_answer_without_a_body(start: Start) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 77\r\nConnection: close\r\n\r\n"
    async with RawServer([head, b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"]) as server:
        site = await start(to=server.url)
        asked = b" /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        status, headers, body = parsed(await site.raw(b"HEAD" + asked))
        assert (status, headers["content-length"], body) == (200, "77", b"")
        status, _, body = parsed(await site.raw(b"DELETE" + asked))
        assert (status, body) == (204, b"")


async def test_a_compressed_answer_is_passed_on_readable(start: Start, tmp_path: Path) -> None:
    import gzip

    data = gzip.compress(b"hello " * 100)
    answer = reply(data, headers={"Content-Encoding": "gzip"})
    async with RawServer([answer]) as server:
        site = await start(to=server.url, record=tmp_path / "c.jsonl")
        _, headers, body = await site.post("/x", b"")
    assert body == b"hello " * 100
    assert "content-encoding" not in headers
    assert "hello hello" in (tmp_path / "c.jsonl").read_text()


async def test_a_server_that_is_not_there(start: Start) -> None:
    async with RawServer([reply(b"")]) as server:
        url = server.url
    site = await start(to=url)
    status, _, body = await site.post("/x", b"")
    assert status == 502
    assert message(body).startswith(f"{url}: no connection")
    assert site.running.tally.ended == {"refused": 1}


async def test_a_server_that_speaks_no_http(start: Start) -> None:
    async with RawServer([b"SSH-2.0-OpenSSH\r\n\r\n"]) as server:
        site = await start(to=server.url)
        status, _, body = await site.post("/x", b"")
    assert status == 502
    assert "not valid HTTP" in message(body)


async def test_a_client_that_leaves_takes_its_call_along(start: Start) -> None:
    came = asyncio.Event()

    async def waits(request: Request, writer: asyncio.StreamWriter) -> None:
        came.set()
        await asyncio.Event().wait()

    async with RawServer(waits) as server:
        site = await start(to=server.url)
        _, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
        async with asyncio.timeout(5):
            await came.wait()
            writer.close()
            await server.closed_early.wait()
        assert site.events[-1]["ended"] == "client_left"


async def test_stopping_lets_calls_end_or_cuts_them_off(start: Start) -> None:
    came, go_on = asyncio.Event(), asyncio.Event()

    async def waits(request: Request, writer: asyncio.StreamWriter) -> None:
        came.set()
        await go_on.wait()
        writer.write(reply(b"late"))
        await writer.drain()

    async with RawServer(waits) as server:
        site = await start(to=server.url)
        call = asyncio.ensure_future(site.post("/x", b""))
        await came.wait()
        stopping = asyncio.ensure_future(site.running.stop(10))
        await asyncio.sleep(0)
        go_on.set()
        assert (await call)[2] == b"late"
        assert await stopping == 0
        came.clear()
        go_on.clear()
        site = await start(to=server.url)
        call = asyncio.ensure_future(site.post("/x", b""))
        await came.wait()
        assert await site.running.stop(0) == 1
        assert (await call)[0] == 503
        assert site.events[-1]["ended"] == "stopped"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "a proxy needs --to URL, or --replay FILE"),
        ({"to": "api.openai.com"}, "--to: expected a base URL such as https://host/v1"),
        ({"to": "ftp://x/"}, "--to: expected a base URL"),
        ({"to": "http://[x/"}, "--to: expected a base URL"),
        ({"to": "http://u:p@x/"}, "has no password"),
        ({"to": "http://x/?key=1"}, "has no password, query"),
        ({"record": Path("a")}, "--record needs --to"),
        ({"to": "http://x", "record": Path("a"), "replay": Path("a")}, "do not go together"),
        ({"to": "http://x", "replay": Path("a")}, "leave out --to, or add --record-missing"),
        ({"to": "http://x", "record_missing": True}, "--record-missing needs"),
        ({"to": "http://x", "timing": True}, "--replay-timing needs --replay"),
        ({"to": "http://x", "used_up": "last"}, "--used-up needs --replay"),
        ({"to": "http://x", "seed": 1}, "--seed needs --chaos"),
    ],
)
async def test_bad_usage(start: Start, settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError, match="^.*" + expected.replace("(", r"\(")):
        await start(**settings)


async def test_a_server_with_tls(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its certificate is checked."""
    import shutil
    import ssl

    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command.split(), *names, *files], check=True, capture_output=True)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply(b"secured"))
        writer.close()

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    async with server:
        site = await start(to=f"https://localhost:{port}")
        status, _, body = await site.post("/x", b"")
        assert status == 502
        assert "the certificate is not trusted" in message(body)
