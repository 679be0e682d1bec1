"""OpenAI's Embeddings API, which many servers speak.

https://platform.openai.com/docs/api-reference/embeddings
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from muster.embeddings import Embedded, Vector
from muster.pricing import facts_of
from muster.provider import BadRequest, TokenUsage
from muster.providers.openai_settings import OpenAIEndpoint
from muster.providers.wire import JsonApi

__all__ = ("MAX_TEXTS", "Embeddings")

MAX_TEXTS = 256
"""Texts of one call; more become several calls, one after another. The API takes 2048, but no more
than 300,000 tokens in all, and other servers take fewer."""


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None


class _Row(msgspec.Struct):
    embedding: list[float]
    index: int | None = None


class _Answer(msgspec.Struct):
    data: list[_Row]
    usage: _Usage | None = None
    model: str | None = None


_ANSWER = msgspec.json.Decoder(_Answer)


class Embeddings:
    """One endpoint's embeddings."""

    path = "embeddings"

    def __init__(self, api: JsonApi, endpoint: OpenAIEndpoint) -> None:
        self.api = api
        self.endpoint = endpoint

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """One vector for each text. Raises a `ProviderError`."""
        for number, text in enumerate(texts, 1):
            if not text.strip():
                raise BadRequest(f"text {number} of {len(texts)} is empty: it has no vector")
        vectors: list[Vector] = []
        usage: TokenUsage | None = TokenUsage()
        model = self.endpoint.model
        for first in range(0, len(texts), MAX_TEXTS):
            answer = await self._call(texts[first : first + MAX_TEXTS])
            vectors += self._vectors(answer, len(texts[first : first + MAX_TEXTS]))
            counted = answer.usage.prompt_tokens if answer.usage is not None else None
            usage = None if usage is None or counted is None else usage + TokenUsage(counted)
            model = answer.model or model
        if len({len(vector) for vector in vectors}) > 1:
            raise self.api.bad("the vectors are not of one length")
        seller = self.endpoint.preset.price_as
        return Embedded(
            vectors=tuple(vectors),
            token_usage=usage,
            cost_usd=_cost(model, usage, seller),
            model=model,
        )

    async def _call(self, texts: Sequence[str]) -> _Answer:
        settings = self.endpoint.settings
        body: dict[str, object] = {"model": self.endpoint.model, "input": list(texts)}
        if settings.dimensions is not None:
            body["dimensions"] = settings.dimensions
        data = await self.api.post(msgspec.json.encode(body | settings.extra_body))
        return self.api.decode(_ANSWER, data)

    def _vectors(self, answer: _Answer, wanted: int) -> list[Vector]:
        """In the order of the texts, whatever the order of the answer."""
        rows = answer.data
        if len(rows) != wanted:
            raise self.api.bad(f"the answer has {len(rows)} vectors for {wanted} texts")
        if all(row.index is not None for row in rows):
            rows = sorted(rows, key=lambda row: row.index or 0)
            if [row.index for row in rows] != list(range(wanted)):
                raise self.api.bad("the answer does not say which vector belongs to which text")
        for row in rows:
            if not row.embedding or not all(map(math.isfinite, row.embedding)):
                raise self.api.bad("the answer holds a vector without numbers")
        return [tuple(row.embedding) for row in rows]


def _cost(model: str, usage: TokenUsage | None, seller: str | None) -> float | None:
    """The price list knows no price of output for such models."""
    facts = facts_of(model, provider=seller) if usage is not None and seller is not None else None
    if facts is None or usage is None or facts.input_usd_per_million is None:
        return None
    return usage.input * facts.input_usd_per_million / 1e6
