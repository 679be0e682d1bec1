"""A small MCP server over stdio that misbehaves as it is told: `rogue_server.py MODE`.

No library is used, so that it starts at once and can break every rule.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

MODE = sys.argv[1]
PIDS = Path(sys.argv[2]) if len(sys.argv) > 2 else None
LOCK = threading.Lock()


def tell_pid(pid: int) -> None:
    if PIDS is not None:
        with PIDS.open("a") as file:
            file.write(f"{pid}\n")


def send(message: dict[str, Any]) -> None:
    with LOCK:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()


def answer(request: dict[str, Any], result: dict[str, Any]) -> None:
    send({"jsonrpc": "2.0", "id": request["id"], "result": result})


def text(value: str, **more: Any) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": value}], **more}


def tool(name: str) -> dict[str, Any]:
    return {"name": name, "description": f"The tool {name}.", "inputSchema": {"type": "object"}}


def listed(params: dict[str, Any]) -> dict[str, Any]:
    if MODE != "pages":
        return {"tools": [tool("go"), tool("other")]}
    page = int(params.get("cursor") or 0)
    more = {"nextCursor": str(page + 1)} if page < 2 else {}
    return {"tools": [tool(f"page-{page}")], **more}


def call(request: dict[str, Any]) -> None:
    arguments = request["params"].get("arguments") or {}
    if MODE == "dies":
        print("Traceback: the disk is on fire", file=sys.stderr, flush=True)
        os._exit(7)
    if MODE == "dies-once" and not Path(arguments["marker"]).exists():
        Path(arguments["marker"]).touch()
        os._exit(1)
    if MODE == "dies-but-a-child-holds-the-pipe":
        child = subprocess.Popen(["sleep", "60"])
        tell_pid(child.pid)
        os._exit(9)
    if MODE == "hangs":
        return
    if MODE == "closes-output":
        os.close(1)
        time.sleep(60)
    if MODE == "huge":
        answer(request, text("x" * 50_000_000))
    elif MODE == "binary":
        image = {"type": "image", "mimeType": "image/png", "data": "AAAA" * 4115}
        answer(request, {"content": [image]})
    elif MODE == "nul":
        answer(request, text("\x7fELF\x00\x01\x02"))
    elif MODE == "structured":
        answer(request, {"content": [], "structuredContent": {"a": [1, 2]}})
    elif MODE == "is-error":
        answer(request, text("the well is dry", isError=True))
    elif MODE == "rpc-error":
        error = {"code": -32602, "message": "no such bucket"}
        send({"jsonrpc": "2.0", "id": request["id"], "error": error})
    elif MODE == "slow":
        time.sleep(arguments.get("seconds", 0.1))
        answer(request, text("done"))
    elif MODE == "environment":
        answer(request, text(json.dumps(dict(os.environ))))
    elif MODE == "chatty":
        print("Starting the job, this is no JSON", flush=True)
        answer(request, text("done"))
    else:
        answer(request, text(json.dumps(arguments)))


def main() -> None:
    tell_pid(os.getpid())
    if MODE == "child":
        tell_pid(subprocess.Popen(["sleep", "60"]).pid)
    if MODE == "mute":
        print("waiting for the database", file=sys.stderr, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        method = request.get("method")
        if MODE == "mute" or "id" not in request:
            continue
        if method == "initialize":
            version = request["params"]["protocolVersion"]
            answer(
                request,
                {
                    "protocolVersion": version,
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "rogue", "version": "1"},
                },
            )
        elif method == "tools/list":
            answer(request, listed(request.get("params") or {}))
        elif method == "tools/call":
            threading.Thread(target=call, args=(request,), daemon=True).start()
    if MODE == "ignores-eof":
        time.sleep(60)


main()
