"""Ctrl-C and its relatives: the first ends what is under way in order, the second at once."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from typing import Any

__all__ = ("cancel_on_signals", "on_signals")

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def on_signals(first: Callable[[], None], second: Callable[[], None]) -> list[int]:
    """Call `first`, then `second`, when the process is asked to end; the list gets the signals'
    numbers.

    After the second one the signals are the system's own.
    """
    loop = asyncio.get_running_loop()
    # What is ignored, as under nohup, stays so.
    heard = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    received: list[int] = []

    def on_signal(number: int) -> None:
        received.append(number)
        if len(received) == 1:
            first()
            return
        for each in heard:
            loop.remove_signal_handler(each)
        second()

    for number in heard:
        loop.add_signal_handler(number, on_signal, number)
    return received


def cancel_on_signals(task: asyncio.Future[Any], stop: asyncio.Event) -> list[int]:
    """Cancel `task` when the process is asked to end: with the first signal the calls under way
    have time to end, with the second no more. As `on_signals`."""

    def first() -> None:
        # Not by click, which would write past what keeps a live view whole.
        print("interrupted: ending the calls under way …", file=sys.stderr, flush=True)
        stop.set()
        task.cancel()

    def second() -> None:
        task.cancel()

    return on_signals(first, second)
