"""Threads for synchronous functions: bounded, and never in the way of the process's end.

The standard pool's threads are joined when the process ends, so that one function that hangs would
keep a run with a timeout from ever ending; these are daemons. A thread whose caller gave up (a
timeout, Ctrl-C) is written off and replaced, since Python cannot stop it.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

__all__ = ("DEFAULT_THREADS", "Job", "Threads")

T = TypeVar("T")

DEFAULT_THREADS = 64


class Job:
    """A call that waits for, or is on, a thread."""

    __slots__ = ("abandoned", "call", "context", "future", "loop", "started")

    def __init__(self, call: Callable[[Job], Any], loop: asyncio.AbstractEventLoop) -> None:
        self.call = call
        self.loop = loop
        self.future: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()
        self.context = contextvars.copy_context()
        self.started = False
        self.abandoned = False
        """Nobody waits for the result any more."""

    def post(self, callback: Callable[..., object], *arguments: object) -> None:
        """Have `callback` called on the event loop; nothing happens when that has ended."""
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(callback, *arguments)

    def run(self) -> None:
        """Call, and hand the outcome to the event loop."""
        outcome: tuple[Any, BaseException | None]
        try:
            outcome = self.context.run(self.call, self), None
        except BaseException as error:  # whatever it is, it is the caller's to judge
            outcome = None, error
        if not self.abandoned:
            self.post(self._deliver, outcome)

    def _deliver(self, outcome: tuple[Any, BaseException | None]) -> None:
        if not self.future.done():
            self.future.set_result(outcome)


class Threads:
    """Runs synchronous calls on at most `limit` threads, which start when they are needed."""

    def __init__(self, limit: int = DEFAULT_THREADS, *, name: str = "muster") -> None:
        self.limit = limit
        self._name = name
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._alive = 0
        self._idle = 0

    async def run(self, call: Callable[[Job], T]) -> T:
        """`call(job)` on a thread; what it raises is raised here, `SystemExit` included.

        A cancelled wait gives the thread up; long calls may look at `job.abandoned`.
        """
        job = Job(call, asyncio.get_running_loop())
        self._submit(job)
        try:
            result, error = await job.future
        except asyncio.CancelledError:
            self._abandon(job)
            raise
        if isinstance(error, StopIteration):
            # It would end the coroutine, not be raised from it.
            text = f"StopIteration: {error}"
            raise RuntimeError(text).with_traceback(error.__traceback__)
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]

    def close(self) -> None:
        """Let the idle threads end; those at work end after it."""
        with self._lock:
            for _ in range(self._alive):
                self._jobs.put(None)

    def _submit(self, job: Job) -> None:
        with self._lock:
            if self._idle > 0:
                self._idle -= 1
            elif self._alive < self.limit:
                self._start_thread()
            self._jobs.put(job)

    def _start_thread(self) -> None:
        self._alive += 1
        threading.Thread(target=self._work, name=self._name, daemon=True).start()

    def _abandon(self, job: Job) -> None:
        with self._lock:
            job.abandoned = True
            if job.started:
                self._alive -= 1
                if not self._jobs.empty():
                    self._start_thread()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            with self._lock:
                job.started = not job.abandoned
            if job.started:
                job.run()
            with self._lock:
                if job.started and job.abandoned:
                    return
                job.started = False
                if self._jobs.empty():
                    self._idle += 1
        with self._lock:
            self._alive -= 1
