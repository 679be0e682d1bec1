"""What is recorded, what is replayed, and what is told when nothing fits."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from proxy_parts import KEY, Site, Start, ask, lines_of

from muster.config.secrets import Masker
from muster.errors import MusterError
from muster.provider import BadRequest, ProviderUnavailable
from muster.proxy.cassette import pieces_without_secrets
from raw_server import RawServer, Request, events, reply

CHAT = "/v1/chat/completions"


def question(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}


async def record(start: Start, cassette: Path, answers: Any, *bodies: Any, **more: Any) -> Site:
    async with RawServer(answers) as server:
        site = await start(to=f"{server.url}/v1", record=cassette, **more)
        for body in bodies:
            await site.post(CHAT, body, {"Authorization": f"Bearer {KEY}"})
        await site.stop()
    return site


# --- a line -------------------------------------------------------------------------------------


async def test_a_line(start: Start, tmp_path: Path) -> None:
    cassette = tmp_path / "c.jsonl"
    answer = reply({"text": "Grüße"}, headers={"X-Request-Id": "r1", "Set-Cookie": "id=12345678"})
    await record(start, cassette, [answer], question("hi"))
    (line,) = lines_of(cassette)
    assert line["version"] == 1
    assert line["request"] == {
        "method": "POST",
        "path": CHAT,
        "headers": {"authorization": "**********"},
        "sha256": line["request"]["sha256"],
        "json": question("hi"),
    }
    response = line["response"]
    assert response.pop("after_ms") > 0
    assert response == {
        "status": 200,
        "headers": {
            "content-type": "application/json",
            "x-request-id": "r1",
            "set-cookie": "**********",
        },
        "body": json.dumps({"text": "Grüße"}),
    }
    assert cassette.stat().st_mode & 0o077 == 0


async def test_chunks_of_a_stream_keep_their_time(start: Start, tmp_path: Path) -> None:
    arrived = asyncio.Event()

    async def slowly(request: Request, writer: asyncio.StreamWriter) -> None:
        head, first, second = events({"n": 1}, {"n": 2}).partition(b'{"n": 1}\n\n\r\n')
        writer.write(head + first)
        await writer.drain()
        await arrived.wait()
        await asyncio.sleep(0.15)
        writer.write(second)
        await writer.drain()

    cassette = tmp_path / "c.jsonl"
    async with RawServer(slowly) as server:
        site = await start(to=server.url, record=cassette)
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
        async with asyncio.timeout(10):
            await reader.readuntil(b'{"n": 1}')
            arrived.set()
            await reader.readuntil(b"0\r\n\r\n")
        writer.close()
    (line,) = lines_of(cassette)
    (first, one), (second, two) = line["response"]["chunks"]
    assert (one, two) == ('data: {"n": 1}\n\n', 'data: {"n": 2}\n\n')
    assert second - first >= 149

    site = await start(replay=cassette, timing=True)
    began = time.perf_counter()
    _, headers, body = await site.post("/x", {})
    assert time.perf_counter() - began >= 0.149
    assert body == (one + two).encode()
    assert headers["x-muster-proxy"] == "replayed"
    # Without it, nobody waits the hour that this one took.
    line["response"]["chunks"][1][0] = 3_600_000
    cassette.write_text(json.dumps(line) + "\n")
    site = await start(replay=cassette)
    assert (await site.post("/x", {}))[2] == body


async def test_chunks_pass_before_the_stream_ends(start: Start, tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def waits(request: Request, writer: asyncio.StreamWriter) -> None:
        head, first, second = events({"n": 1}, {"n": 2}).partition(b'{"n": 1}\n\n\r\n')
        writer.write(head + first)
        await writer.drain()
        await go_on.wait()
        writer.write(second)
        await writer.drain()

    async with RawServer(waits) as server:
        site = await start(to=server.url, record=tmp_path / "c.jsonl")
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
        async with asyncio.timeout(5):
            await reader.readuntil(b'{"n": 1}')  # the server has not gone on
            go_on.set()
            await reader.readuntil(b"0\r\n\r\n")
        writer.close()


async def test_bytes_that_are_no_text(start: Start, tmp_path: Path) -> None:
    cassette = tmp_path / "c.jsonl"
    data = b"\x00\xff\xfe PNG"
    await record(start, cassette, [reply(data, content_type="image/png")], b"\xff\xff no json")
    line = lines_of(cassette)[0]
    assert line["request"]["body"] == {"base64": "//8gbm8ganNvbg=="}
    site = await start(replay=cassette)
    _, headers, body = await site.post(CHAT, b"\xff\xff no json")
    assert (headers["content-type"], body) == ("image/png", data)


async def test_a_connection_that_breaks_off_is_replayed_as_such(
    start: Start, tmp_path: Path
) -> None:
    cassette = tmp_path / "c.jsonl"
    answer = events({"choices": [{"delta": {"content": "half"}}]}, ended=False)
    async with RawServer(answer) as server:
        site = await start(to=f"{server.url}/v1", record=cassette)
        with pytest.raises(ProviderUnavailable, match="broke off"):
            await ask(site.url, "chat", on_chunk=print)
    assert lines_of(cassette)[0]["response"]["broke_off"] is True
    assert site.running.tally.ended == {"broke_off": 1}
    replaying = await start(replay=cassette)
    with pytest.raises(ProviderUnavailable, match="broke off"):
        await ask(replaying.url, "chat", on_chunk=print)


async def test_who_leaves_early_is_not_recorded_and_ends_the_call(
    start: Start, tmp_path: Path
) -> None:
    async def waits(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(events({"n": 1}, ended=False))
        await writer.drain()
        await asyncio.Event().wait()

    cassette = tmp_path / "c.jsonl"
    async with RawServer(waits) as server:
        site = await start(to=server.url, record=cassette)
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
        async with asyncio.timeout(5):
            await reader.readuntil(b'{"n": 1}')
            writer.close()
            await server.closed_early.wait()
    assert lines_of(cassette) == []
    assert site.events[-1]["ended"] == "client_left"


async def test_who_leaves_after_the_last_event_is_recorded(start: Start, tmp_path: Path) -> None:
    """Clients go when they have seen `[DONE]`; some servers keep the stream open a while."""
    cassette = tmp_path / "c.jsonl"

    async def lingers(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(events({"n": "data: [DONE]\n\n"}, "[DONE]", ended=False))
        await writer.drain()
        await asyncio.Event().wait()

    async with RawServer(lingers) as server:
        site = await start(to=server.url, record=cassette)
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
        async with asyncio.timeout(5):
            await reader.readuntil(b"\ndata: [DONE]\n\n")
            assert len(lines_of(cassette)) == 1  # it is there before the client has it
            writer.close()
            await server.closed_early.wait()
    assert site.running.tally.recorded == 1


async def test_a_large_answer_passes_and_is_not_recorded(start: Start, tmp_path: Path) -> None:
    cassette = tmp_path / "c.jsonl"
    async with RawServer([reply(b"x" * 5000), reply(b"small")]) as server:
        site = await start(to=server.url, record=cassette, max_body=4000)
        assert (await site.post("/a", b""))[2] == b"x" * 5000
        assert (await site.post("/a", b""))[2] == b"small"
        assert (await site.post("/a", b"y" * 5000))[0] == 413
    assert [line["response"]["body"] for line in lines_of(cassette)] == ["small"]
    assert "more than 4,000 bytes was passed on, and not recorded" in site.told[0]
    assert site.running.tally.unwritten == 1


# --- secrets ------------------------------------------------------------------------------------


async def test_secrets_do_not_come_into_a_cassette(start: Start, tmp_path: Path) -> None:
    known, basic, query = "env-secret-value-1", "pass-word-of-basic", "key-in-the-query"
    body = question(f"my key is {known}", api_key="in-the-body-1", stream=True)
    said = f"Wrong key: {KEY}, {known}, {basic}, {query}, "
    torn = said.encode()

    async def tears(request: Request, writer: asyncio.StreamWriter) -> None:
        assert request.headers["authorization"].endswith("=")  # what is sent on is whole
        assert known.encode() in request.body
        assert query in request.path
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n"
        writer.write(head + f"Echo: {KEY}\r\nContent-Length: {len(torn) + 8}\r\n\r\n".encode())
        for place in range(0, len(torn), 7):
            writer.write(torn[place : place + 7])
            await writer.drain()
            await asyncio.sleep(0.002)
        writer.write(b"the end.")
        await writer.drain()

    cassette = tmp_path / "c.jsonl"
    async with RawServer(tears) as server:
        site = await start(to=server.url, record=cassette, secrets=[known])
        headers = {
            "Authorization": "Basic dXNlcjpwYXNzLXdvcmQtb2YtYmFzaWM=",
            "x-goog-api-key": KEY,
            "X-Session": "session-value-9",
        }
        _, _, got = await site.post(f"/v1/x?b=2&key={query}&a=1", body, headers)
    assert got == torn + b"the end."
    text = cassette.read_text()
    for secret in (known, basic, query, KEY, "dXNlcjpw", "session-value-9", "in-the-body-1"):
        assert secret not in text
    line = json.loads(text)
    assert line["request"]["path"] == "/v1/x?a=1&b=2&key=**********"
    mask = "**********"
    joined = "".join(data for _, data in line["response"]["chunks"])
    assert joined == f"Wrong key: {mask}, {mask}, {mask}, {mask}, the end."


@pytest.mark.parametrize("size", [1, 2, 5, 9, 1000])
def test_a_secret_that_is_torn(size: int) -> None:
    masker = Masker(["sécret-one", "other-secret", "sécret-one-and-more"])
    text = "other-secret: a sécret-one, sécret-one-and-more.other-secretother-secret end".encode()
    pieces = [text[place : place + size] for place in range(0, len(text), size)]
    found = pieces_without_secrets(pieces, masker)
    assert len(found) == len(pieces)
    assert b"".join(found) == masker.mask(text.decode()).encode() == masker.mask_bytes(text)
    # What is no part of a secret stays in its piece.
    assert found[-1].endswith(pieces[-1][-3:])


async def test_a_replay_needs_no_key(start: Start, tmp_path: Path) -> None:
    cassette = tmp_path / "c.jsonl"
    await record(start, cassette, [reply(b"ok")], question("hi"))
    site = await start(replay=cassette)
    assert (await site.post(CHAT, question("hi")))[2] == b"ok"


# --- which answer -------------------------------------------------------------------------------


async def test_the_same_request_gets_its_answers_in_order(start: Start, tmp_path: Path) -> None:
    cassette = tmp_path / "c.jsonl"
    same = question("hi")
    reordered = dict(reversed(same.items()))
    spaced = json.dumps(same, indent=2).encode()
    answers = [reply(b"one"), reply(b"two"), reply(b"three")]
    await record(start, cassette, answers, same, question("other"), same)
    for used_up, fourth in (("last", b"three"), ("again", b"one")):
        site = await start(replay=cassette, used_up=used_up)
        found = [(await site.post(CHAT, body))[2] for body in (reordered, spaced, same)]
        assert found == [b"one", b"three", fourth]
        assert (await site.post(CHAT, question("other")))[2] == b"two"
    site = await start(replay=cassette)
    statuses = [(await site.post(CHAT, same)) for _ in range(3)]
    assert [status for status, _, _ in statuses] == [200, 200, 404]
    told = json.loads(statuses[2][2])["error"]["message"]
    assert told == (
        "POST /v1/chat/completions with this body is recorded 2 times, and was asked once more "
        "(--used-up says what to do then)"
    )


async def test_what_is_not_recorded_names_what_is_nearest(start: Start, tmp_path: Path) -> None:
    cassette = tmp_path / "c.jsonl"
    bodies = question("hi", temperature=0), question("x" * 100, temperature=1)
    await record(start, cassette, [reply(b"one")], *bodies)
    site = await start(replay=cassette)
    status, headers, body = await site.post(CHAT, question("ho", temperature=0, top_p=1))
    assert (status, headers["x-should-retry"]) == (404, "false")
    error = json.loads(body)["error"]
    assert error["code"] == "not_recorded"
    assert error["message"].endswith(
        'differs in messages[0].content: recorded "hi", asked "ho"; '
        "top_p: recorded nothing, asked 1"
    )
    _, _, body = await site.post("/v1/chat/completion", {})
    assert (
        "The nearest request is POST /v1/chat/completions" in json.loads(body)["error"]["message"]
    )
    _, _, body = await site.post(CHAT, b"no json")
    assert "recorded JSON, asked no JSON" in json.loads(body)["error"]["message"]
    with pytest.raises(BadRequest, match="is not recorded in"):
        await ask(site.url, "chat")


async def test_record_missing(start: Start, tmp_path: Path) -> None:
    cassette = tmp_path / "new.jsonl"
    async with RawServer([reply(b"one"), reply(b"two"), reply(b"three")]) as server:
        settings = {"to": f"{server.url}/v1", "replay": cassette, "record_missing": True}
        site = await start(**settings)
        assert (await site.post(CHAT, question("a")))[2] == b"one"
        await site.stop()
        site = await start(**settings)
        assert (await site.post(CHAT, question("a")))[2] == b"one"
        assert (await site.post(CHAT, question("b")))[2] == b"two"
        assert (await site.post(CHAT, question("a")))[2] == b"three"  # asked once more
        assert len(server.requests) == 3
        assert site.running.tally.sources == {"replay": 1, "upstream": 2}
    assert [line["response"]["body"] for line in lines_of(cassette)] == ["one", "two", "three"]


async def test_forms_are_recognized_whatever_sets_their_parts_apart(
    start: Start, tmp_path: Path
) -> None:
    def form(boundary: str) -> tuple[bytes, dict[str, str]]:
        part = f'--{boundary}\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
        kind = f"multipart/form-data; boundary={boundary}"
        return f"{part}--{boundary}--\r\n".encode(), {"Content-Type": kind}

    cassette = tmp_path / "c.jsonl"
    async with RawServer([reply(b"one")]) as server:
        site = await start(to=server.url, record=cassette)
        await site.post("/files", *form("xyz-first"))
    replaying = await start(replay=cassette)
    assert (await replaying.post("/files", *form("abc-second")))[2] == b"one"


# --- files --------------------------------------------------------------------------------------


async def test_a_torn_last_line_is_passed_over_and_cut_off(start: Start, tmp_path: Path) -> None:
    cassette = tmp_path / "c.jsonl"
    await record(start, cassette, [reply(b"one")], question("a"))
    whole = cassette.read_bytes()
    cassette.write_bytes(whole + whole[:50])
    site = await start(replay=cassette)
    assert (await site.post(CHAT, question("a")))[2] == b"one"
    site = await record(start, cassette, [reply(b"two")], question("b"))
    assert "the torn last line of an earlier recording was cut off" in site.told[0]
    assert [line["response"]["body"] for line in lines_of(cassette)] == ["one", "two"]
    # A whole line that only lacks its end stays.
    cassette.write_bytes(cassette.read_bytes()[:-1])
    await record(start, cassette, [reply(b"three")], question("c"))
    assert [line["response"]["body"] for line in lines_of(cassette)] == ["one", "two", "three"]


async def test_two_do_not_record_to_one_file(start: Start, tmp_path: Path) -> None:
    cassette = tmp_path / "c.jsonl"
    await start(to="http://127.0.0.1:1", record=cassette)
    with pytest.raises(MusterError, match="another process records to this file"):
        await start(to="http://127.0.0.1:1", record=cassette)


async def test_a_file_that_is_no_cassette_is_left_alone(start: Start, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("my notes")
    with pytest.raises(MusterError, match="this is no cassette"):
        await start(to="http://127.0.0.1:1", record=notes)
    assert notes.read_text() == "my notes"


LINE = {
    "version": 1,
    "at": "",
    "to": "http://x",
    "request": {"method": "POST", "path": "/", "sha256": ""},
    "response": {"status": 200},
}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{}", "missing required field `at`"),
        ("no json", "not a line of a cassette"),
        ("[" * 100_000, "not a line of a cassette"),
        (json.dumps({**LINE, "version": 2}), "<= 1"),
        (json.dumps({**LINE, "response": {"status": 99}}), ">= 200"),
        (json.dumps({**LINE, "response": {"status": 200, "after_ms": -1}}), ">= 0"),
        (json.dumps({**LINE, "response": {"status": 200, "body": {"base64": "?"}}}), "base64"),
        (
            json.dumps({**LINE, "response": {"status": 200, "headers": {"a": "b\r\nc: d"}}}),
            "a header that HTTP does not allow",
        ),
    ],
)
async def test_bad_lines(start: Start, tmp_path: Path, line: str, expected: str) -> None:
    cassette = tmp_path / "c.jsonl"
    cassette.write_text(f"{json.dumps(LINE)}\n{line}\n")
    with pytest.raises(MusterError) as caught:
        await start(replay=cassette)
    assert str(caught.value).startswith(f"{cassette}:2: ")
    assert expected in str(caught.value)


async def test_a_full_disk_stops_nobody(start: Start, tmp_path: Path) -> None:
    async with RawServer([reply(b"one")]) as server:
        site = await start(to=server.url, record=Path("/dev/full"))
        for _ in range(2):
            assert (await site.post("/x", b""))[2] == b"one"
    assert len(site.told) == 1
    assert "/dev/full: cannot record: No space left on device; the proxy goes on" in site.told[0]
    assert site.running.tally.unwritten == 2
