"""A team as one step of another: a run of its own in the journal, on the same budgets."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from muster.errors import MusterError
from muster.evals.budget import MoneyBudget
from muster.store.records import CANCELLED, FAILED, INTERRUPTED, SUCCEEDED
from muster.store.waiting import wait_for_cancel
from muster.tasks import look_at, stop_tasks
from muster.teams.budget import Budgets, TokenBudget
from muster.teams.context import NESTED, Earlier, RunContext, Unit
from muster.teams.definition import Team
from muster.teams.inputs import check_inputs
from muster.teams.prompt import step_prompt
from muster.teams.records import begin_run, end_run, mark_ended
from muster.teams.state import Account
from muster.teams.unit import StepFailed

if TYPE_CHECKING:
    from muster.teams.engine import RunOutcome, TeamRun

__all__ = ("first_input", "run_nested")

_KINDS = {"BudgetExceeded": "budget_exceeded", "Rejected": "rejected", "TimedOut": "timeout"}


async def run_nested(
    context: RunContext,
    team: Team,
    given: Mapping[str, str],
    unit: Unit,
    *,
    account: Account,
    budgets: Budgets,
) -> str:
    """Run `team` on what the step gives it; its output. A run that an earlier part of the run
    around it has begun goes on.

    Raises:
        StepFailed: its run failed, or was cancelled by itself.
        UsageError: its inputs are not what it wants.
    """
    from muster.teams.engine import TeamRun

    inputs = check_inputs(team, _inputs_of(team, given))
    journal = context.journal
    known = context.earlier.nested.pop(unit, None)
    earlier = Earlier()
    if known is None:
        shared = journal.run(context.run_id).shares_process
        run = begin_run(journal, team, inputs, parent=context.run_id, shares_process=shared)
        step, iteration, item = unit
        told = {"step": step, "iteration": iteration, "item": item, "run": run.id}
        context.note(NESTED, told)
    else:
        run = journal.run(known)
        if run.status == SUCCEEDED:
            return run.output or ""
        run = journal.claim(known, os.getpid())
        earlier = Earlier.of(journal, run.id)
    inner = replace(
        _within(context, team, unit[0], budgets, earlier),
        run_id=run.id,
        inputs=inputs,
        account=account,
    )
    try:
        outcome = await _unless_cancelled(TeamRun(team, inputs, inner), inner)
    except asyncio.CancelledError:
        mark_ended(journal, run.id, INTERRUPTED, "Interrupted", "the run around it was stopped")
        raise
    except MusterError as error:
        mark_ended(journal, run.id, FAILED, "Error", str(error))
        raise
    if outcome is None:
        by = "`muster runs cancel`"
        mark_ended(journal, run.id, CANCELLED, "Cancelled", f"cancelled by {by}")
        raise StepFailed(f'team "{team.name}" was cancelled by {by} (run {run.id})', "cancelled")
    end_run(journal, run.id, outcome)
    if outcome.status != SUCCEEDED:
        kind = _KINDS.get(outcome.reason, "team_failed")
        text = f'team "{team.name}" failed: {outcome.error}'
        raise StepFailed(text, kind, retryable=kind in ("team_failed", "timeout"))
    return outcome.output


async def _unless_cancelled(run: TeamRun, context: RunContext) -> RunOutcome | None:
    """How the run ended; `None`: somebody wanted it to stop, and not those around it."""
    running = asyncio.ensure_future(run.run())
    cancel = asyncio.ensure_future(wait_for_cancel(context.journal, context.run_id))
    cancel.add_done_callback(look_at)
    try:
        await asyncio.wait((running, cancel), return_when=asyncio.FIRST_COMPLETED)
        return running.result() if running.done() else cancel.result()
    finally:
        await stop_tasks((running, cancel))


def _within(
    context: RunContext, team: Team, step: str, budgets: Budgets, earlier: Earlier
) -> RunContext:
    """The context of a run in a step of another: its budgets are those of both."""
    tokens = (*context.token_budgets, *budgets.tokens)
    money = (*context.money_budgets, *budgets.money)
    daily = dict(context.daily_limits)
    if team.max_tokens is not None:
        tokens = (*tokens, TokenBudget(team.max_tokens, f'team "{team.name}"', earlier.tokens))
    if team.max_cost_usd is not None:
        money = (*money, MoneyBudget(team.max_cost_usd, earlier.cost_usd))
    if team.max_daily_tokens is not None:
        daily[team.name] = team.max_daily_tokens
    standing = context.standing.money_of(team.budgets)
    return replace(
        context,
        team=team.name,
        folder=context.folder / step,
        token_budgets=tokens,
        money_budgets=money,
        daily_limits=daily,
        standing_money=tuple(dict.fromkeys((*context.standing_money, *standing))),
        teams=(*context.teams, team.name),
        earlier=earlier,
        within=f"{context.within}{step}/",
    )


def _inputs_of(team: Team, given: Mapping[str, str]) -> dict[str, str]:
    """The step's inputs by name, if the team has inputs of these names; else they are the prompt,
    which goes where the team expects one."""
    known = {field.name for field in team.inputs} | set(team.defaults)
    if given and given.keys() <= known:
        return dict(given)
    prompt = next(iter(given.values())) if len(given) == 1 else step_prompt(given)
    return {first_input(team): prompt}


def first_input(team: Team) -> str:
    """Where the prompt goes: the declared input that is required, else the first, else `prompt`."""
    required = [field.name for field in team.inputs if field.required]
    declared = [field.name for field in team.inputs]
    return next(iter([*required, *declared, *team.defaults, "prompt"]))
