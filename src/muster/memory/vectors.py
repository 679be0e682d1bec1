"""Memory that finds what is near in meaning: texts with vectors, compared by their angle.

A `VectorStore` keeps and finds vectors; the built-in one keeps them in SQLite and compares all of
an agent's, which is fast enough for some ten thousand. Others are registered in `vector_stores`.
"""

from __future__ import annotations

import math
import sqlite3
import time
from array import array
from collections.abc import Sequence
from heapq import nlargest
from operator import mul
from pathlib import Path
from typing import Protocol

from muster.importing import describe_failure
from muster.memory.base import Clock, Embed, MemoryFailed
from muster.memory.definition import Memory
from muster.memory.sqlite import Database

__all__ = ("SqliteVectors", "VectorMemory", "VectorStore")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS vectors (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    collection TEXT NOT NULL,
    agent TEXT NOT NULL,
    created REAL NOT NULL,
    text TEXT NOT NULL,
    vector BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS vectors_by_agent ON vectors (collection, agent, id);
"""


class VectorStore(Protocol):
    """Keeps texts with unit vectors, and finds the nearest ones."""

    async def add(self, agent: str, text: str, vector: Sequence[float], created: float) -> None:
        """Keep one text. `created` is in seconds since 1970."""
        ...

    async def nearest(
        self, agent: str, vector: Sequence[float], limit: int, since: float
    ) -> list[str]:
        """At most `limit` texts that are younger than `since`, those with the greatest dot product
        with `vector`, in the order in which they were added."""
        ...

    async def forget(self, agent: str, since: float, max_entries: int | None) -> None:
        """Drop what is not younger than `since`, and the oldest beyond `max_entries`."""
        ...

    async def aclose(self) -> None:
        """Close it."""
        ...


class VectorMemory:
    """A vector store and the function that makes vectors; see `MemoryStore`."""

    def __init__(
        self,
        store: VectorStore,
        embed: Embed,
        *,
        ttl_seconds: float | None = None,
        max_entries: int | None = None,
        clock: Clock = time.time,
    ) -> None:
        self._store = store
        self._embed = embed
        self._ttl = ttl_seconds or None
        self._max = max_entries or None
        self._clock = clock

    async def recall(self, agent: str, query: str, limit: int) -> list[str]:
        """See `MemoryStore`: the nearest, in the order in which they were remembered."""
        if limit <= 0:
            return []
        return await self._store.nearest(agent, await self._vector(query), limit, self._since())

    async def remember(self, agent: str, text: str) -> None:
        """See `MemoryStore`."""
        await self._store.add(agent, text, await self._vector(text), self._clock())
        if self._ttl is not None or self._max is not None:
            await self._store.forget(agent, self._since(), self._max)

    async def aclose(self) -> None:
        """See `MemoryStore`."""
        await self._store.aclose()

    def _since(self) -> float:
        return self._clock() - self._ttl if self._ttl else float("-inf")

    async def _vector(self, text: str) -> array[float]:
        try:
            made = [list(map(float, vector)) for vector in await self._embed([text])]
        except Exception as error:
            raise MemoryFailed(f"`embed` failed: {describe_failure(error)}") from error
        length = math.hypot(*made[0]) if len(made) == 1 else math.nan
        if not 0 < length < math.inf:
            raise MemoryFailed("`embed` did not answer with one vector that has a direction")
        return array("f", [value / length for value in made[0]])


class SqliteVectors:
    """All vectors in one table, all of an agent's compared; see `VectorStore`."""

    def __init__(self, path: Path, collection: str = "agent-memories") -> None:
        self._database = Database(path, _SCHEMA)
        self._collection = collection

    @classmethod
    def of(cls, definition: Memory, path: Path) -> SqliteVectors:
        """The factory that `vector_stores` knows."""
        return cls(definition.path or path, definition.collection)

    async def add(self, agent: str, text: str, vector: Sequence[float], created: float) -> None:
        """See `VectorStore`. Raises MemoryFailed when the agent's other vectors are of another
        length: they were made by another model, and cannot be compared."""
        blob = array("f", vector).tobytes()

        def work(connection: sqlite3.Connection) -> None:
            row = connection.execute(
                "SELECT length(vector) FROM vectors WHERE collection = ? AND agent = ? LIMIT 1",
                (self._collection, agent),
            ).fetchone()
            if row is not None and row[0] != len(blob):
                raise MemoryFailed(_lengths(row[0], len(blob)))
            connection.execute(
                "INSERT INTO vectors (collection, agent, created, text, vector)"
                " VALUES (?, ?, ?, ?, ?)",
                (self._collection, agent, created, text.encode("utf-8", "replace").decode(), blob),
            )

        await self._database.run(work)

    async def nearest(
        self, agent: str, vector: Sequence[float], limit: int, since: float
    ) -> list[str]:
        """See `VectorStore`."""
        wanted = array("f", vector)

        def work(connection: sqlite3.Connection) -> list[str]:
            rows = connection.execute(
                "SELECT id, vector FROM vectors WHERE collection = ? AND agent = ? AND created > ?",
                (self._collection, agent, since),
            )
            best = nlargest(limit, ((_product(wanted, blob), number) for number, blob in rows))
            texts = []
            for number in sorted(number for _, number in best):
                row = connection.execute("SELECT text FROM vectors WHERE id = ?", (number,))
                texts.append(str(row.fetchone()[0]))
            return texts

        return await self._database.run(work, writes=False)

    async def forget(self, agent: str, since: float, max_entries: int | None) -> None:
        """See `VectorStore`."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "DELETE FROM vectors WHERE collection = ? AND created <= ?",
                (self._collection, since),
            )
            if max_entries is not None:
                connection.execute(
                    "DELETE FROM vectors WHERE collection = ?1 AND agent = ?2 AND id <= ("
                    "SELECT id FROM vectors WHERE collection = ?1 AND agent = ?2"
                    " ORDER BY id DESC LIMIT 1 OFFSET ?3)",
                    (self._collection, agent, max_entries),
                )

        await self._database.run(work)

    async def aclose(self) -> None:
        """See `VectorStore`."""
        await self._database.aclose()


def _product(wanted: array[float], blob: bytes) -> float:
    other = array("f", blob)
    if len(other) != len(wanted):
        raise MemoryFailed(_lengths(len(blob), len(wanted) * wanted.itemsize))
    return math.fsum(map(mul, wanted, other))


def _lengths(stored: int, given: int) -> str:
    size = array("f").itemsize
    return (
        f"the memory holds vectors of {stored // size} numbers, not of {given // size}: "
        "they were made by another `embed`"
    )
