"""What was set off, kept across restarts: `.muster/events.db`.

A fire is written with the names of its runs before any of them begins. A server that is killed in
between finds it when it starts again, and begins what has not begun.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from muster.store.database import Database
from muster.store.records import timestamp

__all__ = (
    "FAILED",
    "SKIPPED",
    "STARTED",
    "EventState",
    "Fire",
    "PlannedRun",
    "Position",
    "open_state",
    "scope_of",
    "state_path",
)

STARTED = "started"
SKIPPED = "skipped"
FAILED = "failed"

KEPT = timedelta(days=30)
"""How long a fire is remembered, and with it its key."""

_FIRST = """
CREATE TABLE events (
  scope TEXT NOT NULL, name TEXT NOT NULL,
  source TEXT NOT NULL, suspended INTEGER NOT NULL, position TEXT NOT NULL,
  PRIMARY KEY (scope, name)
);
CREATE TABLE fires (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  scope TEXT NOT NULL, event TEXT NOT NULL,
  "key" TEXT, body_hash TEXT,
  fired_at TEXT NOT NULL, status TEXT NOT NULL, reason TEXT,
  depth INTEGER NOT NULL
);
CREATE UNIQUE INDEX fires_by_key ON fires (scope, event, "key");
CREATE INDEX fires_by_time ON fires (fired_at);
CREATE TABLE fire_runs (
  run_id TEXT PRIMARY KEY,
  fire_id INTEGER NOT NULL REFERENCES fires (id) ON DELETE CASCADE,
  target INTEGER NOT NULL, team TEXT NOT NULL,
  input TEXT, tries INTEGER NOT NULL, ended INTEGER NOT NULL
);
CREATE INDEX runs_of_fire ON fire_runs (fire_id);
CREATE TABLE notices (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  notify TEXT NOT NULL, subject TEXT NOT NULL, event TEXT NOT NULL, at TEXT NOT NULL
);
CREATE INDEX notices_by_what ON notices (notify, subject, event, at);
"""


class _File(Database):
    migrations = (_FIRST,)
    application_id = 0x4D737465  # "Mste"
    holds = "record of events"


@dataclass(frozen=True, slots=True)
class Position:
    """Up to where an event's source has been looked at."""

    at: datetime
    is_new: bool
    """It was not served before, was another one, or was suspended."""


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A run that belongs to a fire."""

    run_id: str
    event: str
    target: int
    team: str
    inputs: Mapping[str, Any]
    tries: int = 0


@dataclass(frozen=True, slots=True)
class Fire:
    """What came of something that set an event off."""

    event: str
    status: str
    fired_at: str
    reason: str | None = None
    runs: tuple[str, ...] = ()
    id: int = 0
    body_hash: str | None = None
    depth: int = 0
    is_repeat: bool = False
    """It had happened before, under the same key; nothing was started now."""


def state_path(root: Path) -> Path:
    """The file of the project at `root`."""
    return root / ".muster" / "events.db"


class EventState:
    """The record of the events of one manifest, its `scope`, and of notices. Close it."""

    def __init__(self, path: Path, scope: str) -> None:
        self._db = _File(path)
        self._scope = scope

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    # --- where an event stands ---

    def served(self, name: str, source: str, *, suspended: bool, now: datetime) -> Position:
        """The event is served from now on; up to where was it looked at?

        One that is new, has another source than before, or was suspended begins now.
        """
        with self._db.transaction():
            rows = self._db.query(
                "SELECT source, suspended, position FROM events WHERE scope = ? AND name = ?",
                (self._scope, name),
            )
            known = rows[0] if rows else None
            is_new = known is None or known[0] != source or bool(known[1]) or suspended
            at = now if is_new or known is None else datetime.fromisoformat(known[2])
            self._db.write(
                "INSERT INTO events VALUES (?, ?, ?, ?, ?) ON CONFLICT (scope, name) DO UPDATE SET "
                "source = excluded.source, suspended = excluded.suspended, "
                "position = excluded.position",
                (self._scope, name, source, suspended, _stored(at)),
            )
        return Position(at, is_new)

    def move(self, name: str, at: datetime) -> None:
        """The event's source has been looked at up to here."""
        self._db.write(
            "UPDATE events SET position = ? WHERE scope = ? AND name = ?",
            (_stored(at), self._scope, name),
        )

    # --- fires ---

    def fire_of(self, event: str, key: str) -> Fire | None:
        """What has happened under this key."""
        rows = self._db.query(
            "SELECT id, status, reason, fired_at, body_hash, depth FROM fires "
            'WHERE scope = ? AND event = ? AND "key" = ?',
            (self._scope, event, key),
        )
        if not rows:
            return None
        number, status, reason, fired_at, body_hash, depth = rows[0]
        runs = self._db.query(
            "SELECT run_id FROM fire_runs WHERE fire_id = ? ORDER BY target", (number,)
        )
        return Fire(
            event,
            status,
            fired_at,
            reason,
            tuple(row[0] for row in runs),
            number,
            body_hash,
            depth,
            is_repeat=True,
        )

    def record(self, fire: Fire, key: str | None, planned: Sequence[PlannedRun] = ()) -> int:
        """Write the fire down, with the runs that are to begin. Its number."""
        with self._db.transaction():
            number = self._db.write(
                'INSERT INTO fires (scope, event, "key", body_hash, fired_at, status, reason, '
                "depth) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    self._scope,
                    fire.event,
                    key,
                    fire.body_hash,
                    fire.fired_at,
                    fire.status,
                    fire.reason,
                    fire.depth,
                ),
            ).lastrowid
            assert number is not None
            for run in planned:
                self._db.write(
                    "INSERT INTO fire_runs VALUES (?, ?, ?, ?, ?, 0, 0)",
                    (run.run_id, number, run.target, run.team, json.dumps(dict(run.inputs))),
                )
        return number

    def take_back(self, fire_id: int, reason: str) -> None:
        """The fire has come to nothing: no run of it has begun, and its key is free again."""
        with self._db.transaction():
            self._db.write("DELETE FROM fire_runs WHERE fire_id = ?", (fire_id,))
            self._db.write(
                'UPDATE fires SET status = ?, reason = ?, "key" = NULL WHERE id = ?',
                (FAILED, reason, fire_id),
            )

    def has_run(self, run_id: str) -> bool:
        """Whether the name is taken."""
        return bool(self._db.query("SELECT 1 FROM fire_runs WHERE run_id = ?", (run_id,)))

    def ended(self, run_id: str) -> None:
        """Nothing is left to do for the run; what it was given is forgotten."""
        self._db.write("UPDATE fire_runs SET ended = 1, input = NULL WHERE run_id = ?", (run_id,))

    def tried(self, run_id: str) -> None:
        """The run is gone on with once more."""
        self._db.write("UPDATE fire_runs SET tries = tries + 1 WHERE run_id = ?", (run_id,))

    def unfinished(self) -> list[PlannedRun]:
        """Runs that have not ended, of whatever server served the manifest before."""
        rows = self._db.query(
            "SELECT run_id, event, target, team, input, tries FROM fire_runs "
            "JOIN fires ON fires.id = fire_id WHERE scope = ? AND NOT ended "
            "ORDER BY fire_id, target",
            (self._scope,),
        )
        return [
            PlannedRun(run_id, event, target, team, json.loads(given or "{}"), tries)
            for run_id, event, target, team, given, tries in rows
        ]

    def depth_of(self, run_id: str) -> int:
        """How many fires have led to the run, one setting off the next; 0: a person began it."""
        rows = self._db.query(
            "SELECT depth FROM fire_runs JOIN fires ON fires.id = fire_id WHERE run_id = ?",
            (run_id,),
        )
        return int(rows[0][0]) if rows else 0

    def forget_old(self, now: datetime) -> None:
        """Delete what was remembered for long enough, but for runs that have not ended."""
        self._db.write(
            "DELETE FROM fires WHERE fired_at < ? AND id NOT IN "
            "(SELECT fire_id FROM fire_runs WHERE NOT ended)",
            (timestamp(now - KEPT),),
        )

    # --- notices ---

    def may_tell(
        self, notify: str, subject: str, event: str, *, window: float, most: int, now: datetime
    ) -> int | None:
        """Take one of the `most` messages that the window has; its number, or `None` if there is
        none left."""
        since = timestamp(now - timedelta(seconds=window))
        what = (f"{self._scope}\n{notify}", subject, event)
        with self._db.transaction():
            ((count,),) = self._db.query(
                "SELECT count(*) FROM notices WHERE notify = ? AND subject = ? AND event = ? "
                "AND at > ?",
                (*what, since),
            )
            if window and count >= most:
                return None
            self._db.write("DELETE FROM notices WHERE at < ?", (timestamp(now - KEPT),))
            return self._db.write(
                "INSERT INTO notices (notify, subject, event, at) VALUES (?, ?, ?, ?)",
                (*what, timestamp(now)),
            ).lastrowid

    def not_told(self, number: int) -> None:
        """The message could not be sent, and does not count."""
        self._db.write("DELETE FROM notices WHERE id = ?", (number,))


def scope_of(file: Path, root: Path) -> str:
    """What tells the events of this manifest from those of the project's others."""
    if str(file) == "-":
        return "-"
    path = file.resolve()
    try:
        return path.relative_to(root.resolve()).as_posix()
    except ValueError:
        return str(path)


def open_state(file: Path, root: Path) -> EventState:
    """The record for the manifest `file` in the project at `root`. Raises `MusterError` when it
    cannot be used."""
    return EventState(state_path(root), scope_of(file, root))


def _stored(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat()
