"""Answers by key, in an SQLite file that several processes may use at a time.

Bounded in bytes: what was used least recently goes first. A cache that fails is no cache, not a
failed run: the first trouble is told, and from then on nothing is found.
"""

from __future__ import annotations

import os
import sqlite3
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

__all__ = ("DEFAULT_BYTES", "ResponseCache")

DEFAULT_BYTES = 1 << 30

BUSY_SECONDS = 2.0
"""How long another process is waited for."""

LOOK_EVERY = 64
"""After so many answers it is looked what other processes have added."""

_TABLE = """
CREATE TABLE IF NOT EXISTS answers (
    id INTEGER PRIMARY KEY,
    key BLOB NOT NULL UNIQUE,
    used_at INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    response BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS by_last_use ON answers (used_at, bytes);
"""

_EMPTY = 5
"""Pages of the file when there is no answer in it."""

_SPARE = 0.9
"""What is left of the bound when answers had to go: not every one to come shall evict another."""


class ResponseCache:
    """Keeps answers in the file at `path`, which belongs to its owner alone."""

    def __init__(self, path: Path, max_bytes: int = DEFAULT_BYTES) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.trouble: str | None = None
        """Why nothing is kept, if that is so."""
        self._bytes = 0
        self._puts = 0
        self._connection: sqlite3.Connection | None = None

    def open(self) -> None:
        """Make or open the file; a failure is `trouble`."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
            self._connection = connection
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.executescript(_TABLE)
            self._bytes = self._used(connection)
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)

    def get(self, key: bytes, /) -> Mapping[str, Any] | None:
        """The answer under `key`, which is now the one used last; `None` without one."""
        connection = self._connection
        if connection is None:
            return None
        try:
            row = connection.execute("SELECT response FROM answers WHERE key=?", (key,)).fetchone()
            if row is None:
                return None
            plain = _unpacked(row[0])
            if plain is None:
                connection.execute("DELETE FROM answers WHERE key=?", (key,))
                return None
            connection.execute("UPDATE answers SET used_at=? WHERE key=?", (time.time_ns(), key))
        except sqlite3.Error as error:
            self._failed(error)
            return None
        return plain

    def put(self, key: bytes, plain: Mapping[str, Any], /) -> None:
        """Keep an answer, if it is not larger than all that may be kept."""
        connection = self._connection
        if connection is None:
            return
        try:
            packed = zlib.compress(msgspec.json.encode(plain, enc_hook=str), 1)
        except UnicodeEncodeError:  # half a surrogate pair: it would not come back as it is
            return
        size = len(packed) + len(key)
        if size > self.max_bytes * _SPARE:
            return
        try:
            connection.execute(
                "INSERT OR REPLACE INTO answers (key, used_at, bytes, response)"
                " VALUES (?, ?, ?, ?)",
                (key, time.time_ns(), size, packed),
            )
            self._bytes += size
            self._puts += 1
            if self._bytes > self.max_bytes or self._puts % LOOK_EVERY == 0:
                self._evict(connection)
        except sqlite3.Error as error:
            self._failed(error)

    def close(self) -> None:
        """Let go of the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _evict(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            self._bytes = self._used(connection)
            if self._bytes > self.max_bytes:
                left = int(self.max_bytes * _SPARE)
                while self._bytes > left and self._delete_oldest(connection, self._bytes - left):
                    self._bytes = self._used(connection)
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("PRAGMA incremental_vacuum").fetchall()

    @staticmethod
    def _delete_oldest(connection: sqlite3.Connection, over: int) -> bool:
        """Delete what was used least recently, of `over` bytes; whether anything was there."""
        gone, ids = 0, []
        for number, size in connection.execute("SELECT id, bytes FROM answers ORDER BY used_at"):
            if gone >= over:
                break
            ids.append((number,))
            gone += size
        connection.executemany("DELETE FROM answers WHERE id=?", ids)
        return bool(ids)

    @staticmethod
    def _used(connection: sqlite3.Connection) -> int:
        """Bytes of the file's pages that hold answers."""
        count, free, size = (
            int(connection.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_count", "freelist_count", "page_size")
        )
        return max(count - free - _EMPTY, 0) * size

    def _failed(self, error: sqlite3.Error) -> None:
        """One answer is lost when another process is busy; the rest of the cache is not."""
        if getattr(error, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return
        self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self.trouble = self.trouble or f"{self.path}: the cache is not used: {error}"
        self.close()


def _unpacked(data: object) -> Mapping[str, Any] | None:
    """What was packed; `None` if the file was damaged."""
    try:
        plain = msgspec.json.decode(zlib.decompress(data))  # type: ignore[arg-type]
    except (TypeError, zlib.error, msgspec.DecodeError):
        return None
    return plain if isinstance(plain, dict) else None
