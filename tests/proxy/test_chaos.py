"""Which requests get which faults, and that a seed repeats them."""

from __future__ import annotations

import asyncio
import statistics
from pathlib import Path
from typing import Any

import pytest

from muster.errors import ConfigError
from muster.proxy.cassette import decode_line
from muster.proxy.chaos import Chaos, Decision
from muster.proxy.plan import ChaosPlan, load_plan
from muster.proxy.scrub import Asked, Scrubber

SCRUBBER = Scrubber()


def asked(number: int = 0, path: str = "/v1/chat/completions", **body: Any) -> Asked:
    import json

    data = json.dumps({"model": "gpt-4o", "n": number, **body}).encode()
    return SCRUBBER.request("POST", path, [], data)


def chaos(*rules: dict[str, Any], seed: int | None = None) -> Chaos:
    return Chaos(ChaosPlan.model_validate({"seed": 7, "rules": list(rules)}), seed)


def hits(decide: Chaos, requests: list[Asked]) -> list[int]:
    """Numbers of the requests that get a fault."""
    return [number for number, each in enumerate(requests) if decide.decide(each) != Decision()]


BUSY = {"status": 429}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({}, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ({"every": 4}, [3, 7]),
        ({"every": 4, "burst": 2}, [3, 4, 7, 8]),
        ({"every": 2, "times": 3}, [1, 3, 5]),
        ({"times": 2}, [0, 1]),
    ],
)
def test_counting(rule: dict[str, Any], expected: list[int]) -> None:
    assert hits(chaos({**BUSY, **rule}), [asked(n) for n in range(10)]) == expected


@pytest.mark.parametrize(
    ("match", "hit"),
    [
        ({}, True),
        ({"path": "*/chat/*"}, True),
        ({"path": "/v1/embeddings"}, False),
        ({"model": "gpt-*"}, True),
        ({"model": "claude*"}, False),
        ({"method": "post"}, True),
        ({"method": "GET"}, False),
        ({"stream": False}, True),
        ({"stream": True}, False),
        ({"path": "*/chat/*", "model": "claude*"}, False),
    ],
)
def test_matching(match: dict[str, Any], hit: bool) -> None:
    assert bool(hits(chaos({**BUSY, "match": match}), [asked()])) == hit


def test_models_and_streams_that_a_path_names() -> None:
    gemini = SCRUBBER.request(
        "POST", "/v1beta/models/gemini-9:streamGenerateContent?alt=sse", [], b"{}"
    )
    assert (gemini.model, gemini.wants_stream) == ("gemini-9", True)
    azure = SCRUBBER.request("POST", "/openai/deployments/mine/chat/completions", [], b"{}")
    assert (azure.model, azure.wants_stream) == ("mine", False)


def test_a_seed_decides_by_content_in_whatever_order() -> None:
    rules = {"probability": 0.3, **BUSY}, {"probability": 0.3, "latency": 1.0}
    requests = [asked(number) for number in range(200)]

    def found(order: list[int], seed: int | None = None) -> dict[int, Decision]:
        decide = chaos(*rules, seed=seed)
        return {number: decide.decide(requests[number]) for number in order}

    forward = found(list(range(200)))
    assert found(list(reversed(range(200)))) == forward
    assert found(list(range(200)), seed=7) == forward
    assert found(list(range(200)), seed=8) != forward
    busy = [number for number, decision in forward.items() if decision.end]
    slow = [number for number, decision in forward.items() if decision.delay]
    assert 40 <= len(busy) <= 80
    assert 40 <= len(slow) <= 80
    assert busy != slow  # each rule draws for itself


def test_the_same_request_again_is_drawn_anew() -> None:
    decide = chaos({"probability": 0.5, **BUSY})
    drawn = [bool(decide.decide(asked()).end) for _ in range(40)]
    again = chaos({"probability": 0.5, **BUSY})
    assert [bool(again.decide(asked()).end) for _ in range(40)] == drawn
    assert 8 < sum(drawn) < 32


@pytest.mark.parametrize(
    ("latency", "median", "least", "most"),
    [
        (0.5, 0.5, 0.5, 0.5),
        ({"distribution": "fixed", "seconds": 2}, 2, 2, 2),
        ({"distribution": "uniform", "min": 1, "max": 3}, 2, 1, 3),
        ({"distribution": "normal", "mean": 1, "deviation": 1}, 1, 0, 10),
        ({"distribution": "lognormal", "median": 0.2, "sigma": 1, "max": 2}, 0.2, 0, 2),
    ],
)
def test_latencies(latency: Any, median: float, least: float, most: float) -> None:
    decide = chaos({"latency": latency})
    drawn = [decide.decide(asked(number)).delay for number in range(1000)]
    assert statistics.median(drawn) == pytest.approx(median, rel=0.15)
    assert least <= min(drawn) <= max(drawn) <= most


def test_several_rules() -> None:
    decide = chaos(
        {"name": "a", "latency": 1},
        {"name": "b", "latency": 2, "drop": "before_headers"},
        {"name": "c", "status": 500},
        {"name": "d", "slow": 10},
    )
    decision = decide.decide(asked())
    assert (decision.delay, decision.delayed_by) == (3, ("a", "b"))
    assert decision.end is not None
    assert (decision.end.rule, decision.end.kind) == ("b", "drop before_headers")
    assert (decision.rate, decision.slowed_by) == (10, "d")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rules: []", "rules"),
        ("rules:\n  - every: 2", "2:5: rules[0]: a rule needs a fault: one of latency, slow"),
        (
            "rules:\n  - {status: 429, drop: before_headers}",
            "`status` and `drop` do not go together: write two rules",
        ),
        (
            "rules:\n  - {status: 429, every: 2, probability: 0.5}",
            "`every` and `probability` do not go together",
        ),
        ("rules:\n  - statuss: 429", "statuss"),
        (
            "rules:\n  - status: 200",
            "2:13: rules[0].status: expected greater than or equal to 400, found 200",
        ),
        (
            "rules:\n  - status: {code: 99}",
            "rules[0].status.code: expected greater than or equal to 400",
        ),
        ("rules:\n  - latency: -1", "rules[0].latency: expected greater than or equal to 0"),
        ("rules:\n  - latency: soon", "rules[0].latency: expected number, found"),
        ("rules:\n  - {latency: {distribution: poisson}}", "poisson"),
        (
            "rules:\n  - {latency: {distribution: uniform, min: 2, max: 1}}",
            "2:15: rules[0].latency: `min` (2) is above",
        ),
        ("rules:\n  - {probability: 1.5, slow: 10}", "probability"),
        ("rules:\n  - {drop: sometimes}", "before_headers"),
        ("seed: x\nrules:\n  - slow: 1", "seed"),
        ("[]", "mapping"),
    ],
)
def test_mistakes_in_a_plan(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_plan(path)
    assert str(caught.value).startswith(f"{path}:")
    assert expected in str(caught.value)


async def test_concurrent_requests_get_the_same_faults(tmp_path: Path) -> None:
    """The whole way, with many requests under way at once, twice."""
    from contextlib import AsyncExitStack

    from proxy_parts import Start

    from raw_server import RawServer, reply

    async def run() -> list[int]:
        async with AsyncExitStack() as stack, RawServer([reply({"ok": 1})]) as server:
            start = Start(tmp_path, stack)
            site = await start(
                to=server.url,
                rules=[
                    {"probability": 0.4, "status": 500},
                    {"latency": {"distribution": "uniform", "max": 0.02}},
                ],
            )
            answers = await asyncio.gather(*(site.post("/x", {"n": n}) for n in range(40)))
            failed = sum(status == 500 for status, _, _ in answers)
            assert site.running.tally.faults["rule 1", "status 500"] == failed
            return [status for status, _, _ in answers]

    first = await run()
    assert await run() == first
    assert {200, 500} == set(first)


def test_the_schema_and_the_manual_agree(tmp_path: Path) -> None:
    """What the page shows is a plan, and the schema says so; so is a line for that of cassettes."""
    import json

    from jsonschema import Draft202012Validator

    from manual import ROOT, blocks_of
    from muster.config.document import parse_yaml
    from muster.teams.schemas import schema_of

    blocks = blocks_of(ROOT / "docs" / "proxy.md")
    (plan,) = (block for block in blocks if block.file == "plan.yaml")
    path = tmp_path / "plan.yaml"
    path.write_text(plan.text)
    assert [rule.name for rule in load_plan(path).rules] == [
        "as slow as the real one",
        "busy",
        "flaky",
    ]
    checks = Draft202012Validator(schema_of("chaos"))
    assert list(checks.iter_errors(parse_yaml(plan.text).data)) == []
    for wrong in ({"rules": [{"statuss": 429}]}, {"rules": [{"status": 200}]}, {"rules": []}):
        assert list(checks.iter_errors(wrong))
    (line,) = (block for block in blocks if block.kind == "json")
    assert decode_line(line.text.encode()).response.status == 200
    assert (
        list(Draft202012Validator(schema_of("cassette")).iter_errors(json.loads(line.text))) == []
    )
