"""`llmock`, a model server that others wrote (npm `@copilotkit/aimock`), on loopback.

    with llmock([{"match": {}, "response": {"content": "hi"}}]) as url: ...

It is installed by `tests/node/package-lock.json` at the first use; without Node, or when the
installation fails, the test is skipped with the reason.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

__all__ = ("free_port", "journal", "llmock", "node_command", "wait_for")

NODE = Path(__file__).parent / "node"
START_SECONDS = 20.0


def node_command(name: str) -> Path:
    """The command `name` of the npm packages in `tests/node`, installed if need be; or a skip."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("Node and npm are not installed")
    command = NODE / "node_modules" / ".bin" / name
    with (NODE / "package-lock.json").open("rb") as lock:
        # Several pytest workers get here at once; the first one installs.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not command.exists():
            done = subprocess.run(
                ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
                cwd=NODE,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                pytest.skip(f"npm ci failed in {NODE}: {done.stderr.strip()[-300:]}")
    return command


@contextmanager
def llmock(fixtures: list[dict[str, Any]], *options: str) -> Iterator[str]:
    """The server's URL, without a path, while the block runs."""
    command = node_command("llmock")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "fixtures.json").write_text(json.dumps({"fixtures": fixtures}))
        port = free_port()
        process = subprocess.Popen(
            [command, "-p", str(port), "-h", "127.0.0.1", "-f", folder, *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
        )
        try:
            wait_for(port, process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def journal(url: str) -> list[dict[str, Any]]:
    """The requests that the server at `url` has seen, oldest first."""
    with urllib.request.urlopen(f"{url}/__aimock/journal", timeout=10) as answer:
        seen = json.load(answer)
    return seen if isinstance(seen, list) else seen.get("entries", seen)


def free_port() -> int:
    """A port on loopback that nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Return when the server answers at `port`; it must do so before its process ends."""
    end = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"{process.args} did not start (exit code {process.poll()})")
