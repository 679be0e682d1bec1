"""What was expected, held against what came: every condition tells when it does not hold."""

from __future__ import annotations

from typing import Any

import pytest

from muster.provider import TokenUsage
from muster.teams.engine import RunOutcome
from muster.teams.expectations import Asked, differences
from muster.teams.mock_script import Expectation
from muster.teams.state import StepState

STEP = StepState(
    "write",
    status="succeeded",
    output='```json\n{"n": 1, "ok": true}\n```',
    agent="ada",
    iterations=2,
    attempts=3,
)
ASKED = {"write": Asked(("first", "second"), ("search", "read"), ("bob",))}


def told(expect: dict[str, Any], outcome: RunOutcome | None = None) -> list[str]:
    outcome = outcome or RunOutcome(
        "succeeded", "Succeeded", None, "On bees", [STEP], 0.1, TokenUsage(10, 5), 0.02
    )
    return [str(d) for d in differences(Expectation.model_validate(expect), outcome, ASKED)]


@pytest.mark.parametrize(
    ("good", "bad", "difference"),
    [
        ({"output": "On bees"}, {"output": "On"}, 'output: expected "On", found "On bees"'),
        (
            {"output": {"contains": ["On", "bees"]}},
            {"output": {"contains": ["On", "hats"]}},
            'output: expected something with "hats", found "On bees"',
        ),
        (
            {"output": {"excludes": "hats"}},
            {"output": {"excludes": ["hats", "bees"]}},
            'output: expected nothing with "bees", found "On bees"',
        ),
        (
            {"output": {"matches": "^On b"}},
            {"output": {"matches": "^bees"}},
            'output: expected a match of /^bees/, found "On bees"',
        ),
        ({"max_tokens": 15}, {"max_tokens": 14}, "max_tokens: expected at most 14, found 15"),
        (
            {"max_cost_usd": 0.02},
            {"max_cost_usd": 0.01},
            "max_cost_usd: expected at most 0.01, found 0.02",
        ),
        ({}, {"status": "failed"}, "status: expected failed, found succeeded"),
        ({}, {"error": "x"}, "status: expected failed, found succeeded"),
    ],
)
def test_of_the_run(good: dict[str, Any], bad: dict[str, Any], difference: str) -> None:
    assert told(good) == []
    assert told(bad)[0] == difference


@pytest.mark.parametrize(
    ("good", "bad", "difference"),
    [
        ({"status": "succeeded"}, {"status": "skipped"}, "status: expected skipped, found succ"),
        ({"agent": "ada"}, {"agent": "bob"}, "agent: expected bob, found ada"),
        ({"iterations": 2}, {"iterations": 1}, "iterations: expected 1, found 2"),
        ({"attempts": 3}, {"attempts": 1}, "attempts: expected 1, found 3"),
        (
            {"tools": ["search", "read"]},
            {"tools": ["read", "search"]},
            "tools: expected [read, search], found [search, read]",
        ),
        ({"delegates": ["bob"]}, {"delegates": []}, "delegates: expected [], found [bob]"),
        (
            {"prompt": {"contains": ["first", "second"]}},
            {"prompt": {"excludes": "second"}},
            'prompt: expected nothing with "second", found "first\\nsecond"',
        ),
        (
            {"output": {"json": {"ok": True, "n": 1.0}}},
            {"output": {"json": {"ok": 1, "n": 1}}},
            'output: expected the JSON "{\\"ok\\": 1, \\"n\\": 1}", found ',
        ),
        (
            {"output": {"schema": {"required": ["n"]}}},
            {"output": {"schema": {"required": ["m"]}}},
            "output: expected JSON that satisfies the schema (the output: 'm' is a required",
        ),
        ({}, {"error": "x"}, 'error: expected "x", found none'),
    ],
)
def test_of_a_step(good: dict[str, Any], bad: dict[str, Any], difference: str) -> None:
    assert told({"steps": {"write": good}}) == []
    (found,) = told({"steps": {"write": bad}})
    assert found.startswith(f"steps.write.{difference}")


def test_a_run_that_failed_says_why() -> None:
    outcome = RunOutcome("failed", "TimedOut", "run exceeded timeout of 1s", "", [], 1.0)
    assert told({"output": "x"}, outcome) == [
        "status: expected succeeded, found failed (TimedOut: run exceeded timeout of 1s)",
        'output: expected "x", found ""',
    ]
    assert told({"reason": "BudgetExceeded"}, outcome) == [
        "reason: expected BudgetExceeded, found TimedOut (run exceeded timeout of 1s)"
    ]
    assert told({"reason": "TimedOut", "error": {"contains": "of 1s"}}, outcome) == []


def test_null_is_a_json_value_too() -> None:
    step = StepState("write", status="succeeded", output="null", data=None)
    outcome = RunOutcome("succeeded", "Succeeded", None, "null", [step], 0.1)
    assert told({"output": {"json": None}}, outcome) == []
    assert len(told({"output": {"json": 1}}, outcome)) == 1
