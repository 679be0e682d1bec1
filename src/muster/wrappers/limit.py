"""Not more calls at a time than allowed."""

from __future__ import annotations

import asyncio

from muster.provider import Provider, ProviderRequest, ProviderResponse
from muster.wrappers.base import Wrapper

__all__ = ("ConcurrencyLimit",)


class ConcurrencyLimit(Wrapper):
    """Lets at most `maximum` calls in at a time; the others wait in the order they came."""

    __slots__ = ("_semaphore", "maximum")

    def __init__(self, provider: Provider, maximum: int) -> None:
        super().__init__(provider)
        self.maximum = maximum
        self._semaphore = asyncio.Semaphore(maximum)

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        """Answer as the provider inside does, when it is this call's turn."""
        async with self._semaphore:
            return await self.provider.invoke(request)
