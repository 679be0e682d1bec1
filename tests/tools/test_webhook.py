"""Webhook tools against a server on loopback, which their guard must be told to allow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from muster.target import Secret
from muster.tools.base import Toolbox, ToolFailed
from muster.tools.definitions import WebhookTool
from muster.tools.webhook import Webhooks


class Server:
    """Remembers requests, and answers by their path."""

    def __init__(self) -> None:
        self.url = ""
        self.seen: list[tuple[str, str, str]] = []
        self.headers: list[dict[str, str]] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.method, request.path_qs, await request.text()))
        self.headers.append(dict(request.headers))
        path = request.path
        if path == "/fails":
            return web.Response(status=500, text="out of paper\n")
        if path == "/image":
            return web.Response(body=b"\x89PNG" + b"\x00" * 12_341, content_type="image/png")
        if path == "/large":
            return web.Response(text="é" * 5000)
        if path == "/endless":
            return await self._endless(request)
        if path == "/slow":
            await asyncio.sleep(30)
        if path == "/latin":
            return web.Response(
                body="naïve".encode("latin-1"), content_type="text/plain", charset="latin-1"
            )
        if path == "/to-same":
            return web.Response(status=302, headers={"Location": "/ok?moved=1"})
        if path == "/to-same-307":
            return web.Response(status=307, headers={"Location": "/ok"})
        if path == "/to-other":
            return web.Response(status=302, headers={"Location": "http://169.254.169.254/keys"})
        if path == "/round":
            return web.Response(status=302, headers={"Location": "/round"})
        return web.Response(text="fine")

    async def _endless(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 10_000)
        except ConnectionError:
            return response


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    handler = Server()
    runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    handler.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield handler
    await runner.cleanup()


@pytest.fixture
async def hooks() -> AsyncIterator[Webhooks]:
    opened = Webhooks()
    yield opened
    await opened.aclose()


def box(hooks: Webhooks, url: str, **more: Any) -> Toolbox:
    fields = {"allow_hosts": ("127.0.0.1", "localhost"), **more}
    return Toolbox([hooks.bind(WebhookTool(name="n", url=url, **fields))])


async def failure(tools: Toolbox, arguments: dict[str, Any] | None = None) -> str:
    with pytest.raises(ToolFailed) as caught:
        await tools.call("n", arguments or {})
    return str(caught.value)


async def test_a_post_has_the_arguments_as_json(server: Server, hooks: Webhooks) -> None:
    tools = box(hooks, server.url + "/ok", headers={"X-Key": Secret("k1")})
    assert await tools.call("n", {"city": "Kyiv", "days": [1, 2]}) == "fine"
    assert server.seen == [("POST", "/ok", '{"city": "Kyiv", "days": [1, 2]}')]
    assert server.headers[0]["Content-Type"] == "application/json"
    assert server.headers[0]["X-Key"] == "k1"


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_other_methods_have_a_body_too(server: Server, hooks: Webhooks, method: Any) -> None:
    tools = box(hooks, server.url + "/ok", method=method, headers={"content-type": "text/x"})
    await tools.call("n", {"a": 1})
    assert server.seen == [(method, "/ok", '{"a": 1}')]
    assert server.headers[0]["Content-Type"] == "text/x"


async def test_a_get_has_query_parameters(server: Server, hooks: Webhooks) -> None:
    tools = box(hooks, server.url + "/ok?v=2", method="GET")
    arguments = {"q": "a b&c", "n": 1.5, "on": True, "no": None, "t": ["x", 2], "o": {"k": "ü"}}
    assert await tools.call("n", arguments) == "fine"
    method, path, body = server.seen[0]
    assert (method, body) == ("GET", "")
    assert path == "/ok?v=2&q=a+b%26c&n=1.5&on=true&t=x&t=2&o=%7B%22k%22:+%22%C3%BC%22%7D"


async def test_other_statuses_are_errors(server: Server, hooks: Webhooks) -> None:
    tools = box(hooks, server.url + "/fails")
    assert await failure(tools) == 'webhook tool "n": server returned 500: out of paper'


async def test_results(server: Server, hooks: Webhooks) -> None:
    assert await box(hooks, server.url + "/image").call("n", {}) == "[image/png, 12,345 bytes]"
    assert await box(hooks, server.url + "/latin").call("n", {}) == "naïve"
    cut = await box(hooks, server.url + "/large", max_bytes=1001).call("n", {})
    note = "\n[error: the result is too large: cut to 1,001 bytes of 10,000 bytes]"
    assert cut == "é" * 500 + note


async def test_an_endless_result_is_left(server: Server, hooks: Webhooks) -> None:
    text = await box(hooks, server.url + "/endless", max_bytes=25_000).call("n", {})
    assert text == "x" * 25_000 + (
        "\n[error: the result is too large: cut to 25,000 bytes of more]"
    )


async def test_time_is_bounded(server: Server, hooks: Webhooks) -> None:
    tools = box(hooks, server.url + "/slow", timeout_seconds=0.2)
    assert await failure(tools) == 'webhook tool "n": request failed: no answer within 0.2 s'


async def test_nobody_there(hooks: Webhooks) -> None:
    said = await failure(box(hooks, "http://127.0.0.1:9/"))
    assert said.startswith('webhook tool "n": request failed: Cannot connect to host 127.0.0.1:9')


@pytest.mark.parametrize(
    "url", ["ftp://example.org/a", "example.org", "http://", "http://[::1", "http://127.1/"]
)
async def test_what_is_no_url(hooks: Webhooks, url: str) -> None:
    assert (await failure(box(hooks, url))).startswith('webhook tool "n": building request: ')


async def test_redirects_within_the_server(server: Server, hooks: Webhooks) -> None:
    assert await box(hooks, server.url + "/to-same").call("n", {"a": 1}) == "fine"
    assert await box(hooks, server.url + "/to-same-307").call("n", {"a": 1}) == "fine"
    assert server.seen[1] == ("GET", "/ok?moved=1", "")
    assert server.seen[3] == ("POST", "/ok", '{"a": 1}')


async def test_redirects_elsewhere(server: Server, hooks: Webhooks) -> None:
    assert await failure(box(hooks, server.url + "/to-other")) == (
        'webhook tool "n": request failed: redirect to another host, 169.254.169.254, refused'
    )
    assert await failure(box(hooks, server.url + "/round")) == (
        'webhook tool "n": request failed: more than 5 redirects'
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "[::1]"])
async def test_loopback_is_refused_unless_allowed(
    server: Server, hooks: Webhooks, host: str
) -> None:
    url = server.url.replace("127.0.0.1", host)
    said = await failure(box(hooks, url + "/ok", allow_hosts=()))
    assert said.startswith('webhook tool "n": request failed: ')
    assert said.endswith(" is not a public address, and not in `allowHosts`")
    assert server.seen == []


async def test_a_kept_connection_serves_no_tool_that_may_not_have_it(
    server: Server, hooks: Webhooks
) -> None:
    url = server.url.replace("127.0.0.1", "localhost") + "/ok"
    assert await box(hooks, url).call("n", {}) == "fine"
    assert "is not a public address" in await failure(box(hooks, url, allow_hosts=()))
    assert len(server.seen) == 1


async def test_secrets_of_headers_are_not_in_errors(server: Server, hooks: Webhooks) -> None:
    headers = {"X-Key": Secret("very-secret\n")}
    said = await failure(box(hooks, server.url + "/ok", headers=headers))
    assert said.startswith('webhook tool "n": ')
    assert "very-secret" not in said
