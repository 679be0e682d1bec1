"""What a call to a `stdio` child costs, beside a process that is started for each call.

    python benchmarks/stdio.py [--calls 20000] [--concurrency 64] [--rounds 3] [--peers DIR]

The child is Python, with the helper of `examples/stdio/python`, and says what it is told. Measured
are pipelined calls (`--concurrency` at a time), and single ones after one another. Beside it, in
turns: `python -c` and `sh -c`, started for each call as fast as `os.posix_spawn` does it, two at a
time where calls are pipelined. Shown are medians; the ratio is to a spawned Python.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from measure import Row, command_line, folder, tell

from muster.provider import ProviderRequest
from muster.providers.stdio import StdioProvider
from muster.target import ResolvedTarget

HELPER = Path(__file__).parents[1] / "examples" / "stdio" / "python"
CHILD = f"""
import sys
sys.path.insert(0, {str(HELPER)!r})
from muster_stdio import serve

async def answer(call):
    return call.question

serve(answer)
"""
SPAWNED = {
    "spawned python": [sys.executable, "-c", "import sys; sys.stdout.write('x\\n')"],
    "spawned sh -c": ["/bin/sh", "-c", "echo x"],
}
SPAWNS = {"spawned python": 40, "spawned sh -c": 300}
AT_ONCE = 2


# --- the child ------------------------------------------------------------------------------------


async def ask(provider: StdioProvider, calls: int, concurrency: int) -> list[float]:
    """The seconds of each call."""
    numbers = iter(range(calls))
    times: list[float] = []

    async def work() -> None:
        for number in numbers:
            question = f"question {number}"
            begun = time.perf_counter()
            response = await provider.invoke(ProviderRequest(question=question))
            times.append(time.perf_counter() - begun)
            assert response.text == question

    await asyncio.gather(*(work() for _ in range(concurrency)))
    return times


async def of_child(script: Path, calls: int, concurrency: int) -> tuple[float, float, float]:
    """Calls a second, our own CPU seconds a call, and the median of a single call."""
    config = {"command": [sys.executable, str(script)]}
    provider = StdioProvider(ResolvedTarget(name="bench", provider="stdio", config=config))
    try:
        await ask(provider, 100, 1)
        begun, cpu = time.perf_counter(), time.process_time()
        await ask(provider, calls, concurrency)
        cpu = (time.process_time() - cpu) / calls
        rate = calls / (time.perf_counter() - begun)
        single = statistics.median(await ask(provider, max(100, calls // 20), 1))
    finally:
        await provider.aclose()
    return rate, cpu, single


# --- a process for each call ----------------------------------------------------------------------


def spawn(argv: list[str], out: int) -> int:
    return os.posix_spawn(argv[0], argv, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, out, 1)])


def of_processes(argv: list[str], count: int) -> tuple[float, float]:
    """Calls a second with two at a time, and the median of one alone; the output is read."""
    reading, writing = os.pipe()
    live: set[int] = set()
    started = 0
    begun = time.perf_counter()
    while started < count or live:
        while started < count and len(live) < AT_ONCE:
            live.add(spawn(argv, writing))
            started += 1
        live.discard(os.wait()[0])
        assert os.read(reading, 2) == b"x\n"
    rate = count / (time.perf_counter() - begun)
    times = []
    for _ in range(count // 4):
        begun = time.perf_counter()
        os.waitpid(spawn(argv, writing), 0)
        assert os.read(reading, 2) == b"x\n"
        times.append(time.perf_counter() - begun)
    os.close(reading)
    os.close(writing)
    return rate, statistics.median(times)


# --- what came of it ------------------------------------------------------------------------------


def rows(found: dict[str, list[tuple[float, ...]]], concurrency: int) -> list[Row]:
    def median(name: str, place: int) -> float:
        return statistics.median(figures[place] for figures in found[name])

    def compared(what: str, unit: str, place: Callable[[str], int], scale: float) -> list[Row]:
        base = median("spawned python", place("spawned python"))
        made = []
        for name in found:
            value = median(name, place(name))
            target, met = "", None
            if name == "muster":
                met = value >= 10_000 if unit == "/s" else value * scale < 0.3
                target = "≥ 10,000" if unit == "/s" else "< 0.3 ms"
            made.append(Row(what, name, value * scale, unit, value / base, target, met))
        return made

    cpu = median("muster", 1)
    return [
        *compared(f"calls a second, {concurrency} at a time", "/s", lambda _: 0, 1),
        *compared("one call after the other, p50", "ms", lambda n: 2 if n == "muster" else 1, 1e3),
        Row("CPU of a call, the child's aside", "muster", cpu * 1e6, "µs"),
    ]


def main() -> None:
    """Measure in turns, and print."""
    parser: argparse.ArgumentParser = command_line(__doc__)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--concurrency", type=int, default=64)
    options = parser.parse_args()
    found: dict[str, list[tuple[float, ...]]] = {"muster": [], **{name: [] for name in SPAWNED}}
    with folder() as place:
        script = place / "child.py"
        script.write_text(CHILD, encoding="utf-8")
        for _ in range(options.rounds or 3):
            for name, argv in SPAWNED.items():
                found[name].append(of_processes(argv, SPAWNS[name]))
            figures = asyncio.run(of_child(script, options.calls, options.concurrency))
            found["muster"].append(figures)
    tell(rows(found, options.concurrency), options)


if __name__ == "__main__":
    main()
