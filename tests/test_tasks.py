from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from muster.tasks import GRACE_SECONDS, LAST_SECONDS, end_within, stop_tasks, surely
from virtual_loop import virtual

Work = Coroutine[Any, Any, Any]


async def obeys() -> str:
    await asyncio.sleep(100)
    return "never"


async def cleans_up(seconds: float) -> None:
    try:
        await asyncio.sleep(100)
    finally:
        await asyncio.sleep(seconds)


async def swallows() -> None:
    while True:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            continue


async def refuses_to_close() -> None:
    for _ in range(3):  # the cancellation, `close`, and then the end of the loop
        try:
            await asyncio.sleep(100)
        except (asyncio.CancelledError, GeneratorExit):
            continue


async def fails_on_cancel() -> None:
    try:
        await asyncio.sleep(100)
    except asyncio.CancelledError:
        raise ValueError("at the end") from None


def timed(main: Callable[[], Work]) -> tuple[Any, float]:
    """What `main` gives, and how long it took."""

    async def timed_main() -> tuple[Any, float]:
        found = await main()
        return found, asyncio.get_running_loop().time()

    found, seconds = virtual(timed_main())
    return found, round(seconds, 6)


@pytest.mark.parametrize(
    ("work", "seconds"),
    [
        (obeys, 0),
        (lambda: cleans_up(2), 2),
        (lambda: cleans_up(GRACE_SECONDS + 1), GRACE_SECONDS),
        (swallows, GRACE_SECONDS),
        (fails_on_cancel, 0),
    ],
    ids=["obeys", "cleans up", "cleans up too long", "swallows", "fails"],
)
def test_a_task_is_stopped_within_the_grace(work: Callable[[], Work], seconds: float) -> None:
    async def main() -> asyncio.Task[Any]:
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        await stop_tasks([task])
        return task

    async def settled() -> bool:
        task = await main()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return task.done()

    assert timed(settled) == (True, seconds)


def test_the_grace_is_for_all_tasks_together() -> None:
    async def main() -> list[bool]:
        works: list[Work] = [swallows(), swallows(), obeys(), cleans_up(0.5)]
        tasks = [asyncio.create_task(work) for work in works]
        await asyncio.sleep(0)
        await stop_tasks(tasks, grace=1.5)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return [task.done() for task in tasks]

    assert timed(main) == ([True] * 4, 1.5)


def test_tasks_that_have_ended_are_left_alone() -> None:
    async def main() -> int:
        async def quick() -> int:
            return 7

        task = asyncio.create_task(quick())
        await task
        await stop_tasks([task])
        await stop_tasks([])
        return task.result()

    assert timed(main) == (7, 0)


def test_what_refuses_to_be_closed_does_not_hold_the_caller() -> None:
    async def main() -> None:
        task = asyncio.create_task(refuses_to_close())
        await asyncio.sleep(0)
        await stop_tasks([task], grace=1)
        task.cancel()
        await asyncio.wait([task])

    assert timed(main) == (None, 1)


def test_a_second_cancellation_reaches_the_tasks_and_leaves_them_a_moment() -> None:
    ended = []

    async def stubborn() -> None:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                await asyncio.sleep(LAST_SECONDS / 2)
                ended.append("cleaned up")
                raise

    async def main() -> None:
        task = asyncio.create_task(stubborn())
        await asyncio.sleep(0)
        stopping = asyncio.create_task(stop_tasks([task]))
        await asyncio.sleep(1)
        assert not stopping.done()
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping
        assert task.cancelled()

    _, seconds = timed(main)
    assert ended == ["cleaned up"]
    assert seconds == 1 + LAST_SECONDS / 2


def test_a_second_cancellation_ends_those_too_that_swallow_it() -> None:
    async def main() -> bool:
        task = asyncio.create_task(swallows())
        await asyncio.sleep(0)
        stopping = asyncio.create_task(stop_tasks([task]))
        await asyncio.sleep(1)
        stopping.cancel()
        await asyncio.wait([stopping])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return stopping.cancelled() and task.done()

    assert timed(main) == (True, 1 + LAST_SECONDS)


# --- end_within ----------------------------------------------------------------------------------


def test_a_task_that_ends_in_time() -> None:
    async def main() -> tuple[bool, int]:
        async def quick() -> int:
            await asyncio.sleep(3)
            return 7

        task = asyncio.create_task(quick())
        return await end_within(task, 4), task.result()

    assert timed(main) == ((True, 7), 3)


def test_a_task_that_fails_in_time_keeps_its_error() -> None:
    async def main() -> tuple[bool, str]:
        async def broken() -> None:
            raise ValueError("oh")

        task = asyncio.create_task(broken())
        in_time = await end_within(task, 4)
        return in_time, str(task.exception())

    assert timed(main) == ((True, "oh"), 0)


def test_a_task_that_has_ended_already() -> None:
    async def main() -> bool:
        task = asyncio.create_task(asyncio.sleep(0))
        await task
        return await end_within(task, 4)

    assert timed(main) == (True, 0)


@pytest.mark.parametrize(("work", "seconds"), [(obeys, 4), (swallows, 4.5)])
def test_a_task_that_does_not_end_is_stopped(work: Callable[[], Work], seconds: float) -> None:
    async def main() -> tuple[bool, bool]:
        task = asyncio.create_task(work())
        in_time = await end_within(task, 4, grace=0.5)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return in_time, task.done()

    assert timed(main) == ((False, True), seconds)


@pytest.mark.parametrize(("work", "seconds"), [(obeys, 1), (swallows, 1.5)])
def test_the_task_is_stopped_with_its_caller(work: Callable[[], Work], seconds: float) -> None:
    async def main() -> bool:
        task = asyncio.create_task(work())
        caller = asyncio.create_task(end_within(task, 4, grace=0.5))
        await asyncio.sleep(1)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return task.done()

    assert timed(main) == (True, seconds)


async def test_a_cancellation_that_gets_lost_is_repeated() -> None:
    lost = 0
    waiting = asyncio.Event()

    async def careless() -> None:
        nonlocal lost
        while True:
            waiting.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                lost += 1
                if lost == 2:
                    raise

    task = asyncio.create_task(surely(careless()))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert lost == 2
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_what_is_awaited_surely_ends_as_it_does() -> None:
    async def answers() -> int:
        return 7

    async def fails() -> None:
        raise KeyError("x")

    assert await surely(answers()) == 7
    with pytest.raises(KeyError):
        await surely(fails())
