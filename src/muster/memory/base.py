"""Memory of every kind behind two calls: `remember` a text, `recall` what matters now.

    memory = open_memory(definition, path=project / ".muster" / "memory.db")
    await memory.remember("writer", "The reader wants short sentences.")
    await memory.recall("writer", "How long may sentences be?", 5)

Every agent has its own memory, whatever backend holds it.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

from muster.errors import MusterError
from muster.importing import load_object
from muster.memory import vector_stores
from muster.memory.definition import Memory

__all__ = ("Clock", "Embed", "MemoryFailed", "MemoryStore", "open_memory")

Clock: TypeAlias = Callable[[], float]
Embed: TypeAlias = Callable[[Sequence[str]], Awaitable[Sequence[Sequence[float]]]]
"""Makes a vector of each text; all have the same length."""


class MemoryFailed(Exception):
    """The memory could not be read or written; the text says why."""


class MemoryStore(Protocol):
    """What agents remember."""

    async def recall(self, agent: str, query: str, limit: int) -> list[str]:
        """At most `limit` texts, in the order in which they were remembered: the newest ones, or
        from a vector store those nearest to `query`. Raises MemoryFailed."""
        ...

    async def remember(self, agent: str, text: str) -> None:
        """Keep `text`. Raises MemoryFailed."""
        ...

    async def aclose(self) -> None:
        """Close files and connections; what is remembered stays, if the backend keeps it."""
        ...


def open_memory(
    definition: Memory,
    *,
    path: Path,
    search: Path | None = None,
    embed: Embed | None = None,
    clock: Clock = time.time,
) -> MemoryStore:
    """The memory that `definition` describes. Nothing is connected before the first use.

    `path` is the SQLite file where the definition names none; `search` the folder that dotted paths
    start in; `embed` serves vector stores whose definition names no function: none at all, or a
    target, which has no colon in its name.

    Raises:
        MusterError: something is missing: an address, a function, a package.
    """
    if definition.backend == "in-context":
        from muster.memory.in_context import InContextMemory

        return InContextMemory(
            ttl_seconds=definition.ttl_seconds, max_entries=definition.max_entries, clock=clock
        )
    if definition.backend == "sqlite":
        from muster.memory.sqlite import SqliteMemory

        return SqliteMemory(
            definition.path or path,
            ttl_seconds=definition.ttl_seconds,
            max_entries=definition.max_entries,
            clock=clock,
        )
    if definition.backend == "redis":
        from muster.memory.redis import RedisMemory

        if not definition.url:
            raise MusterError('a memory with backend "redis" needs the URL of the server')
        return RedisMemory(
            definition.url,
            ttl_seconds=definition.ttl_seconds,
            max_entries=definition.max_entries,
        )
    return _vector_memory(definition, path, search, embed, clock)


def _vector_memory(
    definition: Memory, path: Path, search: Path | None, embed: Embed | None, clock: Clock
) -> MemoryStore:
    from muster.memory.vectors import VectorMemory

    if definition.embed is not None and (":" in definition.embed or embed is None):
        embed = load_object(definition.embed, search=search)
    if embed is None:
        raise MusterError(
            'a memory with backend "vector-store" needs `embed`, the function that makes vectors '
            "of texts: package.module:function"
        )
    factory = vector_stores.get(definition.provider or "sqlite", search=search)
    return VectorMemory(
        factory(definition, path),
        embed,
        ttl_seconds=definition.ttl_seconds,
        max_entries=definition.max_entries,
        clock=clock,
    )
