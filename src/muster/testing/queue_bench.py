"""One rule's view of a queue: opened in a folder of its own, as often as the rule needs."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, TypeAlias, TypeVar

from muster.errors import MusterError
from muster.importing import describe_failure
from muster.queues.base import LeaseLost, Task, TaskQueue, TaskResult
from muster.tasks import stop_tasks
from muster.testing.outcome import Broken, NotApplicable, Outcome

__all__ = (
    "Bench",
    "QueueFactory",
    "QueueRule",
    "check_queue",
    "expect",
    "now",
    "rule",
    "rules_of",
    "since",
)

T = TypeVar("T")

QueueFactory: TypeAlias = Callable[[Path], "TaskQueue | Awaitable[TaskQueue]"]
"""Opens the queue that belongs to a folder: the same one each time, if several processes can."""

SECONDS = 20.0
"""How long a rule may take before it counts as broken."""

SOON = 1.0
"""Seconds within which what can happen at once must have happened."""

SHORT = 0.25
"""Seconds of a lease, or of a delay, that is waited for."""


def expect(held: object, evidence: str) -> None:
    """Raise `Broken` with the evidence, unless it held."""
    if not held:
        raise Broken(evidence)


@dataclass
class Bench:
    """What a rule works with."""

    folder: Path
    factory: QueueFactory
    small: QueueFactory | None
    shared: bool
    opened: list[TaskQueue] = field(default_factory=list)
    started: list[asyncio.Task[Any]] = field(default_factory=list)

    async def open(self) -> TaskQueue:
        """The queue."""
        return await self._open(self.factory)

    async def another(self) -> TaskQueue:
        """The same queue once more, as another process sees it."""
        if not self.shared:
            raise NotApplicable("each opening is a queue of its own")
        return await self._open(self.factory)

    async def side(self, queue: TaskQueue) -> TaskQueue:
        """`queue` as another process sees it, where that can be; else itself."""
        return await self.another() if self.shared else queue

    async def open_small(self) -> TaskQueue:
        """A queue that takes three open tasks."""
        if self.small is None:
            raise NotApplicable("no factory of a queue for three tasks was given (small=)")
        return await self._open(self.small)

    async def take(self, queue: TaskQueue, *, lease: float = 30.0, wait: float = 5.0) -> Task:
        """A task that must be there."""
        task = await queue.take(lease=lease, wait=wait, worker="bench")
        if task is None:
            raise Broken(f"no task came within {wait:g} s, though one was open")
        return task

    async def ended(self, queue: TaskQueue, id: str) -> TaskResult:
        """The result of a task that must have ended."""
        result = await queue.wait(id, 5.0)
        if result is None:
            raise Broken(f"wait({id!r}) saw no end within 5 s, though the task has ended")
        return result

    @contextmanager
    def refused(self, what: str) -> Iterator[None]:
        """Raise `Broken` unless `LeaseLost` is raised within."""
        try:
            yield
        except LeaseLost:
            return
        raise Broken(f"{what} was accepted")

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Have something done beside the rule; it ends with it."""
        task = asyncio.ensure_future(work)
        self.started.append(task)
        return task

    async def close(self) -> None:
        """Close whatever was opened."""
        await stop_tasks(self.started)
        await asyncio.gather(*self.started, return_exceptions=True)
        for queue in self.opened:
            await queue.aclose()

    async def _open(self, factory: QueueFactory) -> TaskQueue:
        made = factory(self.folder)
        queue = await made if inspect.isawaitable(made) else made
        self.opened.append(queue)
        return queue


Run: TypeAlias = Callable[[Bench], Awaitable[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueRule:
    """One thing that every queue owes to whoever uses it."""

    id: str
    title: str
    why: str
    """What goes wrong for users when it is broken."""
    mend: str
    """What an author does about it."""
    run: Run
    """Returns the evidence when the rule is kept."""


def check_queue(
    rule: QueueRule, factory: QueueFactory, *, small: QueueFactory | None, shared: bool
) -> Outcome:
    """Try the queue, in a folder and on an event loop of its own."""
    with TemporaryDirectory(prefix="muster-queue-") as folder:
        bench = Bench(Path(folder), factory, small, shared)
        return asyncio.run(_checked(rule, bench))


async def _checked(rule: QueueRule, bench: Bench) -> Outcome:
    try:
        async with asyncio.timeout(SECONDS):
            try:
                return Outcome("passed", await rule.run(bench))
            finally:
                await bench.close()
    except Broken as broken:
        return Outcome("failed", str(broken))
    except NotApplicable as reason:
        return Outcome("not applicable", str(reason))
    except TimeoutError:
        return Outcome("failed", f"not through after {SECONDS:g} s")
    except MusterError as error:
        return Outcome("failed", f"{type(error).__name__} where nothing is wrong: {error}")
    except Exception as error:
        return Outcome("failed", f"where nothing is wrong: {describe_failure(error)}")


def rule(id: str, title: str, *, why: str, mend: str) -> Callable[[Run], QueueRule]:
    """Make a rule of a check: a decorator."""
    return lambda run: QueueRule(id=id, title=title, why=why, mend=mend, run=run)


def rules_of(*modules: ModuleType) -> tuple[QueueRule, ...]:
    """The rules that the modules define, in their order."""
    values = [value for module in modules for value in vars(module).values()]
    return tuple(value for value in values if isinstance(value, QueueRule))


def now() -> float:
    """The loop's time."""
    return asyncio.get_running_loop().time()


def since(began: float) -> float:
    """Seconds since then."""
    return now() - began
