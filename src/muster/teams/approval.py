"""A step that waits for a person: on the terminal, or by `muster approve` from anywhere."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from muster.config.environment import user_name
from muster.errors import UsageError
from muster.store.records import WAITING, ApprovalRecord
from muster.store.waiting import wait_for_approval
from muster.tasks import stop_tasks
from muster.teams.context import RunContext
from muster.teams.definition import Approval

__all__ = ("approve", "told")


async def approve(
    context: RunContext, step: str, approval: Approval, message: str
) -> ApprovalRecord:
    """What was decided. The first answer counts, wherever it comes from; when the time is up,
    `on_timeout` decides. What was decided while the run was stopped still stands; a run that was
    refused asks again when it is retried."""
    journal, run_id = context.journal, context.run_id
    deadline = None
    if approval.timeout_seconds is not None:
        deadline = datetime.now(UTC) + timedelta(seconds=approval.timeout_seconds)
    again = step in context.earlier.rejected
    journal.ask_approval(run_id, step, message, deadline=deadline, again=again)
    context.emit("approval", step=step, text=message, data={"run": run_id})
    waiting = asyncio.ensure_future(
        wait_for_approval(journal, run_id, step, on_timeout=approval.on_timeout)
    )
    asking = asyncio.ensure_future(_ask_here(context, step, message))
    try:
        done, _ = await asyncio.wait((waiting, asking), return_when=asyncio.FIRST_COMPLETED)
        return done.pop().result()
    finally:
        await stop_tasks((waiting, asking))


async def _ask_here(context: RunContext, step: str, message: str) -> ApprovalRecord:
    """Ask on the terminal; where there is none, or nobody at it, wait for ever."""
    journal, run_id = context.journal, context.run_id
    answer = None
    if context.ask_approval is not None:
        answer = await context.ask_approval(step, message)
    if answer is not None:
        try:
            return journal.decide(run_id, step, approved=answer, by=user_name())
        except UsageError:  # somebody was faster, or nobody was in time: that is in the journal
            if (known := journal.approval(run_id, step)) is not None and known.status != WAITING:
                return known
    never: asyncio.Future[ApprovalRecord] = asyncio.get_running_loop().create_future()
    return await never


def told(record: ApprovalRecord) -> str:
    """`approved by ann: looks good`."""
    word = "approved" if record.approved else "rejected"
    by = f" by {record.by}" if record.by else ""
    return f"{word}{by}" + (f": {record.comment}" if record.comment else "")
