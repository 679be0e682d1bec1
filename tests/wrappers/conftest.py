"""A clock that jumps over waiting, and a provider that does what it is told."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from muster.provider import ProviderRequest, ProviderResponse


class _JumpingSelector(selectors.DefaultSelector):
    """Does not wait: says to the loop how long it would have."""

    waited = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise RuntimeError("everything waits, and for ever")
        self.waited += max(timeout, 0.0)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes at once."""

    def __init__(self) -> None:
        self.clock = _JumpingSelector()
        super().__init__(self.clock)

    def time(self) -> float:
        return self.clock.waited


@pytest.fixture(scope="session")
def virtual() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """`virtual(coroutine)` runs it on a loop whose time jumps from one event to the next."""

    def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            return runner.run(coroutine)

    return run


Step = ProviderResponse | BaseException | str | Callable[[ProviderRequest], Awaitable[Any]]


class Scripted:
    """Takes one step of its script a call; the last one again and again."""

    def __init__(self, *steps: Step) -> None:
        self.steps = list(steps)
        self.requests: list[ProviderRequest] = []
        self.closed = 0

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        step = self.steps[min(len(self.requests), len(self.steps) - 1)]
        self.requests.append(request)
        if isinstance(step, BaseException):
            raise step
        if isinstance(step, str):
            return ProviderResponse(step)
        if isinstance(step, ProviderResponse):
            return step
        answer = await step(request)
        return answer if isinstance(answer, ProviderResponse) else ProviderResponse(answer)

    async def aclose(self) -> None:
        self.closed += 1


@pytest.fixture(scope="session")
def scripted() -> type[Scripted]:
    return Scripted
