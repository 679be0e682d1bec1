"""Queues with a mistake each, as authors make them; and the rules that must find it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from muster.provider import TokenUsage
from muster.queues.base import DEFAULT_LEASE, Task, TaskResult, lost, new_id
from muster.queues.memory import MemoryQueue

WEEK = 7 * 86_400.0


class Sound(MemoryQueue):
    """No mistake: what the others are made of."""


class LosesOnCrash(MemoryQueue):
    """Taken is taken: no lease ever ends."""

    async def take(self, *, lease: float = DEFAULT_LEASE, **more: Any) -> Task | None:
        return await super().take(lease=WEEK, **more)

    async def extend(self, task: Task, lease: float = DEFAULT_LEASE) -> None:
        await super().extend(task, WEEK)


class GivesTwice(MemoryQueue):
    """Looks, lets others look, and then takes what it saw."""

    async def take(self, **more: Any) -> Task | None:
        now = self.clock()
        due = [e for e in self._tasks.values() if e.status == "waiting" and (e.due_at or 0) <= now]
        if more.get("wait") != 0.0 or not due:
            return await super().take(**more)
        entry = due[0]
        await asyncio.sleep(0)
        entry.status, entry.lease, entry.attempts, entry.due_at = "running", new_id(), 1, now + 30
        self._queue(entry)
        return Task(id=entry.id, prompt=entry.prompt, lease=entry.lease)


class NewIdOnRetry(MemoryQueue):
    """Puts a retry in as a task of its own, as ark does."""

    async def fail(
        self, task: Task, error: str, *, retry_in: float | None = None, **more: Any
    ) -> bool:
        again = await super().fail(task, error, retry_in=retry_in, **more)
        if again:
            entry = self._tasks.pop(task.id)
            entry.id = f"{task.id}-{entry.attempts}"
            self._tasks[entry.id] = entry
            self._queue(entry)
        return again


class TakesLateWord(MemoryQueue):
    """Whoever says how a task ended is believed, while it is open."""

    def _held(self, task: Task) -> Any:
        entry = self._tasks.get(task.id)
        if entry is None or entry.result is not None:
            raise lost(task)
        return entry


class StarvesTakers(MemoryQueue):
    """A new task wakes nobody."""

    async def submit(self, prompt: str, **more: Any) -> str:
        bell, self._bell = self._bell, type(self._bell)()
        try:
            return await super().submit(prompt, **more)
        finally:
            self._bell = bell


class StarvesWaiters(MemoryQueue):
    """The end of a task wakes nobody."""

    async def wait(self, id: str, timeout: float | None = None) -> TaskResult | None:
        if timeout is None:
            return await super().wait(id)
        result = await super().wait(id, 0.0)
        if result is None:
            end = self.clock() + timeout
            while (left := end - self.clock()) > 0:
                await asyncio.sleep(min(left, 2.0))
                self._bell.check()
            result = await super().wait(id, 0.0)
        self._bell.check()
        return result


class RetriesAtOnce(MemoryQueue):
    """Knows no delay."""

    async def fail(
        self, task: Task, error: str, *, retry_in: float | None = None, **more: Any
    ) -> bool:
        return await super().fail(task, error, retry_in=None if retry_in is None else 0.0, **more)


class RetriesForEver(MemoryQueue):
    """Does not count."""

    async def fail(
        self, task: Task, error: str, *, retry_in: float | None = None, **more: Any
    ) -> bool:
        if retry_in is not None and task.id in self._tasks:
            self._tasks[task.id].max_attempts = 1000
        return await super().fail(task, error, retry_in=retry_in, **more)


class CrashesForEver(MemoryQueue):
    """Counts an attempt only when somebody lives to tell of it."""

    def _next(self, now: float, lease: float, worker: str) -> Task | None:
        for entry in self._tasks.values():
            if entry.status == "running" and (entry.due_at or now) <= now:
                entry.attempts = 0
        return super()._next(now, lease, worker)


class ExtendsNothing(MemoryQueue):
    """Says yes to a heartbeat, and does nothing."""

    async def extend(self, task: Task, lease: float = DEFAULT_LEASE) -> None:
        self._held(task)


class LastEndWins(MemoryQueue):
    """A second result replaces the first."""

    async def finish(
        self,
        task: Task,
        output: str,
        *,
        token_usage: TokenUsage | None = None,
        cost_usd: float | None = None,
    ) -> None:
        entry = self._tasks.get(task.id)
        if entry is not None and entry.result is not None and entry.status == "done":
            return
        await super().finish(task, output, token_usage=token_usage, cost_usd=cost_usd)


class CancelsOnlyWaiting(MemoryQueue):
    """What runs cannot be cancelled."""

    async def cancel(self, id: str, reason: str = "cancelled") -> bool:
        entry = self._tasks.get(id)
        if entry is not None and entry.status == "running":
            return False
        return await super().cancel(id, reason)


class CountsReleases(MemoryQueue):
    """A task that was given back has lost an attempt."""

    async def release(self, task: Task) -> None:
        self._held(task).attempts += 1
        await super().release(task)


class PutsInTwice(MemoryQueue):
    """Does not look whether it has the id."""

    async def submit(self, prompt: str, *, id: str | None = None, **more: Any) -> str:
        if id is not None and id in self._tasks:
            if self._tasks[id].result is None:
                self._open -= 1
            del self._tasks[id]
        return await super().submit(prompt, id=id, **more)


class DropsOnCancel(MemoryQueue):
    """Awaits something between taking a task and returning it."""

    async def take(self, **more: Any) -> Task | None:
        task = await super().take(**more)
        await asyncio.sleep(0)
        return task


class HoldsTheLoop(MemoryQueue):
    """Waits as a thread does."""

    async def take(self, *, wait: float | None = None, **more: Any) -> Task | None:
        if wait:
            time.sleep(min(wait, 0.2))
            wait = max(wait - 0.2, 0.0)
        return await super().take(wait=wait, **more)


class Bottomless(MemoryQueue):
    """Knows no bound."""

    async def submit(self, prompt: str, **more: Any) -> str:
        self.depth = 1_000_000
        return await super().submit(prompt, **more)


class ForgetsMeta(MemoryQueue):
    """Keeps the prompt alone."""

    async def submit(
        self, prompt: str, *, meta: Mapping[str, str] | None = None, **more: Any
    ) -> str:
        return await super().submit(prompt, **more)


class HangsWhenClosed(MemoryQueue):
    """Closes its door, and lets those inside wait."""

    async def aclose(self) -> None:
        pass


class BuriesForGood(MemoryQueue):
    """Dead is dead."""

    async def requeue(self, id: str) -> bool:
        return False


GALLERY: dict[type[MemoryQueue], set[str]] = {
    Sound: set(),
    LosesOnCrash: {"a-crash-loses-nothing", "crashes-are-counted", "a-late-word-is-refused"},
    GivesTwice: {"each-task-to-one-taker"},
    NewIdOnRetry: {"a-retry-keeps-its-id", "attempts-come-to-an-end"},
    TakesLateWord: {"a-late-word-is-refused"},
    StarvesTakers: {"takers-are-woken"},
    StarvesWaiters: {"waiters-are-woken"},
    RetriesAtOnce: {"delays-are-kept"},
    RetriesForEver: {"attempts-come-to-an-end", "dead-letters-come-back"},
    CrashesForEver: {"crashes-are-counted"},
    ExtendsNothing: {"a-lease-holds"},
    LastEndWins: {"the-first-end-wins"},
    CancelsOnlyWaiting: {"cancelling-ends-a-task"},
    CountsReleases: {"a-released-task-comes-at-once"},
    PutsInTwice: {"an-id-is-put-in-once"},
    DropsOnCancel: {"a-cancelled-take-loses-nothing"},
    HoldsTheLoop: {"the-loop-goes-on"},
    Bottomless: {"the-depth-is-bounded"},
    ForgetsMeta: {"tasks-and-results-arrive", "a-retry-keeps-its-id"},
    HangsWhenClosed: {"closing-ends-the-waiting"},
    BuriesForGood: {"dead-letters-come-back"},
}
"""Each mistake with the rules that find it, and no other does."""
