"""Rules of queues: waiting, and the queue as a whole."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress

from muster.errors import MusterError, UsageError
from muster.queues.base import LeaseLost, QueueFull, Task
from muster.testing.outcome import Broken
from muster.testing.queue_bench import SHORT, SOON, Bench, expect, now, rule, since


@rule(
    "takers-are-woken",
    "Who waits for a task gets it as soon as it is there",
    why="Every task would wait for a poll; or some worker would starve beside full queues.",
    mend="Let `submit` wake those who wait in `take`, in other processes too.",
)
async def _woken(bench: Bench) -> str:
    queue = await bench.open()
    other = await bench.side(queue)
    takers = [bench.start(side.take(wait=5.0)) for side in (queue, other) * 2]
    await asyncio.sleep(0.1)
    began = now()
    for number in range(len(takers)):
        await queue.submit(f"task {number}")
    done, late = await asyncio.wait(takers, timeout=SOON)
    took = since(began)
    for taker in late:
        taker.cancel()
    given = {task.id for taker in done if (task := taker.result()) is not None}
    expect(
        len(given) == 4,
        f"4 tasks were there, and {len(given)} of 4 waiting takers had one after {took:.1f} s",
    )
    return f"4 takers had a task after {took * 1000:.0f} ms"


@rule(
    "waiters-are-woken",
    "Who waits for a result has it as soon as it is there",
    why="Every step of a chain of tasks would add the time between two polls.",
    mend="Let the end of a task wake those who wait for it, in other processes too.",
)
async def _results(bench: Bench) -> str:
    queue = await bench.open()
    other = await bench.side(queue)
    ids = [await queue.submit(f"task {number}") for number in range(3)]
    waiting = [bench.start(side.wait(id, 5.0)) for side in (queue, other) for id in ids]
    await asyncio.sleep(0.1)
    began = now()
    for _ in ids:
        task = await bench.take(queue)
        await queue.finish(task, task.prompt)
    done, late = await asyncio.wait(waiting, timeout=SOON)
    took = since(began)
    for waiter in late:
        waiter.cancel()
    expect(not late, f"{len(late)} of {len(waiting)} had no result {took:.1f} s after the end")
    ended = Counter(result.id for waiter in done if (result := waiter.result()) is not None)
    expect(ended == dict.fromkeys(ids, 2), f"results came for {dict(ended)}")
    return f"{len(waiting)} had their results after {took * 1000:.0f} ms"


@rule(
    "waiting-has-an-end",
    "`take` and `wait` give up when their time is over; an unknown id is an error",
    why="A worker that is to end with the queue would hang; so would who mistyped an id.",
    mend="Bound the wait by `wait` and `timeout`, 0 included; look the id up first.",
)
async def _bounded(bench: Bench) -> str:
    queue = await bench.open()
    began = now()
    expect(await queue.take(wait=0.0) is None, "take() of an empty queue gave a task")
    at_once = since(began)
    expect(await queue.take(wait=SHORT) is None, "take() of an empty queue gave a task")
    id = await queue.submit("slow")
    expect(await queue.wait(id, SHORT) is None, "wait() gave the end of an open task")
    took = since(began)
    expect(at_once <= SOON / 2, f"take(wait=0) took {at_once:.2f} s")
    expect(2 * SHORT - 0.05 <= took <= 2 * SHORT + SOON, f"two waits of {SHORT} s took {took:.2f}")
    try:
        await queue.wait("nobody", SOON)
    except UsageError:
        return f"0 s took {at_once * 1000:.0f} ms, twice {SHORT} s took {took:.2f} s"
    raise Broken("wait() for an unknown id raised no UsageError")


@rule(
    "a-cancelled-take-loses-nothing",
    "When `take` is cancelled, no task is lost with it",
    why="A worker that is asked to end would take a task and drop it.",
    mend="Await nothing between marking a task as taken and returning it; or give it back.",
)
async def _cancelled(bench: Bench) -> str:
    queue = await bench.open()
    count, kept = 20, 0
    for number in range(count):
        taking = bench.start(queue.take(wait=5.0))
        await asyncio.sleep(0)
        await queue.submit(f"task {number}")
        for _ in range(number % 7):
            await asyncio.sleep(0)
        taking.cancel()
        task: Task | None = None
        with suppress(asyncio.CancelledError):
            task = await taking
        if task is None:
            task = await queue.take(wait=SOON)
        if task is None:
            raise Broken(f"submission {number + 1}: the cancelled take() took it along")
        kept += 1
        await queue.finish(task, "kept")
    return f"{kept} of {count} tasks were there after a cancelled take()"


@rule(
    "the-loop-goes-on",
    "Waiting does not hold up the event loop",
    why="All calls under way stand still, and leases run out, while a queue waits or works.",
    mend="Wait with asyncio; do on a thread what takes longer than a few milliseconds.",
)
async def _loop(bench: Bench) -> str:
    queue = await bench.open()
    id = await queue.submit("x" * 10_000)
    worst = 0.0

    async def watch() -> None:
        nonlocal worst
        while True:
            before = now()
            await asyncio.sleep(0.005)
            worst = max(worst, since(before) - 0.005)

    watching = bench.start(watch())
    await asyncio.sleep(0)
    task = await bench.take(queue)
    await queue.take(wait=SHORT)
    await queue.wait(id, SHORT)
    await queue.finish(task, "done")
    watching.cancel()
    expect(worst < SHORT / 2, f"the loop stood still for {worst * 1000:.0f} ms")
    return f"at most {worst * 1000:.0f} ms"


@rule(
    "the-depth-is-bounded",
    "A full queue takes nothing in, until a task has ended",
    why="A producer that is faster than the workers fills the disk, and nobody learns of it.",
    mend="Count open tasks in the transaction that puts one in; raise `QueueFull` above the depth.",
)
async def _depth(bench: Bench) -> str:
    queue = await bench.open_small()
    ids = [await queue.submit(f"task {number}") for number in range(3)]
    task = await bench.take(queue)
    try:
        await queue.submit("too many", id="too-many")
    except QueueFull:
        pass
    else:
        raise Broken("a fourth open task was taken in by a queue for three")
    expect(not await queue.look(["too-many"]), "it raised QueueFull, and put the task in")
    expect(await queue.submit("again", id=ids[1]) == ids[1], "an id that is there was refused")
    await queue.finish(task, "done")
    await queue.submit("now there is room")
    return "3 taken in, the fourth refused; taken in after an end"


@rule(
    "tasks-are-listed-and-counted",
    "Lists and counts tell what there is",
    why="Nobody sees what is waiting, who works on what, and what has failed.",
    mend="`states` has the newest first, filtered and limited; `counts` has every status.",
)
async def _listed(bench: Bench) -> str:
    queue = await bench.open()
    ids = [await queue.submit(f"task {number}") for number in range(5)]
    by_id = {}
    for _ in range(3):
        task = await bench.take(queue)
        by_id[task.id] = task
    done, dead, running = list(by_id.values())
    await queue.finish(done, "good")
    await queue.fail(dead, "bad")
    await queue.cancel(next(id for id in ids if id not in by_id))
    counts = await queue.counts()
    expect(
        counts == {"waiting": 1, "running": 1, "done": 1, "dead": 1, "cancelled": 1},
        f"counts() gave {counts}",
    )
    listed = [state.id for state in await queue.states()]
    expect(listed == ids[::-1], f"states() gave {listed}; submitted were, in order, {ids}")
    expect([s.id for s in await queue.states(limit=2)] == ids[:2:-1], "limit=2 gave something else")
    (state,) = await queue.states("running")
    expect((state.id, state.worker) == (running.id, "bench"), f"states('running') gave {state}")
    return "five tasks, one of each status"


@rule(
    "a-closed-queue-keeps-its-tasks",
    "What was in the queue is there when it is opened again",
    why="With the last worker that ends, everything would be gone.",
    mend="Write before `submit`, `finish` and `fail` return.",
)
async def _kept(bench: Bench) -> str:
    queue = await bench.another()
    waiting = await queue.submit("wait for me", delay=0.0)
    done = await queue.submit("done", delay=60.0)
    await queue.cancel(done, "kept")
    await queue.aclose()
    bench.opened.remove(queue)
    queue = await bench.another()
    expect((await bench.ended(queue, done)).error == "kept", "a result was gone")
    expect((await bench.take(queue)).id == waiting, "a waiting task was gone")
    return "a task and a result"


@rule(
    "closing-ends-the-waiting",
    "`aclose` ends what waits, and leaves no asyncio task behind",
    why="A program would hang at its end, or print warnings of tasks that were destroyed.",
    mend="Wake who waits with an error; cancel and await tasks of your own.",
)
async def _closing(bench: Bench) -> str:
    before = asyncio.all_tasks()
    queue = await bench.open()
    id = await queue.submit("x", delay=60.0)
    waiting = [bench.start(queue.take()), bench.start(queue.wait(id))]
    await asyncio.sleep(0.05)
    await queue.aclose()
    bench.opened.remove(queue)
    done, late = await asyncio.wait(waiting, timeout=SOON)
    for waiter in late:
        waiter.cancel()
    expect(not late, f"{len(late)} of 2 still waited {SOON:g} s after aclose()")
    for waiter in done:
        error = waiter.exception()
        expect(
            isinstance(error, MusterError) and not isinstance(error, LeaseLost),
            f"what waited ended with {error!r}, not with a MusterError",
        )
    left = asyncio.all_tasks() - before - set(waiting)
    expect(not left, f"asyncio tasks were left: {sorted(task.get_name() for task in left)}")
    return "take() and wait() ended with an error; nothing was left"
