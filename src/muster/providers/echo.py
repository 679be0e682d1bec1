"""`echo`: answers with the question, word by word when somebody listens."""

from __future__ import annotations

import re

from muster.capabilities import Capabilities
from muster.provider import ProviderRequest, ProviderResponse
from muster.providers.settings import ProviderSettings
from muster.target import ResolvedTarget

__all__ = ("EchoProvider",)

_WORDS = re.compile(r"\s*\S+\s*|\s+")


class EchoSettings(ProviderSettings):
    """`echo` has no settings."""


class EchoProvider:
    """Answers with `request.question`, unchanged; spends nothing."""

    Settings = EchoSettings
    capabilities = Capabilities(streaming=True, embeddings=False, batch=False)
    """It stands in for others, so it refuses nothing that a suite may ask of those."""

    def __init__(self, target: ResolvedTarget) -> None:
        self.Settings.model_validate(target.config)

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        """The question."""
        if request.on_chunk is not None:
            for word in _WORDS.findall(request.question):
                request.on_chunk(word)
        return ProviderResponse(request.question, finish_reason="stop")
