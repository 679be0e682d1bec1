from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from muster.evals.scoring import Graded, ScoreRow

Judged = Callable[..., ScoreRow]


@pytest.mark.parametrize("key", ["threshold", "max_ms"])
def test_latency(judged: Judged, key: str) -> None:
    entry = {"type": "latency", key: 500}
    good = judged(entry, "", took_ms=500.0)
    assert (good.score, good.assertions[0].text) == (1.0, "Duration 500 ms is within 500 ms")
    bad = judged(entry, "", took_ms=700.4)
    assert (bad.score, bad.assertions[0].text) == (0.0, "Duration 700 ms exceeds 500 ms")
    assert bad.details == {"duration_ms": 700.4, "threshold_ms": 500.0}


def test_latency_falls_back_to_what_the_provider_measured(judged: Judged) -> None:
    assert judged({"type": "latency", "threshold": 5}, "", duration_ms=6).score == 0.0


@pytest.mark.parametrize("key", ["budget", "threshold", "max_usd"])
def test_cost(judged: Judged, key: str) -> None:
    entry = {"type": "cost", key: 0.01}
    good = judged(entry, "", cost_usd=0.01)
    assert (good.score, good.assertions[0].text) == (1.0, "Cost $0.010000 is within $0.010000")
    bad = judged(entry, "", cost_usd=0.0123)
    assert (bad.score, bad.assertions[0].text) == (0.0, "Cost $0.012300 exceeds $0.010000")


def test_token_usage_needs_every_limit_to_hold(judged: Judged) -> None:
    entry = {"type": "token-usage", "max_total": 2000, "max_output": 100}
    usage = {"input": 1500, "output": 90, "cached": 1400}
    assert judged(entry, "", token_usage=usage).score == 1.0
    row = judged(entry, "", token_usage=usage | {"output": 200})
    assert row.score == 0.0
    assert [(item.text, item.passed) for item in row.assertions] == [
        ("1,700 total tokens are within 2,000", True),
        ("200 output tokens exceed 100", False),
    ]
    assert judged({"type": "token-usage", "max_input": 1499}, "", token_usage=usage).score == 0.0


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"type": "latency", "threshold": 5}, "no duration is known"),
        ({"type": "cost", "budget": 5}, "the cost of this answer is not known"),
        ({"type": "token-usage", "max_total": 5}, "the token usage of this answer is not known"),
        ({"type": "finish-reason", "value": "stop"}, "it is not known why this answer ended"),
    ],
)
def test_what_the_provider_did_not_say_is_an_error_not_a_zero(
    graded: Callable[..., Graded], entry: dict[str, Any], message: str
) -> None:
    found = graded(entry, "answer")
    assert found.error is not None
    assert message in found.error
    assert found.rows[0].verdict == "skip"


def test_finish_reason(judged: Judged) -> None:
    entry = {"type": "finish-reason", "value": "STOP"}
    assert judged(entry, "", finish_reason="stop").score == 1.0
    row = judged(entry, "", finish_reason="length")
    assert (row.score, row.assertions[0].evidence) == (0.0, 'it is "length"')
