"""What agents remember: read before a task, written after it.

A memory helps, and nothing more: when it fails, the task goes on without it, with a warning. What
is recalled was written by agents, so it stands in an envelope, as what other steps said does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from muster.embeddings import Embedder, embed_function
from muster.errors import MusterError
from muster.importing import describe_failure
from muster.memory.base import MemoryFailed, MemoryStore, open_memory
from muster.memory.definition import Memory
from muster.teams.definition import Agent

if TYPE_CHECKING:
    from muster.teams.context import RunContext

__all__ = ("Memories", "recalled", "remember", "with_memories")

T = TypeVar("T")

ENTRIES = 10
"""Recalled for one task, at most."""

ENTRY_CHARACTERS = 4000
"""Kept of a task, and of its answer; the rest is left out."""

SECONDS = 10.0
"""How long a memory may take."""

_CLOSING = "</ark:memory"


class Memories:
    """Memories by their definition, each opened when it is first used. Close them."""

    def __init__(
        self, folder: Path | None = None, embedder: Callable[[str], Embedder] | None = None
    ) -> None:
        """`folder` is where files are kept by default; `None`: the working folder's `.muster`.
        `embedder` gives what makes the vectors, for a target's name."""
        self._embedder = embedder
        self._path = (folder or Path(".muster")) / "memory.db"
        self._stores: dict[Memory, MemoryStore] = {}

    def of(self, agent: Agent, definition: Memory) -> MemoryStore:
        """The agent's memory; agents with the same definition share it, each with its own entries.

        Raises:
            MusterError: something that it needs is missing.
        """
        store = self._stores.get(definition)
        if store is None:
            file = agent.place.document.path if agent.place is not None else None
            search = file.parent if file is not None else None
            name, embed = definition.embed, None
            if name is not None and ":" not in name and self._embedder is not None:
                embed = embed_function(self._embedder(name))
            store = open_memory(definition, path=self._path, search=search, embed=embed)
            self._stores[definition] = store
        return store

    async def aclose(self) -> None:
        """Close them all, whatever one of them says."""
        stores, self._stores = self._stores, {}
        closing = (asyncio.wait_for(store.aclose(), SECONDS) for store in stores.values())
        await asyncio.gather(*closing, return_exceptions=True)


async def recalled(context: RunContext, agent: Agent, task: str, row: int) -> list[str]:
    """What the agent remembers for this task; nothing if it has no memory, or that fails."""
    if agent.memory is None:
        return []
    try:
        await context.journal.flushed()
        store = _store(context, agent, agent.memory)
        entries = await _in_time(store.recall(_owner(context, agent), task, ENTRIES))
    except Exception as error:
        _warn(context, agent, row, error)
        return []
    if entries:
        context.note("recalled", {"agent": agent.name, "entries": entries}, row)
    return entries


async def remember(context: RunContext, agent: Agent, task: str, answer: str, row: int) -> None:
    """Keep the task and its answer."""
    if agent.memory is None:
        return
    text = f"Task: {_short(task)}\nAnswer: {_short(answer)}"
    try:
        await context.journal.flushed()
        store = _store(context, agent, agent.memory)
        await _in_time(store.remember(_owner(context, agent), context.journal.masked(text)))
    except Exception as error:
        _warn(context, agent, row, error)


def with_memories(prompt: str, entries: list[str]) -> str:
    """The prompt behind what is remembered; an entry cannot end the envelope itself."""
    if not entries:
        return prompt
    told = "\n\n".join(entry.replace(_CLOSING, "<\\/ark:memory") for entry in entries)
    return f"<ark:memory>\n{told}\n</ark:memory>\n\n{prompt}"


def _store(context: RunContext, agent: Agent, definition: Memory) -> MemoryStore:
    """In-context memory lasts for the run, all other memory for as long as it is kept."""
    memories = context.memories if definition.backend == "in-context" else context.cast.memories
    return memories.of(agent, definition)


def _owner(context: RunContext, agent: Agent) -> str:
    return f"{context.team}/{agent.name}"


async def _in_time(work: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(SECONDS) as limit:
            return await work
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise MemoryFailed(f"no answer within {SECONDS:g} s") from error


def _warn(context: RunContext, agent: Agent, row: int, error: Exception) -> None:
    why = str(error) if isinstance(error, MemoryFailed | MusterError) else describe_failure(error)
    text = f"memory of {agent.name}: {why}"
    context.note("warning", {"text": text}, row)
    context.emit("warning", text=text)


def _short(text: str) -> str:
    text = text.strip()
    return text if len(text) <= ENTRY_CHARACTERS else f"{text[:ENTRY_CHARACTERS]} […]"
