"""What a call cost, from the published prices that `genai-prices` carries; no network is used.

    cost_of("gpt-4o-mini", TokenUsage(1000, 100, cached=200), provider="openai")    # 0.000195

The package is imported at the first call (0.15 s). Its own arithmetic takes 60 µs a call, so the
rates of a model are kept, for a minute, since some depend on the time of day, and multiplied here.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from muster.provider import TokenUsage

__all__ = ("ModelFacts", "cost_of", "facts_of")

RATES_FOR_SECONDS = 60.0

_cache: dict[tuple[str, str | None], tuple[float, Rates | None]] = {}


@dataclass(frozen=True, slots=True)
class Rate:
    """USD a token; `tiers` holds (`start`, rate), highest first: with more than `start` tokens of
    input, *all* tokens of the call cost that rate."""

    base: float
    tiers: tuple[tuple[int, float], ...] = ()

    def at(self, input_tokens: int) -> float:
        for start, rate in self.tiers:
            if input_tokens > start:
                return rate
        return self.base


@dataclass(frozen=True, slots=True)
class Rates:
    """A model's rates. What has no price of its own costs what it is a part of."""

    input: Rate
    output: Rate
    cache_read: Rate
    cache_write: Rate
    reasoning: Rate
    request: float


def cost_of(
    model: str, usage: TokenUsage | None, *, provider: str | None = None, cache_write: int = 0
) -> float | None:
    """USD for one call to `model`; `None` when the price or the usage is not known.

    `provider` is who sells it, e.g. `openai`, `azure` (a model has a price for each); without it
    the name of the model decides. `cache_write` of the input tokens were written to a cache.
    """
    if usage is None:
        return None
    key = (model, provider)
    entry = _cache.get(key)
    now = time.monotonic()
    if entry is None or entry[0] < now:
        entry = (now + RATES_FOR_SECONDS, _rates(model, provider))
        _cache[key] = entry
    rates = entry[1]
    if rates is None:
        return None
    tokens = usage.input
    cached = usage.cached or 0
    reasoning = usage.reasoning or 0
    if not rates.input.tiers and not rates.output.tiers:
        tokens = 0  # spares the search through tiers that are not there
    return (
        (usage.input - cached - cache_write) * rates.input.at(tokens)
        + cached * rates.cache_read.at(tokens)
        + cache_write * rates.cache_write.at(tokens)
        + (usage.output - reasoning) * rates.output.at(tokens)
        + reasoning * rates.reasoning.at(tokens)
        + rates.request
    )


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the price list knows of a model; `None` where it does not say."""

    max_context_tokens: int | None
    input_usd_per_million: float | None
    output_usd_per_million: float | None


def facts_of(model: str, *, provider: str | None = None) -> ModelFacts | None:
    """The size of the model's context and its usual prices; `None` for a model that is not known.
    Of prices in tiers, those of small calls."""
    from genai_prices import Usage, calc_price

    try:
        found: Any = calc_price(Usage(), model, provider_id=provider)
    except (LookupError, ValueError):
        return None
    price = found.model_price
    return ModelFacts(
        getattr(found.model, "context_window", None),
        _per_million(price.input_mtok),
        _per_million(price.output_mtok),
    )


def _per_million(price: Any) -> float | None:
    return None if price is None else round(_rate(price).base * 1e6, 9)


def _rates(model: str, provider: str | None) -> Rates | None:
    from genai_prices import Usage, calc_price

    try:
        found: Any = calc_price(Usage(), model, provider_id=provider).model_price
    except (LookupError, ValueError):
        return None
    if found.input_mtok is None or found.output_mtok is None:
        return None
    inputs, outputs = _rate(found.input_mtok), _rate(found.output_mtok)
    requests = found.requests_kcount
    return Rates(
        input=inputs,
        output=outputs,
        cache_read=_rate(found.cache_read_mtok, inputs),
        cache_write=_rate(found.cache_write_mtok, inputs),
        reasoning=_rate(found.output_reasoning_mtok, outputs),
        request=0.0 if requests is None else _rate(requests).base * 1e3,
    )


def _rate(price: Any, otherwise: Rate | None = None) -> Rate:
    """A price for a million tokens, a `Decimal` or tiers of them, as a rate for one."""
    if price is None and otherwise is not None:
        return otherwise
    tiers = getattr(price, "tiers", None)
    if tiers is None:
        return Rate(float(price) / 1e6)
    steps = [(tier.start, float(tier.price) / 1e6) for tier in tiers]
    return Rate(float(price.base) / 1e6, tuple(sorted(steps, reverse=True)))
