"""Whatever is done to a queue, in whatever order, it stands as a simple model says."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import pytest
from hypothesis import settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from muster.queues.base import LeaseLost, QueueFull, Task, TaskQueue
from muster.queues.memory import MemoryQueue
from muster.queues.sqlite import SqliteQueue

DEPTH = 4
IDS = strategies.sampled_from("abcdef")
BACK = strategies.sampled_from([0, 0, 0, 1, 2, 5])
SECONDS = strategies.sampled_from([0.0, 0.0, 1.0, 5.0])
SIDES = strategies.integers(0, 1)
ARGUMENTS: dict[str, dict[str, strategies.SearchStrategy[Any]]] = {
    "submit": {"id": IDS, "delay": SECONDS, "most": strategies.integers(1, 3)},
    "take": {"lease": strategies.sampled_from([1.0, 5.0])},
    "finish": {"back": BACK},
    "fail": {"back": BACK, "retry": strategies.none() | SECONDS},
    "release": {"back": BACK},
    "extend": {"back": BACK},
    "cancel": {"id": IDS},
    "requeue": {"id": IDS},
    "time_passes": {"seconds": strategies.sampled_from([0.5, 1.0, 3.0, 10.0])},
}
STEPS = ["take"] * 3 + ["submit", "fail"] * 2 + list(ARGUMENTS)
"""What is done, the more important oftener."""


@dataclass
class Known:
    """What the model knows of a task."""

    number: int
    max_attempts: int
    due: float
    status: str = "waiting"
    attempts: int = 0
    lease: str | None = None
    said: str | None = None

    @property
    def open(self) -> bool:
        return self.status in ("waiting", "running")

    def end(self, status: str, said: str | None) -> None:
        self.status, self.said, self.lease = status, said, None


class Machine(RuleBasedStateMachine):
    """A queue beside its model, on a clock that stands still until it is moved."""

    kind: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000.0
        self.runner = asyncio.Runner()
        self.folder = TemporaryDirectory()
        self.model: dict[str, Known] = {}
        self.taken: list[Task] = []
        self.queues = self.opened()

    def opened(self) -> list[TaskQueue]:
        """Two ways into one queue, where there can be two."""
        if self.kind == "memory":
            return [MemoryQueue(depth=DEPTH, clock=lambda: self.now)] * 2
        path = Path(self.folder.name) / "queue.db"
        return [SqliteQueue(path, depth=DEPTH, clock=lambda: self.now) for _ in range(2)]

    def teardown(self) -> None:
        for queue in self.queues:
            self.runner.run(queue.aclose())
        self.runner.close()
        self.folder.cleanup()

    def do(self, side: int, method: str, *values: Any, **named: Any) -> Any:
        async def call() -> Any:
            return await getattr(self.queues[side], method)(*values, **named)

        return self.runner.run(call())

    def held(self, back: int) -> tuple[Task, Known | None]:
        """One of those taken last; what the model knows of it, if its lease is still this one."""
        task = self.taken[-1 - back % len(self.taken)]
        known = self.model[task.id]
        return task, known if known.lease == task.lease else None

    @rule(values=strategies.data(), step=strategies.sampled_from(STEPS), side=SIDES)
    def step(self, values: Any, step: str, side: int) -> None:
        """One thing that is done to the queue, on either side of it."""
        drawn = ARGUMENTS[step]
        if "back" not in drawn or self.taken:
            given = {name: values.draw(from_, label=name) for name, from_ in drawn.items()}
            getattr(self, step)(side=side, **given)

    def said(self, known: Known | None, side: int, method: str, *values: Any, **named: Any) -> Any:
        if known is not None:
            return self.do(side, method, *values, **named)
        with pytest.raises(LeaseLost):
            self.do(side, method, *values, **named)
        return None

    def submit(self, id: str, delay: float, most: int, side: int) -> None:
        given = {"id": id, "delay": delay, "max_attempts": most}
        full = sum(known.open for known in self.model.values()) >= DEPTH
        if full and id not in self.model:
            with pytest.raises(QueueFull):
                self.do(side, "submit", id, **given)
            return
        assert self.do(side, "submit", id, **given) == id
        self.model.setdefault(id, Known(len(self.model), most, self.now + delay))

    def take(self, lease: float, side: int) -> None:
        task = self.do(side, "take", lease=lease, wait=0.0)
        due = [k for k in self.model.items() if k[1].open and k[1].due <= self.now]
        for id, known in sorted(due, key=lambda pair: (pair[1].due, pair[1].number)):
            if known.attempts >= known.max_attempts:
                known.end("dead", "lease")
                continue
            assert task is not None
            assert (task.id, task.attempt) == (id, known.attempts)
            assert task.lease != known.lease
            known.status, known.lease = "running", task.lease
            known.attempts, known.due = known.attempts + 1, self.now + lease
            self.taken.append(task)
            return
        assert task is None

    def finish(self, back: int, side: int) -> None:
        task, known = self.held(back)
        self.said(known, side, "finish", task, task.lease)
        if known is not None:
            known.end("done", task.lease)

    def fail(self, back: int, retry: float | None, side: int) -> None:
        task, known = self.held(back)
        again = self.said(known, side, "fail", task, task.lease, retry_in=retry)
        if known is None:
            return
        assert again == (retry is not None and known.attempts < known.max_attempts)
        if again:
            known.status, known.lease, known.due = "waiting", None, self.now + (retry or 0.0)
        else:
            known.end("dead", task.lease)

    def release(self, back: int, side: int) -> None:
        task, known = self.held(back)
        self.said(known, side, "release", task)
        if known is not None:
            known.status, known.lease, known.due = "waiting", None, self.now
            known.attempts -= 1

    def extend(self, back: int, side: int) -> None:
        task, known = self.held(back)
        self.said(known, side, "extend", task, 3.0)
        if known is not None:
            known.due = self.now + 3.0

    def cancel(self, id: str, side: int) -> None:
        known = self.model.get(id)
        can = known is not None and known.open
        assert self.do(side, "cancel", id, "enough") is can
        if known is not None and can:
            known.end("cancelled", "enough")

    def requeue(self, id: str, side: int) -> None:
        known = self.model.get(id)
        can = known is not None and known.status == "dead"
        assert self.do(side, "requeue", id) is can
        if known is not None and can:
            known.status, known.attempts, known.due, known.said = "waiting", 0, self.now, None

    def time_passes(self, seconds: float, side: int) -> None:
        self.now += seconds

    @invariant()
    def both_stand_alike(self) -> None:
        found = {state.id: state for state in self.do(0, "states")}
        assert set(found) == set(self.model)
        assert list(found) == sorted(self.model, key=lambda id: -self.model[id].number)
        for id, known in self.model.items():
            state = found[id]
            assert (state.status, state.attempts) == (known.status, known.attempts)
            assert (state.result is None) == known.open
            assert state.due_at == (known.due if known.open else None)
            if state.result is not None:
                said = state.result.output or state.result.error or ""
                assert said == known.said or (
                    known.said == "lease" and said.startswith("the lease")
                )
        counts = self.do(1, "counts")
        assert sum(counts.values()) == len(self.model)
        assert counts["running"] == sum(known.status == "running" for known in self.model.values())


class OfMemory(Machine):
    kind = "memory"


class OfSqlite(Machine):
    kind = "sqlite"


TestMemory = OfMemory.TestCase
TestMemory.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestSqlite = OfSqlite.TestCase
TestSqlite.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
