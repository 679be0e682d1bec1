"""The journal of a project's runs: what is begun is written before it is done.

What a run notes of its steps, calls and events is gathered within one turn of the event loop and
written as one transaction at its end (at once, where no loop runs). Whoever is about to do what
costs money, or has an effect, waits for `flushed` first: a process that is killed leaves everything
it had done, whole. All other writes are committed when the call returns, behind what was noted
before. One `Journal` serves a process; several processes may have the same file open.
"""

# ruff: noqa: S608 - what is put into statements are names of tables and columns, all our own

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from muster.config.project import find_project
from muster.config.secrets import Masker
from muster.errors import MusterError, UsageError
from muster.provider import TokenUsage
from muster.store.gathering import GatheringDatabase
from muster.store.processes import identity, state_of
from muster.store.reading import LATEST, ONE_APPROVAL, JournalReader
from muster.store.records import (
    APPROVED,
    CANCELLED,
    ENDED,
    FAILED,
    INTERRUPTED,
    NO_DATA,
    REJECTED,
    RUNNING,
    UNKNOWN,
    WAITING,
    ApprovalRecord,
    CallRecord,
    EventRecord,
    RunRecord,
    StepRecord,
    now,
    timestamp,
)
from muster.store.rows import Writer
from muster.store.spending import KEPT_DAYS, path_of

__all__ = ("LATEST", "Journal", "arguments_hash", "journal_path")

_SPENT = (
    "INSERT INTO spending (at, agent, teams, asked_by, tokens, cost_usd) VALUES (?, ?, ?, ?, ?, ?)"
)
# The rows are in the order of time, or nearly: nothing is looked through while the first is new.
_FORGET = (
    "DELETE FROM spending WHERE at < ?1 AND id <= (SELECT max(id) FROM spending WHERE "
    "(SELECT at FROM spending ORDER BY id LIMIT 1) < ?1)"
)
_LOST = "the process ended while this was under way"
_RUN_FIELDS = frozenset(RunRecord.__struct_fields__) - {"id", "process"}


def journal_path(start: Path) -> Path:
    """The journal of the project that `start`, a file or folder, belongs to."""
    return find_project(start).root / ".muster" / "runs.db"


class Journal(JournalReader):
    """Writes down what runs do, and tells it again."""

    def __init__(self, database: GatheringDatabase, masker: Masker | None = None) -> None:
        super().__init__(database)
        self._gathering = database
        self._writer = Writer(masker)

    @classmethod
    def open(cls, path: Path, *, masker: Masker | None = None) -> Journal:
        """The journal in the file `path`, which is made (for the user alone) if it is not there.

        Args:
            masker: its secrets are masked in all texts that are written. Names stay.

        Raises:
            MusterError: it is no journal, is damaged, of a newer Muster, or cannot be written.
        """
        return cls(GatheringDatabase(path), masker)

    def masked(self, text: str) -> str:
        """`text` as the journal would write it: without secrets."""
        return self._writer.text(text)

    async def flushed(self) -> None:
        """Returns when all that was noted until now is on disk; to be awaited before anything
        that costs money, or has an effect elsewhere.

        Raises:
            MusterError: it could not be written.
        """
        await self._gathering.flushed()

    @property
    def has_lost(self) -> bool:
        """Whether something could not be written: a run that goes on here fails."""
        return self._gathering.has_lost

    def forget_loss(self) -> None:
        """No run goes on here that has lost something: those that begin now may write again."""
        self._gathering.forget_loss()

    # --- writing: runs --------------------------------------------------------------------------

    def begin_run(self, run: RunRecord) -> None:
        """A run begins, in the process `pid`, by default this one."""
        pid = os.getpid() if run.pid is None else run.pid
        row = _without(run, "process") | {"pid": pid} | _process(pid)
        self._db.write(*self._insertion("runs", row))
        old = timestamp(datetime.now(UTC) - timedelta(days=KEPT_DAYS))
        self._db.write(_FORGET, (old,))

    def update_run(self, run_id: str, **changes: Any) -> None:
        """Change fields of a run by their names in `RunRecord`."""
        unknown = changes.keys() - _RUN_FIELDS
        if unknown:
            raise TypeError(f"no fields of a run: {', '.join(sorted(unknown))}")
        if "pid" in changes:
            changes |= _process(changes["pid"])
        self._db.write(*self._update("runs", changes, run_id))

    def claim(self, run_id: str, pid: int) -> RunRecord:
        """Take over a run that nothing works on any more, to go on with it.

        It is `running` again, in the process `pid`; steps and calls that were under way when
        its process ended are closed. Of several that claim it at once, one gets it.

        Raises:
            UsageError: another process is at it.
        """
        with self._db.transaction():
            run = self.run(run_id)
            state = state_of(run.pid, run.process)
            if run.status not in ENDED and state != "dead" and run.pid != pid:
                raise UsageError(f"run {run.id} is {run.status} in {_told(run, state)}")
            self._close_open(run.id)
            changes = {"status": RUNNING, "reason": None, "error": None, "ended_at": None}
            self.update_run(run.id, **changes, pid=pid)
            self._db.write("UPDATE runs SET cancel_requested = NULL WHERE id = ?", (run.id,))
        return self.run(run.id)

    def settle(self, run_id: str) -> RunRecord:
        """The run; if its process has died without a word, that is noted: it is interrupted, or
        cancelled if somebody wanted that."""
        run = self.run(run_id)
        if not _abandoned(run):
            return run
        with self._db.transaction():
            if _abandoned(self.run(run.id)):  # it may have ended in order, or be resumed
                self.end_abandoned(run.id)
        return self.run(run.id)

    def settled(self, run_id: str) -> RunRecord:
        """As `settle`, for those who only look: where it cannot be noted (the disk is full), it is
        told all the same."""
        try:
            return self.settle(run_id)
        except MusterError:
            run = self.run(run_id)
            return replace(run, **self._abandonment(run_id)) if _abandoned(run) else run

    def end_abandoned(self, run_id: str) -> None:
        """Nothing works on this run any more, and it has not said how it ended."""
        self._close_open(run_id)
        self.update_run(run_id, **self._abandonment(run_id))

    def _abandonment(self, run_id: str) -> dict[str, Any]:
        cancelled = self.cancel_requested(run_id)
        return {
            "status": CANCELLED if cancelled else INTERRUPTED,
            "reason": "Cancelled" if cancelled else "Interrupted",
            "error": "its process ended without a word",
            "ended_at": now(),
        }

    def request_cancel(self, run_id: str) -> None:
        """Ask the run to stop; see `muster.store.waiting.wait_for_cancel`."""
        self._db.write("UPDATE runs SET cancel_requested = ? WHERE id = ?", (now(), run_id))

    def cancel_requested(self, run_id: str) -> bool:
        """Whether somebody wants the run to stop."""
        found = self._db.query("SELECT cancel_requested FROM runs WHERE id = ?", (run_id,))
        return bool(found) and found[0][0] is not None

    def delete(self, run_id: str) -> None:
        """Forget the run, those that were roles of it, and everything about them.

        Raises:
            UsageError: there is no such run, or it has not ended.
        """
        run = self.settle(run_id)
        if run.status not in ENDED:
            raise UsageError(f"run {run.id} is {run.status}; first: muster runs cancel {run.id}")
        self._db.write(
            "WITH RECURSIVE family (id) AS (SELECT ? UNION "
            "SELECT runs.id FROM runs JOIN family ON runs.parent = family.id) "
            "DELETE FROM runs WHERE id IN family",
            (run.id,),
        )

    # --- writing: steps, calls, events ----------------------------------------------------------

    def begin_step(self, step: StepRecord) -> int:
        """An attempt at a step begins, or is skipped or waits at once. The row's id.

        There is a row for each step, iteration, item and attempt.
        """
        row = _without(step)
        if step.prompt is not None and step.prompt_hash is None:
            row["prompt_hash"] = _hash(step.prompt)
        return self._note("steps", row)

    def update_step(self, row_id: int, **changes: Any) -> None:
        """Change fields of a step's row by their names in `StepRecord`, while it goes on."""
        if "prompt" in changes and "prompt_hash" not in changes:
            changes["prompt_hash"] = _hash(changes["prompt"])
        self._gathering.gather(*self._update("steps", changes, row_id))

    def end_step(
        self,
        row_id: int,
        *,
        status: str,
        output: str | None = None,
        data: Any = NO_DATA,
        error: str | None = None,
        error_kind: str | None = None,
        message: str | None = None,
        token_usage: TokenUsage | None = None,
        cost_usd: float | None = None,
        **changes: Any,
    ) -> None:
        """The attempt has ended. `changes` are further fields: `model`, `target`, `agent`, …"""
        changes |= {
            "status": status,
            "output": output,
            "data": data,
            "error": error,
            "error_kind": error_kind,
            "message": message,
            "token_usage": token_usage,
            "cost_usd": cost_usd,
            "ended_at": now(),
        }
        self.update_step(row_id, **changes)

    def begin_call(self, row_id: int, call: CallRecord) -> int:
        """A tool call or a delegation is about to be made in the step's row. The call's id."""
        row = _without(call) | {"step_id": row_id}
        if call.arguments_hash is None:
            row["arguments_hash"] = arguments_hash(call.arguments)
        return self._note("calls", row)

    def end_call(
        self, call_id: int, *, status: str, result: str | None, duration_ms: float | None
    ) -> None:
        """What came of the call."""
        changes = {"status": status, "result": result, "duration_ms": duration_ms}
        self._gathering.gather(*self._update("calls", changes, call_id))

    def event(
        self, run_id: str, kind: str, data: Mapping[str, Any], *, row_id: int | None = None
    ) -> None:
        """Note what happened: a routing decision, a verdict, a warning, a boundary of chunks."""
        event = EventRecord(run_id=run_id, kind=kind, data=data, step_id=row_id)
        self._gathering.gather(*self._insertion("events", _without(event, "id")))

    def spend(
        self,
        tokens: int,
        cost_usd: float | None,
        *,
        agent: str,
        teams: Sequence[str],
        asked_by: Sequence[str] = (),
    ) -> None:
        """A turn of `agent` has used so much; the arguments are as in `Spending`."""
        row = (now(), agent, path_of(teams), path_of(asked_by), tokens, cost_usd or 0.0)
        self._gathering.gather(_SPENT, row)

    # --- writing: approvals ---------------------------------------------------------------------

    def ask_approval(
        self,
        run_id: str,
        step: str,
        message: str,
        *,
        item: int | None = None,
        deadline: datetime | None = None,
        again: bool = False,
    ) -> ApprovalRecord:
        """Ask a person. What was decided already stands, unless it is asked `again`."""
        until = None if deadline is None else timestamp(deadline)
        with self._db.transaction():
            known = self.approval(run_id, step, item)
            if known is not None and (again or known.status == WAITING):
                self._db.write(f"DELETE FROM approvals WHERE {ONE_APPROVAL}", (run_id, step, item))
                known = None
            if known is None:
                known = ApprovalRecord(
                    run_id=run_id, step=step, item=item, message=message, deadline=until
                )
                self._db.write(*self._insertion("approvals", _without(known)))
        return known

    def decide(
        self,
        run_id: str,
        step: str,
        *,
        approved: bool,
        by: str,
        comment: str | None = None,
        item: int | None = None,
    ) -> ApprovalRecord:
        """The answer to a question that waits; the first one counts.

        Raises:
            UsageError: nothing waits there.
        """
        changes = self._writer.row(
            {
                "status": APPROVED if approved else REJECTED,
                "decided_at": now(),
                "by": by,
                "comment": comment,
            }
        )
        with self._db.transaction():
            known = self.approval(run_id, step, item)
            if known is None or known.status != WAITING:
                raise UsageError(self._not_waiting(run_id, step, known))
            self._db.write(
                f"UPDATE approvals SET {_assignments(tuple(changes))} WHERE {ONE_APPROVAL}",
                (*changes.values(), run_id, step, item),
            )
        decided = self.approval(run_id, step, item)
        assert decided is not None
        return decided

    def _not_waiting(self, run_id: str, step: str, known: ApprovalRecord | None) -> str:
        if known is not None:
            return f'step "{step}" of run {run_id} is {known.status} already, by {known.by}'
        waiting = [each.step for each in self.approvals(run_id) if each.status == WAITING]
        told = f"waiting: {', '.join(dict.fromkeys(waiting))}" if waiting else "nothing waits"
        return f'step "{step}" of run {run_id} does not wait for an approval ({told})'

    # --- inside ---------------------------------------------------------------------------------

    def _close_open(self, run_id: str) -> None:
        """Steps and calls that nothing works on any more. Questions stay: they can be answered."""
        self._db.write(
            f"UPDATE calls SET status = '{UNKNOWN}' WHERE status = '{RUNNING}' "
            "AND step_id IN (SELECT id FROM steps WHERE run_id = ?)",
            (run_id,),
        )
        self._db.write(
            f"UPDATE steps SET status = '{FAILED}', error = ?, error_kind = 'interrupted', "
            f"ended_at = ? WHERE run_id = ? AND status IN ('{RUNNING}', '{WAITING}')",
            (_LOST, now(), run_id),
        )

    def _note(self, table: str, fields: dict[str, Any]) -> int:
        """A row that others will speak of, by its number."""
        number = fields["id"] = self._gathering.number(table)
        self._gathering.gather(*self._insertion(table, fields))
        return number

    def _insertion(self, table: str, fields: Mapping[str, Any]) -> tuple[str, Sequence[Any]]:
        row = self._writer.row(fields)
        return _insertion(table, tuple(row)), tuple(row.values())

    def _update(
        self, table: str, changes: Mapping[str, Any], row_id: int | str
    ) -> tuple[str, Sequence[Any]]:
        row = self._writer.row(changes)
        return _change(table, tuple(row)), (*row.values(), row_id)


@cache
def _insertion(table: str, names: tuple[str, ...]) -> str:
    columns = ", ".join(f'"{name}"' for name in names)
    return f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * len(names))})"


@cache
def _change(table: str, names: tuple[str, ...]) -> str:
    return f"UPDATE {table} SET {_assignments(names)} WHERE id = ?"


@cache
def _assignments(names: tuple[str, ...]) -> str:
    return ", ".join(f'"{name}" = ?' for name in names)


def _without(record: Any, *names: str) -> dict[str, Any]:
    """The record's fields that are set, those aside that the journal itself fills in."""
    return {
        name: value
        for name in record.__struct_fields__
        if (value := getattr(record, name)) is not None and name not in names
    }


def _process(pid: int | None) -> dict[str, Any]:
    return {"process": None if pid is None else identity(pid)}


def _abandoned(run: RunRecord) -> bool:
    return run.status not in ENDED and state_of(run.pid, run.process) == "dead"


def _told(run: RunRecord, state: str) -> str:
    if state == "elsewhere":
        host = (run.process or "").partition("|")[0]
        return (
            f"process {run.pid} on another machine, {host}; if that is gone: "
            f"muster runs cancel {run.id} --force"
        )
    return f"process {run.pid}; `muster runs watch {run.id}` follows it"


def arguments_hash(arguments: Any) -> str:
    """The same for the same arguments, whatever the order of their names."""
    return _hash(json.dumps(arguments, sort_keys=True, default=str))


def _hash(prompt: str) -> str:
    return hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()
