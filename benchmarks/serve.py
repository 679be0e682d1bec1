"""What `muster serve-provider --http` answers a second, beside a bare aiohttp handler.

    python benchmarks/serve.py [--requests 6000] [--concurrency 64] [--rounds 3]

Two servers, each a process on loopback: `muster serve-provider` with a mock behind it, and an
aiohttp handler that parses the body, looks at the token and answers with the same fields. This
process is the client: sockets that write a request that was made before, and look for the end of
the answer, so that what it costs is small. The servers are asked in turns; shown are the medians
of requests a second, and of the server's CPU a request.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from measure import MUSTER, PYTHON, Row, command_line, environment, folder, tell

TOKEN = "token-of-the-benchmark"
TARGETS = """\
targets:
  - name: mock
    provider: mock
    response: Hello! How can I help you today?
    estimate_usage: true
"""
BARE = """\
import asyncio, json, sys, time, uuid
from aiohttp import web

async def handle(request):
    if request.headers.get("Authorization") != "Bearer " + sys.argv[2]:
        return web.json_response({"error": "no"}, status=401)
    given = await request.json()
    text = "Hello! How can I help you today?"
    head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time())}
    head["model"] = given["model"]
    usage = {"prompt_tokens": 2, "completion_tokens": 8, "total_tokens": 10}
    if not given.get("stream"):
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        told = {**head, "object": "chat.completion", "choices": [choice], "usage": usage}
        return web.json_response(told)
    answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await answer.prepare(request)
    head["object"] = "chat.completion.chunk"
    for delta, reason in (({"role": "assistant"}, None), ({"content": text}, None), ({}, "stop")):
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        row = {**head, "choices": [choice]}
        await answer.write(b"data: " + json.dumps(row).encode() + b"\\n\\n")
    await answer.write(b"data: [DONE]\\n\\n")
    return answer

async def main():
    app = web.Application()
    app.router.add_post("/v1/chat/completions", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(sys.argv[1])).start()
    await asyncio.Event().wait()

asyncio.run(main())
"""
BARE_NAME, OURS = "bare aiohttp", "muster"
A_SECOND = 2000


# --- the servers --------------------------------------------------------------------------------


@contextlib.contextmanager
def servers(where: Path) -> Iterator[dict[str, tuple[int, int]]]:
    """Both, by name: port and process id."""
    (where / "targets.yaml").write_text(TARGETS)
    (where / "bare.py").write_text(BARE)
    env = environment() | {"MUSTER_SERVE_TOKEN": TOKEN}
    commands = {
        BARE_NAME: [PYTHON, "bare.py", "{port}", TOKEN],
        OURS: [MUSTER, "serve-provider", "mock", "--http", "{port}"],
    }
    running: dict[str, tuple[int, subprocess.Popen[bytes]]] = {}
    try:
        for name, argv in commands.items():
            port = free_port()
            parts = [part.replace("{port}", str(port)) for part in argv]
            process = subprocess.Popen(parts, cwd=where, env=env, stderr=subprocess.DEVNULL)
            running[name] = port, process
        for port, _ in running.values():
            wait_for(port)
        yield {name: (port, process.pid) for name, (port, process) in running.items()}
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.wait(timeout=10)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def wait_for(port: int) -> None:
    end = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > end:
                raise SystemExit("a server does not start") from None
            time.sleep(0.05)
        else:
            return


def cpu_of(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- the client ---------------------------------------------------------------------------------


def request_of(stream: bool) -> bytes:
    """The bytes of a request."""
    messages = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "hello"},
    ]
    body = json.dumps({"model": "mock", "messages": messages, "stream": stream}).encode()
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}"
        f"\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


class _Client(asyncio.Protocol):
    """One connection: asks again as soon as the answer is whole."""

    def __init__(self, load: _Load) -> None:
        self.load = load
        self.buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        if self.load.left <= 0:
            self.transport.close()
            return
        self.load.left -= 1
        self.transport.write(self.load.request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not self.load.is_whole(self.buffer):
            return
        assert self.buffer.startswith(b"HTTP/1.1 200"), bytes(self.buffer[:500])
        assert b"How can I help" in self.buffer
        self.buffer.clear()
        self.load.done += 1
        self.ask()

    def connection_lost(self, exc: Exception | None) -> None:
        self.load.ended(exc)


class _Load:
    """So many requests over so many connections."""

    def __init__(self, requests: int, connections: int, *, stream: bool) -> None:
        self.left = requests
        self.done = 0
        self.open = connections
        self.request = request_of(stream)
        self.stream = stream
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def is_whole(self, buffer: bytearray) -> bool:
        if self.stream:
            return buffer.endswith(b"0\r\n\r\n")
        head, found, body = bytes(buffer).partition(b"\r\n\r\n")
        if not found:
            return False
        length = head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0]
        return len(body) >= int(length)

    def ended(self, error: Exception | None) -> None:
        self.open -= 1
        if not self.open and not self.over.done():
            self.over.set_result(None)
        if error is not None and not self.over.done():
            self.over.set_exception(error)


async def load(port: int, requests: int, connections: int, *, stream: bool) -> float:
    """Seconds that they took."""
    loop = asyncio.get_running_loop()
    made = _Load(requests, connections, stream=stream)
    start = time.perf_counter()
    for _ in range(connections):
        await loop.create_connection(lambda: _Client(made), "127.0.0.1", port)
    async with asyncio.timeout(300):
        await made.over
    assert made.done == requests, made.done
    return time.perf_counter() - start


def rows(options: argparse.Namespace) -> list[Row]:
    """Ask both, in turns."""
    found: list[Row] = []
    with folder() as where, servers(where) as running:
        for stream in (False, True):
            rates: dict[str, list[float]] = {name: [] for name in running}
            cpu: dict[str, list[float]] = {name: [] for name in running}
            for number in range((options.rounds or 3) + 1):
                for name, (port, pid) in running.items():
                    requests = options.requests if number else options.requests // 10
                    before = cpu_of(pid)
                    took = asyncio.run(load(port, requests, options.concurrency, stream=stream))
                    if number:  # the first is for warming up
                        rates[name].append(requests / took)
                        cpu[name].append((cpu_of(pid) - before) / requests * 1e6)
            what = "streamed answers" if stream else "answers"
            found += rate_rows(f"{what} a second", rates, target=None if stream else A_SECOND)
            found += cpu_rows(f"server's CPU of {what}", cpu)
    return found


def rate_rows(what: str, found: dict[str, list[float]], target: int | None) -> list[Row]:
    """Requests a second; here a higher ratio is a better one."""
    bare = statistics.median(found[BARE_NAME])
    made = []
    for name, rates in found.items():
        value = statistics.median(rates)
        told, met = "", None
        if name == OURS and target is not None:
            told, met = f"≥ {target:,}/s", value >= target
        made.append(Row(what, name, value, "/s", value / bare, told, met))
    return made


def cpu_rows(what: str, found: dict[str, list[float]]) -> list[Row]:
    """Microseconds a request."""
    bare = statistics.median(found[BARE_NAME])
    return [
        Row(what, name, statistics.median(cpu), "µs", statistics.median(cpu) / bare)
        for name, cpu in found.items()
    ]


def main() -> None:
    """Start the servers, ask them, end them."""
    parser = command_line(__doc__)
    parser.add_argument("--requests", type=int, default=6000)
    parser.add_argument("--concurrency", type=int, default=64)
    options = parser.parse_args()
    tell(rows(options), options)


if __name__ == "__main__":
    main()
