"""Wrong in how they live and end."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from gallery.base import Wrong, right
from muster.provider import (
    AuthenticationFailed,
    ProviderError,
    ProviderRequest,
    ProviderResponse,
    ProviderUnavailable,
)
from muster.providers.openai import OpenAIProvider
from muster.providers.transport import HttpClient
from muster.testing.environment import Environment
from muster.testing.rules import RULES


class TidiesUpAtLength(Wrong):
    breaks = "cancelled-within-1-s"

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        try:
            return await self.right.invoke(request)
        except asyncio.CancelledError:
            await asyncio.sleep(1.4)
            raise


class TakesCancellationForAFailure(Wrong):
    breaks = "cancelled-within-1-s"
    hides = 1  # giving up after `max_seconds`

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        try:
            return await self.right.invoke(request)
        except asyncio.CancelledError:
            raise ProviderUnavailable("the call was stopped") from None


class ShieldsItsCalls(Wrong):
    breaks = "cancelled-leaks-nothing"

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        return await asyncio.shield(self.right.invoke(request))


class LeavesATaskBehind(Wrong):
    breaks = "cancelled-leaks-nothing"

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        heart = asyncio.create_task(asyncio.sleep(3600))
        response = await self.right.invoke(request)
        heart.cancel()
        return response


class TakesATimeoutForAFailure(Wrong):
    breaks = "timeouts-are-typed"

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        try:
            return await self.right.invoke(request)
        except ProviderError as error:
            if error.status == 504:
                raise ProviderUnavailable(error.message, status=504) from None
            raise


class ShowsTheKey(Wrong):
    breaks = "secrets-stay-hidden"

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        try:
            return await self.right.invoke(request)
        except AuthenticationFailed as error:
            key = self.environment.key
            raise AuthenticationFailed(f"{error} (the key was {key})") from None


class NeverCloses(Wrong):
    breaks = "aclose-closes"

    async def aclose(self) -> None:
        pass


class _OneSession(HttpClient):
    """Keeps what the first event loop has made."""

    kept: Any = None

    async def _new_session(self) -> Any:
        if self.kept is None:
            self.kept = await super()._new_session()
        return self.kept


class BelongsToOneLoop(Wrong):
    breaks = "second-event-loop"

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        assert isinstance(self.right.model, OpenAIProvider)
        read = self.right.model._client.read_timeout
        self.right.model._client = _OneSession(read_timeout=read)


class OneSemaphoreForEver(Wrong):
    breaks = "second-event-loop"

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.gate = asyncio.Semaphore(8)

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        async with self.gate:
            return await self.right.invoke(request)


class WaitsInALoopOfItsOwn(Wrong):
    """It cannot answer a first question, so that no other rule can be told."""

    breaks = "second-event-loop"
    hides = len(RULES) - 1

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.loop = asyncio.new_event_loop()

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        await self.loop.create_future()
        return await self.right.invoke(request)

    async def aclose(self) -> None:
        self.loop.close()


class RunsALoopWithinTheLoop(Wrong):
    """As every synchronous client does it: what a blocked loop cannot do (give up, cancel, time
    out) is hidden."""

    breaks = "does-not-block"
    hides = 5

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(asyncio.run, self.once(request)).result()

    async def once(self, request: ProviderRequest) -> ProviderResponse:
        provider = right(self.environment)
        try:
            return await provider.invoke(request)
        finally:
            await provider.aclose()


class CountsTokensOnTheLoop(Wrong):
    breaks = "does-not-block"
    hides = 5

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        if len(request.question) > 100_000:
            time.sleep(0.3)
        return await self.right.invoke(request)
