from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster import provider
from muster.provider import (
    BudgetExceeded,
    FilePart,
    ImagePart,
    LimitExceeded,
    Limits,
    Message,
    Provider,
    ProviderError,
    ProviderRequest,
    ProviderResponse,
    RateLimited,
    TextPart,
    TokenUsage,
    ToolCall,
)

counts = st.integers(0, 10**12)
usages = st.builds(
    TokenUsage, counts, counts, cached=st.none() | counts, reasoning=st.none() | counts
)
words = st.text(max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
calls = st.builds(
    ToolCall,
    words.filter(bool),
    st.dictionaries(words, json_values, max_size=3),
    id=st.none() | words,
    output=json_values,
    status=st.none() | st.sampled_from(["ok", "error"]),
    duration_ms=st.none() | st.floats(0, 1e9),
)
messages = st.builds(
    Message,
    st.sampled_from(["system", "user", "assistant", "tool"]),
    words | st.dictionaries(words, json_values, max_size=3),
    name=st.none() | words,
    tool_calls=st.lists(calls, max_size=3).map(tuple),
    tool_call_id=st.none() | words,
    token_usage=st.none() | usages,
    metadata=st.none() | st.dictionaries(words, json_values, max_size=2),
)


# --- usage --------------------------------------------------------------------------------------


def test_usage_adds_up_and_keeps_what_is_unknown():
    assert TokenUsage(1, 2) + TokenUsage(3, 4, cached=5) == TokenUsage(4, 6, cached=5)
    assert TokenUsage(1, 2) + None == TokenUsage(1, 2)
    assert None + TokenUsage(1, 2) == TokenUsage(1, 2)
    assert TokenUsage(10, 5, cached=8, reasoning=4).total == 15


@given(usages, usages, usages)
def test_usage_adds_in_any_order(a, b, c):
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)


@given(usages)
def test_usage_through_its_wire_form(usage):
    assert TokenUsage.from_mapping(json.loads(json.dumps(usage.to_dict()))) == usage


def test_usage_is_read_leniently_but_never_invented():
    assert TokenUsage.from_mapping({"input": 3.0, "cached": None}) == TokenUsage(3, 0)
    assert TokenUsage(1, 2).to_dict() == {"input": 1, "output": 2}


@pytest.mark.parametrize("value", [-1, 1.5, "7", True, float("nan"), [1]])
def test_usage_that_is_none(value):
    with pytest.raises(ValueError, match="output must be a whole number from 0 up, not "):
        TokenUsage.from_mapping({"output": value})


# --- messages -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("hello", "hello"),
        (None, ""),
        ("", ""),
        ((TextPart("a"), TextPart("b")), "a\nb"),
        ((TextPart("see"), FilePart(Path("x.md")), ImagePart("data:…")), "see"),
        ([{"type": "text", "text": "a"}, {"type": "image", "url": "u"}], "a"),
        ([{"type": "text", "value": "agentv"}], "agentv"),
        (["plain", "strings"], "plain\nstrings"),
        ({"answer": "ü"}, '{"answer": "ü"}'),
        ([1, 2], "[1, 2]"),
        (7, "7"),
        (True, "true"),
    ],
)
def test_the_text_of_a_message(content, text):
    assert Message("assistant", content).text == text


@given(messages)
def test_a_message_through_its_wire_form(message):
    assert Message.from_mapping(json.loads(json.dumps(message.to_dict()))) == message


def test_parts_have_a_wire_form():
    message = Message("user", (TextPart("a"), FilePart(Path("b.md")), ImagePart("c.png")))
    assert message.to_dict()["content"] == [
        {"type": "text", "text": "a"},
        {"type": "file", "path": "b.md"},
        {"type": "image", "source": "c.png"},
    ]


def test_messages_of_other_harnesses_in_camel_case():
    message = Message.from_mapping(
        {
            "role": "assistant",
            "content": "done",
            "durationMs": 5,
            "toolCalls": [{"tool": "read", "input": {"keepMe": 1}, "startTime": "t0"}],
            "tokenUsage": {"input": 1, "output": 2},
            7: "a key that is no text",
        }
    )
    assert message.duration_ms == 5
    assert message.tool_calls == (ToolCall("read", {"keepMe": 1}, start_time="t0"),)
    assert message.token_usage == TokenUsage(1, 2)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({}, "a message needs `role`"),
        ({"role": 3}, "a message needs `role`"),
        ({"role": "user", "tool_calls": "read"}, "`tool_calls` must be a list"),
        ({"role": "user", "tool_calls": [3]}, "expected a mapping, found int"),
        ({"role": "user", "tool_calls": [{"input": {}}]}, "a tool call needs `tool`"),
        ({"role": "user", "duration_ms": "5"}, "`duration_ms` must be a number, not str"),
        ({"role": "user", "duration_ms": True}, "`duration_ms` must be a number, not bool"),
        ({"role": "user", "name": 5}, "`name` must be text, not int"),
        ({"role": "user", "metadata": "x"}, "`metadata` must be a mapping"),
        ({"role": "user", "token_usage": {"input": -1}}, "input must be a whole number"),
    ],
)
def test_messages_that_are_none(value, told):
    with pytest.raises(ValueError, match=told):
        Message.from_mapping(value)


# --- requests and responses ---------------------------------------------------------------------


def test_a_request_has_the_fields_of_both_worlds():
    request = ProviderRequest(question="?")
    assert (request.attempt, request.messages, request.tools) == (0, (), ())
    assert request.limits == Limits()
    assert dict(request.metadata) == {}
    names = {field.name for field in dataclasses.fields(request)}
    assert names >= {
        "question", "system_prompt", "guidelines", "input_files", "eval_case_id", "attempt", "cwd",
        "messages", "tools", "call_tool", "on_chunk", "limits", "response_schema", "metadata",
    }  # fmt: skip
    with pytest.raises(dataclasses.FrozenInstanceError):
        request.question = "!"


@pytest.mark.parametrize(
    "output",
    [
        "yes",
        Message("assistant", "yes"),
        [Message("assistant", "yes")],
        (Message("assistant", "yes"),),
        [{"role": "assistant", "content": "yes"}],
        ({"role": "assistant", "content": "yes"},),
    ],
)
def test_an_output_in_any_form(output):
    response = ProviderResponse(output)
    assert response.output == (Message("assistant", "yes"),)
    assert response.text == "yes"


def test_the_text_is_the_last_assistant_message():
    response = ProviderResponse(
        [
            Message("assistant", "first", tool_calls=(ToolCall("a"), ToolCall("b"))),
            Message("tool", "result"),
            Message("assistant", "last", tool_calls=(ToolCall("c"),)),
            Message("user", "thanks"),
        ]
    )
    assert response.text == "last"
    assert [call.tool for call in response.tool_calls] == ["a", "b", "c"]
    assert ProviderResponse().text == ""


def test_what_is_not_said_is_unknown():
    response = ProviderResponse("yes")
    unknown = ("token_usage", "cost_usd", "duration_ms", "finish_reason", "model", "target_used")
    assert all(getattr(response, name) is None for name in unknown)
    assert response.attempts == 1


def test_a_response_can_be_replaced_in_part():
    response = ProviderResponse("yes", token_usage={"input": 1, "output": 2}, model="m")
    changed = dataclasses.replace(response, attempts=3)
    assert (changed.attempts, changed.text, changed.model) == (3, "yes", "m")
    assert changed.token_usage == TokenUsage(1, 2)


@pytest.mark.parametrize("output", [[3], ["text"], [{"content": "no role"}]])
def test_outputs_that_are_none(output):
    with pytest.raises(ValueError, match=r"expected a mapping|needs `role`"):
        ProviderResponse(output)


def test_any_object_with_invoke_is_a_provider():
    class Mine:
        async def invoke(self, request):
            return ProviderResponse("x")

    assert isinstance(Mine(), Provider)
    assert not isinstance(object(), Provider)


# --- errors -------------------------------------------------------------------------------------


def family(error):
    yield error
    for child in error.__subclasses__():
        yield from family(child)


OURS = [error for error in family(ProviderError) if error.__module__ == provider.__name__]


def test_every_error_has_a_kind_of_its_own_and_is_public():
    kinds = [error.kind for error in OURS]
    assert len(set(kinds)) == len(kinds) == 11
    assert {error.__name__ for error in OURS} <= set(provider.__all__)


def test_which_errors_a_retry_can_help():
    retried = {error.kind for error in OURS if error("x").retryable}
    assert retried == {"rate_limited", "provider_unavailable", "timeout", "bad_output"}
    assert issubclass(BudgetExceeded, LimitExceeded)


def test_an_error_carries_what_is_known():
    error = RateLimited(
        "slow", retryable=False, retry_after=3, status=429, token_usage=TokenUsage(1), cost_usd=0.1
    )
    assert str(error) == error.message == "slow"
    assert (error.retryable, error.retry_after, error.status) == (False, 3, 429)
    assert (error.token_usage, error.cost_usd) == (TokenUsage(1), 0.1)
    assert (error.attempts, error.target) == (1, None)


def test_the_seam_imports_nothing_but_the_standard_library():
    code = (
        "import sys, muster.provider\n"
        "print([n for n in sys.modules if n.startswith('muster.') and n != 'muster.provider'"
        " or n.partition('.')[0] in ('pydantic', 'msgspec', 'aiohttp', 'yaml', 'click')])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
