"""What a queue of tasks owes to those who put tasks in, and to the workers who take them.

A task keeps its id from `submit` to its end, through all its attempts. Whoever takes it has a
*lease*: for so many seconds nobody else gets it, and `extend` makes it longer. When the lease runs
out, because the worker has died, the task is given to the next one; what the first one says of it
afterwards is refused with `LeaseLost`. A task ends once: done, dead or cancelled.

`muster.testing.queue_contract` tries all this.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from muster.errors import RunBroken, UsageError
from muster.provider import TokenUsage

__all__ = (
    "DAY",
    "DEFAULT_DEPTH",
    "DEFAULT_LEASE",
    "DEFAULT_MAX_ATTEMPTS",
    "KEEP_DAYS",
    "STATUSES",
    "Ending",
    "LeaseLost",
    "QueueFull",
    "QueueUnavailable",
    "Status",
    "Task",
    "TaskQueue",
    "TaskResult",
    "TaskState",
    "checked_id",
    "full",
    "lease_ran_out",
    "lost",
    "new_id",
    "spent",
    "unknown",
)

Ending: TypeAlias = Literal["done", "dead", "cancelled"]
Status: TypeAlias = Literal["waiting", "running"] | Ending

STATUSES: tuple[Status, ...] = ("waiting", "running", "done", "dead", "cancelled")

DEFAULT_LEASE = 30.0
"""Seconds. Workers extend it long before."""

DEFAULT_MAX_ATTEMPTS = 3

DEFAULT_DEPTH = 10_000
"""Open tasks, waiting or running, above which nothing more is taken in."""

DAY = 86_400.0
"""Seconds."""

KEEP_DAYS = 7.0
"""How long tasks that are done or cancelled can be looked up."""

MAX_ID = 200

_NO_META: Mapping[str, str] = {}


class QueueFull(RunBroken):
    """The queue has as many open tasks as it may have; nothing was put in."""


class QueueUnavailable(RunBroken):
    """The queue cannot be reached just now; the same may go well a little later."""


class LeaseLost(RunBroken):
    """The task is no longer this worker's: its lease ran out, or it was cancelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task in the hands of a worker, for as long as its lease lasts."""

    id: str
    prompt: str
    lease: str
    """Tells this taking of the task from every other."""
    attempt: int = 0
    """0-based, as a request's: how often it was taken before."""
    max_attempts: int = DEFAULT_MAX_ATTEMPTS
    meta: Mapping[str, str] = field(default_factory=lambda: _NO_META)
    submitted_at: float = 0.0
    """Seconds since the epoch."""
    token_usage: TokenUsage | None = None
    """What its earlier attempts have used; `None` is not known."""
    cost_usd: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """How a task ended."""

    id: str
    status: Ending
    output: str | None = None
    """The answer of a task that is done."""
    error: str | None = None
    """Why it is dead, or who cancelled it."""
    attempts: int = 0
    """How often it was taken."""
    token_usage: TokenUsage | None = None
    """Summed over the attempts."""
    cost_usd: float | None = None
    ended_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskState:
    """How a task stands."""

    id: str
    prompt: str
    status: Status
    meta: Mapping[str, str] = field(default_factory=lambda: _NO_META)
    attempts: int = 0
    max_attempts: int = DEFAULT_MAX_ATTEMPTS
    submitted_at: float = 0.0
    due_at: float | None = None
    """When a waiting task may be taken; when the lease of a running one ends."""
    worker: str | None = None
    """Who has it, or had it last."""
    error: str | None = None
    """Why its last attempt failed, while it waits for the next one."""
    result: TaskResult | None = None
    """Set when it has ended."""


@runtime_checkable
class TaskQueue(Protocol):
    """Tasks in, results out. Used within one event loop, by many tasks at a time; a call that is
    cancelled has done all of what it does, or nothing.

    What cannot be reached raises `QueueUnavailable`, and workers try again.
    """

    async def submit(
        self,
        prompt: str,
        *,
        id: str | None = None,
        meta: Mapping[str, str] | None = None,
        max_attempts: int = DEFAULT_MAX_ATTEMPTS,
        delay: float = 0.0,
    ) -> str:
        """Put a task in, and return its id. With an `id` that the queue has seen, nothing is put
        in: who does not know whether a submission went through makes it again.

        Raises:
            QueueFull: there are too many open tasks.
            UsageError: nobody could have such an id.
        """
        ...

    async def take(
        self, *, lease: float = DEFAULT_LEASE, wait: float | None = None, worker: str = ""
    ) -> Task | None:
        """The next task, for `lease` seconds; `None` when none came within `wait` seconds (`None`:
        as long as it takes).

        A task whose lease has run out comes again, if it has attempts left; else it is dead.
        """
        ...

    async def extend(self, task: Task, lease: float = DEFAULT_LEASE) -> None:
        """Have the task for `lease` more seconds, from now. Raises `LeaseLost`."""
        ...

    async def finish(
        self,
        task: Task,
        output: str,
        *,
        token_usage: TokenUsage | None = None,
        cost_usd: float | None = None,
    ) -> None:
        """The task is done. Raises `LeaseLost`: then nothing has changed."""
        ...

    async def fail(
        self,
        task: Task,
        error: str,
        *,
        retry_in: float | None = None,
        token_usage: TokenUsage | None = None,
        cost_usd: float | None = None,
    ) -> bool:
        """The attempt failed. With `retry_in` the task, if it has attempts left, waits for so many
        seconds, and the answer is True; else it goes to the dead letters. Raises `LeaseLost`."""
        ...

    async def release(self, task: Task) -> None:
        """Give the task back as if it had not been taken: at once, and not counted as an attempt.
        Raises `LeaseLost`."""
        ...

    async def cancel(self, id: str, reason: str = "cancelled") -> bool:
        """End an open task, whoever has it. False: there is none of this id."""
        ...

    async def requeue(self, id: str) -> bool:
        """Put a dead task back, with all its attempts. False: there is none of this id."""
        ...

    async def wait(self, id: str, timeout: float | None = None) -> TaskResult | None:
        """How the task ended, once it has; `None` when `timeout` seconds went by first.

        Raises:
            UsageError: the queue knows no such task.
        """
        ...

    async def look(self, ids: Sequence[str]) -> dict[str, TaskState]:
        """How these tasks stand; unknown ones are left out."""
        ...

    async def states(self, status: Status | None = None, limit: int = 100) -> list[TaskState]:
        """The newest tasks, the newest first: all, or those of a status. `dead`: the dead
        letters."""
        ...

    async def counts(self) -> dict[Status, int]:
        """How many tasks there are of each status."""
        ...

    async def aclose(self) -> None:
        """Let go of everything; what waits in `take` or `wait` ends with an error."""
        ...


# --- what every kind of queue needs ---------------------------------------------------------------


def new_id() -> str:
    """An id that no other task has."""
    return secrets.token_hex(8)


def checked_id(id: str | None) -> str:
    """The id that was asked for, or a new one.

    Raises:
        UsageError: it is empty, too long, or cannot be printed.
    """
    if id is None:
        return new_id()
    if not id or len(id) > MAX_ID or not id.isprintable() or id != id.strip():
        shown = repr(id if len(id) <= 40 else f"{id[:40]}…")
        raise UsageError(
            f"{shown} cannot be the id of a task: expected 1 to {MAX_ID} printable characters, "
            "without spaces around them"
        )
    return id


def lease_ran_out(attempts: int) -> str:
    """Why a task is dead whose workers all disappeared."""
    times = "once" if attempts == 1 else f"{attempts} times"
    return f"the lease ran out {times}: its workers died, or could not extend it"


def spent(
    task: Task, token_usage: TokenUsage | None, cost_usd: float | None
) -> tuple[TokenUsage | None, float | None]:
    """What all attempts have used, with those of the last one."""
    usage, cost = task.token_usage, task.cost_usd
    if token_usage is not None:
        usage = token_usage if usage is None else usage + token_usage
    if cost_usd is not None:
        cost = cost_usd if cost is None else cost + cost_usd
    return usage, cost


def full(depth: int) -> QueueFull:
    """What a queue says that has enough."""
    return QueueFull(
        f"the queue is full: {depth} tasks are open; submit again when some have ended, or allow "
        "more with ?depth=N"
    )


def lost(task: Task) -> LeaseLost:
    """What a queue says to a worker whose task it no longer is."""
    return LeaseLost(
        f"task {task.id}: its lease is lost: it ran out, and the task went to another worker, or "
        "the task has ended"
    )


def unknown(id: str) -> UsageError:
    """What a queue says of an id that it does not know."""
    return UsageError(f'no task "{id}" in this queue')
