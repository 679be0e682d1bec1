"""The children of one target on one event loop: started when they are needed, replaced when they
crash, ended when they have nothing to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, cast

from muster.importing import describe_failure
from muster.provider import ProviderError, ProviderFailed, ProviderUnavailable
from muster.providers.stdio_calls import ChildSpec
from muster.providers.stdio_child import Child
from muster.providers.stdio_messages import Initialized
from muster.tasks import stop_tasks

__all__ = ("ChildPool",)

FIRST_DELAY = 0.1
"""Before a child is started again after the first crash, in seconds; twice as much each time."""

LONGEST_DELAY = 10.0


class ChildPool:
    """Children of one kind. A call takes one that is free, or waits for one."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        spec: ChildSpec,
        *,
        size: int,
        idle_seconds: float | None,
        start_seconds: float,
        on_started: Callable[[Initialized], None],
    ) -> None:
        self.loop = loop
        self._spec = spec
        self._size = size
        self._idle_seconds = idle_seconds
        self._start_seconds = start_seconds
        self._on_started = on_started
        self._children: list[Child] = []
        self._starting: set[asyncio.Task[None]] = set()
        self._leaving: set[Child] = set()
        """Children that take no more calls, and are not gone yet."""
        self._endings: set[asyncio.Task[None]] = set()
        self._waiting: deque[asyncio.Future[Child]] = deque()
        self._failures = 0
        """Starts and children that failed in a row."""
        self._not_before = 0.0
        self._started_once = False
        self._why: Callable[[], ProviderError] | None = None
        """Makes the error of the last failed start."""
        self._closed = False

    # --- what the provider does ---

    async def take(self) -> Child:
        """A child for one more call, with the place for it reserved.

        Raises:
            ProviderError: there is none, and none can be started.
        """
        child = self._free()
        if child is not None:
            child.reserved += 1
            return child
        if not self._starting and not self._children:
            self._refuse_in_vain()
        waiting: asyncio.Future[Child] = self.loop.create_future()
        self._waiting.append(waiting)
        try:
            return await waiting
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled() and waiting.exception() is None:
                waiting.result().release()
            raise

    async def aclose(self) -> None:
        """End all children; those who wait for one are told so."""
        self._closed = True
        starting, self._starting = self._starting, set()
        children, self._children = self._children, []
        self._leaving.update(children)
        self._fail_waiting(lambda: ProviderUnavailable("the provider was closed", retryable=False))
        try:
            await stop_tasks(starting)
            await asyncio.gather(*(child.shut_down() for child in self._leaving))
            if self._endings:
                await asyncio.wait(self._endings)
        finally:
            self.kill()

    def kill(self) -> None:
        """End all children at once: their loop is closed, or nobody has time."""
        self._closed = True
        for child in (*self._children, *self._leaving):
            child.kill()
        self._children, self._leaving = [], set()

    # --- what the children tell ---

    def child_has_room(self) -> None:
        """Give it to the next who waits."""
        while self._waiting:
            if self._waiting[0].done():
                self._waiting.popleft()
                continue
            child = self._free()
            if child is None:
                return
            child.reserved += 1
            self._waiting.popleft().set_result(child)

    def child_is_gone(self, child: Child) -> None:
        """It crashed, or was retired: another takes its place when it is needed."""
        if child in self._children:
            self._children.remove(child)
        self._leaving.add(child)
        child.ended.add_done_callback(lambda _: self._leaving.discard(child))
        if child.has_failed:
            if child.answered:
                self._failures = 0
            self._back_off()
        if self._waiting:
            self._start_more(coming=0)

    def end_later(self, work: Coroutine[Any, Any, None]) -> None:
        """Have a child ended in the background; `aclose` waits for it."""
        task = self.loop.create_task(work)
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

    # --- children ---

    def _free(self) -> Child | None:
        """The child with the least to do that takes another call; more are started if all have
        something to do."""
        best: Child | None = None
        for child in self._children:
            if child.has_room and (best is None or child.load < best.load):
                best = child
        if best is None or best.load > 0:
            self._start_more(coming=1)
        return best

    def _start_more(self, coming: int) -> None:
        """Start as many children as there is work for, if there may be so many; `coming` calls
        are neither under way nor waiting yet."""
        if len(self._children) + len(self._starting) >= self._size or self._closed:
            return
        if self._children and self.loop.time() < self._not_before:
            return  # those that are there do for now
        work = coming + len(self._waiting) + sum(child.load for child in self._children)
        while len(self._children) + len(self._starting) < min(self._size, work):
            # A child outlives the request for which it is started.
            task = self.loop.create_task(self._start(), context=contextvars.Context())
            self._starting.add(task)

    async def _start(self) -> None:
        delay = self._not_before - self.loop.time()
        if delay > 0:
            await asyncio.sleep(delay)
        child = Child(self.loop, self._spec, self)
        about = failure = None
        try:
            about = await self._introduced(child)
        except ProviderError as error:
            failure = error
        except Exception as error:  # nobody may wait for ever, whatever it is
            failure = ProviderFailed(self._spec.masked(describe_failure(error)))
        # Before anybody is told: who is told may begin anew at once.
        self._starting.discard(cast("asyncio.Task[None]", asyncio.current_task()))
        if failure is not None:
            self._not_started(failure)
        elif about is not None:
            self._on_started(about)
            self._started_once = True
            self._children.append(child)
            if self._idle_seconds is not None:
                self.loop.call_later(self._idle_seconds, self._look_idle, child)
            self.child_has_room()

    async def _introduced(self, child: Child) -> Initialized:
        """Start it and hear who it is; it is gone if that fails."""
        try:
            child.begin()
        except OSError as error:
            raise ProviderFailed(self._spec.masked(self._cannot_start(error))) from error
        try:
            async with asyncio.timeout(self._start_seconds):
                return await child.initialize()
        except TimeoutError:
            text = f"did not answer `initialize` within {self._start_seconds:g} s"
            raise ProviderUnavailable(child.told(text)) from None
        finally:
            if child.about is None:
                child.retired = True
                with contextlib.suppress(asyncio.CancelledError):
                    await child.stop(0.0)

    def _not_started(self, error: ProviderError) -> None:
        """Tell those who wait. A child that has never started will not do so the next time."""
        kind, message = type(error), error.message
        retryable = error.retryable and self._started_once
        self._why = lambda: kind(message, retryable=retryable)
        self._back_off()
        if not self._children and not self._starting:
            self._fail_waiting(self._why)

    def _refuse_in_vain(self) -> None:
        """While a target that has never started waits for its next try, its calls fail at once."""
        if self._started_once or self._why is None:
            return
        if self.loop.time() < self._not_before:
            raise self._why()

    def _fail_waiting(self, make: Callable[[], ProviderError]) -> None:
        waiting, self._waiting = self._waiting, deque()
        for one in waiting:
            if not one.done():
                one.set_exception(make())

    def _back_off(self) -> None:
        delay = min(FIRST_DELAY * 2**self._failures, LONGEST_DELAY)
        self._failures += 1
        self._not_before = self.loop.time() + delay

    def _cannot_start(self, error: OSError) -> str:
        spec = self._spec
        if not spec.cwd.is_dir():
            reason = f"the working folder {spec.cwd} is not there"
        elif isinstance(error, FileNotFoundError):
            reason = f'command not found: "{spec.argv[0]}"'
        elif isinstance(error, PermissionError):
            reason = f'"{spec.argv[0]}" may not be executed'
        else:
            reason = f"the child cannot be started: {describe_failure(error)}"
        return f"{reason} ({spec.shown})"

    def _look_idle(self, child: Child) -> None:
        if child not in self._children:
            return
        assert self._idle_seconds is not None
        left = self._idle_seconds
        if child.load == 0:
            left = child.idle_since + self._idle_seconds - self.loop.time()
        if left <= 0:
            child.retire()
        else:
            self.loop.call_later(left, self._look_idle, child)
