"""One contender of `clients.py`, in a process of its own.

    python client_worker.py WIRE NAME URL

Reads commands from stdin and answers each on stdout, one JSON object a line: `measure` (a kind of
call, so many at a time, for so many seconds), `cut` and `cancel` (see `integrity`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import statistics
import sys
import time
import urllib.request
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

from model_server import ANSWER, delta_text
from peers.model_clients import Client, client

SEED = 20_261_121
AT_A_TIME = 16
"""For the integrity of calls, where speed is not asked for."""
SETTLE_SECONDS = 2.0
"""How long a cancelled call may take to end, and its connection to go."""

Call = Callable[[], Awaitable[None]]


# --- speed ----------------------------------------------------------------------------------------


async def measure(url: str, wire: str, name: str, order: dict[str, Any]) -> dict[str, Any]:
    """Calls a second, CPU seconds of this process a call, and seconds to the first text."""
    contender = client(wire, name, url)
    first: list[float] = []
    call = _calls(contender, order["deltas"], first)[order["kind"]]
    concurrency: int = order["concurrency"]
    # The connections are made and the caches are warm before the clock is started.
    await asyncio.gather(*(call() for _ in range(concurrency)))
    first.clear()
    done = 0
    begun, cpu = time.perf_counter(), time.process_time()
    until = begun + order["seconds"]

    async def work() -> None:
        nonlocal done
        while time.perf_counter() < until:
            await call()
            done += 1

    await asyncio.gather(*(work() for _ in range(concurrency)))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - begun
    return {
        "rate": done / wall,
        "cpu": cpu / done,
        "first": statistics.median(first) if first else None,
    }


def _calls(contender: Client, deltas: int, first: list[float]) -> dict[str, Call]:
    """The calls, each of which raises when the answer is not the server's."""
    streamed = "".join(map(delta_text, range(deltas)))

    async def plain() -> None:
        _same(await contender.plain(), ANSWER)

    async def tool() -> None:
        _same(await contender.tool(), ANSWER)

    async def stream() -> None:
        begun = time.perf_counter()
        text, _ = await contender.stream(lambda: first.append(time.perf_counter() - begun))
        _same(text, streamed)

    return {"plain": plain, "stream": stream, "tool": tool}


def _same(text: str, expected: str) -> None:
    if text != expected:
        raise SystemExit(f"wrong answer: {text!r:.200}")


# --- integrity ------------------------------------------------------------------------------------


async def cut(url: str, wire: str, name: str, order: dict[str, Any]) -> dict[str, Any]:
    """Streams that end early: how many pass for whole, and how many of these claim a reason."""
    contender = client(wire, name, f"{url}/cut")
    silent = claimed = 0
    numbers = iter(range(order["calls"]))

    async def work() -> None:
        nonlocal silent, claimed
        for _ in numbers:
            try:
                _, finish = await contender.stream(lambda: None)
            except Exception:
                continue
            silent += 1
            claimed += finish is not None

    await asyncio.gather(*(work() for _ in range(AT_A_TIME)))
    return {"silent": silent, "claimed": claimed}


class _Cancelling:
    """Cancels calls at random moments, the same ones for every contender of the same speed."""

    def __init__(self, url: str, wire: str, name: str, calls: int) -> None:
        self.url = url
        self.contenders = {
            mode: client(wire, name, f"{url}/{mode}") for mode in ("brief", "endless")
        }
        self.left = calls
        self.swallowed = 0
        self.random = random.Random(SEED)
        self.span: dict[str, float] = {}

    async def run(self) -> dict[str, Any]:
        for kind in ("plain", "stream"):
            self.span[kind] = await self.seconds_of(kind)
        before = asyncio.all_tasks()
        await asyncio.gather(*(self.work() for _ in range(AT_A_TIME)))
        tasks, connections = await self.settled(before)
        return {"swallowed": self.swallowed, "tasks": tasks, "connections": connections}

    async def seconds_of(self, kind: str) -> float:
        """What a brief call takes, with as many at a time as will be cancelled."""
        times = []
        for _ in range(3):
            begun = time.perf_counter()
            await asyncio.gather(*(self.call("brief", kind) for _ in range(AT_A_TIME)))
            times.append(time.perf_counter() - begun)
        return min(times)

    async def call(self, mode: str, kind: str) -> None:
        contender = self.contenders[mode]
        if kind == "plain":
            await contender.plain()
        else:
            await contender.stream(lambda: None)

    async def work(self) -> None:
        while self.left > 0:
            self.left -= 1
            mode = ("brief", "endless")[self.left % 2]
            kind = ("plain", "stream")[self.left // 2 % 2]
            task = asyncio.create_task(self.call(mode, kind))
            await asyncio.sleep(self.random.random() * self.span[kind] * 1.2)
            if not task.cancel():
                task.result()
                self.left += 1  # it had ended before
                continue
            await asyncio.wait([task], timeout=SETTLE_SECONDS)
            if not (task.done() and task.cancelled()):
                self.swallowed += 1
                await _end(task)

    async def settled(self, before: set[asyncio.Task[Any]]) -> tuple[int, int]:
        """Tasks and connections that are still there although nobody waits for them."""
        until = time.perf_counter() + SETTLE_SECONDS
        while True:
            tasks = len([t for t in asyncio.all_tasks() - before if not t.done()])
            connections = await asyncio.to_thread(_busy, self.url)
            if (tasks, connections) == (0, 0) or time.perf_counter() > until:
                return tasks, connections
            await asyncio.sleep(0.05)


async def _end(task: asyncio.Task[Any]) -> None:
    """A task that was cancelled once more to no avail is left alone."""
    if not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=SETTLE_SECONDS)
    if task.done() and not task.cancelled():
        task.exception()


def _busy(url: str) -> int:
    with urllib.request.urlopen(f"{url}/busy", timeout=10) as answer:
        busy: int = json.load(answer)["busy"]
        return busy


async def cancel(url: str, wire: str, name: str, order: dict[str, Any]) -> dict[str, Any]:
    """Cancelled calls: how many are lost, and what stays behind."""
    return await _Cancelling(url, wire, name, order["calls"]).run()


DO = {"measure": measure, "cut": cut, "cancel": cancel}


def main() -> None:
    """Answer each command until stdin ends."""
    wire, name, url = sys.argv[1:]
    # Answers have a pipe of their own: libraries print what they like.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    # One event loop for all, and one object for a URL (`client`), as in a service: some libraries
    # keep connections beyond an object's life.
    with asyncio.Runner() as runner:
        for line in sys.stdin:
            order = json.loads(line)
            found = runner.run(DO[order["do"]](url, wire, name, order))
            print(json.dumps(found), file=out, flush=True)


if __name__ == "__main__":
    main()
