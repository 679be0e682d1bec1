"""Ctrl-C and its relatives: the first ends what is under way in order, the second at once."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import click

__all__ = ("cancel_on_signals",)


def cancel_on_signals(task: asyncio.Future[Any], stop: asyncio.Event) -> list[int]:
    """Cancel `task` when the process is asked to end; the list gets the signals' numbers.

    The first one gives the calls under way time to end; a second one no more. From then on the
    signal is the system's own.
    """
    loop = asyncio.get_running_loop()
    received: list[int] = []

    def on_signal(number: int) -> None:
        received.append(number)
        if len(received) == 1:
            click.echo("interrupted: ending the calls under way …", err=True)
        else:
            loop.remove_signal_handler(number)
        stop.set()
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            loop.add_signal_handler(number, on_signal, number)
    return received
