"""Measures for how long an event loop stands still, and where."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from types import FrameType

__all__ = ("Watchdog",)

BEAT = 0.005


class Watchdog:
    """Within `with`, in a running loop: a heart that beats on the loop, and a thread that looks."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.longest = 0.0
        """The longest time without a beat, in seconds."""
        self.where = ""
        """File, line and function that the loop was in when it missed its beat."""
        self._ended = threading.Event()
        self._beaten = time.perf_counter()
        self._handle: asyncio.TimerHandle | None = None

    def __enter__(self) -> Watchdog:
        self._loop = asyncio.get_running_loop()
        self._watched = threading.get_ident()
        self._beaten = time.perf_counter()
        self._handle = self._loop.call_later(BEAT, self._beat)
        self._thread = threading.Thread(target=self._look, name="muster-watchdog", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._count()
        if self._handle is not None:
            self._handle.cancel()
        self._ended.set()
        self._thread.join()

    def _beat(self) -> None:
        self._count()
        self._handle = self._loop.call_later(BEAT, self._beat)

    def _count(self) -> None:
        now = time.perf_counter()
        self.longest = max(self.longest, now - self._beaten)
        self._beaten = now

    def _look(self) -> None:
        while not self._ended.wait(BEAT):
            if time.perf_counter() - self._beaten > self.limit / 2 and not self.where:
                self.where = _place(sys._current_frames().get(self._watched))


def _place(frame: FrameType | None) -> str:
    """The innermost frame that is not Python's own."""
    while frame is not None:
        name = frame.f_code.co_filename
        if "/asyncio/" not in name and not name.startswith("<") and "/lib/python" not in name:
            return f"{name}:{frame.f_lineno} ({frame.f_code.co_name})"
        frame = frame.f_back
    return ""
