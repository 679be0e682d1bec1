"""A team's run in the journal: how it began, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from muster.store.forgetting import forget_run
from muster.store.journal import Journal
from muster.store.records import FAILED, SUCCEEDED, RunRecord, new_run_id, now
from muster.teams.definition import Team

if TYPE_CHECKING:
    from muster.teams.engine import RunOutcome

__all__ = ("begin_run", "end_run", "forget_old_runs", "mark_ended")


def begin_run(
    journal: Journal,
    team: Team,
    inputs: Mapping[str, Any],
    *,
    options: Mapping[str, Any] | None = None,
    parent: str | None = None,
    trigger: str | None = None,
    shares_process: bool = False,
    run_id: str | None = None,
) -> RunRecord:
    """Write down that a run begins, under the name `run_id` if that was settled before."""
    run = RunRecord(
        id=run_id or new_run_id(team.name),
        team=team.name,
        file=str(team.path) if team.path is not None else "",
        definition_hash=team.definition_hash,
        input=dict(inputs),
        options=dict(options or {}),
        parent=parent,
        trigger=trigger,
        shares_process=shares_process,
    )
    journal.begin_run(run)
    return run


def end_run(journal: Journal, run_id: str, outcome: RunOutcome) -> None:
    """Write down how it ended."""
    journal.update_run(
        run_id,
        status=outcome.status,
        reason=outcome.reason,
        error=outcome.error,
        output=outcome.output,
        ended_at=now(),
        token_usage=outcome.token_usage,
        cost_usd=outcome.cost_usd,
    )


def mark_ended(journal: Journal, run_id: str, status: str, reason: str, error: str | None) -> None:
    """Write down the end of a run that was cut off; what it has used is known all the same."""
    totals = journal.totals([run_id])[run_id]
    journal.update_run(
        run_id,
        status=status,
        reason=reason,
        error=error,
        ended_at=now(),
        token_usage=totals.token_usage,
        cost_usd=totals.cost_usd,
    )


def forget_old_runs(journal: Journal, team: Team, *, but: str) -> None:
    """Delete runs of the team beyond as many as it keeps, with their artifacts; `but` one, which
    has just ended and is still looked at."""
    for status, kept in ((SUCCEEDED, team.keep_succeeded), (FAILED, team.keep_failed)):
        if kept is not None:
            for run in journal.runs(team=team.name, status=status, children=False)[kept:]:
                if run.id == but:
                    continue
                with suppress(OSError):  # a file that cannot be removed is no failure of a run
                    forget_run(journal, run.id)
