"""What to run next on one target: cases in order, each once its dependencies are done."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping

from muster.evals.execution import Item
from muster.evals.results import EXECUTION_ERROR

__all__ = ("Schedule",)

_Key = tuple[str, str | None, int]


class Schedule:
    """Hands out items to workers.

    Items are drawn lazily, so that a large suite is never held. One whose dependencies are not
    done waits aside; only the outcomes of cases that others depend on are remembered. A
    dependency that is not part of the run (filtered out) does not hold anybody back.
    """

    def __init__(
        self,
        items: Iterator[Item],
        dependencies: frozenset[str],
        planned: Mapping[str, int],
        outcomes: Mapping[_Key, str] | None = None,
    ) -> None:
        self._items = items
        self._dependencies = dependencies
        self._planned = planned
        """Those of `dependencies` that this run will come to, each with its repeats."""
        self._outcomes: dict[_Key, str] = dict(outcomes or {})
        self._ready: deque[Item] = deque()
        self._waiting: list[Item] = []
        self._running = 0
        self._changed = asyncio.Event()
        self._exhausted = False

    def take(self) -> Item | None:
        """The next item that can run now; `None` when there is none at the moment."""
        if self._ready:
            self._running += 1
            return self._ready.popleft()
        while not self._exhausted:
            item = next(self._items, None)
            if item is None:
                self._exhausted = True
            elif item.case.depends_on and self._open(item):
                self._waiting.append(item)
            else:
                self._running += 1
                return item
        return None

    async def wait(self) -> bool:
        """Wait until there may be something to take; False when the schedule is through."""
        if self._exhausted and not self._ready and not self._waiting:
            return False
        if not self._running and not self._ready:
            # Nothing runs that could free them: what they wait for will never come.
            self._ready.extend(self._waiting)
            self._waiting.clear()
            return bool(self._ready)
        self._changed.clear()
        await self._changed.wait()
        return True

    def done(self, item: Item, status: str) -> None:
        """Note how an item ended, and free those that waited for it."""
        self._running -= 1
        if item.case.id in self._dependencies:
            self._outcomes[item.case.id, item.case.prompt, item.repeat] = status
            freed = [waiting for waiting in self._waiting if not self._open(waiting)]
            if freed:
                self._waiting = [waiting for waiting in self._waiting if self._open(waiting)]
                self._ready.extend(freed)
        self._changed.set()

    def failed(self, item: Item) -> list[str]:
        """The dependencies of `item` that ended in an execution error."""
        return [
            name
            for name in item.case.depends_on
            if self._outcomes.get(self._awaited(item, name)) == EXECUTION_ERROR
        ]

    def _open(self, item: Item) -> bool:
        return any(
            name in self._planned and self._awaited(item, name) not in self._outcomes
            for name in item.case.depends_on
        )

    def _awaited(self, item: Item, name: str) -> _Key:
        """The result of the case `name` that counts for `item`: the same repeat, or the last."""
        last = self._planned.get(name, item.repeat + 1) - 1
        return (name, item.case.prompt, min(item.repeat, last))
