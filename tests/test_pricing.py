"""Costs agree with the price list's own arithmetic, which serves as the oracle."""

from __future__ import annotations

import subprocess
import sys

import pytest
from genai_prices import Usage, calc_price
from hypothesis import given
from hypothesis import strategies as st

from muster.pricing import cost_of
from muster.provider import TokenUsage

MODELS = [
    ("gpt-4o-mini", "openai"),
    ("gpt-5", "azure"),
    ("claude-sonnet-4-5", "anthropic"),  # tiers above 200,000 tokens
    ("gemini-2.5-pro", "gemini"),
    ("grok-4", "xai"),
    ("sonar", "perplexity"),  # a price for each request
]


@given(
    st.sampled_from(MODELS),
    st.integers(0, 400_000),
    st.integers(0, 100_000),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_cost_is_the_price_lists(
    named: tuple[str, str], tokens: int, output: int, read: float, written: float
) -> None:
    model, provider = named
    cached = int(tokens * read)
    cache_write = int((tokens - cached) * written)
    expected = calc_price(
        Usage(
            input_tokens=tokens,
            output_tokens=output,
            cache_read_tokens=cached,
            cache_write_tokens=cache_write,
        ),
        model,
        provider_id=provider,
    ).total_price
    usage = TokenUsage(tokens, output, cached=cached)
    assert cost_of(model, usage, provider=provider, cache_write=cache_write) == pytest.approx(
        float(expected), abs=1e-12
    )


def test_cached_tokens_cost_less() -> None:
    plain = cost_of("gpt-4o-mini", TokenUsage(1000, 0), provider="openai")
    cached = cost_of("gpt-4o-mini", TokenUsage(1000, 0, cached=1000), provider="openai")
    assert plain == pytest.approx(0.00015)
    assert cached == pytest.approx(0.000075)


def test_the_models_name_decides_without_a_provider() -> None:
    usage = TokenUsage(1000, 100)
    assert cost_of("gpt-4o-mini", usage) == cost_of("gpt-4o-mini", usage, provider="openai")


@pytest.mark.parametrize(
    ("model", "provider"),
    [("a-model-of-my-own", None), ("gpt-4o-mini", "ollama"), ("nonesuch", "openai")],
)
def test_unknown_prices_are_none(model: str, provider: str | None) -> None:
    assert cost_of(model, TokenUsage(10, 10), provider=provider) is None


def test_unknown_usage_is_none() -> None:
    assert cost_of("gpt-4o-mini", None) is None


def test_the_price_list_is_imported_at_the_first_price() -> None:
    code = "import sys, muster.pricing; sys.exit('genai_prices' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
