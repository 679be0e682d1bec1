"""Scripted answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from muster.config.document import parse_yaml
from muster.provider import (
    BadRequest,
    LimitExceeded,
    Limits,
    Message,
    Provider,
    ProviderError,
    ProviderFailed,
    ProviderRequest,
    RateLimited,
    TokenUsage,
    Tool,
)
from muster.providers.create import create_provider
from muster.providers.smallest import smallest_instance
from muster.target import ResolvedTarget


def mock(script: str = "{}") -> Provider:
    config = parse_yaml(script).data
    return create_provider(ResolvedTarget(name="mock", provider="mock", config=config))


async def said(provider: Provider, question: str = "hello", **more: Any) -> str:
    return (await provider.invoke(ProviderRequest(question=question, **more))).text


# --- which reply --------------------------------------------------------------------------------


async def test_without_a_script() -> None:
    response = await mock().invoke(ProviderRequest(question="hello"))
    assert response.text == "mock response"
    assert (response.token_usage, response.cost_usd) == (None, None)
    assert response.finish_reason == "stop"


@pytest.mark.parametrize("script", ["response: hi", "default: hi", "default: {text: hi}"])
async def test_a_default(script: str) -> None:
    assert await said(mock(script)) == "hi"


SCRIPT = r"""
replies:
  - {contains: capital, regex: (?i)france, text: Paris}
  - {regex: '^\d+\+\d+$', json: {sum: 4}}
  - {case: [a, b], attempt: 0, text: first}
  - {case: a, text: later}
  - {turn: 2, text: second turn}
  - {times: 2, text: only twice}
default: nothing fits
"""


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        ({"question": "The capital of FRANCE?"}, "Paris"),
        ({"question": "2+2"}, '{"sum": 4}'),
        ({"question": "x", "eval_case_id": "a"}, "first"),
        ({"question": "x", "eval_case_id": "b"}, "first"),
        ({"question": "x", "eval_case_id": "a", "attempt": 1}, "later"),
        ({"question": "x", "messages": (Message("assistant", "1"),)}, "second turn"),
        ({"question": "The capital of Spain?"}, "only twice"),
    ],
)
async def test_the_first_rule_that_fits(request_: dict[str, Any], text: str) -> None:
    assert await said(mock(SCRIPT), **request_) == text


async def test_times_run_out() -> None:
    provider = mock(SCRIPT)
    assert [await said(provider) for _ in range(3)] == ["only twice"] * 2 + ["nothing fits"]


# --- what it does -------------------------------------------------------------------------------


async def test_accounting_is_what_the_script_says() -> None:
    response = await mock(
        "{model: m-1, default: {text: hi, cost_usd: 0.5, finish_reason: length,"
        " usage: {input: 9, output: 4, cached: 3, reasoning: 2}}}"
    ).invoke(ProviderRequest(question="hello"))
    assert response.token_usage == TokenUsage(9, 4, cached=3, reasoning=2)
    assert (response.cost_usd, response.finish_reason, response.model) == (0.5, "length", "m-1")


async def test_usage_is_estimated_only_when_asked_for() -> None:
    response = await mock("{estimate_usage: true, default: abcdefgh}").invoke(
        ProviderRequest(question="12345")
    )
    assert response.token_usage == TokenUsage(2, 2)


async def test_chunks_are_streamed() -> None:
    heard: list[str] = []
    provider = mock("default: {chunks: [one, ' two']}")
    assert await said(provider, on_chunk=heard.append) == "one two"
    assert heard == ["one", " two"]
    assert await said(provider) == "one two"


async def test_errors_are_raised_fresh_each_time() -> None:
    provider = mock(
        """
        replies:
          - attempt: [0, 1]
            error: {kind: rate_limited, retry_after: 2.5, status: 429}
          - {attempt: 2, error: provider_unavailable}
          - attempt: 3
            error: {message: "out of paper", retryable: true}
            usage: {input: 5, output: 0}
        default: at last
        """
    )
    errors = []
    for attempt in range(4):
        with pytest.raises(ProviderError) as error:
            await said(provider, attempt=attempt)
        errors.append(error.value)
    assert [error.kind for error in errors] == [
        "rate_limited",
        "rate_limited",
        "provider_unavailable",
        "provider_failed",
    ]
    assert isinstance(errors[0], RateLimited)
    assert errors[0] is not errors[1]
    assert (errors[0].retry_after, errors[0].status, errors[0].retryable) == (2.5, 429, True)
    assert isinstance(errors[3], ProviderFailed)
    assert str(errors[3]) == "out of paper"
    assert errors[3].retryable
    assert errors[3].token_usage == TokenUsage(5, 0)
    assert await said(provider, attempt=4) == "at last"


async def test_delays_can_be_cancelled() -> None:
    provider = mock("{delay: 60, replies: [{contains: now, text: now, delay: 0}]}")
    assert await said(provider, "now") == "now"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await said(provider, "later")


# --- tools --------------------------------------------------------------------------------------

WEATHER = Tool("get_weather", "", {"type": "object"})


async def call_tool(name: str, arguments: Mapping[str, Any]) -> str:
    if arguments.get("city") == "Atlantis":
        raise LookupError("no such city")
    return f"sunny in {arguments['city']}"


async def test_tool_calls_go_through_the_real_loop() -> None:
    provider = mock(
        """
        replies:
          - contains: weather
            tool_calls:
              - {tool: get_weather, input: {city: Paris}}
              - {tool: get_weather, input: {city: Atlantis}}
            usage: {input: 10, output: 5}
          - contains: weather
            text: It is sunny.
            usage: {input: 30, output: 4}
        """
    )
    response = await provider.invoke(
        ProviderRequest(question="the weather?", tools=(WEATHER,), call_tool=call_tool)
    )
    assert response.text == "It is sunny."
    assert response.token_usage == TokenUsage(40, 9)
    assert [(call.status, call.output) for call in response.tool_calls] == [
        ("ok", "sunny in Paris"),
        ("error", "error: no such city"),
    ]
    assert [message.role for message in response.output] == [
        "assistant",
        "tool",
        "tool",
        "assistant",
    ]


async def test_turns_choose_among_several_tool_calls_and_limits_hold() -> None:
    provider = mock(
        """
        replies:
          - {turn: [1, 2], tool_calls: [{tool: get_weather, input: {city: Rome}}], text: wait}
          - {turn: 3, text: done}
        """
    )
    request = ProviderRequest(question="?", tools=(WEATHER,), call_tool=call_tool)
    response = await provider.invoke(request)
    assert (response.text, len(response.tool_calls)) == ("done", 2)
    limited = ProviderRequest(
        question="?", tools=(WEATHER,), call_tool=call_tool, limits=Limits(max_turns=2)
    )
    with pytest.raises(LimitExceeded):
        await provider.invoke(limited)


async def test_tool_calls_without_tools_are_the_answer() -> None:
    provider = mock("default: {tool_calls: [{tool: search, input: {q: x}, id: c1}]}")
    response = await provider.invoke(ProviderRequest(question="?"))
    assert [(call.tool, call.input, call.id) for call in response.tool_calls] == [
        ("search", {"q": "x"}, "c1")
    ]
    assert response.finish_reason == "tool_calls"


# --- schemas ------------------------------------------------------------------------------------

PERSON = {
    "type": "object",
    "required": ["name", "age"],
    "properties": {
        "name": {"type": "string", "minLength": 2},
        "age": {"type": "integer", "minimum": 18},
        "nick": {"type": "string"},
    },
    "additionalProperties": False,
}


async def test_a_schema_is_answered_with_its_smallest_instance() -> None:
    assert json.loads(await said(mock(), response_schema=PERSON)) == {"name": "aa", "age": 18}
    assert await said(mock("default: hi"), response_schema=PERSON) == "hi"


async def test_a_schema_of_a_verdict_is_answered_with_one_that_lets_pass() -> None:
    checks = {"type": "array", "minItems": 1, "items": {"type": "boolean"}}
    properties = {
        "score": {"type": "number"},
        "stars": {"type": "integer", "maximum": 5},
        "c": checks,
    }
    schema = {"type": "object", "required": [*properties], "properties": properties}
    request = {"response_schema": schema, "metadata": {"purpose": "judge"}}
    assert json.loads(await said(mock(), **request)) == {"score": 1, "stars": 5, "c": [True]}
    scripted = await said(mock("default: no"), **request)
    assert scripted == "no"


async def test_a_schema_that_nothing_satisfies() -> None:
    schema = {"type": "object", "required": ["a"], "properties": {"a": False}}
    with pytest.raises(BadRequest, match="mock: response_schema: no value was found"):
        await said(mock(), response_schema=schema)


NODE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "required": ["value", "next"],
            "properties": {
                "value": {"enum": ["long", "s"]},
                "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            },
        }
    },
}


@pytest.mark.parametrize(
    ("schema", "smallest"),
    [
        (True, ""),
        ({"const": {"a": [1]}}, {"a": [1]}),
        ({"enum": ["abc", 1, None]}, 1),
        ({"type": ["string", "null"], "minLength": 9}, None),
        ({"type": "string", "pattern": r"^[A-Z]{3}-\d{4}$"}, "AAA-0000"),
        ({"type": "string", "pattern": "^[a-z]+$", "minLength": 8}, "aaaaaaaa"),
        ({"type": "string", "pattern": r"^(yes|no)$"}, "no"),
        ({"type": "string", "pattern": r"^(?=.*\d)[a-z0-9]{2}$"}, "0a"),
        ({"type": "string", "format": "date"}, "1970-01-01"),
        ({"type": "integer", "exclusiveMinimum": 4}, 5),
        ({"type": "integer", "multipleOf": 7, "minimum": 8}, 14),
        ({"type": "integer", "maximum": -3}, -3),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 0.5}, 0.5),
        ({"type": "array", "minItems": 2, "items": {"type": "boolean"}}, [True, True]),
        ({"type": "array", "minItems": 3, "uniqueItems": True, "items": {"type": "integer"}}, None),
        ({"type": "array", "prefixItems": [{"const": "a"}, {"const": 1}], "minItems": 2}, ["a", 1]),
        ({"type": "array", "contains": {"const": 5}, "minContains": 2}, [5, 5]),
        ({"type": "object", "minProperties": 1, "additionalProperties": {"const": 1}}, {"a": 1}),
        ({"required": ["a"], "dependentRequired": {"a": ["b"]}}, {"a": "", "b": ""}),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, 0.5),
        ({"allOf": [{"minimum": 3}, {"minimum": 5, "type": "integer"}]}, 5),
        ({"anyOf": [{"type": "object"}, {"type": "integer"}]}, 0),
        ({"not": {"type": "string"}}, 0),
        (NODE, {"value": "s", "next": None}),
        ({"if": {"type": "string"}, "then": {"minLength": 3}, "type": "string"}, "aaa"),
    ],
)
def test_smallest_instances(schema: Any, smallest: Any) -> None:
    value = smallest_instance(schema)
    Draft202012Validator(schema).validate(value)
    if smallest is not None:
        assert value == smallest


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (False, "no value"),
        ({"type": "strin"}, "not a JSON Schema: 'strin'"),
        ({"$ref": "#/$defs/absent"}, "no value"),
        ({"$ref": "#"}, "no value"),
        ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "no value"),
        ({"$ref": "https://example.com/schema.json"}, "no value"),
    ],
)
def test_schemas_without_an_instance(schema: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        smallest_instance(schema)


_leaves = st.one_of(
    st.builds(
        lambda low, size: {"type": "integer", "minimum": low, "maximum": low + size},
        st.integers(-50, 50),
        st.integers(0, 9),
    ),
    st.builds(lambda n: {"type": "string", "minLength": n, "maxLength": n + 2}, st.integers(0, 9)),
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.builds(lambda values: {"enum": values}, st.lists(st.text(max_size=4), min_size=1)),
)
_names = st.sampled_from(["a", "b", "c"])
_schemas = st.recursive(
    _leaves,
    lambda inner: st.one_of(
        st.builds(
            lambda items, n: {"type": "array", "items": items, "minItems": n},
            inner,
            st.integers(0, 3),
        ),
        st.builds(
            lambda properties, required: {
                "type": "object",
                "properties": properties,
                "required": sorted(required),
                "additionalProperties": {"type": "integer"},
            },
            st.dictionaries(_names, inner, max_size=3),
            st.sets(_names),
        ),
        st.builds(lambda branches: {"anyOf": branches}, st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(_schemas)
def test_every_instance_is_valid(schema: dict[str, Any]) -> None:
    Draft202012Validator(schema).validate(smallest_instance(schema))


# --- mistakes in the script ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "field", "message"),
    [
        ("{replies: [{contains: a}]}", ("replies", 0), "needs `text`, `json`"),
        ("{replies: [{text: a, json: 1}]}", ("replies", 0), "`text` and `json` are both given"),
        ("{replies: [{text: a, error: timeout}]}", ("replies", 0), "has no answer besides it"),
        ("{replies: [{regex: '(', text: a}]}", ("replies", 0, "regex"), "not a regular expression"),
        (
            "{replies: [{error: rate_limted}]}",
            ("replies", 0, "error", "kind"),
            'mean "rate_limited',
        ),
        ("{replies: [{text: a, contain: b}]}", ("replies", 0, "contain"), "not permitted"),
        ("{default: a, response: b}", (), "give one of them"),
        ("{delay: -1}", ("delay",), "greater than or equal to 0"),
    ],
)
def test_a_script_that_is_wrong(script: str, field: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValidationError, match=message) as error:
        mock(script)
    assert error.value.errors()[0]["loc"] == field


async def test_a_delay_beyond_max_seconds() -> None:
    with pytest.raises(LimitExceeded, match="max_seconds"):
        await said(mock("response: late\ndelay: 30"), limits=Limits(max_seconds=0.02))
