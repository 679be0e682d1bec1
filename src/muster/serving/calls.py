"""One call of a target that is served, and the calls that wait for a client's tools.

A target that runs its own tool loop calls a tool and waits for the result, while over HTTP the
client makes the call, and answers with another request. So the target's call stays where it is:
`RunningCall.next` gives what happens first, text, tools to be called, or the end; between two
requests the call is kept by `Suspended`, under the ids of the tool calls that it waits for.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from muster.provider import (
    Provider,
    ProviderFailed,
    ProviderRequest,
    ProviderResponse,
    TokenUsage,
    ToolCall,
)
from muster.providers.chat import refused_call
from muster.serving.refusal import Refusal
from muster.tasks import stop_tasks

__all__ = ("RunningCall", "Suspended")

SETTLE_SECONDS = 0.005
"""Calls that a target makes within this time of each other go to the client together."""

MAX_SUSPENDED = 256


@dataclass(slots=True)
class _Waiting:
    """A tool call that the target waits for."""

    call: ToolCall
    result: asyncio.Future[str]


class RunningCall:
    """A target's call, in a task of its own. Whoever holds it ends it, with `close`."""

    def __init__(
        self,
        provider: Provider,
        request: ProviderRequest,
        *,
        target: str,
        stream: bool,
        with_tools: bool = False,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        """Begins the call.

        Args:
            stream: text is wanted as it comes.
            with_tools: the request's tools are called through the client.
            on_end: called when all is over.
        """
        self.target = target
        self._request = request
        self._loop = asyncio.get_running_loop()
        self._pieces: list[str] = []
        self._waiting: dict[str, _Waiting] = {}
        self._new: list[ToolCall] = []
        self._wake: asyncio.Future[None] | None = None
        self._usage: TokenUsage | None = None
        self._cost: float | None = None
        self._told_usage: TokenUsage | None = None
        self._told_cost: float | None = None
        changes: dict[str, Any] = {"on_chunk": self._take_chunk} if stream else {}
        if with_tools:
            changes |= {"call_tool": self._call_tool, "watch": self}
        asked = replace(request, **changes) if changes else request
        self._task = self._loop.create_task(provider.invoke(asked))
        self._task.add_done_callback(lambda _: self._rouse())
        if on_end is not None:
            self._task.add_done_callback(lambda _: on_end())

    @property
    def over(self) -> bool:
        """Nothing more will come."""
        return self._task.done()

    @property
    def waits_for(self) -> tuple[str, ...]:
        """The ids of the tool calls that the client knows of and has not answered."""
        unknown = {call.id for call in self._new}
        return tuple(number for number in self._waiting if number not in unknown)

    async def next(self) -> str | list[ToolCall] | ProviderResponse:
        """Text that has come; or the tools that are to be called now; or the answer.

        Raises:
            ProviderError: the target could not answer.
        """
        item = await self.next_within(None)
        assert item is not None
        return item

    async def next_within(
        self, seconds: float | None
    ) -> str | list[ToolCall] | ProviderResponse | None:
        """As `next`; `None` when nothing happens for so many seconds.

        Raises:
            ProviderError: the target could not answer.
        """
        while True:
            if self._pieces:
                text, self._pieces = "".join(self._pieces), []
                return text
            if self._task.done():
                if self._task.cancelled():
                    raise ProviderFailed("the target cancelled its own call")
                return self._task.result()
            if self._new:
                count = len(self._new)
                await asyncio.sleep(SETTLE_SECONDS)
                if len(self._new) == count and not self._pieces:
                    calls, self._new = self._new, []
                    return calls
                continue
            self._wake = self._loop.create_future()
            if not await _within(seconds, self._wake):
                return None

    def give(self, results: Mapping[str, str]) -> None:
        """The results of tools; ids that are not waited for are left alone."""
        for number, text in results.items():
            waiting = self._waiting.pop(number, None)
            if waiting is not None and not waiting.result.done():
                waiting.result.set_result(text)

    def usage_so_far(self) -> tuple[TokenUsage | None, float | None]:
        """What the turns since the last time came to, as far as the target tells of them."""
        usage, cost = self._usage, self._cost
        self._usage, self._cost = None, None
        if usage is not None:
            self._told_usage = usage + self._told_usage
        if cost is not None:
            self._told_cost = cost + (self._told_cost or 0.0)
        return usage, cost

    def usage_left(self, response: ProviderResponse) -> tuple[TokenUsage | None, float | None]:
        """The answer's account, less what `usage_so_far` has told."""
        usage, cost, told = response.token_usage, response.cost_usd, self._told_usage
        if usage is not None and told is not None:
            usage = TokenUsage(
                max(0, usage.input - told.input),
                max(0, usage.output - told.output),
                cached=_less(usage.cached, told.cached),
                reasoning=_less(usage.reasoning, told.reasoning),
            )
        if cost is not None and self._told_cost is not None:
            cost = max(0.0, cost - self._told_cost)
        return usage, cost

    async def close(self) -> None:
        """End it, if it is not over."""
        await stop_tasks((self._task,))

    def expire(self) -> None:
        """End it without waiting for its end."""
        self._task.add_done_callback(_look_at)
        self._task.cancel()

    # --- what the target calls ---

    def _take_chunk(self, text: str) -> None:
        self._pieces.append(text)
        self._rouse()

    async def _call_tool(self, name: str, arguments: Mapping[str, Any]) -> str:
        refusal = refused_call(name, arguments, self._request.tools)
        if refusal is not None:
            raise ValueError(refusal)
        call = ToolCall(name, arguments, id=f"call_{secrets.token_hex(16)}")
        assert call.id is not None
        result: asyncio.Future[str] = self._loop.create_future()
        self._waiting[call.id] = _Waiting(call, result)
        self._new.append(call)
        self._rouse()
        try:
            return await result
        finally:
            self._waiting.pop(call.id, None)
            if call in self._new:
                self._new.remove(call)  # given up before the client learnt of it

    def output_allowed(self) -> int | None:
        """As a `TurnWatch`: no bound of ours."""
        return None

    def turn_ended(self, usage: TokenUsage | None, cost_usd: float | None, /) -> None:
        """As a `TurnWatch`: note what the turn has used."""
        if usage is not None:
            self._usage = usage + self._usage
        if cost_usd is not None:
            self._cost = cost_usd + (self._cost or 0.0)

    def _rouse(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


class Suspended:
    """Calls that wait for results of tools, each for at most `seconds`."""

    def __init__(self, seconds: float, maximum: int = MAX_SUSPENDED) -> None:
        self._seconds = seconds
        self._maximum = maximum
        self._calls: dict[str, RunningCall] = {}
        self._timers: dict[RunningCall, asyncio.TimerHandle] = {}

    def keep(self, call: RunningCall) -> None:
        """Until its results come, or its time is over.

        Raises:
            Refusal: too many are kept.
        """
        if len(self._timers) >= self._maximum:
            raise Refusal(
                503,
                f"{self._maximum} calls wait for results of tools; try again later",
                kind="server_error",
                code="overloaded",
                headers={"Retry-After": "10"},
            )
        for number in call.waits_for:
            self._calls[number] = call
        loop = asyncio.get_running_loop()
        self._timers[call] = loop.call_later(self._seconds, self.drop, call)

    def take(self, results: Mapping[str, str], target: str) -> RunningCall:
        """The call that waits for `results`; it is given them, and is the caller's from now on.

        Raises:
            Refusal: there is none, or results are missing.
        """
        found = {self._calls[number] for number in results if number in self._calls}
        calls = [call for call in found if call.target == target]
        if len(calls) != 1:
            raise Refusal(
                400,
                "no call waits for these results: it has ended, its client was gone, or it has "
                f"waited for longer than {self._seconds:g} s (--tool-timeout); ask anew",
                code="tool_call_not_found",
                param="messages",
            )
        (call,) = calls
        missing = [number for number in call.waits_for if number not in results]
        if missing:
            raise Refusal(
                400,
                f"the result of the tool call {missing[0]} is missing: a target gets the results "
                "of all its calls at once",
                code="tool_result_missing",
                param="messages",
            )
        self._forget(call)
        call.give(results)
        return call

    async def aclose(self) -> int:
        """End them all; how many there were."""
        calls = list(self._timers)
        for call in calls:
            self._forget(call)
        await asyncio.gather(*(call.close() for call in calls))
        return len(calls)

    def drop(self, call: RunningCall) -> None:
        """End it: nobody will bring its results."""
        self._forget(call)
        call.expire()

    def _forget(self, call: RunningCall) -> None:
        timer = self._timers.pop(call, None)
        if timer is not None:
            timer.cancel()
        for number in [number for number, kept in self._calls.items() if kept is call]:
            del self._calls[number]


async def _within(seconds: float | None, future: asyncio.Future[None]) -> bool:
    """Wait for `future`; false when it takes longer."""
    try:
        async with asyncio.timeout(seconds):
            await future
    except TimeoutError:
        return False
    return True


def _less(count: int | None, told: int | None) -> int | None:
    return count if count is None or told is None else max(0, count - told)


def _look_at(task: asyncio.Task[Any]) -> None:
    """Nobody waits for it any more; its failure is no news."""
    if not task.cancelled():
        task.exception()
