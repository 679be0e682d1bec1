"""The wall time that a request may take, for providers that have no bound of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from muster.provider import LimitExceeded

__all__ = ("within",)

T = TypeVar("T")


async def within(seconds: float, work: Awaitable[T], *, who: str) -> T:
    """What `work` gives, if it does so in `seconds`; else it is cancelled.

    `work` must not raise `TimeoutError`, but the `ProviderError` that it means.

    Raises:
        LimitExceeded: it took longer.
    """
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        raise LimitExceeded(
            f"{who}: stopped: it took longer than max_seconds ({seconds:g} s) allows"
        ) from None
