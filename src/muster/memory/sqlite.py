"""Memory in an SQLite file, which several processes may use."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from muster.memory.base import Clock, MemoryFailed
from muster.providers.threads import Threads

__all__ = ("Database", "SqliteMemory")

T = TypeVar("T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS memory (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    agent TEXT NOT NULL,
    created REAL NOT NULL,
    text TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS memory_by_agent ON memory (agent, id);
"""

BUSY_SECONDS = 10.0
"""How long a writer of another process is waited for."""


class Database:
    """One connection, used on one thread of its own: the event loop never waits for the disk."""

    def __init__(self, path: Path, schema: str) -> None:
        self._path = path
        self._schema = schema
        self._threads = Threads(1, name="muster-memory")
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    async def run(self, work: Callable[[sqlite3.Connection], T], *, writes: bool = True) -> T:
        """`work(connection)` as one transaction. Raises MemoryFailed."""
        begin = "BEGIN IMMEDIATE" if writes else "BEGIN"
        return await self._threads.run(lambda _: self._run(work, begin))

    async def aclose(self) -> None:
        """Close the file."""
        await self._threads.run(lambda _: self._close())
        self._threads.close()

    def _run(self, work: Callable[[sqlite3.Connection], T], begin: str) -> T:
        try:
            # A call that was given up may still be at work on its thread.
            with self._lock:
                connection = self._connection or self._open()
                with connection:
                    connection.execute(begin)
                    return work(connection)
        except (sqlite3.Error, OSError) as error:
            raise MemoryFailed(f"{self._path}: {error}") from error

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            self._path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.executescript(self._schema)
        except sqlite3.Error:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _close(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()


class SqliteMemory:
    """The newest texts of each agent, in a table; see `MemoryStore`."""

    def __init__(
        self,
        path: Path,
        *,
        ttl_seconds: float | None = None,
        max_entries: int | None = None,
        clock: Clock = time.time,
    ) -> None:
        self._database = Database(path, _SCHEMA)
        self._ttl = ttl_seconds or None
        self._max = max_entries or None
        self._clock = clock

    async def recall(self, agent: str, query: str, limit: int) -> list[str]:
        """See `MemoryStore`: the newest, oldest first."""
        since = self._since()

        def work(connection: sqlite3.Connection) -> list[str]:
            rows = connection.execute(
                "SELECT text FROM memory WHERE agent = ? AND created > ? ORDER BY id DESC LIMIT ?",
                (agent, since, max(limit, 0)),
            )
            return [text for (text,) in rows][::-1]

        return await self._database.run(work, writes=False)

    async def remember(self, agent: str, text: str) -> None:
        """See `MemoryStore`."""
        now, since = self._clock(), self._since()

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO memory (agent, created, text) VALUES (?, ?, ?)",
                (agent, now, text.encode("utf-8", "replace").decode()),
            )
            connection.execute("DELETE FROM memory WHERE created <= ?", (since,))
            if self._max is not None:
                connection.execute(
                    "DELETE FROM memory WHERE agent = ?1 AND id <= (SELECT id FROM memory"
                    " WHERE agent = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
                    (agent, self._max),
                )

        await self._database.run(work)

    async def aclose(self) -> None:
        """See `MemoryStore`."""
        await self._database.aclose()

    def _since(self) -> float:
        return self._clock() - self._ttl if self._ttl else float("-inf")
