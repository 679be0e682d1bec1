"""Why bytes are no JSON."""

from __future__ import annotations

import msgspec
import pytest

from muster.broken_json import why_no_json

HALF = "half of a character (a surrogate without its pair)"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (rb'{"a": "x\ud83d"}', rf"the escape \ud83d at byte 8 is {HALF}"),
        (rb'{"a": "\ud83dx"}', rf"the escape \ud83d at byte 7 is {HALF}"),
        (rb'{"a": "\uDC00"}', rf"the escape \uDC00 at byte 7 is {HALF}"),
        (
            rb'["\\ud83d", "\ud83d\ude00", "\ud83d\ud83d"]',
            rf"the escape \ud83d at byte 29 is {HALF}",
        ),
        (rb'{"a": "\\ud83d', "it ends in the middle, after 14 bytes"),
        (b'{"a": [1, 2', "it ends in the middle, after 11 bytes"),
        (b" ", "it is empty"),
        (b'"\xff"', "it is not UTF-8 (byte 0xff)"),
        (b"[" * 20_000, "it is nested too deeply"),
        (b"{a}", "JSON is malformed: object keys must be strings (byte 1)"),
    ],
)
def test_in_words_for_people(data: bytes, why: str) -> None:
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError, RecursionError)) as raised:
        msgspec.json.decode(data)
    assert why_no_json(raised.value, data) == why
