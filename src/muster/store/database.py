"""The journal's file: an SQLite database in WAL mode, made, checked and brought up to date."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

from muster.errors import MusterError

__all__ = ("SCHEMA_VERSION", "Database")

BUSY_SECONDS = 10.0
"""How long a write waits for another process's."""

CHECKPOINT_PAGES = 4000
"""Pages of 4 KiB that are gathered before the file itself is written, and waited for."""

APPLICATION_ID = 0x4D737472  # "Mstr"
"""Says whose file it is; SQLite keeps it in the file's header."""

_FIRST = """
CREATE TABLE runs (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  team TEXT NOT NULL,
  file TEXT NOT NULL,
  definition_hash TEXT NOT NULL,
  input TEXT NOT NULL,
  options TEXT NOT NULL,
  status TEXT NOT NULL,
  reason TEXT, error TEXT, output TEXT,
  started_at TEXT NOT NULL, ended_at TEXT,
  input_tokens INTEGER, output_tokens INTEGER, cached_tokens INTEGER, reasoning_tokens INTEGER,
  cost_usd REAL,
  parent TEXT, "trigger" TEXT,
  pid INTEGER, process TEXT, shares_process INTEGER NOT NULL,
  cancel_requested TEXT
);
CREATE TABLE steps (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  run_id TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
  name TEXT NOT NULL,
  agent TEXT,
  iteration INTEGER NOT NULL, item INTEGER, attempt INTEGER NOT NULL,
  status TEXT NOT NULL,
  prompt TEXT, prompt_hash TEXT, output TEXT, data TEXT,
  error TEXT, error_kind TEXT, message TEXT,
  started_at TEXT NOT NULL, ended_at TEXT,
  input_tokens INTEGER, output_tokens INTEGER, cached_tokens INTEGER, reasoning_tokens INTEGER,
  cost_usd REAL,
  model TEXT, target TEXT,
  parent INTEGER
);
CREATE INDEX steps_of_run ON steps (run_id);
CREATE INDEX steps_by_end ON steps (ended_at);
CREATE TABLE calls (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  step_id INTEGER NOT NULL REFERENCES steps (id) ON DELETE CASCADE,
  kind TEXT NOT NULL, name TEXT NOT NULL,
  arguments TEXT NOT NULL, result TEXT, status TEXT NOT NULL,
  started_at TEXT NOT NULL, duration_ms REAL
);
CREATE INDEX calls_of_step ON calls (step_id);
CREATE TABLE events (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  run_id TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
  step_id INTEGER,
  kind TEXT NOT NULL, data TEXT NOT NULL, at TEXT NOT NULL
);
CREATE INDEX events_of_run ON events (run_id);
CREATE TABLE approvals (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  run_id TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
  step TEXT NOT NULL, item INTEGER,
  message TEXT NOT NULL, status TEXT NOT NULL,
  asked_at TEXT NOT NULL, deadline TEXT,
  decided_at TEXT, "by" TEXT, comment TEXT
);
CREATE UNIQUE INDEX approvals_of_run ON approvals (run_id, step, ifnull(item, -1));
"""

_SECOND = "ALTER TABLE calls ADD COLUMN arguments_hash TEXT;"

_THIRD = """
CREATE INDEX runs_by_parent ON runs (parent) WHERE parent IS NOT NULL;
CREATE TABLE spending (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  at TEXT NOT NULL,
  agent TEXT, teams TEXT NOT NULL, asked_by TEXT NOT NULL,
  tokens INTEGER NOT NULL, cost_usd REAL NOT NULL
);
WITH RECURSIVE around (run_id, teams, asked_by) AS (
  SELECT id, team, '' FROM runs WHERE parent IS NULL OR parent NOT IN (SELECT id FROM runs)
  UNION ALL
  SELECT r.id, a.teams || char(10) || r.team, a.asked_by FROM runs r JOIN around a
    ON r.parent = a.run_id AND r.id NOT IN (SELECT run_id FROM events WHERE kind = 'asked')
  UNION ALL
  SELECT r.id, r.team, ltrim(a.asked_by || char(10) || a.teams, char(10)) FROM runs r JOIN around a
    ON r.parent = a.run_id AND r.id IN (SELECT run_id FROM events WHERE kind = 'asked')
)
INSERT INTO spending (at, agent, teams, asked_by, tokens, cost_usd)
  SELECT s.ended_at, s.agent, a.teams, a.asked_by,
    ifnull(s.input_tokens, 0) + ifnull(s.output_tokens, 0), ifnull(s.cost_usd, 0)
  FROM steps s JOIN around a ON a.run_id = s.run_id
  WHERE s.ended_at IS NOT NULL AND (s.input_tokens IS NOT NULL OR s.cost_usd IS NOT NULL)
  ORDER BY s.ended_at;
DROP INDEX steps_by_end;
"""

MIGRATIONS: tuple[str, ...] = (_FIRST, _SECOND, _THIRD)
"""Number n brings a file from version n to n + 1. What was published is never changed."""

SCHEMA_VERSION = len(MIGRATIONS)


class Database:
    """One connection; what goes wrong with the file is a `MusterError` that names it."""

    migrations: ClassVar[tuple[str, ...]] = MIGRATIONS
    application_id: ClassVar[int] = APPLICATION_ID
    holds: ClassVar[str] = "journal of runs"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        with self._telling():
            _make_private(path)
            self._connection = sqlite3.connect(
                path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        with self._lock, suppress(sqlite3.Error):
            self._connection.close()

    def query(self, statement: str, values: Sequence[Any] | dict[str, Any] = ()) -> list[Any]:
        """All rows of a SELECT."""
        with self._lock, self._telling():
            return self._connection.execute(statement, values).fetchall()

    def write(self, statement: str, values: Sequence[Any] | dict[str, Any] = ()) -> sqlite3.Cursor:
        """One statement that changes something; by itself it is a transaction."""
        with self._lock, self._telling():
            return self._connection.execute(statement, values)

    def _write_all(self, changes: Iterable[tuple[str, Iterable[Sequence[Any]]]]) -> None:
        """Statements, each for several rows, as one transaction."""
        with self._lock, self._telling():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                for statement, rows in changes:
                    self._connection.executemany(statement, rows)
                self._connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # a full disk may have ended it already
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Several statements as one; nobody else writes meanwhile."""
        with self._lock:
            self.write("BEGIN IMMEDIATE")
            try:
                yield
                self.write("COMMIT")
            except BaseException:
                with suppress(MusterError):  # a full disk may have ended it already
                    self.write("ROLLBACK")
                raise

    def version(self) -> int:
        """A number that changes when another connection, of any process, has written."""
        number: int = self.query("PRAGMA data_version")[0][0]
        return number

    def _prepare(self) -> None:
        # What a prepared file may have put into its schema must not run with our rights.
        for pragma in ("trusted_schema = OFF", "foreign_keys = ON"):
            self.write(f"PRAGMA {pragma}")
        self._check_owner()
        self.write("PRAGMA journal_mode = WAL")
        self.write("PRAGMA synchronous = NORMAL")
        self.write(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        if self._number("user_version") != len(self.migrations):
            self._migrate(self.migrations)

    def _check_owner(self) -> None:
        if self._number("application_id") == self.application_id:
            return
        # Looked at again after the tables: another process may make the journal just now.
        tables = self.query("SELECT name FROM sqlite_master LIMIT 1")
        if tables and self._number("application_id") != self.application_id:
            raise MusterError(
                f"{self.path}: a database, but not a {self.holds}; move it away, "
                f"and a new {self.holds.split()[0]} is begun"
            )

    def _migrate(self, migrations: Sequence[str]) -> None:
        with self.transaction():
            version = self._number("user_version")  # perhaps another process was faster
            if version > len(migrations):
                raise MusterError(
                    f"{self.path}: written by a newer Muster (schema {version}; this one knows "
                    f"{len(migrations)}); update Muster, or move the file away"
                )
            for script in migrations[version:]:
                for statement in script.split(";\n"):
                    if statement.strip():
                        self.write(statement)
            self.write(f"PRAGMA application_id = {self.application_id}")
            self.write(f"PRAGMA user_version = {len(migrations)}")

    def _number(self, pragma: str) -> int:
        number: int = self.query(f"PRAGMA {pragma}")[0][0]
        return number

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise MusterError(_explained(self.path, error, self.holds)) from error
        except OSError as error:
            raise MusterError(f"{self.path}: cannot be opened: {error.strerror}") from error


def _make_private(path: Path) -> None:
    """Prompts and answers are nobody else's business; the file's companions take its mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


_EXPLAIN: tuple[tuple[str, Callable[[Path, str], str]], ...] = (
    (
        "not a database",
        lambda _, holds: f"not a {holds}; move it away, and a new one is begun",
    ),
    (
        "malformed",
        lambda path, holds: (
            f"the {holds.split()[0]} is damaged; save what `sqlite3 {path} .recover` finds, "
            "then move it away, and a new one is begun"
        ),
    ),
    ("locked", lambda *_: f"another process has held it for {BUSY_SECONDS:g} s"),
    ("full", lambda *_: "cannot be written: no space left on the disk"),
    ("readonly", lambda *_: "cannot be written: it may only be read"),
)


def _explained(path: Path, error: sqlite3.Error, holds: str) -> str:
    told = str(error)
    for sign, explain in _EXPLAIN:
        if sign in told:
            return f"{path}: {explain(path, holds)}"
    return f"{path}: {told}"
