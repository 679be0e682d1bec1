"""Waiting for an answer or a wish to stop, from this process or another."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from muster.errors import UsageError
from muster.store.journal import Journal
from muster.store.records import RunRecord
from muster.store.waiting import wait_for_approval, wait_for_cancel

QUICK = 0.005

DECIDE = """
import sys
from pathlib import Path
from muster.store.journal import Journal

with Journal.open(Path(sys.argv[1])) as journal:
    journal.decide("t-aaaaaa", "ship", approved=False, by="bob", comment="not yet")
    journal.request_cancel("t-aaaaaa")
"""


@pytest.fixture(autouse=True)
def run(journal: Journal) -> None:
    journal.begin_run(RunRecord(id="t-aaaaaa", team="t"))


async def test_an_answer_from_another_process(journal: Journal) -> None:
    journal.ask_approval("t-aaaaaa", "ship", "?")
    approval = asyncio.create_task(wait_for_approval(journal, "t-aaaaaa", "ship", interval=QUICK))
    cancel = asyncio.create_task(wait_for_cancel(journal, "t-aaaaaa", interval=QUICK))
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", DECIDE, str(journal.path), stderr=subprocess.PIPE
    )
    async with asyncio.timeout(20):
        _, told = await child.communicate()
        assert (child.returncode, told) == (0, b"")
        decided = await approval
        await cancel
    assert (decided.status, decided.by, decided.comment) == ("rejected", "bob", "not yet")


async def test_it_waits_until_then(journal: Journal) -> None:
    journal.ask_approval("t-aaaaaa", "ship", "?", item=3)
    waiting = asyncio.create_task(
        wait_for_approval(journal, "t-aaaaaa", "ship", item=3, interval=QUICK)
    )
    done, _ = await asyncio.wait([waiting], timeout=10 * QUICK)
    assert not done
    journal.decide("t-aaaaaa", "ship", approved=True, by="ada", item=3)
    assert (await waiting).approved


@pytest.mark.parametrize(
    ("on_timeout", "status"), [("reject", "rejected"), ("approve", "approved")]
)
async def test_time_is_up(journal: Journal, on_timeout: str, status: str) -> None:
    deadline = datetime.now(UTC) + timedelta(seconds=0.05)
    journal.ask_approval("t-aaaaaa", "ship", "?", deadline=deadline)
    decided = await wait_for_approval(
        journal,
        "t-aaaaaa",
        "ship",
        on_timeout=on_timeout,  # type: ignore[arg-type]
    )
    assert (decided.status, decided.by) == (status, "timeout")
    assert datetime.now(UTC) >= deadline - timedelta(milliseconds=1)
    assert journal.approval("t-aaaaaa", "ship") == decided


async def test_a_question_that_was_never_asked(journal: Journal) -> None:
    with pytest.raises(UsageError, match='"ship" of run t-aaaaaa was never asked'):
        await wait_for_approval(journal, "t-aaaaaa", "ship")
