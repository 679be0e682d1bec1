"""The tries of one request, by one target or by several: what they spent, what they let out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from muster.provider import (
    CallTool,
    Limits,
    ProviderError,
    ProviderRequest,
    ProviderResponse,
    TokenUsage,
)

__all__ = ("Attempts", "ToolMemory")


class Attempts:
    """Keeps the account of one request while it is tried again, here or elsewhere.

    Text that was streamed cannot be taken back: `streamed` says that there was some, and then no
    further try is made. A tool that was called is not called again for the same arguments: the
    next try gets the result that the earlier one got.
    """

    __slots__ = (
        "_on_chunk",
        "_original",
        "_started",
        "_tools",
        "cost_usd",
        "failures",
        "request",
        "streamed",
        "token_usage",
    )

    def __init__(self, request: ProviderRequest) -> None:
        self._original = request
        self._on_chunk = request.on_chunk
        self._tools: ToolMemory | None = None
        self._started = 0.0
        self.failures = 0
        """Failed tries so far."""
        self.streamed = False
        self.token_usage: TokenUsage | None = None
        self.cost_usd: float | None = None
        self.request = request
        """What to ask the provider: the request, with its streaming and its tools watched."""
        if request.on_chunk is not None:
            self.request = replace(self.request, on_chunk=self._stream)
        if request.call_tool is not None:
            self._tools = ToolMemory(request.call_tool)
            self.request = replace(self.request, call_tool=self._tools)
        if request.limits.max_seconds is not None:
            self._started = asyncio.get_running_loop().time()

    def add(self, error: ProviderError) -> None:
        """Count a failed try and what it cost."""
        self.failures += error.attempts
        if error.token_usage is not None:
            self.token_usage = error.token_usage + self.token_usage
        self.cost_usd = _sum(self.cost_usd, error.cost_usd)

    def next_request(self, *, attempt: int, delay: float = 0.0) -> ProviderRequest | None:
        """The request for another try that starts in `delay` seconds, its limits less what is
        spent; `None` when nothing is left of them."""
        limits = self._limits_left(delay)
        if limits is None:
            return None
        if self._tools is not None:
            self._tools.restart()
        return replace(self.request, attempt=attempt, limits=limits)

    def answered(self, response: ProviderResponse) -> ProviderResponse:
        """`response` with the failed tries added to its account."""
        if not self.failures:
            return response
        usage = response.token_usage
        return replace(
            response,
            attempts=self.failures + response.attempts,
            token_usage=self.token_usage if usage is None else usage + self.token_usage,
            cost_usd=_sum(self.cost_usd, response.cost_usd),
        )

    def given_up(self, error: ProviderError, message: str | None = None) -> ProviderError:
        """A copy of `error` that accounts for all tries. A copy, since a provider may raise one
        error many times."""
        text = error.message if message is None else message
        copy: ProviderError = type(error).__new__(type(error), text)
        copy.__dict__.update(error.__dict__)
        copy.message = text
        copy.attempts = self.failures
        copy.token_usage = self.token_usage
        copy.cost_usd = self.cost_usd
        return copy

    def _stream(self, text: str) -> None:
        self.streamed = True
        if self._on_chunk is not None:
            self._on_chunk(text)

    def _limits_left(self, delay: float) -> Limits | None:
        limits = self._original.limits
        left: dict[str, Any] = {}
        if limits.max_seconds is not None:
            passed = asyncio.get_running_loop().time() - self._started
            left["max_seconds"] = limits.max_seconds - passed - delay
        if limits.max_total_tokens is not None and self.token_usage is not None:
            left["max_total_tokens"] = limits.max_total_tokens - self.token_usage.total
        if limits.max_cost_usd is not None and self.cost_usd is not None:
            left["max_cost_usd"] = limits.max_cost_usd - self.cost_usd
        if any(value <= 0 for value in left.values()):
            return None
        return replace(limits, **left) if left else limits


class ToolMemory:
    """Calls tools, and remembers the results for the next try of the same request: a tool that
    sends a mail sends it once. The nth call with the same name and arguments gets what the nth
    such call got; failures are not remembered."""

    __slots__ = ("_call_tool", "_position", "_results")

    def __init__(self, call_tool: CallTool) -> None:
        self._call_tool = call_tool
        self._results: dict[str, list[str]] = {}
        self._position: dict[str, int] = {}

    def restart(self) -> None:
        """The next try begins."""
        self._position.clear()

    async def __call__(self, name: str, arguments: Mapping[str, Any]) -> str:
        key = json.dumps([name, arguments], sort_keys=True, default=repr)
        position = self._position.get(key, 0)
        self._position[key] = position + 1
        results = self._results.setdefault(key, [])
        if position < len(results):
            return results[position]
        result = await self._call_tool(name, arguments)
        results.append(result)
        return result


def _sum(left: float | None, right: float | None) -> float | None:
    if left is None:
        return right
    return left if right is None else left + right
