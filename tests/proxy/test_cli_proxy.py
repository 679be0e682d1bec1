"""The command `muster proxy`: what it prints, how it ends, and what a kill leaves."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from proxy_parts import Start, lines_of, parsed

from muster.cli.main import cli
from muster.errors import MusterError
from raw_server import RawServer, Request, reply


@asynccontextmanager
async def running(
    folder: Path, *arguments: str, **env: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "muster", "proxy", *arguments),
        cwd=folder,
        env={**os.environ, **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(20):
        return (await process.stdout.readline()).decode().strip()


async def post(url: str, body: Any) -> tuple[int, bytes]:
    host, _, path = url.removeprefix("http://").partition("/")
    base = f"/{path}" if path else ""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(host.partition(":")[2]))
    data = json.dumps(body).encode()
    head = f"POST {base}/c HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
    writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    try:
        async with asyncio.timeout(10):
            status, _, got = parsed(await reader.read())
            return status, got
    finally:
        writer.close()


async def refuses(url: str) -> None:
    """Return when nobody listens there any more."""
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", int(url.split(":")[2]))
            except ConnectionRefusedError:
                return
            except ConnectionResetError:
                pass  # it was closed while it had not taken us yet
            else:
                writer.close()
            await asyncio.sleep(0.01)


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, str, str]:
    async with asyncio.timeout(20):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_the_url_the_counts_and_the_secrets_of_the_environment(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("OTHER_API_KEY=value-of-the-file\n")
    (tmp_path / "plan.yaml").write_text("rules:\n  - {name: third, every: 3, status: 503}\n")
    body = {"a": "value-of-the-file", "b": "value-of-the-process"}
    async with (
        RawServer([reply(b"yes")]) as server,
        running(
            tmp_path,
            *("--to", f"{server.url}/v1", "--record", "c.jsonl", "--chaos", "plan.yaml"),
            SOME_TOKEN="value-of-the-process",
        ) as process,
    ):
        url = await line(process)
        assert url.startswith("http://127.0.0.1:")
        assert url.endswith("/v1")
        assert [(await post(url, body))[0] for _ in range(3)] == [200, 200, 503]
        process.send_signal(signal.SIGINT)
        code, out, err = await ended(process)
    assert (code, out) == (0, "")
    assert err.splitlines()[0].endswith("with the faults of plan.yaml; Ctrl-C ends it")
    assert err.splitlines()[1:] == [
        "exchanges: 3 (proxy 1, upstream 2, recorded 2)",
        "injected: 1 × status 503 (third)",
    ]
    assert "value-of" not in (tmp_path / "c.jsonl").read_text()


async def test_json_events(tmp_path: Path) -> None:
    async with (
        RawServer([reply(b"yes")]) as server,
        running(tmp_path, "--to", server.url, "--json") as process,
    ):
        listening = json.loads(await line(process))
        assert listening["event"] == "listening"
        await post(listening["base_url"], {})
        exchange = json.loads(await line(process))
        process.terminate()
        code, out, _ = await ended(process)
    assert exchange.pop("ms") > 0
    assert exchange == {
        "event": "exchange",
        "n": 1,
        "method": "POST",
        "path": "/c",
        "status": 200,
        "source": "upstream",
        "ended": "whole",
        "recorded": False,
        "faults": [],
    }
    summary = json.loads(out)
    assert (code, summary["event"], summary["exchanges"]) == (0, "summary", 1)


async def test_calls_that_are_cut_off_at_the_end(tmp_path: Path) -> None:
    came = asyncio.Event()

    async def waits(request: Request, writer: asyncio.StreamWriter) -> None:
        came.set()
        await asyncio.Event().wait()

    async with (
        RawServer(waits) as server,
        running(tmp_path, "--to", server.url, "--grace", "60") as process,
    ):
        url = await line(process)
        call = asyncio.ensure_future(post(url, {}))
        await came.wait()
        process.terminate()
        await refuses(url)
        assert process.returncode is None  # it waits for the call
        process.terminate()
        code, _, err = await ended(process)
        assert (await call)[0] == 503
    assert code == 143
    assert "exchanges that were cut off: 1" in err


async def test_a_kill_leaves_a_readable_cassette(tmp_path: Path, start: Start) -> None:
    cassette = tmp_path / "c.jsonl"
    text = "x" * 200_000
    async with (
        RawServer([reply({"text": text})]) as server,
        running(tmp_path, "--to", server.url, "--record", "c.jsonl") as process,
    ):
        url = await line(process)
        answered: list[int] = []

        async def client(number: int) -> None:
            for step in range(1000):
                try:
                    status, body = await post(url, {"n": [number, step]})
                except (OSError, ValueError, IndexError):
                    return
                if status == 200 and len(body) > len(text):
                    answered.append(status)
                    if len(answered) == 20:
                        process.kill()

        await asyncio.gather(*(client(number) for number in range(4)))
        assert (await ended(process))[0] == -signal.SIGKILL
    site = await start(replay=cassette)
    shelf = site.running.relay.shelf
    assert shelf is not None
    assert len(shelf) >= 20
    # Going on after the kill is possible, and what was there stays.
    async with RawServer([reply(b"more")]) as server:
        site = await start(to=server.url, record=cassette)
        await site.post("/c", {"n": "more"})
        await site.stop()
    lines = lines_of(cassette)
    assert len(lines) == len(shelf) + 1
    replaying = await start(replay=cassette)
    status, _, body = await replaying.post(lines[0]["request"]["path"], lines[0]["request"]["json"])
    assert (status, json.loads(body)["text"]) == (200, text)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "a proxy needs --to URL"),
        (["--to", "nowhere"], "--to: expected a base URL"),
        (["--to", "http://x", "--chaos", "gone.yaml"], "gone.yaml"),
        (["--replay", "gone.jsonl"], "gone.jsonl: cannot be read: No such file"),
        (["--to", "http://x", "--record", "no/such/folder"], "cannot record here"),
        (["--port", "70000"], "70000"),
    ],
)
def test_bad_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["proxy", *arguments])
    if isinstance(result.exception, MusterError):
        assert result.exception.exit_code == 2
        assert expected in str(result.exception)
    else:
        assert (result.exit_code, expected in result.output) == (2, True)


async def test_a_port_that_is_taken(tmp_path: Path, start: Start) -> None:
    site = await start(to="http://127.0.0.1:1")
    async with running(tmp_path, "--to", "http://x", "--port", str(site.port)) as process:
        code, _, err = await ended(process)
    assert code == 2
    assert err.startswith(f"error: cannot listen on 127.0.0.1:{site.port}: ")
    assert "address already in use" in err.lower()
