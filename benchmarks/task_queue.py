"""How many tasks a second go through a queue: put in, taken, finished; and through a worker.

    python benchmarks/task_queue.py [--tasks N] [--rounds N]

In this process, one task after the other for the queues; for the worker, 16 at a time, with a
provider that answers at once. `two processes` take and finish what is in one file. The median of
the rounds counts.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median

from measure import Row, command_line, folder, tell

from muster.provider import ProviderRequest, ProviderResponse
from muster.queues.base import TaskQueue
from muster.queues.opening import open_queue
from muster.worker.worker import Worker, WorkerSettings

LEAST = 2000


class _AtOnce:
    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        return ProviderResponse("answer")


async def _fill(queue: TaskQueue, tasks: int) -> None:
    for number in range(tasks):
        await queue.submit(f"task {number}")


async def _empty(queue: TaskQueue) -> int:
    done = 0
    while (task := await queue.take(wait=0.0)) is not None:
        await queue.finish(task, "answer")
        done += 1
    return done


async def through(queue: TaskQueue, tasks: int) -> float:
    """Seconds for all: put in, taken, finished."""
    began = time.perf_counter()
    await _fill(queue, tasks)
    assert await _empty(queue) == tasks
    return time.perf_counter() - began


async def by_a_worker(queue: TaskQueue, tasks: int) -> float:
    """Seconds in which a worker does them."""
    await _fill(queue, tasks)
    worker = Worker(queue, _AtOnce(), WorkerSettings(concurrency=16))
    began = time.perf_counter()
    await worker.run(asyncio.Event(), asyncio.Event(), "empty")
    assert worker.tally.done == tasks
    return time.perf_counter() - began


async def by_two_processes(queue: TaskQueue, tasks: int, url: str) -> float:
    """Seconds in which two processes take and finish them; they start together."""
    await _fill(queue, tasks)
    command = [sys.executable, __file__, "--empty", url]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    children = [subprocess.Popen(command, **pipes) for _ in range(2)]
    for child in children:
        child.stdout.readline()  # it is ready
    began = time.perf_counter()
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    done = sum(int(child.communicate(timeout=120)[0]) for child in children)
    assert done == tasks
    return time.perf_counter() - began


async def _one_process(url: str) -> None:
    queue = open_queue(url)
    print("ready", flush=True)
    sys.stdin.readline()
    print(await _empty(queue))
    await queue.aclose()


def measured(url: str, rounds: int, tasks: int, run: Callable[[TaskQueue, str], Awaitable[float]]):
    """Tasks a second, the median of the rounds; each has a queue of its own."""

    async def once(at: str) -> float:
        queue = open_queue(at)
        try:
            return await run(queue, at)
        finally:
            await queue.aclose()

    rates = []
    for _ in range(rounds):
        with folder() as cwd:
            rates.append(tasks / asyncio.run(once(url.replace("{folder}", str(Path(cwd))))))
    return median(rates)


def main() -> None:
    """Measure them all."""
    parser = command_line(__doc__)
    parser.add_argument("--tasks", type=int, default=5000)
    parser.add_argument("--empty", metavar="URL", help="what a second process does")
    options = parser.parse_args()
    if options.empty:
        asyncio.run(_one_process(options.empty))
        return
    tasks, rounds = options.tasks, options.rounds or 5
    file = "sqlite:{folder}/queue.db"
    ways = {
        ("in, taken, finished", "memory"): ("memory:", lambda queue, _: through(queue, tasks)),
        ("in, taken, finished", "sqlite"): (file, lambda queue, _: through(queue, tasks)),
        ("a worker, 16 at a time", "memory"): (
            "memory:",
            lambda queue, _: by_a_worker(queue, tasks),
        ),
        ("a worker, 16 at a time", "sqlite"): (file, lambda queue, _: by_a_worker(queue, tasks)),
        ("two processes", "sqlite"): (file, lambda queue, at: by_two_processes(queue, tasks, at)),
    }
    rows = []
    for (what, name), (url, run) in ways.items():
        rate = measured(url, rounds, tasks, run)
        met = rate >= LEAST if name == "sqlite" else None
        target = f"≥ {LEAST:,} /s" if name == "sqlite" else ""
        rows.append(Row(what, name, rate, "/s", target=target, met=met))
    tell(rows, options)


if __name__ == "__main__":
    main()
