"""Memory of this process; it ends with it."""

from __future__ import annotations

import time
from collections import deque

from muster.memory.base import Clock

__all__ = ("InContextMemory",)


class InContextMemory:
    """The newest texts of each agent, in lists; see `MemoryStore`."""

    def __init__(
        self,
        *,
        ttl_seconds: float | None = None,
        max_entries: int | None = None,
        clock: Clock = time.time,
    ) -> None:
        self._ttl = ttl_seconds or None
        self._max = max_entries or None
        self._clock = clock
        self._entries: dict[str, deque[tuple[float, str]]] = {}

    async def recall(self, agent: str, query: str, limit: int) -> list[str]:
        """See `MemoryStore`: the newest, oldest first."""
        entries = self._kept(agent)
        return [text for _, text in list(entries)[max(len(entries) - limit, 0) :]]

    async def remember(self, agent: str, text: str) -> None:
        """See `MemoryStore`."""
        self._kept(agent).append((self._clock(), text))
        self._kept(agent)

    async def aclose(self) -> None:
        """Forget all."""
        self._entries.clear()

    def _kept(self, agent: str) -> deque[tuple[float, str]]:
        entries = self._entries.setdefault(agent, deque())
        since = self._clock() - self._ttl if self._ttl else float("-inf")
        while entries and (entries[0][0] <= since or (self._max and len(entries) > self._max)):
            entries.popleft()
        return entries
