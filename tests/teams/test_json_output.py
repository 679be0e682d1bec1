"""The JSON in an answer, found where ark finds it."""

from __future__ import annotations

from typing import Any

import pytest

from muster.teams.json_output import NO_JSON, extract_json


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ('"x"', "x"),
        ("null", None),
        (' {"a": [1.5, -2e3]}\n', {"a": [1.5, -2000.0]}),
        ('Here it is:\n```json\n{"a": 1}\n```\nand\n```\n2\n```', {"a": 1}),
        ('Some words.\n{"a": 1}', {"a": 1}),
        ("Some words.\n  [1, 2]\n", [1, 2]),
        ('<think>hm</think>\n{"a": 1}', {"a": 1}),
        ("12345678901234567890", 12345678901234567890),
    ],
)
def test_what_is_found(text: str, value: Any) -> None:
    assert extract_json(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "only words",
        'Here: {"a": 1}',
        '{"a": 1}\nand more words',
        '{"a": 1}{"b": 2}',
        '{"a": 1,}',
        '{bad\n{"a": 1}',
        # Python's parser takes these, which are no JSON, and could not be written again.
        "NaN",
        '{"a": -Infinity}',
        "1e400",
        "[" * 200_000,
    ],
)
def test_what_is_no_json(text: str) -> None:
    assert extract_json(text) is NO_JSON
