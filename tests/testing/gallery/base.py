"""What the wrong providers have in common: a right one inside."""

from __future__ import annotations

from typing import Any, ClassVar

from muster.provider import ProviderRequest, ProviderResponse
from muster.providers.chat import ChatProvider
from muster.providers.openai import OpenAIProvider
from muster.target import ResolvedTarget, Secret
from muster.testing.environment import Environment

__all__ = ("Wrong", "right")


def right(environment: Environment) -> ChatProvider:
    """A provider without a fault."""
    config: dict[str, Any] = {
        "base_url": f"{environment.url}/v1",
        "api_key": Secret(environment.key),
        "model": "gpt-4o-mini",
    }
    if environment.read_timeout is not None:
        config["read_timeout_seconds"] = environment.read_timeout
    return ChatProvider(OpenAIProvider(ResolvedTarget(name="t", provider="openai", config=config)))


class Wrong:
    """Passes everything on; what is wrong is overridden. `breaks` is the rule that finds it,
    `hides` the number of rules that cannot be told because of it."""

    breaks: ClassVar[str]
    hides: ClassVar[int] = 0

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.right = right(environment)

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        return await self.right.invoke(request)

    async def aclose(self) -> None:
        await self.right.aclose()
