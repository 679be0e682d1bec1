"""Not more calls at a time than allowed."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

from muster.provider import Provider, ProviderRequest, ProviderResponse
from muster.wrappers.base import Wrapper

__all__ = ("ConcurrencyLimit",)


_inside: ContextVar[tuple[ConcurrencyLimit, ...]] = ContextVar("muster_limits", default=())
"""The limits that the call around this one has been let in by."""


class ConcurrencyLimit(Wrapper):
    """Lets at most `maximum` calls in at a time; the others wait in the order they came.

    A call that is made by a tool of one that is inside does not wait: that one waits for it.
    """

    __slots__ = ("_semaphore", "maximum")

    def __init__(self, provider: Provider, maximum: int) -> None:
        super().__init__(provider)
        self.maximum = maximum
        self._semaphore = asyncio.Semaphore(maximum)

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        """Answer as the provider inside does, when it is this call's turn."""
        around = _inside.get()
        if self in around:
            return await self.provider.invoke(request)
        async with self._semaphore:
            token = _inside.set((*around, self))
            try:
                return await self.provider.invoke(request)
            finally:
                _inside.reset(token)
