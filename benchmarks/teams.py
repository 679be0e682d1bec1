"""What the engine of teams adds: a long chain, wide teams, MCP tools called at once, templates.

    python benchmarks/teams.py [--rounds 5]

Every run is a real one: a manifest is read, the mock answers, and the journal is on. Reading the
manifest and starting the MCP server are not in the times.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure import Row, command_line, folder, tell
from templates import SIMPLE, per_second

from muster.cli.run import COLLECT_AFTER
from muster.teams.launch import launch
from muster.teams.preparing import LaunchOptions, prepare
from muster.teams.template import Template
from muster.teams.watching import RunEvent

CHAIN = 200
WIDE = 1000
PARALLEL = 100
SECONDS = 0.02
IDEAL = WIDE / PARALLEL * SECONDS
CALLS = 10

_HEAD = """\
apiVersion: muster.dev/v1alpha1
kind: Team
metadata: {name: bench}
spec:
  roles:
    - name: worker
      model: mock-1
      systemPrompt: Work.
      limits: {maxConcurrentTasks: 100}
"""

_SERVER = """\
import asyncio

from mcp.server.mcpserver import MCPServer

server = MCPServer("slow")


@server.tool()
async def wait(number: int) -> str:
    await asyncio.sleep(0.1)
    return f"done {number}"


server.run("stdio")
"""


def chain() -> str:
    """Each step needs the one before it, and is told what it said."""
    steps = ["    - {name: s0, role: worker, inputs: {task: begin}}"]
    steps += [
        f"    - {{name: s{n}, role: worker, dependsOn: [s{n - 1}],\n"
        f"       inputs: {{task: '{{{{ .steps.s{n - 1}.output }}}}'}}}}"
        for n in range(1, CHAIN)
    ]
    return _HEAD + "  pipeline:\n" + "\n".join(steps) + "\n"


def wide() -> str:
    """Steps that need nothing; the agent takes a hundred tasks at a time."""
    steps = [f"    - {{name: s{n}, role: worker, inputs: {{task: go}}}}" for n in range(WIDE)]
    return _HEAD + "  pipeline:\n" + "\n".join(steps) + "\n"


def items() -> str:
    """One step with an item for each."""
    numbers = ", ".join(map(str, range(WIDE)))
    return _HEAD + (
        "  pipeline:\n"
        "    - role: worker\n"
        f"      forEach: {{items: '[{numbers}]', maxParallel: {PARALLEL}}}\n"
        "      inputs: {task: '{{ .item }}'}\n"
    )


def tools(server: Path) -> str:
    """One agent with one MCP server."""
    command = f"[{sys.executable}, {server}]"
    return _HEAD + (
        "      mcpServers:\n"
        f"        - {{name: slow, command: {command}}}\n"
        "  pipeline:\n"
        "    - {role: worker, inputs: {task: go}}\n"
    )


async def run(manifest: Path, mock: dict[str, Any], heard: Callable[[RunEvent], None]) -> float:
    """Seconds of the run itself, as the engine counts them."""
    prepared = prepare(LaunchOptions(file=manifest, provider="mock", mock=mock))
    gc.freeze()  # these two as the command `muster run` does
    gc.set_threshold(COLLECT_AFTER)
    launched = await launch(prepared, on_event=heard)
    if launched.outcome.reason != "Succeeded":
        raise SystemExit(f"{manifest.name}: {launched.outcome.error}")
    return launched.outcome.seconds


def ignore(_: RunEvent) -> None:
    """Somebody listens, as `muster run` does."""


def median(rounds: int, manifest: Path, mock: dict[str, Any]) -> float:
    """Of the rounds; one before them is not counted. Each finds the memory as the first does: what
    the one before has left is not collected within it."""
    found = []
    for _ in range(rounds + 1):
        gc.collect()
        found.append(asyncio.run(run(manifest, mock, ignore)))
    return statistics.median(found[1:])


def tool_seconds(manifest: Path) -> float:
    """From the first call of the turn to the last result."""
    times: list[float] = []

    def hear(event: RunEvent) -> None:
        if event.kind in ("tool_call", "tool_result"):
            times.append(time.perf_counter())
        if event.kind == "tool_result" and "done" not in event.text:
            raise SystemExit(event.text)

    calls = [{"tool": "slow__wait", "input": {"number": number}} for number in range(CALLS)]
    mock = {"replies": [{"turn": 1, "tool_calls": calls}], "default": "all done"}
    asyncio.run(run(manifest, mock, hear))
    if len(times) != 2 * CALLS:
        raise SystemExit(f"{len(times)} events of {CALLS} calls")
    return times[-1] - times[0]


def main() -> None:
    """Measure all of it."""
    options = command_line(__doc__).parse_args()
    rounds = options.rounds or 5
    instant = {"default": "ok"}
    slow = {"default": {"text": "ok", "delay": SECONDS}}
    rows = []
    with folder() as place:
        for name, text in (("chain", chain()), ("wide", wide()), ("items", items())):
            (place / f"{name}.yaml").write_text(text, encoding="utf-8")
        each = median(rounds, place / "chain.yaml", instant) / CHAIN * 1000
        what = f"a step of a chain of {CHAIN}"
        rows.append(Row(what, "muster", each, "ms", target="≤ 2 ms", met=each <= 2))
        for name, shown in (("wide", "steps"), ("items", "items of one step")):
            took = median(rounds, place / f"{name}.yaml", slow)
            what = f"{WIDE:,} {shown} of 20 ms, {PARALLEL} at a time"
            ratio = took / IDEAL
            rows.append(Row(what, "muster", took, "s", ratio, "≤ 1.3 × ideal", ratio <= 1.3))
        server = place / "slow_server.py"
        server.write_text(_SERVER, encoding="utf-8")
        (place / "tools.yaml").write_text(tools(server), encoding="utf-8")
        took = statistics.median(tool_seconds(place / "tools.yaml") for _ in range(3))
        what = f"{CALLS} MCP calls of 100 ms in one turn"
        rows.append(Row(what, "muster", took, "s", target="≤ 0.3 s", met=took <= 0.3))
    for name, source in SIMPLE.items():
        rate = per_second(Template.compile(source), 0.5)
        what = f"template, {name}"
        target = "≥ 50,000 /s"
        rows.append(Row(what, "muster", rate, "/s", target=target, met=rate >= 50_000))
    tell(rows, options)


if __name__ == "__main__":
    main()
