"""Rules of queues: leases, and the ends of tasks."""

from __future__ import annotations

import asyncio

from muster.testing.outcome import Broken
from muster.testing.queue_bench import SHORT, SOON, Bench, expect, now, rule, since


@rule(
    "a-crash-loses-nothing",
    "When its worker disappears, a task comes again after its lease",
    why="A worker that is killed takes its tasks with it.",
    mend="Keep when each lease ends; in `take`, give also what runs with a lease that is over.",
)
async def _crash(bench: Bench) -> str:
    queue = await bench.open()
    other = await bench.side(queue)
    id = await queue.submit("survive")
    began = now()
    await bench.take(queue, lease=SHORT)
    task = await other.take(wait=SHORT + 3 * SOON)
    took = since(began)
    if task is None:
        raise Broken(f"taken for {SHORT} s; {took:.1f} s later it was still gone")
    expect(task.id == id, f"came again as {task.id}, not {id}")
    expect(took >= SHORT - 0.02, f"taken for {SHORT} s, and given again after {took:.2f} s")
    expect(took <= SHORT + SOON, f"the lease of {SHORT} s was over; it came after {took:.2f} s")
    await other.finish(task, "alive")
    expect((await bench.ended(other, id)).output == "alive", "it could not be finished")
    return f"a lease of {SHORT} s, given again after {took:.3f} s"


@rule(
    "a-lease-holds",
    "While its lease lasts, and is extended, nobody else gets a task",
    why="A slow task would be worked on by two, and paid for twice.",
    mend="`extend` moves the lease's end, counted from now; `take` looks at the moved one.",
)
async def _holds(bench: Bench) -> str:
    queue = await bench.open()
    other = await bench.side(queue)
    await queue.submit("slow")
    lease = 2 * SHORT
    task = await bench.take(queue, lease=lease)
    for number in range(4):
        thief = await other.take(wait=lease / 2)
        expect(thief is None, f"given to another after {number / 2:g} of its leases")
        await queue.extend(task, lease)
    await queue.finish(task, "slow but good")
    return f"held for {2 * lease:g} s with leases of {lease:g} s"


@rule(
    "a-late-word-is-refused",
    "Who has lost a lease cannot end, keep or return the task",
    why="A worker that was thought dead would overwrite the result of the one that took over.",
    mend="Give each taking a token of its own (`lease`); compare it in every change.",
)
async def _late(bench: Bench) -> str:
    queue = await bench.open()
    other = await bench.side(queue)
    id = await queue.submit("who?")
    late = await bench.take(queue, lease=SHORT / 2)
    task = await bench.take(other)
    expect(task.lease != late.lease, "both takings have the same lease")
    with bench.refused("finish() of a lease that another has now"):
        await queue.finish(late, "late")
    with bench.refused("fail() of a lease that another has now"):
        await queue.fail(late, "late", retry_in=0.0)
    with bench.refused("fail() for good of a lease that another has now"):
        await queue.fail(late, "late")
    with bench.refused("extend() of a lease that another has now"):
        await queue.extend(late)
    with bench.refused("release() of a lease that another has now"):
        await queue.release(late)
    await other.finish(task, "in time")
    output = (await bench.ended(queue, id)).output
    expect(output == "in time", f"the result became {output!r}")
    return "finish, fail, extend and release are refused"


@rule(
    "crashes-are-counted",
    "A task that kills its workers is dead after its last attempt",
    why="One poisonous task would bring down worker after worker, for ever.",
    mend="Count an attempt when a task is taken, not when it fails; look in `take`.",
)
async def _counted(bench: Bench) -> str:
    queue = await bench.open()
    id = await queue.submit("poison", max_attempts=2)
    for number in (0, 1):
        task = await bench.take(queue, lease=SHORT / 2)
        expect(task.attempt == number, f"taking {number + 1} says attempt={task.attempt}")
    extra = await queue.take(wait=2 * SHORT)
    expect(extra is None, "with two attempts it was given a third time")
    result = await queue.wait(id, SOON)
    expect(result is not None, "both attempts are over, and it has not ended")
    expect(result is not None and result.status == "dead" and result.error, f"wait() gave {result}")
    return "two leases ran out, then dead"


@rule(
    "a-released-task-comes-at-once",
    "A task that is given back comes again at once, and the attempt is not counted",
    why="With each restart of a worker, what it held would lose an attempt, and wait.",
    mend="`release` makes it due now, takes one from the attempts, and wakes who waits.",
)
async def _released(bench: Bench) -> str:
    queue = await bench.open()
    other = await bench.side(queue)
    id = await queue.submit("pass on", max_attempts=1)
    first = await bench.take(queue)
    waiting = bench.start(other.take(wait=5.0))
    await asyncio.sleep(0.05)
    began = now()
    await queue.release(first)
    second = await waiting
    took = since(began)
    if second is None or second.id != id:
        raise Broken(f"the task that was given back did not come again; take() gave {second}")
    expect(second.attempt == 0, f"it came with attempt={second.attempt}, not 0")
    expect(took <= SOON, f"it came only after {took:.2f} s")
    return f"came again after {took * 1000:.0f} ms"


@rule(
    "the-first-end-wins",
    "A task ends once",
    why="A result that somebody has acted on would change afterwards.",
    mend="Change only tasks that are open; the lease is void with the end.",
)
async def _first(bench: Bench) -> str:
    queue = await bench.open()
    id = await queue.submit("end")
    task = await bench.take(queue)
    await queue.finish(task, "first")
    with bench.refused("a second finish()"):
        await queue.finish(task, "second")
    with bench.refused("fail() after finish()"):
        await queue.fail(task, "second")
    with bench.refused("release() after finish()"):
        await queue.release(task)
    expect(await queue.cancel(id) is False, "cancel() of a task that is done gave True")
    result = await bench.ended(queue, id)
    expect((result.status, result.output) == ("done", "first"), f"wait() gave {result}")
    expect(await queue.take(wait=0.0) is None, "it was given again")
    return "finish, then everything else is refused"


@rule(
    "cancelling-ends-a-task",
    "A cancelled task is not given, and its worker can end it no more",
    why="What nobody needs any more would still be worked on, and paid for.",
    mend="`cancel` ends what waits and what runs, voids the lease, and wakes who waits.",
)
async def _cancel(bench: Bench) -> str:
    queue = await bench.open()
    other = await bench.side(queue)
    running, waiting = await queue.submit("one"), await queue.submit("two")
    task = await bench.take(queue)
    if task.id == waiting:
        running, waiting = waiting, running
    watching = bench.start(bench.ended(queue, running))
    await asyncio.sleep(0.05)
    for id in (running, waiting):
        expect(await other.cancel(id, "too late") is True, "cancel() of an open task gave False")
    expect(await queue.take(wait=0.0) is None, "a cancelled task was given")
    for result in (await watching, await bench.ended(queue, waiting)):
        expect((result.status, result.error) == ("cancelled", "too late"), f"wait() gave {result}")
    with bench.refused("finish() of a cancelled task"):
        await queue.finish(task, "too late")
    expect(await queue.cancel("nobody") is False, "cancel() of an unknown id gave True")
    return "one that waits, one that runs"
