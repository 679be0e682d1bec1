"""A clock that jumps over waiting: hours of waiting pass at once, and to the exact second."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

__all__ = ("virtual",)


class _JumpingSelector(selectors.DefaultSelector):
    """Does not wait: says to the loop how long it would have."""

    waited = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise RuntimeError("everything waits, and for ever")
        self.waited += max(timeout, 0.0)
        return super().select(0)


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.clock = _JumpingSelector()
        super().__init__(self.clock)

    def time(self) -> float:
        return self.clock.waited


def virtual(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` on a loop whose time jumps from one event to the next. Work that waits for what
    can never come fails at once."""
    with asyncio.Runner(loop_factory=_VirtualLoop) as runner:
        return runner.run(work)
