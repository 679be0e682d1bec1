"""The wrappers of a target, around its embeddings: they take a request as any other.

The texts of a call are the messages of a request, so that limits of tokens count them, and its
vectors are the response's `raw`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from muster.embeddings import Embedded
from muster.importing import describe_failure
from muster.provider import (
    BadProviderOutput,
    Message,
    Provider,
    ProviderError,
    ProviderFailed,
    ProviderRequest,
    ProviderResponse,
    ProviderTimeout,
)

__all__ = ("WrappedEmbedder", "embedder_within")


def embedder_within(provider: object) -> Any:
    """The object with `embed` that `provider` is, or that is its model, or what it wraps; `None`
    if there is none."""
    for found in (provider, getattr(provider, "model", None), getattr(provider, "inner", None)):
        if callable(getattr(found, "embed", None)):
            return found
    return None


class WrappedEmbedder:
    """An embedder that is retried, limited and timed as its target says."""

    def __init__(self, inner: Any, name: str, wrap: Callable[[Provider], Provider]) -> None:
        self._provider = wrap(_AsProvider(inner, name))

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """One vector for each text, all of one length. Raises a `ProviderError`."""
        if not texts:
            return Embedded(vectors=())
        messages = tuple(Message("user", text) for text in texts)
        response = await self._provider.invoke(ProviderRequest(question="", messages=messages))
        assert isinstance(response.raw, Embedded)
        return response.raw


class _AsProvider:
    def __init__(self, inner: Any, name: str) -> None:
        self._inner = inner
        self._name = name

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        texts = [message.text for message in request.messages]
        try:
            made = self._checked(await self._inner.embed(texts), len(texts))
        except ProviderError:
            raise
        except TimeoutError as error:
            raise ProviderTimeout(f"{self._name}: {describe_failure(error)}") from error
        except Exception as error:
            passing = isinstance(error, ConnectionError)
            told = f"{self._name}: {describe_failure(error)}"
            raise ProviderFailed(told, retryable=passing) from error
        return ProviderResponse(
            (), token_usage=made.token_usage, cost_usd=made.cost_usd, model=made.model, raw=made
        )

    def _checked(self, made: object, wanted: int) -> Embedded:
        """What came of it; vectors alone, as any sequence of numbers, will do."""
        if not isinstance(made, Embedded):
            made = Embedded(vectors=tuple(tuple(map(float, vector)) for vector in made))  # type: ignore[attr-defined]
        vectors = made.vectors
        lengths = {len(vector) for vector in vectors}
        if len(vectors) != wanted or len(lengths) > 1 or 0 in lengths:
            shown = " or ".join(map(str, sorted(lengths)[:3]))
            raise BadProviderOutput(
                f"{self._name}: expected {wanted} vectors of one length, found {len(vectors)} of "
                f"{shown or 0} numbers"
            )
        if not all(math.isfinite(value) for vector in vectors for value in vector):
            raise BadProviderOutput(f"{self._name}: a vector holds what is no finite number")
        return made
