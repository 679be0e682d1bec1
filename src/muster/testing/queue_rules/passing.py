"""Rules of queues: what goes through, and how often it is tried."""

from __future__ import annotations

import asyncio
from collections import Counter

from muster.provider import TokenUsage
from muster.queues.base import TaskQueue
from muster.testing.queue_bench import SHORT, SOON, Bench, expect, now, rule, since


@rule(
    "tasks-and-results-arrive",
    "A task arrives with all it was given, and so does its result",
    why="A worker would answer something else, or the answer, its tokens and its price be lost.",
    mend="Keep every argument of `submit` and of `finish`; give them back unchanged.",
)
async def _arrive(bench: Bench) -> str:
    queue = await bench.open()
    id = await queue.submit("What is 6 * 7?", meta={"a": "b"}, max_attempts=5)
    task = await bench.take(await bench.side(queue))
    found = (task.id, task.prompt, dict(task.meta), task.attempt, task.max_attempts)
    expect(found == (id, "What is 6 * 7?", {"a": "b"}, 0, 5), f"take() gave {task}")
    usage = TokenUsage(7, 2, cached=3)
    await queue.finish(task, "42", token_usage=usage, cost_usd=0.25)
    result = await bench.ended(queue, id)
    told = (result.id, result.status, result.output, result.error, result.attempts)
    expect(told == (id, "done", "42", None, 1), f"wait() gave {result}")
    expect((result.token_usage, result.cost_usd) == (usage, 0.25), f"wait() gave {result}")
    state = (await queue.look([id, "nobody"])).get(id)
    expect(state is not None and state.result == result, f"look() gave {state}")
    return "prompt, meta, attempts; output, tokens, cost"


@rule(
    "text-is-kept",
    "Any text comes back as it was, long ones too",
    why="Prompts and answers are in every language, and some are books.",
    mend="Encode as UTF-8, escape what the store needs escaped, and do not limit the length.",
)
async def _text(bench: Bench) -> str:
    queue = await bench.open()
    texts = ["", " \n\t\r\n ", "'\"\\%s{}", "añ 漢字 🦜 \u200b\u2028", "x" * 1_000_000]
    for text in texts:
        id = await queue.submit(text)
        task = await bench.take(queue)
        expect(task.prompt == text, f"prompt {text[:20]!r} came as {task.prompt[:20]!r}")
        await queue.finish(task, text)
        output = (await bench.ended(queue, id)).output
        expect(output == text, f"output {text[:20]!r} came as {(output or 'None')[:20]!r}")
    return f"{len(texts)} texts, up to {max(map(len, texts))} characters"


@rule(
    "each-task-to-one-taker",
    "Of many who take at the same time, one gets a task",
    why="A task that is given twice is paid for twice, and whatever it does happens twice.",
    mend="Choose and mark the task in one transaction, or one atomic operation.",
)
async def _once(bench: Bench) -> str:
    queue = await bench.open()
    sides = [queue, await bench.side(queue)]
    count, takers = 40, 8
    ids = [await queue.submit(f"task {number}") for number in range(count)]

    async def work(side: TaskQueue) -> list[str]:
        found = []
        while (task := await side.take(wait=0.0)) is not None:
            found.append(task.id)
            await asyncio.sleep(0)
        return found

    lists = await asyncio.gather(*(work(sides[number % 2]) for number in range(takers)))
    given = Counter(id for found in lists for id in found)
    twice = [id for id, times in given.items() if times > 1]
    expect(not twice, f"given more than once: {len(twice)} of {count} tasks, e.g. {twice[:1]}")
    expect(set(given) == set(ids), f"given: {len(given)} of {count} tasks")
    return f"{count} tasks, {takers} takers: each once"


@rule(
    "an-id-is-put-in-once",
    "Submitting again with the same id puts nothing in",
    why="Who does not know whether a submission went through could not safely repeat it.",
    mend="Look the id up in the transaction that puts the task in; also among the ended ones.",
)
async def _same_id(bench: Bench) -> str:
    queue = await bench.open()
    for _ in range(2):
        id = await queue.submit("once", id="order-17")
        expect(id == "order-17", f'submit(id="order-17") gave {id!r}')
    task = await bench.take(queue)
    expect(await queue.take(wait=0.0) is None, "the task was there twice")
    await queue.finish(task, "first")
    await queue.submit("once more", id="order-17")
    expect(await queue.take(wait=0.0) is None, "the id of a task that is done was put in again")
    output = (await bench.ended(queue, "order-17")).output
    expect(output == "first", f"its result became {output!r}")
    return "three submissions, one task"


@rule(
    "a-retry-keeps-its-id",
    "A task that failed comes again under its own id",
    why="Who waits for the id that `submit` gave would wait for ever.",
    mend="Change the task's row; do not put a new one in.",
)
async def _keeps_id(bench: Bench) -> str:
    queue = await bench.open()
    id = await queue.submit("try", meta={"k": "v"})
    first = await bench.take(queue)
    again = await queue.fail(first, "not yet", retry_in=0.0)
    expect(again is True, f"fail(retry_in=0) of attempt 1 of 3 gave {again!r}, not True")
    second = await bench.take(queue)
    expect(second.id == id, f"submitted as {id}, came again as {second.id}")
    expect(second.attempt == 1, f"the second attempt says attempt={second.attempt}, not 1")
    expect(dict(second.meta) == {"k": "v"}, f"the second attempt has meta {dict(second.meta)}")
    await queue.finish(second, "now")
    result = await bench.ended(queue, id)
    expect((result.output, result.attempts) == ("now", 2), f"wait() gave {result}")
    return "attempts 0 and 1 under one id; its result too"


@rule(
    "delays-are-kept",
    "Nobody gets a task before its time; at its time somebody does",
    why="Without a pause, all attempts are over while the service is still down.",
    mend="Keep when a task is due, skip it until then, and wake those who wait at that moment.",
)
async def _delays(bench: Bench) -> str:
    queue = await bench.open()
    began = now()
    await queue.submit("later", delay=SHORT)
    expect(await queue.take(wait=0.0) is None, f"submit(delay={SHORT}) was given at once")
    task = await bench.take(queue)
    first = since(began)
    began = now()
    await queue.fail(task, "later", retry_in=SHORT)
    expect(await queue.take(wait=0.0) is None, f"fail(retry_in={SHORT}) was given at once")
    await bench.take(queue)
    second = since(began)
    for took in (first, second):
        expect(SHORT - 0.02 <= took <= SHORT + SOON, f"due after {SHORT} s, came after {took:.2f}")
    return f"due after {SHORT} s, came after {first:.3f} s and {second:.3f} s"


@rule(
    "attempts-come-to-an-end",
    "After its last attempt a task is among the dead letters, with the reason",
    why="A task that can never succeed would be tried, and paid for, for ever.",
    mend="Compare the attempts with `max_attempts` in `fail`; keep the last error.",
)
async def _attempts(bench: Bench) -> str:
    queue = await bench.open()
    id = await queue.submit("hopeless", max_attempts=2)
    said = []
    for number in (1, 2):
        task = await bench.take(queue)
        usage = TokenUsage(10, number)
        said.append(
            await queue.fail(task, f"no {number}", retry_in=0, token_usage=usage, cost_usd=0.5)
        )
    expect(said == [True, False], f"fail() of two attempts of two gave {said}")
    expect(await queue.take(wait=0.0) is None, "it was given a third time")
    result = await bench.ended(queue, id)
    told = (result.status, result.error, result.output, result.attempts)
    expect(told == ("dead", "no 2", None, 2), f"wait() gave {result}")
    used = (result.token_usage, result.cost_usd)
    expect(used == (TokenUsage(20, 3), 1.0), f"the sum over both attempts was {used}")
    other = await queue.submit("wrong")
    task = await bench.take(queue)
    expect(await queue.fail(task, "never") is False, "fail() without retry_in gave True")
    status = (await bench.ended(queue, other)).status
    expect(status == "dead", f"fail() without retry_in left it {status}")
    return "two of two attempts, then dead; without retry_in, dead at once"


@rule(
    "dead-letters-come-back",
    "Dead letters are listed, and can be put back with all their attempts",
    why="When the service is mended, what failed meanwhile would have to be submitted anew.",
    mend="`states('dead')` lists them; `requeue` sets the attempts to 0 and wakes who waits.",
)
async def _dead(bench: Bench) -> str:
    queue = await bench.open()
    id = await queue.submit("try", max_attempts=1)
    expect(await queue.requeue(id) is False, "requeue() of a waiting task gave True")
    await queue.fail(await bench.take(queue), "broken", retry_in=0.0)
    listed = [state.id for state in await queue.states("dead")]
    expect(listed == [id], f"states('dead') gave {listed}, not [{id!r}]")
    waiting = bench.start(bench.take(await bench.side(queue), wait=5.0))
    await asyncio.sleep(0.05)
    expect(await queue.requeue(id) is True, "requeue() of a dead task gave False")
    task = await waiting
    expect((task.id, task.attempt) == (id, 0), f"it came back as {task}")
    await queue.finish(task, "mended")
    expect((await bench.ended(queue, id)).output == "mended", "its second end is not its result")
    expect(not await queue.states("dead"), "it is still listed as dead")
    expect(await queue.requeue(id) is False, "requeue() of a task that is done gave True")
    return "listed, put back, done"
