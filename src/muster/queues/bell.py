"""Waking those who wait in `take` and `wait`."""

from __future__ import annotations

import asyncio

from muster.errors import MusterError

__all__ = ("Bell",)


class Bell:
    """Rings for all who wait at that moment. Who looks first and then waits, without an `await` in
    between, misses nothing."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()
        self._closed = False

    def __bool__(self) -> bool:
        """Whether anybody waits."""
        return bool(self._waiting)

    async def wait(self, seconds: float | None = None) -> None:
        """Return at the next ring, or after `seconds`.

        Raises:
            MusterError: the queue was closed.
        """
        self.check()
        loop = asyncio.get_running_loop()
        rung: asyncio.Future[None] = loop.create_future()
        self._waiting.add(rung)
        timer = None
        if seconds is not None:
            timer = loop.call_later(max(seconds, 0.0), _set, rung)
        try:
            await rung
        finally:
            self._waiting.discard(rung)
            if timer is not None:
                timer.cancel()
        self.check()

    def ring(self) -> None:
        """Wake everybody."""
        for rung in self._waiting:
            _set(rung)

    def close(self) -> None:
        """From now on waiting is an error."""
        self._closed = True
        self.ring()

    def check(self) -> None:
        """Raise `MusterError` when the queue was closed."""
        if self._closed:
            raise MusterError("the queue is closed")


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
