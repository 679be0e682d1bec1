"""Three steps against a model server that others wrote: streams, tools, refusals, drops."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from team_parts import Ran, run_async

from llmock import journal, llmock

pytestmark = pytest.mark.node

USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
PLAN = "Ask about the weather of Oslo, then tell it in a sentence or two."
FIXTURES: list[dict[str, Any]] = [
    {"match": {"hasToolResult": True}, "response": {"content": "Oslo is sunny.", "usage": USAGE}},
    {"match": {"userMessage": "plan"}, "response": {"content": PLAN, "usage": USAGE}},
    {
        "match": {"userMessage": "look"},
        "response": {
            "toolCalls": [{"name": "weather", "arguments": '{"city": "Oslo"}'}],
            "usage": USAGE,
        },
    },
    {"match": {"userMessage": "tell"}, "response": {"content": "It shines.", "usage": USAGE}},
    {
        "match": {"userMessage": "busy"},
        "response": {"error": {"message": "slow down", "type": "rate_limit"}, "status": 429},
    },
    {
        "match": {"userMessage": "drop"},
        "response": {"content": PLAN * 5, "usage": USAGE},
        "truncateAfterChunks": 3,
    },
]

TEAM = """
apiVersion: muster.dev/v1alpha1
kind: Agent
metadata: {name: w}
spec:
  target: server
  systemPrompt: Be brief.
  tools: [{name: weather, python: "sky:weather"}]
---
apiVersion: muster.dev/v1alpha1
kind: Flow
metadata: {name: t}
spec:
  steps:
  - {name: plan, arkAgent: w, inputs: {prompt: plan}}
  - {name: look, arkAgent: w, dependsOn: [plan], inputs: {prompt: look}}
  - {name: tell, arkAgent: w, dependsOn: [look], inputs: {prompt: tell}}
"""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with llmock(FIXTURES) as url:
        yield url


async def ran_with(server: str, folder: Path, **words: str) -> Ran:
    """The team, with other words in the prompts."""
    (folder / ".muster").mkdir(exist_ok=True)
    (folder / ".muster" / "targets.yaml").write_text(
        "targets:\n- {name: server, provider: openai, model: gpt-4o-mini, api_key: test-key, "
        f"base_url: {server}, api_format: chat, max_retries: 1, retry_initial_delay_ms: 1}}\n"
    )
    (folder / "sky.py").write_text(
        'def weather(city: str) -> str:\n    """The weather."""\n    return "sunny in " + city\n'
    )
    text = TEAM
    for word, other in words.items():
        text = text.replace(f"prompt: {word}", f"prompt: {other}")
    (folder / "team.yaml").write_text(text)
    return await run_async(folder / "team.yaml")


async def test_three_steps(server: str, tmp_path: Path) -> None:
    ran = await ran_with(server, tmp_path)
    assert ran.end == ("succeeded", "Succeeded", None)
    assert [step.output for step in ran.outcome.steps] == [PLAN, "Oslo is sunny.", "It shines."]
    usage = ran.outcome.token_usage
    assert usage is not None
    assert (usage.input, usage.output) == (44, 28)
    assert ran.outcome.cost_usd == pytest.approx((44 * 0.15 + 28 * 0.6) / 1e6)
    chunks = [event.text for event in ran.events if (event.kind, event.step) == ("chunk", "plan")]
    assert len(chunks) > 2
    assert "".join(chunks) == PLAN
    with ran.journal() as book:
        (call,) = book.calls(ran.id)
        ends = [event.data["end"] for event in book.events(ran.id, "chunk")]
    assert (call.name, call.arguments, call.result, call.status) == (
        "weather", {"city": "Oslo"}, "sunny in Oslo", "ok",
    )  # fmt: skip
    lengths = list(accumulate(map(len, chunks)))
    assert ends[: len(chunks) - 1] == lengths[:-1]
    assert {row.model for row in ran.rows()} == {"gpt-4o-mini"}
    assert "sunny in Oslo" in str(journal(server))


@pytest.mark.parametrize(
    ("word", "kind"),
    [("busy", "rate_limited"), ("drop", "provider_unavailable")],
    ids=["429", "drop"],
)
async def test_a_server_that_fails_in_the_middle(
    server: str, tmp_path: Path, word: str, kind: str
) -> None:
    before = len(journal(server))
    ran = await ran_with(server, tmp_path, look=word)
    assert ran.end[:2] == ("failed", "StepFailed")
    assert ran.statuses == {"plan": "succeeded", "look": "failed", "tell": "pending"}
    assert ran.step("look").error_kind == kind
    assert len(journal(server)) - before == 1 + 2
    assert [(row.name, row.status) for row in ran.rows()] == [
        ("plan", "succeeded"),
        ("look", "failed"),
    ]
    if word == "busy":
        return  # its waiting has been seen
    again = await run_async(tmp_path / "team.yaml", resume=ran.id)
    assert again.statuses["plan"] == "succeeded"
    assert len(journal(server)) - before == 1 + 2 + 2
