"""Not more requests, and not more tokens, in a minute than allowed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from muster.provider import (
    Provider,
    ProviderError,
    ProviderRequest,
    ProviderResponse,
    TokenUsage,
)
from muster.wrappers.base import Wrapper
from muster.wrappers.places import Pauses

__all__ = ("RateLimit", "estimate_tokens")

_BYTES_PER_TOKEN = 4
_SOON = 1e-6  # seconds; a shorter wait is rounding, not time


class RateLimit(Wrapper):
    """Spreads calls over time so that a minute's requests and tokens stay within limits.

    Two token buckets (https://en.wikipedia.org/wiki/Token_bucket), each holding one second's
    worth, but at least one request: in any 60 seconds no more than the limit and that burst begin.
    Tokens are estimated before a call from the length of its texts, and set right by the usage
    that the answer reports; calls whose usage is not known count as estimated. Those who wait are
    let in in the order they came. The turn after a request's tools have run is a request like the
    first. `clock` and `sleep` are in seconds.
    """

    __slots__ = ("_clock", "_requests", "_sleep", "_tokens", "_turn")

    def __init__(
        self,
        provider: Provider,
        requests_per_minute: float | None,
        tokens_per_minute: float | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        super().__init__(provider)
        self._clock = clock
        self._sleep = sleep
        now = clock()
        self._requests = _Bucket(requests_per_minute, now) if requests_per_minute else None
        self._tokens = _Bucket(tokens_per_minute, now) if tokens_per_minute else None
        self._turn = asyncio.Lock()

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        """Answer as the provider inside does, when the rate allows the call."""
        estimate = estimate_tokens(request) if self._tokens is not None else 0
        await self._admit(estimate)
        taken = estimate
        asked = request
        if request.call_tool is not None:

            async def next_turn() -> None:
                nonlocal taken
                await self._admit(estimate)
                taken += estimate

            asked = replace(
                request, call_tool=Pauses(request.call_tool, pause=_nothing, resume=next_turn)
            )
        try:
            response = await self.provider.invoke(asked)
        except ProviderError as error:
            self._correct(taken, error.token_usage)
            raise
        self._correct(taken, response.token_usage)
        return response

    async def _admit(self, tokens: int) -> None:
        # asyncio.Lock is fair: who holds it is the first in the line, and the only one to sleep.
        async with self._turn:
            while (wait := self._wait_for(tokens)) > _SOON:
                await self._sleep(wait)
            if self._requests is not None:
                self._requests.take(1)
            if self._tokens is not None:
                self._tokens.take(tokens)

    def _wait_for(self, tokens: int) -> float:
        now = self._clock()
        wait = self._requests.wait_for(1, now) if self._requests is not None else 0.0
        if self._tokens is not None:
            wait = max(wait, self._tokens.wait_for(tokens, now))
        return wait

    def _correct(self, estimate: int, usage: TokenUsage | None) -> None:
        if self._tokens is not None and usage is not None:
            self._tokens.take(usage.total - estimate)


def _nothing() -> None:
    """A rate is not held: there is nothing to give back."""


class _Bucket:
    """Fills by `per_minute / 60` a second up to one second's worth; may be overdrawn."""

    __slots__ = ("_capacity", "_level", "_per_second", "_updated")

    def __init__(self, per_minute: float, now: float) -> None:
        self._per_second = per_minute / 60
        self._capacity = max(1.0, self._per_second)
        self._level = self._capacity
        self._updated = now

    def wait_for(self, amount: float, now: float) -> float:
        """Seconds until `amount` may be taken. More than the bucket holds may be taken when it is
        full; those after it wait until the debt is filled up."""
        self._level += (now - self._updated) * self._per_second
        self._level = min(self._level, self._capacity)
        self._updated = now
        return (min(amount, self._capacity) - self._level) / self._per_second

    def take(self, amount: float) -> None:
        """Take `amount`; a negative one is given back."""
        self._level -= amount


def estimate_tokens(request: ProviderRequest) -> int:
    """Tokens of the request's texts, at four bytes of UTF-8 a token; at least one."""
    size = _size(request.question)
    size += _size(request.system_prompt) + _size(request.guidelines)
    for message in request.messages:
        size += _size(message.text)
    return max(1, size // _BYTES_PER_TOKEN)


def _size(text: str | None) -> int:
    if not text:
        return 0
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
