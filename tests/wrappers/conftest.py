"""A clock that jumps over waiting, and a provider that does what it is told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

import virtual_loop
from muster.provider import ProviderRequest, ProviderResponse


@pytest.fixture(scope="session")
def virtual() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """`virtual(coroutine)` runs it on a loop whose time jumps from one event to the next."""
    return virtual_loop.virtual


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
