from __future__ import annotations

import asyncio
import json

import pytest

from muster.errors import ConfigError
from muster.evals.scope import RunScope
from program_parts import ask, bound
from raw_server import RawServer, reply


def says(value: object, status: int = 200) -> bytes:
    text = value if isinstance(value, str) else json.dumps(value)
    return reply(text, status=status)


def entry(url: str, **more: object) -> dict[str, object]:
    return {"type": "webhook", "url": url, "allow_hosts": ["127.0.0.1"], **more}


async def test_a_service_is_sent_output_and_context_and_judges(tmp_path):
    async with RawServer(says({"pass": True, "score": 0.9, "reason": "fine"})) as server:
        asked = entry(f"{server.url}/grade", config={"k": 1}, headers={"X-Key": "secret"})
        graded = await ask(asked, tmp_path, vars={"v": 2}, expected="E")
    assert (graded.error, graded.score) == (None, 0.9)
    assert graded.rows[0].assertions[0].text == "fine"
    [request] = server.requests
    assert (request.method, request.path) == ("POST", "/grade")
    assert request.headers["x-key"] == "secret"
    told = request.json()
    assert told["output"] == "The answer."
    assert told["context"]["vars"] == {"v": 2}
    assert told["context"]["config"] == {"k": 1}
    assert told["context"]["prompt"] == "Why?"
    assert told["context"]["test"]["id"] == "c"


async def test_connections_last_as_long_as_the_run(tmp_path):
    scope = RunScope()
    async with RawServer(says({"score": 1})) as server:
        for _ in range(2):
            assert (await ask(entry(server.url), tmp_path, scope=scope)).score == 1
        await scope.aclose()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (says("prose"), "did not answer with JSON alone"),
        (says({}), "it says no verdict"),
        (says({"score": 2}), "score is 2"),
        (says("no key", 401), "server returned 401: no key"),
        (says({"score": 1, "reason": "x" * 3000}), "did not answer with JSON alone"),
    ],
)
async def test_what_is_no_verdict_is_an_error(answer, message, tmp_path):
    async with RawServer(answer) as server:
        graded = await ask(entry(server.url, max_bytes=2000), tmp_path)
    assert message in graded.error


async def test_it_has_a_time(tmp_path):
    async def never(request, writer):
        await asyncio.sleep(60)

    async with RawServer(never) as server:
        graded = await ask(entry(server.url, timeout_seconds=0.1), tmp_path)
    assert "no answer within 0.1 s" in graded.error


async def test_private_addresses_are_not_asked(tmp_path):
    async with RawServer(says({"score": 1})) as server:
        graded = await ask({"type": "webhook", "value": server.url}, tmp_path)
    assert "is not a public address" in graded.error
    assert server.requests == []


def test_only_http_is_spoken(tmp_path):
    with pytest.raises(ConfigError, match="url"):
        bound({"type": "webhook", "url": "file:///etc/passwd"}, tmp_path)
