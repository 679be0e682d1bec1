"""Wrong in how they live and end."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from gallery.base import Wrong
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


class TidiesUpAtLength(Wrong):
    breaks = "cancelled-within-1-s"

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        try:
            return await self.right.invoke(request)
        except asyncio.CancelledError:
            await asyncio.sleep(1.4)
            raise


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


class CountsTokensOnTheLoop(Wrong):
    breaks = "does-not-block"

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        if len(request.question) > 100_000:
            time.sleep(0.3)
        return await self.right.invoke(request)
