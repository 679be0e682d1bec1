"""Wrong in the tool loop."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gallery.base import Wrong
from muster.provider import CallTool, ProviderRequest, ProviderResponse


class _Tools(Wrong):
    """Overrides how tools are called."""

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        if request.call_tool is None:
            return await self.right.invoke(request)
        return await self.right.invoke(replace(request, call_tool=self.caller(request.call_tool)))

    def caller(self, call_tool: CallTool) -> CallTool:
        raise NotImplementedError


class CutsResults(_Tools):
    breaks = "tool-calls-round-trip"

    def caller(self, call_tool: CallTool) -> CallTool:
        async def call(name: str, arguments: Mapping[str, Any]) -> str:
            return (await call_tool(name, arguments))[:10]

        return call


class TellsResultsAsTheyCome(_Tools):
    breaks = "parallel-tool-calls-in-order"

    def caller(self, call_tool: CallTool) -> CallTool:
        started = 0
        results: list[str] = []
        came = asyncio.Condition()

        async def call(name: str, arguments: Mapping[str, Any]) -> str:
            nonlocal started
            number = started
            started += 1
            result = await call_tool(name, arguments)
            async with came:
                results.append(result)
                came.notify_all()
                await came.wait_for(lambda: len(results) > number)
            return results[number]

        return call


class HidesFailures(_Tools):
    breaks = "failing-tool-is-told"

    def caller(self, call_tool: CallTool) -> CallTool:
        async def call(name: str, arguments: Mapping[str, Any]) -> str:
            try:
                return await call_tool(name, arguments)
            except RuntimeError:
                return ""

        return call


class CallsWhatThereIsNot(Wrong):
    breaks = "unknown-tool-is-told"

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        return await self.right.invoke(replace(request, watch=_Watch()))


class _Watch:
    """With it, the loop leaves it to `call_tool` to refuse tools that there are not."""

    def output_allowed(self) -> int | None:
        return None

    def turn_ended(self, usage: object, cost_usd: float | None, /) -> None:
        pass
