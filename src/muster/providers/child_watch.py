"""What an event loop has to watch of all its children, in one place.

Registering each child with asyncio by itself costs as much as all the rest that is done for it.
"""

from __future__ import annotations

import asyncio
import select
import weakref
from typing import Protocol

__all__ = ("Watched", "Watcher", "watcher_of")

_UNWATCHED_SECONDS = 0.01
"""A short command is over before anybody has to look into its pipes."""


class Watched(Protocol):
    """A child, as far as its watcher knows it."""

    began: float
    """By the loop's clock."""

    def on_exit(self) -> None:
        """It has exited, and is not reaped."""

    def watch_pipes(self) -> None:
        """It is not over soon: what it writes is to be read as it comes."""


class Watcher:
    """Follows the children of one loop: tells each of its exit, and those that are not over soon
    to watch their pipes. It has a descriptor and a timer only while there are children."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        # The loop keeps its watcher, not the other way round.
        self._loop = weakref.proxy(loop)
        self._young: dict[Watched, None] = {}
        self._by_pidfd: dict[int, Watched] = {}
        self._exits: select.epoll | None = None
        self._timer: asyncio.TimerHandle | None = None

    def add(self, child: Watched, pidfd: int) -> None:
        self._young[child] = None
        if self._timer is None:
            self._timer = self._loop.call_at(child.began + _UNWATCHED_SECONDS, self._look_at_young)
        if pidfd >= 0:
            if self._exits is None:
                self._exits = select.epoll()
                self._loop.add_reader(self._exits.fileno(), self._tell)
            self._exits.register(pidfd, select.EPOLLIN)
            self._by_pidfd[pidfd] = child

    def forget(self, pidfd: int) -> None:
        if self._by_pidfd.pop(pidfd, None) is None or self._exits is None:
            return
        self._exits.unregister(pidfd)
        if not self._by_pidfd:
            self._loop.remove_reader(self._exits.fileno())
            self._exits.close()
            self._exits = None

    def remove(self, child: Watched) -> None:
        self._young.pop(child, None)

    def _tell(self) -> None:
        for pidfd, _ in self._exits.poll(0) if self._exits is not None else ():
            if (child := self._by_pidfd.get(pidfd)) is not None:
                child.on_exit()

    def _look_at_young(self) -> None:
        self._timer = None
        grown = self._loop.time() - _UNWATCHED_SECONDS
        while self._young:
            child = next(iter(self._young))  # the oldest
            if child.began > grown:
                at = child.began + _UNWATCHED_SECONDS
                self._timer = self._loop.call_at(at, self._look_at_young)
                return
            del self._young[child]
            child.watch_pipes()


_watchers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Watcher] = (
    weakref.WeakKeyDictionary()
)


def watcher_of(loop: asyncio.AbstractEventLoop) -> Watcher:
    watcher = _watchers.get(loop)
    if watcher is None:
        watcher = _watchers[loop] = Watcher(loop)
    return watcher
