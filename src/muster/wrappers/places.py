"""Places for so many at a time; and giving back what a call to a model holds while its tools run.

A model's turn and the tools that it asks for are one request, but not one piece of work: a tool may
ask another agent, of the same target, and wait for its answer. Who kept its place meanwhile would
wait for itself. So a place is held for each turn, never while tools run.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from muster.provider import CallTool

__all__ = ("Pauses", "Places")


class Places:
    """Lets `limit` in at a time, in the order they came; those who come back go first, so that
    what was begun is ended before more is begun."""

    __slots__ = ("_closed_until", "_returning", "_timer", "_waiting", "limit", "running")

    def __init__(self, limit: float) -> None:
        self.limit = limit
        """May change while there are some inside; the part after the point counts as nothing."""
        self.running = 0
        self._closed_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._returning: deque[asyncio.Future[None]] = deque()

    async def enter(self, *, again: bool = False) -> None:
        """Wait for a place; `again`: one that had a place, and gave it back for a while."""
        queue = self._returning if again else self._waiting
        if not queue and not self._returning and self._has_room():
            self.running += 1
            return
        waiter = asyncio.get_running_loop().create_future()
        queue.append(waiter)
        self._let_in()
        try:
            await waiter
        except BaseException:
            # Let in and cancelled in the same moment: the place goes to the next.
            if not waiter.cancel() and not waiter.cancelled():
                self.leave()
            raise

    async def enter_again(self) -> None:
        """`enter(again=True)`."""
        await self.enter(again=True)

    def leave(self) -> None:
        """Give the place back."""
        self.running -= 1
        self._let_in()

    def close_until(self, moment: float) -> None:
        """Let nobody in before this moment of the loop's clock."""
        self._closed_until = max(self._closed_until, moment)

    def _has_room(self) -> bool:
        return self.running < int(self.limit) and not self._closed()

    def _closed(self) -> bool:
        return bool(self._closed_until) and asyncio.get_running_loop().time() < self._closed_until

    def _let_in(self) -> None:
        """Let in as many as there is room for; nobody while it is closed."""
        if not self._returning and not self._waiting:
            return
        if self._closed():
            if self._timer is None:
                loop = asyncio.get_running_loop()
                self._timer = loop.call_at(self._closed_until, self._reopen)
            return
        for queue in (self._returning, self._waiting):
            while queue and self.running < int(self.limit):
                waiter = queue.popleft()
                if not waiter.done():
                    self.running += 1
                    waiter.set_result(None)

    def _reopen(self) -> None:
        self._timer = None
        self._let_in()


class Pauses:
    """Calls a request's tools. `pause` is called when the first of some begins, and `resume`
    awaited when the last of them has ended, before the model gets the result.

    `close` when the request has ended: it says whether what was held is held still.
    """

    __slots__ = ("_call_tool", "_closed", "_pause", "_resume", "_running", "_state")

    def __init__(
        self, call_tool: CallTool, pause: Callable[[], None], resume: Callable[[], Awaitable[None]]
    ) -> None:
        self._call_tool = call_tool
        self._pause = pause
        self._resume = resume
        self._running = 0
        self._state = _HELD
        self._closed = False

    async def __call__(self, name: str, arguments: Mapping[str, Any]) -> str:
        self._running += 1
        if self._state == _HELD:
            self._state = _PAUSED
            self._pause()
        try:
            result = await self._call_tool(name, arguments)
        except BaseException as error:
            self._running -= 1
            if isinstance(error, Exception) or _cancelled_itself(error):
                await self._go_on()
            raise
        self._running -= 1
        await self._go_on()
        return result

    def close(self) -> bool:
        """The request has ended, however; True: what it holds is to be given back."""
        self._closed = True
        return self._state == _HELD

    async def _go_on(self) -> None:
        if self._running == 0:
            # The others of the same turn may not have begun yet.
            await asyncio.sleep(0)
        if self._running or self._state != _PAUSED:
            return
        self._state = _RESUMING
        try:
            await self._resume()
        except BaseException:
            self._state = _PAUSED
            raise
        if self._running or self._closed:  # a further tool has begun, or nobody goes on
            self._state = _PAUSED
            self._pause()
        else:
            self._state = _HELD


_HELD, _PAUSED, _RESUMING = "held", "paused", "resuming"


def _cancelled_itself(error: BaseException) -> bool:
    """A tool may end by a cancellation of its own, which nobody asked for: the model goes on."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and not task.cancelling()
