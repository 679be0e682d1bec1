"""Wrong about limits."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, ClassVar

from gallery.base import Wrong
from muster.provider import ProviderRequest, ProviderResponse, ProviderUnavailable


class _Limits(Wrong):
    changed: ClassVar[dict[str, Any]] = {}

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        limits = replace(request.limits, **self.changed)
        return await self.right.invoke(replace(request, limits=limits))


class ForgetsTheBoundOnOutput(_Limits):
    breaks = "limit-output-tokens"
    changed: ClassVar[dict[str, Any]] = {"max_output_tokens": None}


class HasItsOwnBoundOnTurns(_Limits):
    breaks = "limit-turns"

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        turns = 12 if request.limits.max_turns == 3 else request.limits.max_turns
        limits = replace(request.limits, max_turns=turns)
        return await self.right.invoke(replace(request, limits=limits))


class BlamesTheServiceForMaxSeconds(Wrong):
    breaks = "limit-seconds"

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        seconds = request.limits.max_seconds
        if seconds is None:
            return await self.right.invoke(request)
        unbounded = replace(request, limits=replace(request.limits, max_seconds=None))
        try:
            async with asyncio.timeout(seconds * 0.9):
                return await self.right.invoke(unbounded)
        except TimeoutError:
            raise ProviderUnavailable("the service is too slow") from None


class HasNoBudgetOfTokens(_Limits):
    breaks = "limit-total-tokens"
    changed: ClassVar[dict[str, Any]] = {"max_total_tokens": None}


class HasNoBudgetOfMoney(_Limits):
    breaks = "limit-cost"
    changed: ClassVar[dict[str, Any]] = {"max_cost_usd": None}
