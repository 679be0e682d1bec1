"""A queue in an SQLite file: many processes of one machine, without a server.

Each change is one transaction of well under a millisecond, made where it is asked for. While
another process holds the file, the event loop goes on.

SQLite wakes nobody in another process. While somebody waits, a glance at `PRAGMA data_version`,
some microseconds, tells a hundred times a second whether anybody has written; within a process no
glance is needed. What has ended is numbered, so that those who wait for ends read only what is
new.
"""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from muster.errors import MusterError
from muster.provider import TokenUsage
from muster.queues import sqlite_file as sql
from muster.queues.base import (
    DAY,
    DEFAULT_DEPTH,
    DEFAULT_LEASE,
    DEFAULT_MAX_ATTEMPTS,
    KEEP_DAYS,
    STATUSES,
    QueueUnavailable,
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
from muster.store.database import BUSY_SECONDS

__all__ = ("SqliteQueue",)

T = TypeVar("T")

GLANCE_SECONDS = 0.01
"""How often the file is looked at while somebody waits."""

FORGET_EVERY = 1000
"""Submissions, after which old results are deleted."""


class SqliteQueue:
    """Implements `muster.queues.base.TaskQueue`."""

    def __init__(
        self,
        path: Path,
        *,
        depth: int = DEFAULT_DEPTH,
        keep_days: float = KEEP_DAYS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Opens the file, or makes it, readable by nobody else.

        Raises:
            MusterError: it cannot be opened, or is something else.
        """
        self.path = path
        self.depth = depth
        self.keep_days = keep_days
        self._clock = clock
        self._file = sql.QueueFile(path)
        self._file.write("PRAGMA busy_timeout = 0")  # `_do` waits, and lets the loop go on
        self._bell = Bell()
        self._awaited: dict[str, set[asyncio.Future[None]]] = {}
        self._watcher: asyncio.Task[None] | None = None
        self._version = self._file.version()
        self._ends = 0
        self._submitted = 0

    @classmethod
    def of(cls, url: QueueURL) -> SqliteQueue:
        """The factory of `sqlite:PATH`."""
        url.only("depth", "keep_days")
        depth, keep_days = url.number("depth", DEFAULT_DEPTH), url.number("keep_days", KEEP_DAYS)
        return cls(url.path, depth=int(depth), keep_days=keep_days)

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
        id = checked_id(id)
        now = self._clock()
        if self._submitted % FORGET_EVERY == 0:
            await self._write(sql.FORGET, (now - self.keep_days * DAY,))
        self._submitted += 1
        told = json.dumps(dict(meta)) if meta else ""
        row = (id, sql.clean_text(prompt), told, max(max_attempts, 1), now, now + max(delay, 0.0))
        if await self._write(sql.SUBMIT, (*row, self.depth)):
            self._bell.ring()
        elif not await self._read("SELECT 1 FROM tasks WHERE id = ?", (id,)):
            raise full(self.depth)
        return id

    async def take(
        self, *, lease: float = DEFAULT_LEASE, wait: float | None = None, worker: str = ""
    ) -> Task | None:
        """The next task."""
        until = None if wait is None else self._clock() + wait
        while True:
            now = self._clock()
            due = await self._read(sql.FIRST_DUE)
            if due and due[0][0] <= now:
                _, attempts, max_attempts = due[0]
                if attempts >= max_attempts:
                    await self._bury(now, attempts)
                    continue
                rows = await self._do(lambda: self._take(lease, worker))
                if rows:
                    return sql.task_of(rows[0])
                continue  # another process was faster
            if until is not None and now >= until:
                return None
            times = [row[0] for row in due] + ([] if until is None else [until])
            await self._wait_for_change(min(times) - now if times else None)

    async def extend(self, task: Task, lease: float = DEFAULT_LEASE) -> None:
        """Have the task for longer."""
        if not await self._do(lambda: self._extend(task, lease)):
            raise lost(task)

    async def finish(
        self,
        task: Task,
        output: str,
        *,
        token_usage: TokenUsage | None = None,
        cost_usd: float | None = None,
    ) -> None:
        """The task is done."""
        await self._end(task, "done", output, None, spent(task, token_usage, cost_usd))

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
        usage, cost = spent(task, token_usage, cost_usd)
        if retry_in is None or task.attempt + 1 >= task.max_attempts:
            await self._end(task, "dead", None, error, (usage, cost))
            return False
        due_at = self._clock() + max(retry_in, 0.0)
        row = (due_at, sql.clean_text(error), sql.usage_text(usage), cost, task.id, task.lease)
        if not await self._write(sql.AGAIN, row):
            raise lost(task)
        self._bell.ring()
        return True

    async def release(self, task: Task) -> None:
        """Give the task back, uncounted."""
        if not await self._write(sql.RELEASE, (self._clock(), task.id, task.lease)):
            raise lost(task)
        self._bell.ring()

    async def cancel(self, id: str, reason: str = "cancelled") -> bool:
        """End an open task."""
        ended = await self._write(sql.CANCEL, (sql.clean_text(reason), self._clock(), id)) > 0
        if ended:
            self._has_ended(id)
        return ended

    async def requeue(self, id: str) -> bool:
        """Put a dead task back."""
        back = await self._write(sql.REQUEUE, (self._clock(), id)) > 0
        if back:
            self._bell.ring()
        return back

    async def wait(self, id: str, timeout: float | None = None) -> TaskResult | None:
        """How the task ended."""
        until = None if timeout is None else self._clock() + timeout
        while True:
            if not self._awaited:  # what ended before this is seen by the look below
                self._ends = (await self._read("SELECT ends FROM totals"))[0][0]
            ended = asyncio.get_running_loop().create_future()
            self._awaited.setdefault(id, set()).add(ended)
            try:
                rows = await self._read(sql.RESULT, (id,))
                if not rows:
                    raise unknown(id)
                if rows[0][-1] is not None:
                    return sql.result_of(id, rows[0])
                now = self._clock()
                if until is not None and now >= until:
                    return None
                self._watch()
                left = None if until is None else until - now
                await asyncio.wait((ended,), timeout=left)
                self._bell.check()
            finally:
                waiting = self._awaited.get(id, set())
                waiting.discard(ended)
                if not waiting:
                    self._awaited.pop(id, None)

    async def look(self, ids: Sequence[str]) -> dict[str, TaskState]:
        """How these tasks stand."""
        found: dict[str, TaskState] = {}
        for id in ids:
            for row in await self._read(f"{sql.STATE} WHERE id = ?", (id,)):
                found[id] = sql.state_of(row)
        return found

    async def states(self, status: Status | None = None, limit: int = 100) -> list[TaskState]:
        """The newest tasks."""
        where, values = ("", ()) if status is None else ("WHERE status = ?", (status,))
        rows = await self._read(
            f"{sql.STATE} {where} ORDER BY number DESC LIMIT ?",
            (*values, limit),
        )
        return [sql.state_of(row) for row in rows]

    async def counts(self) -> dict[Status, int]:
        """How many there are of each status."""
        found = dict(await self._read("SELECT status, count(*) FROM tasks GROUP BY status"))
        return {status: found.get(status, 0) for status in STATUSES}

    async def aclose(self) -> None:
        """Let go of the file."""
        self._bell.close()
        for id in list(self._awaited):
            self._wake(id)
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait((self._watcher,))
        self._file.close()

    async def _end(
        self,
        task: Task,
        status: Status,
        output: str | None,
        error: str | None,
        used: tuple[TokenUsage | None, float | None],
    ) -> None:
        texts = (
            None if output is None else sql.clean_text(output),
            None if error is None else sql.clean_text(error),
        )
        row = (status, *texts, sql.usage_text(used[0]), used[1], self._clock(), task.id, task.lease)
        if not await self._write(sql.END, row):
            raise lost(task)
        self._has_ended(task.id)

    async def _bury(self, now: float, attempts: int) -> None:
        """The first task that is due has no attempt left: it is dead."""
        row = (lease_ran_out(attempts), now, now, attempts)
        for (id,) in await self._do(partial(self._file.query, sql.BURY, row)):
            self._has_ended(id)

    # A lease begins when it is written, however long the file was held by another.

    def _take(self, lease: float, worker: str) -> list[Any]:
        now = self._clock()
        return self._file.query(sql.TAKE, (new_id(), worker, now + lease, now))

    def _extend(self, task: Task, lease: float) -> int:
        row = (self._clock() + lease, task.id, task.lease)
        return self._file.write(sql.EXTEND, row).rowcount

    # --- reading and writing ----------------------------------------------------------------------

    async def _read(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        return await self._do(partial(self._file.query, statement, values))

    async def _write(self, statement: str, values: Sequence[Any]) -> int:
        """How many rows it has changed."""
        return await self._do(lambda: self._file.write(statement, values).rowcount)

    async def _do(self, work: Callable[[], T]) -> T:
        """`work()`, once no other process is in its way; nothing is awaited after it."""
        self._bell.check()
        try:
            return work()
        except MusterError as error:
            if not _is_busy(error):
                raise
        until = time.monotonic() + BUSY_SECONDS
        pause = 0.0005
        while True:
            await asyncio.sleep(pause * random.random())  # noqa: S311
            pause = min(pause * 2, 0.02)
            self._bell.check()
            try:
                return work()
            except MusterError as error:
                if not _is_busy(error):
                    raise
                if time.monotonic() > until:
                    raise QueueUnavailable(str(error)) from error

    # --- waiting ----------------------------------------------------------------------------------

    async def _wait_for_change(self, seconds: float | None) -> None:
        self._watch()
        await self._bell.wait(seconds)

    def _watch(self) -> None:
        """Have the file looked at from now on."""
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.ensure_future(self._look_out())

    async def _look_out(self) -> None:
        """Wake who waits when another process has written; until nobody waits any more."""
        await asyncio.sleep(0)  # who has called this begins to wait
        try:
            while self._bell or self._awaited:
                version = self._file.version()
                if version != self._version:
                    self._version = version
                    self._bell.ring()
                    await self._look_at_ends()
                await asyncio.sleep(GLANCE_SECONDS)
        except MusterError:  # who waits looks for itself, and is told
            self._bell.ring()
            for id in list(self._awaited):
                self._wake(id)

    async def _look_at_ends(self) -> None:
        if not self._awaited:
            return
        rows = await self._read(
            "SELECT id, ended_number FROM tasks WHERE ended_number > ? ORDER BY ended_number",
            (self._ends,),
        )
        for id, number in rows:
            self._ends = number
            self._wake(id)

    def _has_ended(self, id: str) -> None:
        self._wake(id)
        self._bell.ring()

    def _wake(self, id: str) -> None:
        for ended in self._awaited.get(id, ()):
            if not ended.done():
                ended.set_result(None)


def _is_busy(error: MusterError) -> bool:
    cause = error.__cause__
    name = getattr(cause, "sqlite_errorname", "")
    return isinstance(cause, sqlite3.Error) and name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))
