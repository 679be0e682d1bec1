"""Answers that commands write in JSON of their own."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from muster.provider import BadProviderOutput, ProviderFailed, ProviderRequest, TokenUsage
from muster.providers.cli import CliProvider
from muster.providers.cli_response import CliResponse, ResponseReader
from muster.target import ResolvedTarget

CLAUDE = {
    "text": "result",
    "error": "is_error && result",
    "cost": "total_cost_usd",
    "usage": {
        "input": "sum([usage.input_tokens, usage.cache_read_input_tokens][?@])",
        "output": "usage.output_tokens",
        "cached": "usage.cache_read_input_tokens",
    },
    "finish_reason": "stop_reason",
}
CODEX = {
    "format": "jsonl",
    "text": "[?type=='item.completed'].item | [?type=='agent_message'].text | [-1]",
    "usage": {
        "input": "[?type=='turn.completed'].usage.input_tokens | [-1]",
        "output": "[?type=='turn.completed'].usage.output_tokens | [-1]",
    },
}


def reader(settings: dict[str, Any]) -> ResponseReader:
    return ResponseReader(CliResponse.model_validate(settings))


def test_one_value() -> None:
    said = {
        "result": "Bees dance.",
        "is_error": False,
        "total_cost_usd": 0.25,
        "usage": {"input_tokens": 3, "cache_read_input_tokens": 8, "output_tokens": 7},
        "stop_reason": "end_turn",
    }
    answer = reader(CLAUDE).read(json.dumps(said).encode(), "standard output")
    assert [message.text for message in answer.output] == ["Bees dance."]
    assert answer.token_usage == TokenUsage(11, 7, cached=8)
    assert (answer.cost_usd, answer.finish_reason, answer.error) == (0.25, "end_turn", None)


def test_lines() -> None:
    lines = [
        {"type": "thread.started"},
        {"type": "item.completed", "item": {"type": "reasoning", "text": "hm"}},
        {"type": "item.completed", "item": {"type": "agent_message", "text": "first"}},
        {"type": "item.completed", "item": {"type": "agent_message", "text": "Bees dance."}},
        {"type": "turn.completed", "usage": {"input_tokens": 11, "output_tokens": 7}},
    ]
    data = "\n".join(map(json.dumps, lines)).encode()
    answer = reader(CODEX).read(data, "standard output")
    assert [message.text for message in answer.output] == ["Bees dance."]
    assert answer.token_usage == TokenUsage(11, 7)


def test_usage_that_is_not_told_is_unknown() -> None:
    answer = reader({"text": "a", "usage": {"input": "in", "output": "out"}}).read(
        b'{"a": "x", "in": 3}', "it"
    )
    assert answer.token_usage is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"hello", "it is not JSON: "),
        (b"\xff", "it is not JSON: "),
        (b"{}", "it: no text where `response.text` points to (NoneType)"),
        (b'{"result": 5}', "it: no text where `response.text` points to (int)"),
        (b'{"result": "x", "total_cost_usd": -1}', "it: the cost is no number from 0 up: -1"),
        (b'{"result": "x", "usage": {"input_tokens": 1.5, "cache_read_input_tokens": 0,'
         b' "output_tokens": 1}}', "it: token usage: input must be a whole number"),
    ],
)  # fmt: skip
def test_half_an_answer_is_none(data: bytes, message: str) -> None:
    with pytest.raises(BadProviderOutput) as caught:
        reader(CLAUDE).read(data, "it")
    assert str(caught.value).startswith(message)


def test_a_wrong_path_is_an_error_of_the_file() -> None:
    with pytest.raises(ValidationError, match="is not a JMESPath expression"):
        CliResponse.model_validate({"text": "a["})


async def test_a_command_with_a_form_of_its_own(tmp_path: Any) -> None:
    said = json.dumps({"result": "no", "is_error": True, "usage": {}})
    config = {"command": ["echo", said.replace("{", "{{").replace("}", "}}")], "response": CLAUDE}
    provider = CliProvider(
        ResolvedTarget(name="t", provider="cli", config=config, base_dir=tmp_path)
    )
    with pytest.raises(ProviderFailed, match="the command reports: no"):
        await provider.invoke(ProviderRequest(question="q"))
