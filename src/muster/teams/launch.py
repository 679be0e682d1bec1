"""A run of a team from what was prepared to its record: carried out, ended, cancelled."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from muster.errors import MusterError, RunBroken, UsageError
from muster.evals.budget import MoneyBudget
from muster.store.journal import Journal, journal_path
from muster.store.records import CANCELLED, FAILED, INTERRUPTED, RunRecord
from muster.store.waiting import wait_for_cancel
from muster.tasks import look_at, stop_tasks
from muster.teams.artifacts import artifacts_of
from muster.teams.budget import TokenBudget
from muster.teams.context import AskApproval, Earlier, RunContext
from muster.teams.definition import Team
from muster.teams.engine import RunOutcome, TeamRun
from muster.teams.preparing import Prepared, stored_options
from muster.teams.records import (
    begin_run,
    end_run,
    forget_old_runs,
    mark_ended,
)
from muster.teams.standing import Standing
from muster.teams.watching import OnEvent

if TYPE_CHECKING:
    pass

__all__ = ("Launched", "carry_out", "launch", "mark_ended", "run_context")


@dataclass(slots=True)
class Launched:
    """A run that has ended."""

    run: RunRecord
    outcome: RunOutcome


async def launch(
    prepared: Prepared,
    *,
    on_event: OnEvent | None = None,
    ask_approval: AskApproval | None = None,
    resume: str | None = None,
    stop: asyncio.Event | None = None,
    trigger: str | None = None,
) -> Launched:
    """Run the team; everything is in the journal before the next thing begins.

    Args:
        resume: the run to go on with.
        stop: set before this task is cancelled, it makes the cancellation an ordinary end.

    Raises:
        asyncio.CancelledError: cancelled without `stop`; the run can be resumed all the same.
        MusterError: the journal cannot be used, or the run cannot be gone on with.
        RunBroken: so it became after it had begun.
    """
    journal = Journal.open(journal_path(prepared.project.root), masker=prepared.masker())
    try:
        run = _begin(prepared, journal, resume, trigger)
        earlier = Earlier.of(journal, run.id) if resume is not None else Earlier()
        context = run_context(prepared, journal, run, earlier)
        context.on_event, context.ask_approval = on_event, ask_approval
        for line in prepared.warnings:
            context.emit("warning", text=line)
        context.emit("run_started", data={"run": run.id, "team": prepared.team.name})
        try:
            outcome = await carry_out(prepared.team, prepared.inputs, context, stop)
        except MusterError as error:
            raise RunBroken(f"run {run.id}: {error}") from error
        context.emit("run_done", text=outcome.reason)
        ended = journal.run(run.id)
        if prepared.bundle.notifies:
            await _announced(prepared, journal, ended, context, stop)
        return Launched(ended, outcome)
    finally:
        journal.close()
        await prepared.cast.aclose()


async def _announced(
    prepared: Prepared,
    journal: Journal,
    run: RunRecord,
    context: RunContext,
    stop: asyncio.Event | None,
) -> None:
    """Tell who wants to be told. The run has ended: an interruption changes nothing about it."""
    from muster.teams.notify import announce

    def tell(outcome: str, text: str) -> None:
        if outcome != "notified":
            context.emit("warning", text=f"{outcome}: {text}")

    try:
        await announce(prepared, journal, run, tell)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if stop is None or not stop.is_set() or task is None:
            raise
        task.uncancel()


def _begin(
    prepared: Prepared, journal: Journal, resume: str | None, trigger: str | None
) -> RunRecord:
    if resume is None:
        stored = stored_options(prepared.options)
        return begin_run(journal, prepared.team, prepared.inputs, options=stored, trigger=trigger)
    run = journal.run(resume)
    if run.definition_hash != prepared.team.definition_hash:
        what = run.file or "the standard input"
        raise UsageError(
            f"run {run.id}: {what} is not what it was when the run began; start a new one"
        )
    return journal.claim(run.id, os.getpid())


def run_context(
    prepared: Prepared,
    journal: Journal,
    run: RunRecord,
    earlier: Earlier,
    standing: Standing | None = None,
) -> RunContext:
    """What the parts of the run share; its budgets are the team's. Runs that go on at the same time
    have the same `standing`."""
    team = prepared.team
    standing = standing or Standing(journal)
    tokens: tuple[TokenBudget, ...] = ()
    if team.max_tokens is not None:
        tokens = (TokenBudget(team.max_tokens, "run", earlier.tokens),)
    money: tuple[MoneyBudget, ...] = ()
    if team.max_cost_usd is not None:
        money = (MoneyBudget(team.max_cost_usd, earlier.cost_usd),)
    daily = {} if team.max_daily_tokens is None else {team.name: team.max_daily_tokens}
    return RunContext(
        run_id=run.id,
        journal=journal,
        cast=prepared.cast,
        folder=artifacts_of(team, prepared.project.root) / run.id,
        team=team.name,
        inputs=run.input,
        token_budgets=tokens,
        money_budgets=money,
        standing=standing,
        standing_money=tuple(standing.money_of(team.budgets)),
        daily_limits=daily,
        teams=(team.name,),
        lenient=prepared.options.lenient,
        earlier=earlier,
    )


async def carry_out(
    team: Team, inputs: Mapping[str, Any], context: RunContext, stop: asyncio.Event | None = None
) -> RunOutcome:
    """Run the team to its end, and write down how it ended.

    Raises:
        asyncio.CancelledError: cancelled without `stop`; that is not written down.
    """
    try:
        outcome = await _watched(team, inputs, context, stop)
    except Exception as error:
        with suppress(MusterError):  # the journal itself may be what failed
            mark_ended(context.journal, context.run_id, FAILED, "Error", str(error))
        raise
    status = {"Cancelled": CANCELLED, "Interrupted": INTERRUPTED}.get(outcome.reason)
    if status is None:
        end_run(context.journal, context.run_id, outcome)
        forget_old_runs(context.journal, team, but=context.run_id)
    else:
        mark_ended(context.journal, context.run_id, status, outcome.reason, outcome.error)
    return outcome


_CANCELLED = ("Cancelled", "cancelled by `muster runs cancel`")


async def _watched(
    team: Team, inputs: Mapping[str, Any], context: RunContext, stop: asyncio.Event | None
) -> RunOutcome:
    """Run the team until it ends, is cancelled from elsewhere, or is interrupted here."""
    run = TeamRun(team, inputs, context)
    running = asyncio.ensure_future(run.run())
    cancel = asyncio.ensure_future(wait_for_cancel(context.journal, context.run_id))
    cancel.add_done_callback(look_at)
    try:
        await asyncio.wait((running, cancel), return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            return running.result()
        cancel.result()  # nobody's wish, where the journal cannot be read any more
        await stop_tasks((running,))
        return run.cut_off(*_CANCELLED)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if stop is None or not stop.is_set() or task is None:
            raise
        task.uncancel()
        try:
            await stop_tasks((running,))
        except asyncio.CancelledError:  # asked a second time: the tasks were ended at once
            task.uncancel()
        wanted = context.journal.cancel_requested(context.run_id)
        return run.cut_off(*(_CANCELLED if wanted else ("Interrupted", "interrupted")))
    finally:
        await stop_tasks((running, cancel))
