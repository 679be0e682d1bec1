"""The environment speaks its languages, records what is asked, and fails as it is told."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from muster.provider import TokenUsage
from muster.testing import Call, Environment, Reply
from muster.testing.dialects import Shape
from muster.testing.script import Asked, EndEarly, Status

PATHS = ("/v1/chat/completions", "/v1/responses", "/v1/messages", "/ask")
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hello"}]},
    "/v1/responses": {"input": "Hello"},
    "/v1/messages": {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 9},
    "/ask": {"question": "Hello"},
}


def post(url: str, body: Any) -> str:
    data = json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return str(answer.read().decode())


@pytest.mark.parametrize("path", PATHS)
def test_a_call_is_recorded_and_answered(path: str) -> None:
    with Environment() as environment:
        environment.script = lambda call: Reply(f"heard {call.text}", usage=TokenUsage(7, 3))
        said = post(environment.url + path, BODIES[path])
        (call,) = environment.calls
    assert "heard Hello" in said
    assert {7, 3} <= set(numbers(json.loads(said)))
    assert (call.text, call.stream, call.headers["content-type"]) == (
        "Hello",
        False,
        "application/json",
    )


def numbers(value: Any) -> list[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    return [n for item in value for n in numbers(item)] if isinstance(value, list) else [value]


@pytest.mark.parametrize("path", PATHS)
def test_a_stream_brings_the_pieces(path: str) -> None:
    with Environment() as environment:
        environment.script = lambda call: Reply("one two three")
        said = post(environment.url + path, {**BODIES[path], "stream": True})
    pieces = [line for line in said.splitlines() if line.startswith("data:")]
    assert [sum(word in line for line in pieces) > 0 for word in ("one ", "two ", "three")] == [
        True,
        True,
        True,
    ]


def test_tools_are_understood() -> None:
    calls: list[Call] = []

    def script(call: Call) -> Reply:
        calls.append(call)
        return Reply(asked=(Asked("add", {"a": 1}, "call_9"),))

    tools = [{"type": "function", "function": {"name": "add", "parameters": {}}}]
    results = [{"role": "tool", "tool_call_id": "call_8", "content": "5"}]
    with Environment() as environment:
        environment.script = script
        url = f"{environment.url}/v1/chat/completions"
        said = json.loads(post(url, {"messages": results, "tools": tools, "max_tokens": 5}))
    (asked,) = said["choices"][0]["message"]["tool_calls"]
    assert (asked["id"], json.loads(asked["function"]["arguments"])) == ("call_9", {"a": 1})
    (call,) = calls
    assert (call.tools, call.tool_results, call.max_output_tokens) == (
        ("add",),
        (("call_8", "5"),),
        5,
    )


def test_a_plain_answer_has_the_shape_that_is_wanted() -> None:
    shape = Shape(text="result.items[1].reply", input="meta.tokens.in")
    with Environment(shape=shape) as environment:
        environment.script = lambda call: Reply("here", usage=TokenUsage(4, 2))
        said = json.loads(post(f"{environment.url}/x", {}))
    assert said["result"] == {"items": [None, {"reply": "here"}]}
    assert said["meta"] == {"tokens": {"in": 4}}


def test_a_refusal_has_its_status_and_headers() -> None:
    with Environment() as environment:
        environment.script = lambda call: Status(429, "slow", headers={"Retry-After": "7"})
        with pytest.raises(urllib.error.HTTPError) as caught:
            post(f"{environment.url}/v1/messages", {})
        error = json.load(caught.value)
    assert (caught.value.code, caught.value.headers["Retry-After"]) == (429, "7")
    assert error == {"type": "error", "error": {"type": "api_error", "message": "slow"}}


def test_a_stream_that_ends_early_is_good_http() -> None:
    with Environment() as environment:
        environment.script = lambda call: EndEarly()
        url = f"{environment.url}/v1/chat/completions"
        said = post(url, {"messages": [], "stream": True})
    assert (
        "first half" in said.replace('"}, "finish_reason": null}]}\n\ndata: ', "")
        or "first" in said
    )
    assert "second" not in said
    assert "[DONE]" not in said
    assert '"finish_reason": "stop"' not in said


def test_nobody_connects_once_it_refuses() -> None:
    with Environment() as environment:
        environment.refuse()
        with pytest.raises(urllib.error.URLError, match="refused"):
            post(environment.url, {})
