"""Costs by the price that a target declares."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from muster.cli.main import cli
from muster.provider import (
    ProviderFailed,
    ProviderRequest,
    ProviderResponse,
    TokenUsage,
)
from muster.wrappers.declared_price import DeclaredPrice

ASK = ProviderRequest(question="?")


class Says:
    """Answers, or fails, with what it was made with."""

    def __init__(self, answer: ProviderResponse | ProviderFailed) -> None:
        self.answer = answer

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        if isinstance(self.answer, ProviderFailed):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("usage", "told", "cost"),
    [
        (TokenUsage(1000, 100), None, 0.0035),
        (TokenUsage(1000, 100, cached=900), None, 0.0035),
        (TokenUsage(1000, 100), 0.5, 0.5),
        (TokenUsage(1000, 100), 0.0, 0.0),
        (None, None, None),
    ],
)
async def test_an_answer(usage: TokenUsage | None, told: float | None, cost: float | None) -> None:
    answer = ProviderResponse("yes", token_usage=usage, cost_usd=told)
    response = await DeclaredPrice(Says(answer), 3.0, 5.0).invoke(ASK)
    assert response.cost_usd == (None if cost is None else pytest.approx(cost))
    assert (response.text, response.token_usage) == ("yes", usage)


async def test_a_price_that_goes_before_what_is_told() -> None:
    answer = ProviderResponse("yes", token_usage=TokenUsage(1000, 100), cost_usd=0.5)
    priced = DeclaredPrice(Says(answer), 3.0, 5.0, always=True)
    assert (await priced.invoke(ASK)).cost_usd == pytest.approx(0.0035)
    answer = ProviderResponse("yes", cost_usd=0.5)
    assert (await DeclaredPrice(Says(answer), 3.0, 5.0, always=True).invoke(ASK)).cost_usd == 0.5


async def test_a_failure_that_took_tokens() -> None:
    failure = ProviderFailed("cut off", token_usage=TokenUsage(1000, 0))
    with pytest.raises(ProviderFailed) as caught:
        await DeclaredPrice(Says(failure), 3.0, 5.0).invoke(ASK)
    assert caught.value.cost_usd == pytest.approx(0.003)


def test_a_budget_counts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answer of 100,000 tokens costs 0.2 dollars: after the second the budget is spent."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "targets.yaml").write_text(
        "targets:\n- name: own\n  provider: mock\n  workers: 1\n"
        "  capabilities: {input_usd_per_million: 1, output_usd_per_million: 3}\n"
        "  replies: [{text: yes, usage: {input: 50000, output: 50000}}]\n"
    )
    cases = [
        json.dumps(
            {"id": f"c{n}", "input": "?", "assertions": [{"type": "contains", "value": "y"}]}
        )
        for n in range(5)
    ]
    (tmp_path / "five.jsonl").write_text("\n".join(cases))
    ran = CliRunner().invoke(
        cli, ["eval", "five.jsonl", "--target", "own", "--budget-usd", "0.3", "-o", "run"]
    )
    assert "not run: 3 of 5 results (the budget is spent)" in ran.output
    lines = (tmp_path / "run/results.jsonl").read_text().splitlines()
    answered = [row for row in map(json.loads, lines) if row["execution_status"] == "ok"]
    assert [row["cost_usd"] for row in answered] == [pytest.approx(0.2)] * 2
