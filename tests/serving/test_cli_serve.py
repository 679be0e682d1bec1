"""The command `muster serve-provider`: its options, its token, its end."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from muster.cli.main import cli
from muster.errors import MusterError

TARGETS = """
targets:
  - name: fast
    provider: mock
    response: hello
  - name: slow
    provider: mock
    delay: 60
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "targets.yaml").write_text(TARGETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MUSTER_SERVE_TOKEN", raising=False)
    return tmp_path


def refused(*arguments: str) -> str:
    result = CliRunner().invoke(cli, ["serve-provider", *arguments])
    if isinstance(result.exception, MusterError):
        assert result.exception.exit_code == 2
        return str(result.exception)
    assert result.exit_code == 2, result.output
    return result.output


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "Missing argument 'TARGET...'"),
        (["fsat"], "fsat"),
        (["fast", "slow"], "the stdio protocol serves one target; --http and --mcp serve several"),
        (["fast", "--http", "1", "--mcp"], "--http and --mcp do not go together"),
        (["fast", "--http", "x"], "--http: expected a port or HOST:PORT, found 'x'"),
        (["fast", "--http", "65536"], "expected a port or HOST:PORT"),
        (["fast", "--mcp-http", ":80"], "--mcp-http: expected a port"),
        (["fast", "--http", "0.0.0.0:0", "--no-token"], "--no-token is for this machine alone"),
        (["fast", "--http", "0", "--token", "short"], "the token must have 8 or more"),
        (["fast", "--http", "0", "--token", "with a space"], "and no spaces"),
        (["fast", "--http", "0", "--targets", "gone.yaml"], "gone.yaml"),
    ],
)
def test_bad_usage(folder: Path, arguments: list[str], expected: str) -> None:
    assert expected in refused(*arguments)


class Running:
    """The command in a process of its own."""

    def __init__(self, folder: Path, *arguments: str, **env: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "muster", "serve-provider", *arguments],
            cwd=folder,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said: list[str] = []
        assert self.process.stderr is not None
        while not (found := re.search(r"http://127.0.0.1:(\d+)", "".join(self.said))):
            line = self.process.stderr.readline()
            assert line, self.said
            self.said.append(line)
        self.url = found[0]
        self.port = int(found[1])

    def ask(self, model: str, token: str | None, timeout: float = 10) -> Any:
        body = {"model": model, "messages": [{"role": "user", "content": "?"}]}
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        request = urllib.request.Request(
            f"{self.url}/v1/chat/completions", json.dumps(body).encode(), headers
        )
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return json.loads(answer.read())["choices"][0]["message"]["content"]

    def signal(self, number: int) -> None:
        """Send it, and wait until it is heard: nobody listens any more."""
        self.process.send_signal(number)
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
            except ConnectionError:
                return
            time.sleep(0.01)

    def end(self, number: int) -> tuple[int, str]:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=20)
        assert out == ""
        return self.process.returncode, err


@pytest.fixture
def start(folder: Path) -> Iterator[Any]:
    running: list[Running] = []

    def begin(*arguments: str, **env: str) -> Running:
        running.append(Running(folder, *arguments, **env))
        return running[-1]

    yield begin
    for each in running:
        if each.process.poll() is None:
            each.process.kill()
        each.process.communicate()


def test_a_token_is_made_and_told(start: Any) -> None:
    running = start("fast", "--http", "0")
    token = running.said[0].removeprefix("token: ").strip()
    assert len(token) == 32
    assert running.said[1] == f"serving fast at {running.url}/v1\n"
    assert running.ask("fast", token) == "hello"
    with pytest.raises(urllib.error.HTTPError, match="401"):
        running.ask("fast", None)
    assert running.end(signal.SIGTERM) == (0, "")


@pytest.mark.parametrize("way", ["option", "variable", "file", "none"])
def test_a_token_of_ones_own(start: Any, folder: Path, way: str) -> None:
    token, arguments, env = "sesame-open", ["fast", "--http", "127.0.0.1:0"], {}
    if way == "option":
        arguments += ["--token", token]
    elif way == "variable":
        env = {"MUSTER_SERVE_TOKEN": token}
    elif way == "file":
        (folder / ".env").write_text(f"MUSTER_SERVE_TOKEN={token}\n")
    else:
        arguments += ["--no-token"]
    running = start(*arguments, **env)
    assert token not in "".join(running.said)
    assert running.ask("fast", None if way == "none" else token) == "hello"
    assert running.end(signal.SIGINT) == (0, "")


def test_the_second_signal_cuts_calls_off(start: Any) -> None:
    running = start("fast", "slow", "--http", "0", "--no-token")
    with pytest.raises(TimeoutError):
        running.ask("slow", None, timeout=0.3)
    body = b'{"model": "slow", "messages": [{"role": "user", "content": "?"}]}'
    head = f"Host: localhost\r\nExpect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as asking:
        asking.sendall(b"POST /v1/chat/completions HTTP/1.1\r\n" + head.encode())
        assert asking.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"  # the request is under way
        asking.sendall(body)
        running.signal(signal.SIGTERM)
        code, err = running.end(signal.SIGTERM)
        answer = asking.makefile("rb").read()
    assert (code, err) == (143, "calls that were cut off: 1\n")
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"the server is being stopped" in answer
