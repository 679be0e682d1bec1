"""What the journal tells of the runs."""

# ruff: noqa: S608 - what is put into statements are names of columns, all our own

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from muster.errors import UsageError, nearest
from muster.store.database import Database
from muster.store.records import (
    CHUNK,
    SUCCEEDED,
    ApprovalRecord,
    CallRecord,
    EventRecord,
    RunRecord,
    RunTotals,
    RunView,
    StepRecord,
    timestamp,
)
from muster.store.rows import (
    approval_of,
    call_of,
    columns,
    event_of,
    run_of,
    step_of,
    usage_of,
)
from muster.store.spending import Spending, teams_of

__all__ = ("LATEST", "ONE_APPROVAL", "JournalReader")

LATEST = "latest"

ONE_APPROVAL = "run_id = ? AND step = ? AND item IS ?"
# What was asked of a team behind a target is told in the row of the step that asked.
_FAMILY = (
    "WITH RECURSIVE family (id) AS (SELECT ?1 UNION "
    "SELECT r.id FROM runs r JOIN family ON r.parent = family.id WHERE NOT EXISTS "
    "(SELECT 1 FROM events WHERE run_id = r.id AND kind = 'asked'))"
)
_ANSWERED = f"status = '{SUCCEEDED}' AND target IS NOT NULL"
_USAGE_SUMS = "sum(input_tokens), sum(output_tokens), sum(cached_tokens), sum(reasoning_tokens)"


class JournalReader:
    """The half of the journal that only looks."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def path(self) -> Path:
        """The file."""
        return self._db.path

    def run(self, run_id: str) -> RunRecord:
        """The run with this id, or the only one whose id begins so, or the `latest`.

        Raises:
            UsageError: there is none, or more than one.
        """
        chosen = f"SELECT {columns('run')} FROM runs"
        if run_id == LATEST:
            rows = self._db.query(f"{chosen} WHERE parent IS NULL ORDER BY number DESC LIMIT 1")
            if not rows:
                raise UsageError(f"no run in {self.path}")
            return run_of(rows[0])
        rows = self._db.query(f"{chosen} WHERE id = ?", (run_id,))
        if not rows and run_id:
            begins = "substr(id, 1, ?) = ? ORDER BY number DESC LIMIT 6"
            rows = self._db.query(f"{chosen} WHERE {begins}", (len(run_id), run_id))
        if len(rows) != 1:
            raise UsageError(self._no_such(run_id, [run_of(row).id for row in rows]))
        return run_of(rows[0])

    def runs(
        self,
        *,
        team: str | None = None,
        status: str | None = None,
        limit: int | None = None,
        children: bool = True,
    ) -> list[RunRecord]:
        """Runs, the latest first; without `children`, not those that are a role of another."""
        rows = self._db.query(
            f"SELECT {columns('run')} FROM runs WHERE (:team IS NULL OR team = :team) "
            "AND (:status IS NULL OR status = :status) AND (:children OR parent IS NULL) "
            "ORDER BY number DESC LIMIT :limit",
            {
                "team": team,
                "status": status,
                "children": children,
                "limit": -1 if limit is None else limit,
            },
        )
        return [run_of(row) for row in rows]

    def runs_ended(self, team: str, since: datetime) -> list[RunRecord]:
        """Runs of the team that are no role of another and have ended since then, in the order
        in which they ended."""
        rows = self._db.query(
            f"SELECT {columns('run')} FROM runs WHERE team = ? AND parent IS NULL "
            "AND ended_at >= ? ORDER BY ended_at, number",
            (team, timestamp(since)),
        )
        return [run_of(row) for row in rows]

    def view(self, run_id: str, *, chunks: bool = True) -> RunView:
        """Everything about the run with exactly this id; without `chunks`, their boundaries
        aside, of which there may be very many.

        The run is read first: when it is seen to have ended, nothing that follows is missing.
        """
        return RunView(
            run=self.run(run_id),
            totals=self.totals([run_id])[run_id],
            steps=tuple(self.steps(run_id)),
            calls=tuple(self.calls(run_id)),
            events=tuple(self.events(run_id, but=None if chunks else CHUNK)),
            approvals=tuple(self.approvals(run_id)),
        )

    def steps(self, run_id: str) -> list[StepRecord]:
        """The rows of the run's steps, in the order in which they began."""
        rows = self._db.query(
            f"SELECT {columns('step')} FROM steps WHERE run_id = ? ORDER BY id", (run_id,)
        )
        return [step_of(row) for row in rows]

    def calls(self, of: int | str) -> list[CallRecord]:
        """The calls of a step's row, or of a whole run by its id, in the order they were made."""
        where = "step_id = ?"
        if isinstance(of, str):
            where = "step_id IN (SELECT id FROM steps WHERE run_id = ?)"
        rows = self._db.query(
            f"SELECT {columns('call')} FROM calls WHERE {where} ORDER BY id", (of,)
        )
        return [call_of(row) for row in rows]

    def events(
        self, run_id: str, kind: str | None = None, *, but: str | None = None
    ) -> list[EventRecord]:
        """What was noted of the run, in order: of one `kind`, or all `but` one."""
        rows = self._db.query(
            f"SELECT {columns('event')} FROM events "
            "WHERE run_id = ?1 AND (?2 IS NULL OR kind = ?2) AND (?3 IS NULL OR kind <> ?3) "
            "ORDER BY id",
            (run_id, kind, but),
        )
        return [event_of(row) for row in rows]

    def approval(self, run_id: str, step: str, item: int | None = None) -> ApprovalRecord | None:
        """The question of a step, with its answer if there is one."""
        rows = self._db.query(
            f"SELECT {columns('approval')} FROM approvals WHERE {ONE_APPROVAL}",
            (run_id, step, item),
        )
        return approval_of(rows[0]) if rows else None

    def approvals(self, run_id: str) -> list[ApprovalRecord]:
        """All questions of a run."""
        rows = self._db.query(
            f"SELECT {columns('approval')} FROM approvals WHERE run_id = ? ORDER BY id", (run_id,)
        )
        return [approval_of(row) for row in rows]

    def totals(self, run_ids: Iterable[str]) -> dict[str, RunTotals]:
        """What the steps of these runs add up to, also while they go on: their own number, and the
        tokens and money of those of the teams within them, too."""
        found = {}
        for run_id in run_ids:
            (row,) = self._db.query(
                f"{_FAMILY} SELECT count(DISTINCT CASE WHEN run_id = ?1 THEN name END), "
                f"sum(cost_usd), total({_ANSWERED} AND input_tokens IS NULL), "
                f"total({_ANSWERED} AND cost_usd IS NULL), {_USAGE_SUMS} "
                "FROM steps WHERE run_id IN family",
                (run_id,),
            )
            found[run_id] = RunTotals(
                steps=row[0],
                cost_usd=row[1],
                without_usage=int(row[2]),
                without_cost=int(row[3]),
                token_usage=usage_of(row[4:]),
            )
        return found

    def teams_around(self, run_id: str) -> tuple[str, ...]:
        """The run's team, behind those of the runs that it is a role of; none if it is not here."""
        rows = self._db.query(
            "WITH RECURSIVE around (team, parent, depth) AS ("
            "SELECT team, parent, 0 FROM runs WHERE id = ? UNION ALL "
            "SELECT r.team, r.parent, depth + 1 FROM runs r JOIN around ON r.id = around.parent) "
            "SELECT team FROM around ORDER BY depth DESC",
            (run_id,),
        )
        return tuple(row[0] for row in rows)

    def spending(self, since: datetime, *, after: int = 0) -> list[Spending]:
        """What was spent since then, in the order in which it was written; only what came `after`
        an id."""
        rows = self._db.query(
            "SELECT id, at, agent, teams, asked_by, tokens, cost_usd FROM spending "
            "WHERE at >= ? AND id > ? ORDER BY id",
            (timestamp(since), after),
        )
        return [
            Spending(
                id=row[0],
                at=row[1],
                agent=row[2],
                teams=teams_of(row[3]),
                asked_by=teams_of(row[4]),
                tokens=row[5],
                cost_usd=row[6],
            )
            for row in rows
        ]

    def version(self) -> int:
        """A number that changes when another process has written."""
        return self._db.version()

    def _no_such(self, asked: str, several: list[str]) -> str:
        if several:
            more = ", …" if len(several) > 5 else ""
            return f'"{asked}" begins the ids of several runs: {", ".join(several[:5])}{more}'
        known = [row[0] for row in self._db.query("SELECT id FROM runs ORDER BY number DESC")]
        if not known:
            return f'no run "{asked}"; there is none in {self.path}'
        near = nearest(asked, known, count=3)
        told = f"near: {', '.join(near)}" if near else f"the latest is {known[0]}"
        return f'no run "{asked}" ({told})'
