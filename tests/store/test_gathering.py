"""Writes of one turn of the event loop are one transaction; who waits for it may rely on it."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from muster.errors import MusterError
from muster.provider import TokenUsage
from muster.store import database
from muster.store.gathering import MOST, NUMBERS
from muster.store.journal import Journal
from muster.store.records import CallRecord, RunRecord, StepRecord

RUN = "t-aaaaaa"
LOCKED = r"another process has held it for 0\.01 s"


@pytest.fixture
def begun(journal: Journal) -> Journal:
    journal.begin_run(RunRecord(id=RUN, team="t"))
    return journal


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch, begun: Journal) -> Iterator[Journal]:
    """A journal that waits for nobody."""
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.01)
    opened = Journal.open(begun.path)
    yield opened
    opened.close()


def begin(journal: Journal, name: str) -> int:
    return journal.begin_step(StepRecord(run_id=RUN, name=name))


def on_disk(journal: Journal) -> list[str]:
    """The names of the steps, as another process sees them."""
    with sqlite3.connect(journal.path) as other:
        rows = other.execute("SELECT name FROM steps ORDER BY id").fetchall()
    other.close()
    return [row[0] for row in rows]


@contextmanager
def held(journal: Journal) -> Iterator[None]:
    """Another process writes, and does not come to an end."""
    other = sqlite3.connect(journal.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.close()


# --- when it is written -------------------------------------------------------------------------


async def test_a_turn_is_one_transaction(begun: Journal) -> None:
    for name in "abc":
        begin(begun, name)
    assert on_disk(begun) == []
    await begun.flushed()
    assert on_disk(begun) == ["a", "b", "c"]


async def test_who_waits_for_nothing_waits_not(begun: Journal) -> None:
    waiting = begun.flushed()
    with pytest.raises(StopIteration):
        waiting.send(None)


async def test_others_see_it_without_anybody_waiting(begun: Journal) -> None:
    begin(begun, "a")
    await asyncio.sleep(0)
    assert on_disk(begun) == ["a"]


async def test_nothing_is_held_locked_meanwhile(impatient: Journal) -> None:
    row = begin(impatient, "a")
    with Journal.open(impatient.path) as other:
        other.request_cancel(RUN)
    impatient.end_step(row, status="succeeded")
    await impatient.flushed()
    assert impatient.cancel_requested(RUN)
    assert impatient.steps(RUN)[0].status == "succeeded"


async def test_a_long_turn_is_written_in_parts(begun: Journal) -> None:
    for number in range(MOST + 1):
        begin(begun, str(number))
    assert len(on_disk(begun)) == MOST


async def test_who_reads_sees_what_is_gathered(begun: Journal) -> None:
    row = begin(begun, "a")
    call = begun.begin_call(row, CallRecord(kind="tool", name="look"))
    begun.end_call(call, status="ok", result="seen", duration_ms=1)
    begun.end_step(row, status="succeeded", output="yes")
    assert [(step.status, step.output) for step in begun.steps(RUN)] == [("succeeded", "yes")]
    assert [(each.status, each.result) for each in begun.calls(row)] == [("ok", "seen")]


async def test_what_is_not_gathered_comes_after_it(begun: Journal) -> None:
    begin(begun, "a")
    begun.update_run(RUN, status="succeeded")
    assert on_disk(begun) == ["a"]


async def test_closing_writes_what_is_gathered(begun: Journal) -> None:
    with Journal.open(begun.path) as other:
        begin(other, "a")
    assert on_disk(begun) == ["a"]


def test_a_loop_that_ended_before_its_turn(begun: Journal) -> None:
    async def begin_one(name: str) -> None:
        begin(begun, name)

    loop = asyncio.new_event_loop()
    loop.call_soon(begin, begun, "a")
    loop.call_soon(loop.stop)
    loop.run_forever()  # one turn, which ends before what it has gathered is written
    loop.close()
    assert on_disk(begun) == []
    asyncio.run(begin_one("b"))
    begin(begun, "c")
    assert on_disk(begun) == ["a", "b", "c"]


async def test_who_gives_up_does_not_disturb_others(begun: Journal) -> None:
    first, second = (asyncio.ensure_future(begun.flushed()) for _ in range(2))
    asyncio.get_running_loop().call_soon(first.cancel)  # both wait by then
    begin(begun, "a")
    await second
    with pytest.raises(asyncio.CancelledError):
        await first
    assert on_disk(begun) == ["a"]


WRITER = """
import asyncio, sys
from pathlib import Path
from muster.store.journal import Journal
from muster.store.records import RunRecord, StepRecord

journal = Journal.open(Path(sys.argv[1]))
journal.begin_run(RunRecord(id="t-aaaaaa", team="t"))

async def work(worker):
    for number in range(100_000):
        name = f"{worker}-{number}"
        row = journal.begin_step(StepRecord(run_id="t-aaaaaa", name=name))
        await journal.flushed()
        print("begun", name, flush=True)
        journal.end_step(row, status="succeeded", output=name)
        await journal.flushed()
        print("done", name, flush=True)

async def main():
    await asyncio.gather(*map(work, range(20)))

asyncio.run(main())
"""


def test_a_killed_process_leaves_all_that_was_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        told = []
        for line in child.stdout:
            told.append(line)
            if len(told) == 500:
                break
        child.send_signal(signal.SIGKILL)
        told += [line for line in child.stdout if line.endswith("\n")]
    with Journal.open(path) as journal:
        assert journal._db.query("PRAGMA integrity_check") == [("ok",)]
        steps = {step.name: step for step in journal.steps(RUN)}
    for line in told:
        what, name = line.split()
        assert steps[name].status == "succeeded" or what == "begun"
        assert steps[name].output == (name if steps[name].status == "succeeded" else None)


# --- when it cannot be written ------------------------------------------------------------------


async def test_who_waits_is_told_that_it_is_not_written(impatient: Journal) -> None:
    row = begin(impatient, "a")
    with held(impatient):
        told = await asyncio.gather(
            *(impatient.flushed() for _ in range(2)), return_exceptions=True
        )
    assert [type(each) for each in told] == [MusterError, MusterError]
    assert "another process has held it for 0.01 s" in str(told[0])
    assert impatient.has_lost
    # What belongs to it is not written alone.
    with pytest.raises(MusterError, match=LOCKED):
        impatient.end_step(row, status="succeeded")
    with pytest.raises(MusterError, match=LOCKED):
        await impatient.flushed()
    # How the run has ended is.
    impatient.update_run(RUN, status="failed", error=str(told[0]))
    assert impatient.run(RUN).status == "failed"
    assert on_disk(impatient) == []


async def test_the_next_is_told_when_nobody_waited(impatient: Journal) -> None:
    begin(impatient, "a")
    with held(impatient):
        await asyncio.sleep(0)
    with pytest.raises(MusterError, match=LOCKED):
        impatient.update_run(RUN, status="succeeded")
    assert impatient.run(RUN).status == "running"
    impatient.update_run(RUN, status="failed")
    assert impatient.run(RUN).status == "failed"


async def test_closing_tells_what_nobody_else_was_told(impatient: Journal) -> None:
    begin(impatient, "a")
    with held(impatient), pytest.raises(MusterError, match=LOCKED):
        impatient.close()


async def test_a_value_that_the_file_cannot_hold(begun: Journal) -> None:
    row = begin(begun, "a")
    await begun.flushed()
    begun.end_step(row, status="succeeded", token_usage=TokenUsage(2**70, 0))
    with pytest.raises(MusterError, match=r"runs\.db: Python int too large"):
        await begun.flushed()


# --- numbers ------------------------------------------------------------------------------------


def test_no_number_is_given_twice(begun: Journal) -> None:
    with Journal.open(begun.path) as other:
        own = [begin(begun, "a") for _ in range(NUMBERS + 2)]
        others = [begin(other, "b") for _ in range(2)]
        again = [begin(begun, "a") for _ in range(NUMBERS)]
    assert own + again == sorted(own + again)
    assert len({*own, *others, *again}) == 2 * NUMBERS + 4
    assert begun._db.query("SELECT count(*) FROM steps") == [(2 * NUMBERS + 4,)]


def test_a_number_is_not_given_again_when_its_row_is_gone(begun: Journal) -> None:
    last = begin(begun, "a")
    begun.update_run(RUN, status="succeeded")
    begun.delete(RUN)
    begun.begin_run(RunRecord(id=RUN, team="t"))
    with Journal.open(begun.path) as other:
        assert begin(other, "a") > last
