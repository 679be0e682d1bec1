"""What an author reports that cannot be added up is an error of that call, not of the run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

import muster

ASKED = [{"id": "a", "input": "a", "assert": [{"type": "equals", "value": "x"}]}]
NEGATIVE = muster.TokenUsage(-5, 2)


class Agent:
    def __init__(self, **reported: Any) -> None:
        self.reported = reported

    async def invoke(self, request: muster.ProviderRequest) -> muster.ProviderResponse:
        return muster.ProviderResponse("x", **self.reported)


class Model:
    def __init__(self, reply: object) -> None:
        self.reply = reply

    async def complete(self, turn: muster.ChatTurn) -> Any:
        return self.reply


def reply(**reported: Any) -> muster.ChatReply:
    return muster.ChatReply(message=muster.Message("assistant", "x"), **reported)


@pytest.mark.parametrize(
    ("provider", "said"),
    [
        (Agent(token_usage=NEGATIVE), "input must be a whole number from 0 up, not -5"),
        (Agent(token_usage=muster.TokenUsage(1, "2")), "output must be a whole number"),  # type: ignore[arg-type]
        (Agent(token_usage=muster.TokenUsage(1, 2, cached=-1)), "cached must be a whole number"),
        (Agent(cost_usd=math.nan), "`cost_usd` must be a number from 0 up, not nan"),
        (Agent(duration_ms=-1), "`duration_ms` must be a number from 0 up, not -1"),
        (Model(reply(token_usage=NEGATIVE)), "input must be a whole number from 0 up, not -5"),
        (Model(reply(token_usage={"input": 1})), "`token_usage` must be a TokenUsage, not dict"),
        (Model(reply(cost_usd=math.inf)), "`cost_usd` must be a number from 0 up, not inf"),
        (Model("x"), "complete() must answer with a ChatReply, not str"),
        (Model(None), "complete() must answer with a ChatReply, not NoneType"),
        (Model(muster.ChatReply(message="x")), "with a Message in its ChatReply, not str"),  # type: ignore[arg-type]
    ],
)
def test_a_report_that_cannot_be_added_up(tmp_path: Path, provider: Any, said: str) -> None:
    evaluation = muster.evaluate(ASKED, provider, output=tmp_path / "run")
    (result,) = evaluation
    assert result.error_kind == "bad_output"
    assert said in str(result.error)
    assert result.attempts == 1  # the code would do the same again
    assert evaluation.summary["results"] == 1


def test_a_report_that_can(tmp_path: Path) -> None:
    usage = muster.TokenUsage(5, 2, cached=5, reasoning=0)
    for number, provider in enumerate(
        (Agent(token_usage=usage, cost_usd=0, duration_ms=0.5), Model(reply(token_usage=usage)))
    ):
        (result,) = muster.evaluate(ASKED, provider, output=tmp_path / str(number))
        assert result.execution_status == "ok"
        assert result.token_usage == usage.to_dict()
