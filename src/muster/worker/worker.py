"""A worker: takes tasks from a queue, has a provider answer them, and tells the queue.

While a task is under way, its lease is extended, and its end is waited for: who cancels it stops
the call. What a worker holds when it dies comes back when the lease runs out.
"""

from __future__ import annotations

import asyncio
import random as _random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, TypeVar

from muster.importing import describe_failure
from muster.provider import (
    Provider,
    ProviderError,
    ProviderFailed,
    ProviderRequest,
    ProviderResponse,
)
from muster.queues.base import DEFAULT_LEASE, LeaseLost, QueueUnavailable, Task, TaskQueue
from muster.target import RetryPolicy
from muster.tasks import GRACE_SECONDS, stop_tasks
from muster.wrappers.retry import backoff_ceiling

__all__ = ("Happening", "Tally", "Until", "Worker", "WorkerSettings")

T = TypeVar("T")

Until: TypeAlias = Literal["stopped", "empty", "once"]
"""When a worker ends by itself: never; when no task is open; after one attempt, if there is any."""

Word: TypeAlias = Literal["done", "retry", "dead", "lost", "returned"]

LOOK_SECONDS = 0.2
"""How often a worker that ends with the queue counts what others still have."""

BETWEEN_ATTEMPTS = RetryPolicy(initial_delay=1.0, max_delay=60.0)

PATIENCE = RetryPolicy(initial_delay=0.1, max_delay=10.0)
"""Pauses while the queue cannot be reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """How a worker works."""

    name: str = ""
    concurrency: int = 4
    """Tasks at a time."""
    lease: float = DEFAULT_LEASE
    """Seconds until a task of a worker that died is given to another; extended three times as
    often."""
    retry: RetryPolicy = BETWEEN_ATTEMPTS
    """Pauses between the attempts of a task. How many there are, the task says."""


@dataclass(frozen=True, slots=True)
class Happening:
    """What came of one attempt."""

    task: Task
    word: Word
    text: str = ""
    """The answer, or what went wrong."""
    seconds: float = 0.0
    retry_in: float | None = None


@dataclass(slots=True)
class Tally:
    """What a worker has done so far."""

    done: int = 0
    retry: int = 0
    dead: int = 0
    lost: int = 0
    returned: int = 0

    def add(self, word: Word) -> None:
        """Count an attempt."""
        setattr(self, word, getattr(self, word) + 1)


class Worker:
    """Works on one queue, with one provider."""

    def __init__(
        self,
        queue: TaskQueue,
        provider: Provider,
        settings: WorkerSettings | None = None,
        *,
        tell: Callable[[Happening], None] = lambda happening: None,
        warn: Callable[[str], None] = lambda text: None,
        mask: Callable[[str], str] = str,
        random: Callable[[], float] = _random.random,
    ) -> None:
        """`mask` takes secrets out of what is kept: answers and errors."""
        self.queue = queue
        self.provider = provider
        self.settings = settings or WorkerSettings()
        self.tally = Tally()
        self._tell = tell
        self._warn = warn
        self._mask = mask
        self._random = random

    async def run(self, stop: asyncio.Event, hurry: asyncio.Event, until: Until = "stopped") -> int:
        """Work until `stop` is set, or `until`; what is under way then is brought to its end,
        unless `hurry` is set: it is cut off, and given back. How many were, is the answer.

        Raises:
            MusterError: the queue has failed for good. What was under way comes back when its
                lease runs out.
        """
        crew: set[asyncio.Task[None]] = set()
        stopping = asyncio.ensure_future(stop.wait())
        hurrying = asyncio.ensure_future(hurry.wait())
        try:
            await self._work(crew, stopping, until)
            while crew and not hurrying.done():
                await asyncio.wait({*crew, hurrying}, return_when=asyncio.FIRST_COMPLETED)
                _reap(crew)
            before = self.tally.returned
            await stop_tasks(crew, grace=GRACE_SECONDS + 1)  # each ends a call within the grace
            _reap(crew)
            return self.tally.returned - before
        finally:
            await stop_tasks([*crew, stopping, hurrying])

    async def _work(
        self, crew: set[asyncio.Task[None]], stopping: asyncio.Task[bool], until: Until
    ) -> None:
        """Take tasks, and let the crew work on them."""
        while not stopping.done():
            if len(crew) >= self.settings.concurrency:
                await asyncio.wait({*crew, stopping}, return_when=asyncio.FIRST_COMPLETED)
                _reap(crew)
                continue
            taking = asyncio.ensure_future(self._take(until))
            try:
                while not (taking.done() or stopping.done()):
                    await asyncio.wait(
                        {*crew, taking, stopping}, return_when=asyncio.FIRST_COMPLETED
                    )
                    _reap(crew)
            finally:
                if not taking.done():
                    await stop_tasks((taking,))
            task = None if taking.cancelled() else taking.result()
            if task is not None:
                crew.add(asyncio.ensure_future(self._handle(task)))
                if until == "once":
                    return
            elif until == "once" or (until == "empty" and not crew and await self._is_empty()):
                return

    async def _take(self, until: Until) -> Task | None:
        if until == "stopped":
            return await self._take_within(None)
        task = await self._take_within(0.0)
        if task is not None or until == "once" or await self._is_empty():
            return task
        return await self._take_within(LOOK_SECONDS)

    async def _take_within(self, wait: float | None) -> Task | None:
        lease, name = self.settings.lease, self.settings.name
        return await self._insist(lambda: self.queue.take(lease=lease, wait=wait, worker=name))

    async def _is_empty(self) -> bool:
        counts = await self._insist(self.queue.counts)
        return not (counts["waiting"] or counts["running"])

    async def _handle(self, task: Task) -> None:
        """One attempt, from the question to what the queue is told."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        asking = asyncio.ensure_future(self._ask(task))
        # Both end only when the task is this worker's no more.
        guards = [
            asyncio.ensure_future(self._keep(task)),
            asyncio.ensure_future(self._insist(lambda: self.queue.wait(task.id))),
        ]
        happening: Happening | None = None
        try:
            await asyncio.wait({asking, *guards}, return_when=asyncio.FIRST_COMPLETED)
            if asking.done():
                happening = await self._report(task, asking)
            else:
                happening = await self._gone(task, guards)
        except LeaseLost as lost:
            happening = Happening(task, "lost", str(lost))
        except asyncio.CancelledError:
            await stop_tasks((asking, *guards))
            happening = await self._give_back(task)
            raise
        finally:
            if happening is not None:
                self.tally.add(happening.word)
                self._tell(replace(happening, seconds=loop.time() - began))
            await stop_tasks((asking, *guards))

    async def _ask(self, task: Task) -> ProviderResponse:
        request = ProviderRequest(
            question=task.prompt,
            attempt=task.attempt,
            metadata={**task.meta, "task_id": task.id},
        )
        return await self.provider.invoke(request)

    async def _report(self, task: Task, asking: asyncio.Task[ProviderResponse]) -> Happening:
        """Tell the queue how the attempt ended."""
        try:
            response = asking.result()
        except ProviderError as error:
            return await self._failed(task, error)
        except (Exception, asyncio.CancelledError) as error:  # a defect ends a task, not a worker
            return await self._failed(task, ProviderFailed(describe_failure(error)))
        text = self._mask(response.text)
        await self._insist(
            lambda: self.queue.finish(
                task, text, token_usage=response.token_usage, cost_usd=response.cost_usd
            )
        )
        return Happening(task, "done", text)

    async def _failed(self, task: Task, error: ProviderError) -> Happening:
        retry_in = None
        if error.retryable:
            retry_in = self._random() * backoff_ceiling(self.settings.retry, task.attempt)
            retry_in += max(error.retry_after or 0.0, 0.0)
        text = self._mask(f"{error.kind}: {error.message}")
        again = await self._insist(
            lambda: self.queue.fail(
                task,
                text,
                retry_in=retry_in,
                token_usage=error.token_usage,
                cost_usd=error.cost_usd,
            )
        )
        if again:
            return Happening(task, "retry", text, retry_in=retry_in)
        return Happening(task, "dead", text)

    async def _keep(self, task: Task) -> None:
        """Extend the lease for as long as that works."""
        lease = self.settings.lease
        while True:
            await asyncio.sleep(lease / 3)
            await self._insist(lambda: self.queue.extend(task, lease))

    async def _gone(self, task: Task, guards: Iterable[asyncio.Future[Any]]) -> Happening:
        """Why the task is not this worker's any more."""
        for guard in guards:
            if guard.done():
                guard.result()  # a lost lease, or what is wrong with the queue, is raised here
        state = (await self._insist(lambda: self.queue.look([task.id]))).get(task.id)
        ended = state.result if state is not None else None
        return Happening(task, "lost", (ended.error if ended else None) or "it has ended elsewhere")

    async def _give_back(self, task: Task) -> Happening | None:
        try:
            await self.queue.release(task)
        except (LeaseLost, QueueUnavailable):
            return None  # it comes back by itself, if it is open
        return Happening(task, "returned", "cut off; it is taken again")

    async def _insist(self, call: Callable[[], Awaitable[T]]) -> T:
        """The queue's answer, once it can be reached."""
        failures = 0
        while True:
            try:
                return await call()
            except QueueUnavailable as error:
                if not failures:
                    self._warn(f"the queue cannot be reached, trying again: {error}")
                await asyncio.sleep(max(self._random(), 0.5) * backoff_ceiling(PATIENCE, failures))
                failures += 1


def _reap(crew: set[asyncio.Task[None]]) -> None:
    """Forget those who are through; what went wrong with the queue is raised."""
    for member in [member for member in crew if member.done()]:
        crew.discard(member)
        if not member.cancelled():
            member.result()
