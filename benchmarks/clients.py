"""The `openai` and `anthropic` providers beside aiohttp, the official SDKs and other libraries.

    python benchmarks/run.py --only clients --peers DIR      # installs the others, then runs this
    python benchmarks/clients.py [--peers DIR] [--rounds 3] [--seconds 1] [--integrity 1000]

A server on loopback (`model_server.py`) is one process, every contender another. All of them make
the same calls, one after the other, `--rounds` times: an answer, a stream, and an answer after one
call of a tool, 1, 16 and 64 at a time, each for `--seconds`. Shown are medians, with the ratio to
bare aiohttp. Then each meets streams that the server ends early, and has its calls cancelled at
random moments, `--integrity` times each.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import model_server
from measure import PYTHON, Row, command_line, environment, tell
from peers.install import client_python
from peers.model_clients import WIRES

WORKER = Path(__file__).with_name("client_worker.py")
DELTAS = 100
KINDS = ("plain", "stream", "tool")
CONCURRENCY = (1, 16, 64)
OURS, BARE = "muster", "aiohttp"
TIMES_FASTEST = 4.0
TIMES_BARE_CPU = 1.8
INSTALLED_AS = {
    "openai SDK": "openai",
    "openai SDK, aiohttp": "openai",
    "anthropic SDK": "anthropic",
    "LiteLLM": "litellm",
    "any-llm": "any-llm-sdk",
    "PydanticAI": "pydantic-ai-slim",
    "openai-agents": "openai-agents",
    "LangChain": "langchain-core",
}

Key = tuple[str, int]
"""Of a measurement: the kind of call, and how many at a time."""


class Worker:
    """A contender's process."""

    def __init__(self, python: str, wire: str, name: str, url: str) -> None:
        self.name = name
        self.found: dict[Key, list[dict[str, Any]]] = {}
        self.process = subprocess.Popen(
            [python, str(WORKER), wire, name, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )

    def ask(self, do: str, **order: Any) -> dict[str, Any]:
        """Have it do something, and wait until it is done."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": do, **order}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended amid {do} {order}")
        found: dict[str, Any] = json.loads(line)
        return found

    def median(self, key: Key, what: str) -> float:
        return statistics.median(found[what] for found in self.found[key])


@contextmanager
def workers(wire: str, url: str, peers: Path | None) -> Iterator[list[Worker]]:
    """A process for each contender that is there."""
    started: list[Worker] = []
    try:
        for name in WIRES[wire]:
            python = PYTHON
            if name in INSTALLED_AS:
                if peers is None:
                    continue
                python = str(client_python(peers, INSTALLED_AS[name]))
                if not Path(python).exists():
                    print(f"{name}: not measured, it is not installed", file=sys.stderr)
                    continue
            started.append(Worker(python, wire, name, url))
        yield started
    finally:
        for worker in started:
            worker.process.kill()
            worker.process.communicate()


# --- speed ----------------------------------------------------------------------------------------


def race(contenders: Sequence[Worker], rounds: int, seconds: float) -> None:
    """All measurements, each contender's turn after the other's."""
    for number in range(rounds):
        for kind in KINDS:
            for concurrency in CONCURRENCY:
                for worker in contenders:
                    order = {"kind": kind, "concurrency": concurrency, "deltas": DELTAS}
                    found = worker.ask("measure", seconds=seconds, **order)
                    worker.found.setdefault((kind, concurrency), []).append(found)
        print(f"  round {number + 1} of {rounds}", file=sys.stderr)


def speed_rows(wire: str, contenders: Sequence[Worker]) -> list[Row]:
    """Calls a second, CPU of a call, time to the first token."""
    rows: list[Row] = []
    for kind in KINDS:
        for concurrency in CONCURRENCY:
            title = f"{wire}, {kind}, {concurrency} at a time"
            key = (kind, concurrency)
            rows += _rates(f"{title}: calls/s", contenders, key)
            rows += _cpu(f"{title}: CPU", contenders, key)
            if kind == "stream":
                rows += _first(f"{title}: first token", contenders, key)
    return rows


def _rates(title: str, contenders: Sequence[Worker], key: Key) -> list[Row]:
    """Here a higher ratio is a better one."""
    rates = {worker.name: worker.median(key, "rate") for worker in contenders}
    libraries = {name: rate for name, rate in rates.items() if name not in (OURS, BARE)}
    rows = []
    for name, rate in rates.items():
        target, met = "", None
        if name == OURS and libraries:
            fastest = max(libraries, key=lambda n: libraries[n])
            times = rate / libraries[fastest]
            target = f"≥ {TIMES_FASTEST:g} × {fastest}: {times:.1f} ×"
            met = times >= TIMES_FASTEST
        rows.append(Row(title, name, rate, "/s", rate / rates[BARE], target, met))
    return rows


def _cpu(title: str, contenders: Sequence[Worker], key: Key) -> list[Row]:
    seconds = {worker.name: worker.median(key, "cpu") for worker in contenders}
    rows = []
    for name, cpu in seconds.items():
        ratio = cpu / seconds[BARE]
        target, met = "", None
        if name == OURS:
            target, met = f"≤ {TIMES_BARE_CPU:g} × aiohttp", ratio <= TIMES_BARE_CPU
        rows.append(Row(title, name, cpu * 1e6, "µs", ratio, target, met))
    return rows


def _first(title: str, contenders: Sequence[Worker], key: Key) -> list[Row]:
    times = {worker.name: worker.median(key, "first") for worker in contenders}
    return [
        Row(title, name, seconds * 1e3, "ms", seconds / times[BARE])
        for name, seconds in times.items()
    ]


# --- integrity ------------------------------------------------------------------------------------


def integrity_rows(wire: str, contenders: Sequence[Worker], calls: int) -> list[Row]:
    """What passes for whole, and what a cancellation leaves. Zero is asked of ours."""
    titles = {
        "silent": "cut off, taken for whole",
        "claimed": "cut off, with a finish reason that was never sent",
        "swallowed": "cancelled, not ended by it",
        "tasks": "cancelled, tasks that stay",
        "connections": "cancelled, connections that stay",
    }
    found = {
        worker.name: worker.ask("cut", calls=calls) | worker.ask("cancel", calls=calls)
        for worker in contenders
    }
    rows = []
    for what, title in titles.items():
        for name, counts in found.items():
            count: int = counts[what]
            target, met = ("0", count == 0) if name == OURS else ("", None)
            row = Row(f"{wire}, {title}: of {calls:,}", name, count, "", None, target, met)
            rows.append(row)
    return rows


def show_tables(rows: Sequence[Row]) -> None:
    """A table for each API and what was measured, contenders side by side; then what was missed."""
    tables: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        what, _, measured = row.what.rpartition(": ")
        wire, _, label = what.partition(", ")
        tables.setdefault(f"{wire}, {measured}", {}).setdefault(label, []).append(row)
    for title, lines in tables.items():
        names = [row.contender for row in next(iter(lines.values()))]
        unit = next(iter(lines.values()))[0].unit
        head = f"{title}, {unit}" if unit in ("µs", "ms") else title
        print(f"\n| {head} | {' | '.join(names)} | target |")
        print("| --- " * (len(names) + 2) + "|")
        for label, line in lines.items():
            values = " | ".join(_shown(row) for row in line)
            ours = next(row for row in line if row.contender == OURS)
            verdict = "" if ours.met is None else ", met" if ours.met else ", MISSED"
            print(f"| {label} | {values} | {ours.target}{verdict} |")


def _shown(row: Row) -> str:
    value = f"{row.value:,.0f}" if row.value >= 10 or not row.unit else f"{row.value:.2f}"
    return value if row.ratio is None else f"{value} ({row.ratio:.2f})"


def main() -> None:
    """Start the server and, for each wire, the contenders; measure; end them."""
    parser: argparse.ArgumentParser = command_line(__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="of one measurement")
    parser.add_argument("--integrity", type=int, default=1000, help="calls cut off, and cancelled")
    parser.add_argument("--wire", choices=WIRES, action="append", help="only this API")
    options = parser.parse_args()
    peers = options.peers.resolve() if options.peers is not None else None
    rows: list[Row] = []
    with model_server.running(DELTAS) as url:
        for wire in options.wire or WIRES:
            print(f"  {wire}", file=sys.stderr)
            with workers(wire, url, peers) as contenders:
                race(contenders, options.rounds or 3, options.seconds)
                rows += speed_rows(wire, contenders)
                rows += integrity_rows(wire, contenders, options.integrity)
    if options.json:
        tell(rows, options)
    else:
        show_tables(rows)


if __name__ == "__main__":
    main()
