import json

import pytest

from muster.provider import BadProviderOutput, Message, TokenUsage, ToolCall
from muster.providers.cli_output import read_answer


def read(value):
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return read_answer(data, "the output file")


def test_messages():
    answer = read(
        {
            "output": [
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [{"tool": "Read", "input": {"path": "a"}, "status": "ok"}],
                },
                {"role": "assistant", "content": "Paris"},
            ],
            "token_usage": {"input": 10, "output": 2, "cached": 4, "reasoning": 1},
            "cost_usd": 0.25,
            "duration_ms": 1200,
            "model": "m-1",
            "finish_reason": "stop",
            "trace": "t",
        }
    )
    assert [message.text for message in answer.output] == ["", "Paris"]
    assert answer.output[0].tool_calls == (ToolCall("Read", {"path": "a"}, status="ok"),)
    assert answer.token_usage == TokenUsage(10, 2, cached=4, reasoning=1)
    assert (answer.cost_usd, answer.duration_ms) == (0.25, 1200)
    assert (answer.model, answer.finish_reason) == ("m-1", "stop")
    assert answer.json is not None
    assert answer.json["trace"] == "t"
    assert answer.warnings == []


@pytest.mark.parametrize(
    "row",
    [
        {"text": "hi"},
        {"output": [{"role": "assistant", "content": "hi"}]},
        {"output_messages": [{"role": "assistant", "content": "hi"}]},
        {"output": [{"role": "assistant", "content": [{"type": "text", "text": "hi"}]}]},
    ],
)
def test_every_spelling_of_an_answer(row):
    answer = read(row)
    assert answer.output[-1].text == "hi"
    assert answer.warnings == []


def test_camel_case_accounting():
    answer = read(
        {"text": "", "tokenUsage": {"input": 1, "output": 2}, "costUsd": 1, "durationMs": 2}
    )
    assert (answer.token_usage, answer.cost_usd, answer.duration_ms) == (TokenUsage(1, 2), 1, 2)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"plain\ntext\r\n\n", "plain\ntext"),
        (b"", ""),
        ("\ufeffÜber".encode(), "Über"),
        (b'{"text": "cut of', '{"text": "cut of'),
        (b'[{"role": "assistant"}]', '[{"role": "assistant"}]'),
        (b'"json"', '"json"'),
        (b'{"answer": 42}', '{"answer": 42}'),
        (b"{" * 100_000, "{" * 100_000),
    ],
)
def test_everything_else_is_text(data, text):
    answer = read(data)
    assert answer.output == (Message("assistant", text),)
    assert answer.json is None
    assert answer.warnings == []


@pytest.mark.parametrize(
    ("row", "warning"),
    [
        ({"outptu": []}, 'unknown field "outptu" (did you mean "output"?)'),
        ({"output": "hi"}, "`output` must be a list of messages; a string goes into `text`"),
        ({"text": 3}, "`text` must be a string"),
        ({"cost_usd": 3}, "it has neither `output` nor `text`"),
        (
            {"output": [{"content": "x"}]},
            "`output` is not a list of messages: a message needs `role`, e.g. assistant",
        ),
        ({"output": ["x"]}, '`output` is not a list of messages: expected an object, found "x"'),
    ],
)
def test_a_near_miss_is_text_with_a_warning(row, warning):
    answer = read(row)
    assert answer.output == (Message("assistant", json.dumps(row)),)
    assert answer.warnings == [f"the output file is taken as plain text: {warning}"]


def test_a_misspelt_field_beside_an_answer():
    answer = read({"text": "hi", "cost_us": 3})
    assert answer.output[0].text == "hi"
    assert answer.warnings == [
        'the output file: unknown field "cost_us" (did you mean "cost_usd"?); it is ignored'
    ]


@pytest.mark.parametrize(
    ("row", "warning"),
    [
        ({"cost_usd": -1}, "cost_usd is ignored: -1 is not a number from 0 up"),
        ({"cost_usd": float("nan")}, "cost_usd is ignored: nan is not a number from 0 up"),
        ({"duration_ms": "9"}, 'duration_ms is ignored: it must be a number, not "9"'),
        ({"duration_ms": True}, "duration_ms is ignored: it must be a number, not true"),
        ({"token_usage": {"input": 3}}, "token_usage is ignored: output is missing"),
        ({"token_usage": 3}, "token_usage is ignored: it must be an object with input and output"),
        (
            {"token_usage": {"input": -3, "output": 1}},
            "token_usage is ignored: token usage: input must be a whole number from 0 up, not -3",
        ),
        ({"model": 3}, "model is ignored: it must be a string"),
    ],
)
def test_figures_that_make_no_sense_are_left_out(row, warning):
    answer = read({"text": "hi", **row})
    assert answer.output[0].text == "hi"
    assert (answer.token_usage, answer.cost_usd, answer.duration_ms) == (None, None, None)
    assert answer.warnings == [warning]


@pytest.mark.parametrize(
    ("error", "text"),
    [("no model", "no model"), ({"code": 3}, '{"code": 3}'), (True, "true")],
)
def test_an_error_of_the_command(error, text):
    answer = read({"error": error, "text": "partial", "cost_usd": 2})
    assert (answer.error, answer.cost_usd) == (text, 2)


@pytest.mark.parametrize("nothing", ["", None, False, {}])
def test_no_error(nothing):
    assert read({"error": nothing, "text": "hi"}).error is None


def test_invalid_utf8_names_the_byte():
    with pytest.raises(BadProviderOutput) as caught:
        read(b"caf\xe9!")
    assert caught.value.message == "the output file is not UTF-8 text: byte 0xe9 at offset 3"
