"""A queue in the memory of one process: for tests, and for programs that work by themselves."""

from __future__ import annotations

import heapq
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from muster.errors import UsageError
from muster.provider import TokenUsage
from muster.queues.base import (
    DAY,
    DEFAULT_DEPTH,
    DEFAULT_LEASE,
    DEFAULT_MAX_ATTEMPTS,
    KEEP_DAYS,
    STATUSES,
    Ending,
    Status,
    Task,
    TaskResult,
    TaskState,
    checked_id,
    full,
    lease_ran_out,
    lost,
    new_id,
    spent,
    unknown,
)
from muster.queues.bell import Bell
from muster.queues.url import QueueURL

__all__ = ("MemoryQueue",)


@dataclass(slots=True, kw_only=True)
class _Entry:
    """A task as it stands."""

    number: int
    id: str
    prompt: str
    meta: Mapping[str, str]
    max_attempts: int
    submitted_at: float
    due_at: float | None
    status: Status = "waiting"
    attempts: int = 0
    lease: str | None = None
    worker: str | None = None
    error: str | None = None
    token_usage: TokenUsage | None = None
    cost_usd: float | None = None
    result: TaskResult | None = None

    def state(self) -> TaskState:
        return TaskState(
            id=self.id,
            prompt=self.prompt,
            status=self.status,
            meta=self.meta,
            attempts=self.attempts,
            max_attempts=self.max_attempts,
            submitted_at=self.submitted_at,
            due_at=self.due_at,
            worker=self.worker,
            error=None if self.result is not None else self.error,
            result=self.result,
        )


@dataclass(slots=True)
class MemoryQueue:
    """Implements `muster.queues.base.TaskQueue`; gone with its process."""

    depth: int = DEFAULT_DEPTH
    keep_days: float = KEEP_DAYS
    clock: Callable[[], float] = time.time
    _tasks: dict[str, _Entry] = field(default_factory=dict)
    _due: list[tuple[float, int, str]] = field(default_factory=list)
    """A heap of open tasks by `due_at`; rows that no longer fit their task are skipped."""
    _ended: deque[tuple[float, str]] = field(default_factory=deque)
    _open: int = 0
    _number: int = 0
    _bell: Bell = field(default_factory=Bell)

    @classmethod
    def of(cls, url: QueueURL) -> MemoryQueue:
        """The factory of `memory:`."""
        url.only("depth", "keep_days")
        if url.rest:
            raise UsageError(f"queue {url}: a queue in memory has no place; expected memory:")
        return cls(
            depth=int(url.number("depth", DEFAULT_DEPTH)),
            keep_days=url.number("keep_days", KEEP_DAYS),
        )

    async def submit(
        self,
        prompt: str,
        *,
        id: str | None = None,
        meta: Mapping[str, str] | None = None,
        max_attempts: int = DEFAULT_MAX_ATTEMPTS,
        delay: float = 0.0,
    ) -> str:
        """Put a task in."""
        self._bell.check()
        id = checked_id(id)
        if id in self._tasks:
            return id
        if self._open >= self.depth:
            raise full(self.depth)
        now = self.clock()
        self._forget(now)
        self._number += 1
        entry = _Entry(
            number=self._number,
            id=id,
            prompt=prompt,
            meta=dict(meta or {}),
            max_attempts=max(max_attempts, 1),
            submitted_at=now,
            due_at=now + max(delay, 0.0),
        )
        self._tasks[id] = entry
        self._open += 1
        self._queue(entry)
        return id

    async def take(
        self, *, lease: float = DEFAULT_LEASE, wait: float | None = None, worker: str = ""
    ) -> Task | None:
        """The next task."""
        self._bell.check()
        until = None if wait is None else self.clock() + wait
        while True:
            now = self.clock()
            task = self._next(now, lease, worker)
            if task is not None:
                return task
            if until is not None and now >= until:
                return None
            times = [due_at for due_at, _, _ in self._due[:1]]
            times += [] if until is None else [until]
            await self._bell.wait(min(times) - now if times else None)

    async def extend(self, task: Task, lease: float = DEFAULT_LEASE) -> None:
        """Have the task for longer."""
        entry = self._held(task)
        entry.due_at = self.clock() + lease
        self._queue(entry, ring=False)

    async def finish(
        self,
        task: Task,
        output: str,
        *,
        token_usage: TokenUsage | None = None,
        cost_usd: float | None = None,
    ) -> None:
        """The task is done."""
        entry = self._held(task)
        entry.token_usage, entry.cost_usd = spent(task, token_usage, cost_usd)
        self._end(entry, "done", output=output)

    async def fail(
        self,
        task: Task,
        error: str,
        *,
        retry_in: float | None = None,
        token_usage: TokenUsage | None = None,
        cost_usd: float | None = None,
    ) -> bool:
        """The attempt failed."""
        entry = self._held(task)
        entry.token_usage, entry.cost_usd = spent(task, token_usage, cost_usd)
        if retry_in is None or entry.attempts >= entry.max_attempts:
            self._end(entry, "dead", error=error)
            return False
        entry.error = error
        self._put_back(entry, self.clock() + max(retry_in, 0.0))
        return True

    async def release(self, task: Task) -> None:
        """Give the task back, uncounted."""
        entry = self._held(task)
        entry.attempts -= 1
        self._put_back(entry, self.clock())

    async def cancel(self, id: str, reason: str = "cancelled") -> bool:
        """End an open task."""
        self._bell.check()
        entry = self._tasks.get(id)
        if entry is None or entry.result is not None:
            return False
        self._end(entry, "cancelled", error=reason)
        return True

    async def requeue(self, id: str) -> bool:
        """Put a dead task back."""
        self._bell.check()
        entry = self._tasks.get(id)
        if entry is None or entry.status != "dead":
            return False
        entry.attempts, entry.result = 0, None
        self._open += 1
        self._put_back(entry, self.clock())
        return True

    async def wait(self, id: str, timeout: float | None = None) -> TaskResult | None:
        """How the task ended."""
        self._bell.check()
        until = None if timeout is None else self.clock() + timeout
        while True:
            entry = self._tasks.get(id)
            if entry is None:
                raise unknown(id)
            if entry.result is not None:
                return entry.result
            now = self.clock()
            if until is not None and now >= until:
                return None
            await self._bell.wait(None if until is None else until - now)

    async def look(self, ids: Sequence[str]) -> dict[str, TaskState]:
        """How these tasks stand."""
        self._bell.check()
        return {id: self._tasks[id].state() for id in ids if id in self._tasks}

    async def states(self, status: Status | None = None, limit: int = 100) -> list[TaskState]:
        """The newest tasks."""
        self._bell.check()
        found = [e for e in self._tasks.values() if status is None or e.status == status]
        return [entry.state() for entry in found[::-1][:limit]]

    async def counts(self) -> dict[Status, int]:
        """How many there are of each status."""
        self._bell.check()
        found = Counter(entry.status for entry in self._tasks.values())
        return {status: found[status] for status in STATUSES}

    async def aclose(self) -> None:
        """Forget everything."""
        self._bell.close()

    def _next(self, now: float, lease: float, worker: str) -> Task | None:
        while self._due:
            due_at, number, id = self._due[0]
            entry = self._tasks.get(id)
            if entry is None or (entry.due_at, entry.number) != (due_at, number):
                heapq.heappop(self._due)
                continue
            if due_at > now:
                return None
            heapq.heappop(self._due)
            if entry.attempts >= entry.max_attempts:
                self._end(entry, "dead", error=lease_ran_out(entry.attempts))
                continue
            entry.status, entry.worker, entry.lease = "running", worker, new_id()
            entry.attempts += 1
            entry.due_at = now + lease
            self._queue(entry, ring=False)
            return Task(
                id=entry.id,
                prompt=entry.prompt,
                lease=entry.lease,
                attempt=entry.attempts - 1,
                max_attempts=entry.max_attempts,
                meta=entry.meta,
                submitted_at=entry.submitted_at,
                token_usage=entry.token_usage,
                cost_usd=entry.cost_usd,
            )
        return None

    def _held(self, task: Task) -> _Entry:
        """The task's entry, if the lease is still good."""
        self._bell.check()
        entry = self._tasks.get(task.id)
        if entry is None or entry.lease != task.lease:
            raise lost(task)
        return entry

    def _queue(self, entry: _Entry, *, ring: bool = True) -> None:
        assert entry.due_at is not None
        heapq.heappush(self._due, (entry.due_at, entry.number, entry.id))
        if len(self._due) > 4 * self._open + 64:  # leases that were extended leave rows behind
            self._due = [
                (e.due_at, e.number, e.id) for e in self._tasks.values() if e.due_at is not None
            ]
            heapq.heapify(self._due)
        if ring:
            self._bell.ring()

    def _put_back(self, entry: _Entry, due_at: float) -> None:
        entry.status, entry.lease, entry.due_at = "waiting", None, due_at
        self._queue(entry)

    def _end(
        self, entry: _Entry, status: Ending, *, output: str | None = None, error: str | None = None
    ) -> None:
        entry.status, entry.lease, entry.due_at, entry.error = status, None, None, error
        entry.result = TaskResult(
            id=entry.id,
            status=status,
            output=output,
            error=error,
            attempts=entry.attempts,
            token_usage=entry.token_usage,
            cost_usd=entry.cost_usd,
            ended_at=self.clock(),
        )
        self._open -= 1
        self._ended.append((entry.result.ended_at, entry.id))
        self._bell.ring()

    def _forget(self, now: float) -> None:
        """Drop what ended long ago; dead letters stay."""
        while self._ended and self._ended[0][0] < now - self.keep_days * DAY:
            ended_at, id = self._ended.popleft()
            entry = self._tasks.get(id)
            result = entry.result if entry is not None else None
            if result is not None and result.ended_at == ended_at and result.status != "dead":
                del self._tasks[id]
