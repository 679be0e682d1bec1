"""A worker, in this process: what it asks, what it tells the queue, how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from muster.errors import MusterError
from muster.provider import (
    BadRequest,
    ProviderRequest,
    ProviderResponse,
    ProviderUnavailable,
    RateLimited,
    TokenUsage,
)
from muster.queues.base import QueueUnavailable, Task, TaskResult
from muster.queues.memory import MemoryQueue
from muster.target import RetryPolicy
from muster.worker.worker import Happening, Until, Worker, WorkerSettings

AT_ONCE = RetryPolicy(initial_delay=0.01, max_delay=0.01)


class Asked:
    """A provider that notes what it is asked, and answers as `answer` does."""

    def __init__(self, answer: Callable[[ProviderRequest], Any]) -> None:
        self.answer = answer
        self.requests: list[ProviderRequest] = []
        self.cut: list[str] = []

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        self.requests.append(request)
        try:
            answer = self.answer(request)
            said = await answer if asyncio.iscoroutine(answer) else answer
        except asyncio.CancelledError:
            self.cut.append(request.question)
            raise
        return said if isinstance(said, ProviderResponse) else ProviderResponse(said)


class Work:
    """A worker under way."""

    def __init__(self, queue: Any, provider: Asked, **settings: Any) -> None:
        self.stop, self.hurry = asyncio.Event(), asyncio.Event()
        self.happened: list[Happening] = []
        self.warned: list[str] = []
        self.worker = Worker(
            queue,
            provider,
            WorkerSettings(name="w", **{"retry": AT_ONCE, **settings}),
            tell=self.happened.append,
            warn=self.warned.append,
            mask=lambda text: text.replace("geheim", "***"),
            random=lambda: 1.0,
        )

    async def run(self, until: Until = "empty") -> int:
        return await asyncio.wait_for(self.worker.run(self.stop, self.hurry, until), 10)

    @property
    def words(self) -> list[str]:
        return [happening.word for happening in self.happened]


async def result_of(queue: MemoryQueue, id: str) -> TaskResult:
    result = await queue.wait(id, 0)
    assert result is not None
    return result


async def test_answers_are_results() -> None:
    queue = MemoryQueue()
    ids = [await queue.submit(f"q{n}", meta={"lane": str(n)}) for n in range(10)]
    under_way, most = 0, 0

    async def answer(request: ProviderRequest) -> ProviderResponse:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.01)
        under_way -= 1
        return ProviderResponse(
            request.question.upper(), token_usage=TokenUsage(3, 1), cost_usd=0.5
        )

    provider = Asked(answer)
    work = Work(queue, provider, concurrency=3)
    assert await work.run() == 0
    assert most == 3
    for number, id in enumerate(ids):
        result = await result_of(queue, id)
        assert (result.status, result.output, result.attempts) == ("done", f"Q{number}", 1)
        assert (result.token_usage, result.cost_usd) == (TokenUsage(3, 1), 0.5)
    assert work.worker.tally.done == 10
    first = provider.requests[0]
    assert dict(first.metadata) == {"lane": "0", "task_id": ids[0]}
    assert first.attempt == 0


async def test_what_a_retry_can_help_is_tried_again_and_the_sum_is_kept() -> None:
    queue = MemoryQueue()
    id = await queue.submit("q", max_attempts=3)

    def answer(request: ProviderRequest) -> ProviderResponse:
        if request.attempt < 2:
            raise ProviderUnavailable("down", token_usage=TokenUsage(5, 0), cost_usd=1.0)
        return ProviderResponse("up", token_usage=TokenUsage(5, 2), cost_usd=1.0)

    provider = Asked(answer)
    work = Work(queue, provider)
    await work.run()
    result = await result_of(queue, id)
    assert (result.status, result.output, result.attempts) == ("done", "up", 3)
    assert (result.token_usage, result.cost_usd) == (TokenUsage(15, 2), 3.0)
    assert [request.attempt for request in provider.requests] == [0, 1, 2]
    assert work.words == ["retry", "retry", "done"]
    assert [happening.retry_in for happening in work.happened] == [0.01, 0.01, None]


async def test_pauses_grow_and_a_server_is_given_the_time_it_asks_for() -> None:
    queue = MemoryQueue()
    await queue.submit("q", max_attempts=4)

    def answer(request: ProviderRequest) -> str:
        raise RateLimited("slow down", retry_after=0.05 if request.attempt == 1 else None)

    policy = RetryPolicy(initial_delay=0.01, max_delay=0.02)
    work = Work(queue, Asked(answer), retry=policy)
    await work.run()
    pauses = [happening.retry_in for happening in work.happened]
    assert pauses == [0.01, pytest.approx(0.07), 0.02, None]
    assert work.words == ["retry", "retry", "retry", "dead"]


async def test_what_no_retry_can_help_is_dead_at_once() -> None:
    queue = MemoryQueue()
    bad, defect = await queue.submit("bad"), await queue.submit("defect")

    def answer(request: ProviderRequest) -> str:
        if request.question == "bad":
            raise BadRequest("no: geheim")
        raise KeyError("oops")

    work = Work(queue, Asked(answer))
    await work.run()
    assert work.worker.tally.dead == 2
    result = await result_of(queue, bad)
    assert (result.status, result.error) == ("dead", "bad_request: no: ***")
    error = (await result_of(queue, defect)).error
    assert error is not None
    assert error.startswith("provider_failed: ")
    assert error.endswith("KeyError: 'oops'")


async def test_secrets_are_not_kept() -> None:
    queue = MemoryQueue()
    id = await queue.submit("q")
    await Work(queue, Asked(lambda request: "the key is geheim")).run()
    assert (await result_of(queue, id)).output == "the key is ***"


async def test_the_lease_of_a_slow_task_is_extended() -> None:
    queue = MemoryQueue()
    id = await queue.submit("slow")
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def answer(request: ProviderRequest) -> str:
        begun.set()
        await go_on.wait()
        return "at last"

    work = Work(queue, Asked(answer), lease=0.15)
    running = asyncio.ensure_future(work.run("once"))
    await begun.wait()
    assert await queue.take(wait=0.5) is None  # more than three leases
    go_on.set()
    assert await running == 0
    result = await result_of(queue, id)
    assert (result.output, result.attempts) == ("at last", 1)


async def test_who_cancels_a_task_stops_its_call() -> None:
    queue = MemoryQueue()
    id = await queue.submit("long")
    asked = asyncio.Event()

    async def answer(request: ProviderRequest) -> str:
        asked.set()
        await asyncio.Event().wait()
        return ""

    provider = Asked(answer)
    work = Work(queue, provider)
    running = asyncio.ensure_future(work.run("once"))
    await asked.wait()
    assert await queue.cancel(id, "not needed")
    assert await asyncio.wait_for(running, 2) == 0
    assert provider.cut == ["long"]
    assert (work.words, work.happened[0].text) == (["lost"], "not needed")


async def test_a_lease_that_another_has_now() -> None:
    now = 1000.0
    queue = MemoryQueue(clock=lambda: now)
    await queue.submit("contested")
    asked = asyncio.Event()

    async def answer(request: ProviderRequest) -> str:
        asked.set()
        await asyncio.Event().wait()
        return ""

    provider = Asked(answer)
    work = Work(queue, provider, lease=0.3)
    running = asyncio.ensure_future(work.run("once"))
    await asked.wait()
    now += 10  # as if this process had been stopped for so long
    thief = await queue.take(wait=0)
    assert thief is not None
    assert await asyncio.wait_for(running, 5) == 0
    assert (provider.cut, work.words) == (["contested"], ["lost"])
    await queue.finish(thief, "hers")


@pytest.mark.parametrize("hurried", [False, True])
async def test_stopping(hurried: bool) -> None:
    queue = MemoryQueue()
    ids = [await queue.submit(f"q{n}") for n in range(3)]
    two, go_on = asyncio.Event(), asyncio.Event()

    async def answer(request: ProviderRequest) -> str:
        if len(provider.requests) == 2:
            two.set()
        await go_on.wait()
        return "done"

    provider = Asked(answer)
    work = Work(queue, provider, concurrency=2)
    running = asyncio.ensure_future(work.run("stopped"))
    await two.wait()
    work.stop.set()
    await asyncio.sleep(0.01)
    assert not running.done()
    (work.hurry if hurried else go_on).set()
    assert await running == (2 if hurried else 0)
    states = await queue.look(ids)
    statuses = [states[id].status for id in ids]
    if hurried:
        assert sorted(provider.cut) == ["q0", "q1"]
        assert statuses == ["waiting"] * 3
        assert [states[id].attempts for id in ids] == [0, 0, 0]
        assert work.words == ["returned", "returned"]
        task = await queue.take(wait=0)
        assert task is not None
    else:
        assert statuses == ["done", "done", "waiting"]
        assert len(provider.requests) == 2


async def test_a_worker_that_is_idle_stops_at_once() -> None:
    queue = MemoryQueue()
    work = Work(queue, Asked(lambda request: "x"))
    running = asyncio.ensure_future(work.run("stopped"))
    await asyncio.sleep(0.01)
    work.stop.set()
    assert await asyncio.wait_for(running, 1) == 0


async def test_once_is_one_attempt_if_there_is_a_task() -> None:
    queue = MemoryQueue()
    provider = Asked(lambda request: "x")
    assert await Work(queue, provider).run("once") == 0
    assert provider.requests == []
    for _ in range(2):
        await queue.submit("q")
    await Work(queue, provider).run("once")
    assert (await queue.counts())["done"] == 1


async def test_until_empty_waits_for_what_others_have_and_for_delays() -> None:
    queue = MemoryQueue()
    await queue.submit("mine", delay=0.1)
    await queue.submit("hers")
    hers = await queue.take()
    assert hers is not None
    work = Work(queue, Asked(lambda request: "x"))
    running = asyncio.ensure_future(work.run("empty"))
    await queue.finish(await _wait_until_done(queue, hers), "x")
    assert await running == 0
    assert (await queue.counts())["done"] == 2


async def _wait_until_done(queue: MemoryQueue, task: Task) -> Task:
    """`task`, once the other one is done."""
    for state in await queue.states():
        if state.id != task.id:
            assert await queue.wait(state.id, 5) is not None
    return task


class Unreachable(MemoryQueue):
    """Fails each method's first calls."""

    failures = 1

    def _fail(self, method: str) -> None:
        tried = self.__dict__.setdefault("tried", {})
        tried[method] = tried.get(method, 0) + 1
        if tried[method] <= self.failures:
            raise QueueUnavailable(f"{method} is not to be reached")

    async def take(self, **more: Any) -> Task | None:
        self._fail("take")
        return await super().take(**more)

    async def finish(self, task: Task, output: str, **more: Any) -> None:
        self._fail("finish")
        await super().finish(task, output, **more)


async def test_a_queue_that_cannot_be_reached_is_tried_again() -> None:
    queue = Unreachable()
    id = await queue.submit("q")
    work = Work(queue, Asked(lambda request: "x"))
    await work.run()
    assert (await result_of(queue, id)).output == "x"
    assert [text.partition(": ")[2] for text in work.warned] == [
        "take is not to be reached",
        "finish is not to be reached",
    ]


async def test_a_queue_that_has_failed_ends_the_worker() -> None:
    class Broken(MemoryQueue):
        async def finish(self, task: Task, output: str, **more: Any) -> None:
            raise MusterError("queue.db: no space left on the disk")

    queue = Broken()
    for _ in range(5):
        await queue.submit("q")
    before = asyncio.all_tasks()
    with pytest.raises(MusterError, match="no space left"):
        await Work(queue, Asked(lambda request: "x")).run()
    assert asyncio.all_tasks() == before
