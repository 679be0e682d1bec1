"""Waiting for what another process writes into the journal.

SQLite wakes nobody in another process, so the file is looked at four times a second: a glance
costs some microseconds, and a person's answer is no hurry.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Literal

from muster.errors import UsageError
from muster.store.journal import Journal
from muster.store.records import WAITING, ApprovalRecord

__all__ = ("INTERVAL", "wait_for_approval", "wait_for_cancel")

INTERVAL = 0.25

TIMEOUT = "timeout"
"""Who has decided when nobody did."""


async def wait_for_approval(
    journal: Journal,
    run_id: str,
    step: str,
    *,
    item: int | None = None,
    on_timeout: Literal["reject", "approve"] = "reject",
    interval: float = INTERVAL,
) -> ApprovalRecord:
    """The answer to a question asked by `Journal.ask_approval`, from this process or another.

    When its deadline passes, the question is answered by `on_timeout`, in the name of `timeout`.
    """
    while True:
        known = journal.approval(run_id, step, item)
        if known is None:
            raise UsageError(f'step "{step}" of run {run_id} was never asked, or is deleted')
        if known.status != WAITING:
            return known
        left = _seconds_left(known)
        if left <= 0:
            _time_is_up(journal, known, approved=on_timeout == "approve")
        else:
            await asyncio.sleep(min(left, interval))


async def wait_for_cancel(journal: Journal, run_id: str, *, interval: float = INTERVAL) -> None:
    """Returns when `muster runs cancel` wants this run to stop; to be raced against the run."""
    while not journal.cancel_requested(run_id):  # noqa: ASYNC110 - no event crosses processes
        await asyncio.sleep(interval)


def _seconds_left(approval: ApprovalRecord) -> float:
    if approval.deadline is None:
        return float("inf")
    return (datetime.fromisoformat(approval.deadline) - datetime.now(UTC)).total_seconds()


def _time_is_up(journal: Journal, approval: ApprovalRecord, *, approved: bool) -> None:
    try:
        journal.decide(
            approval.run_id, approval.step, item=approval.item, approved=approved, by=TIMEOUT
        )
    except UsageError:
        return  # somebody was faster, and what they said counts
