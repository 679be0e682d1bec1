"""promptfoo's one-line assertions."""

from __future__ import annotations

from typing import Any

import pytest

from muster.evals.suites.expected_dsl import parse_expected, threshold_field


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Paris", {"type": "equals", "value": "Paris"}),
        (" equals:  4 ", {"type": "equals", "value": "4"}),
        ("contains: a: b", {"type": "contains", "value": "a: b"}),
        ("icontains:Paris", {"type": "icontains", "value": "Paris"}),
        ("not-contains: x", {"type": "contains", "value": "x", "negate": True}),
        ("contains-any: a, b ,c", {"type": "contains-any", "value": ["a", "b", "c"]}),
        ('icontains-all: "a, b", c', {"type": "icontains-all", "value": ["a, b", "c"]}),
        ("starts-with: A", {"type": "starts-with", "value": "A"}),
        ("ends-with: z", {"type": "ends-with", "value": "z"}),
        (r"regex: ^\d+:\d+$", {"type": "regex", "value": r"^\d+:\d+$"}),
        ("contains: two\nlines", {"type": "contains", "value": "two\nlines"}),
        ("is-json", {"type": "is-json"}),
        ("not-is-json", {"type": "is-json", "negate": True}),
        ('is-json: {"type": "array"}', {"type": "is-json", "schema": {"type": "array"}}),
        ('contains-json: {"a": 1}', {"type": "contains-json", "schema": {"a": 1}}),
        ("not-contains-xml", {"type": "contains-xml", "negate": True}),
        ("is-xml: a.b, c", {"type": "is-xml", "value": "a.b, c"}),
        ("word-count: 5", {"type": "word-count", "value": 5}),
        ("finish-reason: stop", {"type": "finish-reason", "value": "stop"}),
        ("gleu(0.4): the cat", {"type": "gleu", "value": "the cat", "threshold": 0.4}),
        ("latency(500)", {"type": "latency", "threshold": 500}),
        ("latency: 500", {"type": "latency", "threshold": 500}),
        ("cost(0.01)", {"type": "cost", "budget": 0.01}),
        ("numeric: 42", {"type": "numeric", "value": 42}),
        ("numeric(0.5): 42", {"type": "numeric", "value": 42, "tolerance": 0.5}),
        ("numeric(1%): 1,319", {"type": "numeric", "value": "1,319", "tolerance": "1%"}),
        # Kinds that need a model or code keep their names.
        ("grade: is polite", {"type": "llm-rubric", "value": "is polite"}),
        ("llm-rubric:is polite", {"type": "llm-rubric", "value": "is polite"}),
        ("similar(0.8): hello", {"type": "similar", "value": "hello", "threshold": 0.8}),
        ("fn: output.length", {"type": "javascript", "value": "output.length"}),
        ("python: len(output)", {"type": "python", "value": "len(output)"}),
        ("file://check.py:fn", {"type": "python", "value": "file://check.py:fn"}),
        ("file://check.js", {"type": "javascript", "value": "file://check.js"}),
        # Text that only looks like an assertion.
        ("latency", {"type": "equals", "value": "latency"}),
        ("cost is low", {"type": "equals", "value": "cost is low"}),
        ("https://example.org", {"type": "equals", "value": "https://example.org"}),
        ("note: buy milk", {"type": "equals", "value": "note: buy milk"}),
        ("Paris (France): a city", {"type": "equals", "value": "Paris (France): a city"}),
        ("not-applicable", {"type": "equals", "value": "not-applicable"}),
    ],
)
def test_parse(text: str, expected: dict[str, Any]) -> None:
    assert parse_expected(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("contians: x", 'did you mean "contains"?); to compare with this text as it stands'),
        ("not-icontain: x", '"icontain" is not a kind of assertion'),
        ("contains:", '"contains:" lacks the text'),
        ("contains(3): x", '"contains" takes no number'),
        ("latency: fast", '"latency" takes a number, not "fast"; for example latency(500)'),
        ("latency()", '"latency" takes a number; for example latency(500)'),
        ("similar(high): x", '"similar" takes a number, not "high"'),
        ("cost:", '"cost" takes a number; for example cost(0.01)'),
        ("is-json: {", "the schema is not valid JSON"),
    ],
)
def test_mistakes(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        parse_expected(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ("latency", "threshold"),
        ("cost", "budget"),
        ("regex", "min_score"),
        ("similar", "threshold"),
    ],
)
def test_threshold_field(kind: str, field: str) -> None:
    assert threshold_field(kind) == field
