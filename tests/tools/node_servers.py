"""MCP servers of npm packages, over HTTP, while a block runs."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from llmock import node_command

START_SECONDS = 20.0


@contextmanager
def everything(transport: str, port: int | None = None) -> Iterator[int]:
    """`server-everything` with `streamableHttp` (at `/mcp`) or `sse` (at `/sse`); its port."""
    command = node_command("mcp-server-everything")
    port = port or free_port()
    process = subprocess.Popen(
        [command, transport],
        env={**os.environ, "PORT": str(port)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(port, process)
        yield port
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"server-everything did not start (exit code {process.poll()})")
