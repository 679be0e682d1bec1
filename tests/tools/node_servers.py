"""MCP servers of npm packages, over HTTP, while a block runs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from llmock import free_port, node_command, wait_for


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
        wait_for(port, process)
        yield port
    finally:
        process.kill()
        process.wait()
