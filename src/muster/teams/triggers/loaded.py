"""One load of a manifest's events and teams: in use until the last run of it has ended.

When the file changes, what comes later uses the new load, and what is under way the old one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from muster.teams.definition import Event
from muster.teams.preparing import Prepared

__all__ = ("Loaded",)


class Loaded:
    """Events and the teams that they start, both by name. Close it."""

    def __init__(self, events: Mapping[str, Event], teams: Mapping[str, Prepared]) -> None:
        self.events = events
        self.teams = teams
        self._users = 0
        self._free = asyncio.Event()
        self._free.set()

    @contextmanager
    def used(self) -> Iterator[None]:
        """Somebody needs it."""
        self._users += 1
        self._free.clear()
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._free.set()

    async def aclose(self) -> None:
        """Let go of the teams' agents once nobody needs them."""
        await self._free.wait()
        for prepared in self.teams.values():
            await prepared.cast.aclose()
