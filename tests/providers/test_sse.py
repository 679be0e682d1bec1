"""The event parser, by the standard's own examples and by a property: the cuts do not matter."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.provider import BadProviderOutput
from muster.providers.sse import SseEvent, SseParser, sse_events


def parse(*chunks: bytes) -> list[SseEvent]:
    parser = SseParser()
    found = [event for chunk in chunks for event in parser.feed(chunk)]
    return found + parser.close()


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: a\n\n", [("message", b"a")]),
        (b"data:a\n\ndata:  b\n\n", [("message", b"a"), ("message", b" b")]),
        (b"event: ping\ndata: {}\n\n", [("ping", b"{}")]),
        (b"data: YHOO\ndata: +2\ndata: 10\n\n", [("message", b"YHOO\n+2\n10")]),
        (b": a comment\n\ndata: a\n\n", [("message", b"a")]),
        (b"\xef\xbb\xbfdata: a\n\n", [("message", b"a")]),
        (b"data: a\r\n\r\ndata: b\r\rdata: c\n\n", [("message", x) for x in (b"a", b"b", b"c")]),
        (b"data\n\ndata\ndata\n\n", [("message", b""), ("message", b"\n")]),
        (b"id: 7\nretry: 10\nunknown: x\ndata: a\n\n", [("message", b"a")]),
        (b"event: only a name\n\ndata: a\n\n", [("message", b"a")]),
        (b"\n\n\ndata: a\n\n\n\n", [("message", b"a")]),
        (b"data: a\n\ndata: [DONE]", [("message", b"a"), ("message", b"[DONE]")]),
        ("data: Zoë\n\n".encode(), [("message", "Zoë".encode())]),
        (b"", []),
    ],
)
def test_events(stream: bytes, expected: list[tuple[str, bytes]]) -> None:
    assert parse(stream) == expected


LINES = st.sampled_from(
    [
        b"data: x",
        b"data:",
        b"data: \xc3\xab",
        b"event: e",
        b": note",
        b"",
        b"",
        b"data",
        b"\xef\xbb\xbf",
    ]
)
STREAMS = st.lists(st.tuples(LINES, st.sampled_from([b"\n", b"\r\n", b"\r"])), max_size=30).map(
    lambda lines: b"".join(line + end for line, end in lines)
)


@given(st.one_of(STREAMS, st.binary(max_size=200)), st.lists(st.integers(0, 400), max_size=20))
def test_cuts_between_bytes_change_nothing(stream: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    chunks = [stream[a:b] for a, b in pairwise(places)]
    assert parse(*chunks) == parse(stream) == parse(*(bytes([byte]) for byte in stream))


def test_events_come_as_soon_as_they_are_whole() -> None:
    parser = SseParser()
    assert parser.feed(b"data: a\r") == []
    assert parser.feed(b"\n\r") == [("message", b"a")]
    assert parser.feed(b"\ndata: b") == []
    assert parser.feed(b"\n\n") == [("message", b"b")]


@pytest.mark.parametrize(
    "chunks", [[b"data: " + b"x" * 200 + b"\n\n"], [b"data: "] + [b"x" * 20] * 10]
)
def test_a_huge_event_is_refused(chunks: list[bytes]) -> None:
    parser = SseParser(max_event_bytes=100)
    with pytest.raises(BadProviderOutput, match="larger than 100 bytes"):
        [parser.feed(chunk) for chunk in chunks]


async def test_asynchronous_source() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for chunk in (b"data: a\n", b"\ndata: b\n\nda", b"ta: c"):
            yield chunk

    assert [event.data async for event in sse_events(chunks())] == [b"a", b"b", b"c"]
