"""Vectors of texts: what a provider has that makes them, and what it answers.

embedder = pool.embedder("small")
made = await embedder.embed(["one text", "another"])
made.vectors[0], made.token_usage, made.cost_usd
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from muster.provider import TokenUsage

__all__ = ("Embedded", "Embedder", "cosine_similarity", "embed_function")

Vector: TypeAlias = tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """The vectors of some texts, in the order of the texts, and what they took."""

    vectors: tuple[Vector, ...]
    token_usage: TokenUsage | None = None
    """`None` when the provider did not say."""
    cost_usd: float | None = None
    model: str | None = None


@runtime_checkable
class Embedder(Protocol):
    """A provider that makes vectors; it need not answer requests."""

    async def embed(self, texts: Sequence[str], /) -> Embedded:
        """One vector for each text, all of one length; or a `ProviderError`."""
        ...


def embed_function(
    embedder: Embedder,
) -> Callable[[Sequence[str]], Awaitable[tuple[Vector, ...]]]:
    """`embedder` as the bare function that a memory of vectors takes."""

    async def embed(texts: Sequence[str]) -> tuple[Vector, ...]:
        return (await embedder.embed(texts)).vectors

    return embed


def cosine_similarity(one: Sequence[float], other: Sequence[float]) -> float:
    """From -1 to 1: how near two vectors point to the same.

    Raises:
        ValueError: they are not of one length, or one of them has no direction.
    """
    if len(one) != len(other):
        raise ValueError(f"vectors of {len(one)} and {len(other)} numbers cannot be compared")
    lengths = math.hypot(*one) * math.hypot(*other)
    if not 0 < lengths < math.inf:
        raise ValueError("a vector without a direction cannot be compared")
    product = math.fsum(a * b for a, b in zip(one, other, strict=True))
    return max(-1.0, min(1.0, product / lengths))
