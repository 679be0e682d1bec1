"""Server-sent events, parsed as the bytes come (WHATWG HTML, section 9.2.6).

`SseParser` is the plain, fast machine: bytes in, whole events out, whatever the cuts between the
bytes. `sse_events` wraps an asynchronous source in it.

Two deviations from the standard, both for servers as they are: `id` and `retry` are ignored, since
nobody reconnects to a model's answer, and an event that lacks its last blank line at the end of
the stream is still given out; whoever reads it must check that it is whole.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from typing import NamedTuple

from muster.provider import BadProviderOutput

__all__ = ("SseEvent", "SseParser", "sse_events")

MAX_EVENT_BYTES = 16 * 2**20
_BOM = b"\xef\xbb\xbf"
_NAMES = {
    b"event: " + name.encode(): name
    for name in (
        "content_block_delta",
        "response.output_text.delta",
        "response.function_call_arguments.delta",
    )
}
"""The lines that name the events which come by the hundred."""


class SseEvent(NamedTuple):
    """One event; `event` is `message` unless the server named it."""

    event: str
    data: bytes


class SseParser:
    """Takes bytes, gives events. An event above `max_event_bytes` is `BadProviderOutput`."""

    __slots__ = ("_first", "_held", "_skip_newline", "max_event_bytes")

    def __init__(self, *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self.max_event_bytes = max_event_bytes
        self._held = bytearray()
        self._first = True
        self._skip_newline = False

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """The events that `chunk` completes, in order.

        Raises:
            BadProviderOutput: an event is larger than `max_event_bytes`.
        """
        if self._skip_newline or b"\r" in chunk:
            chunk = self._with_newlines(chunk)
        held = self._held
        if held:
            start = len(held) - 1
            held += chunk
            end = held.rfind(b"\n\n", start)
            if end < 0:
                self._check(len(held))
                return []
            blocks = bytes(held[:end])
            del held[: end + 2]
        else:
            end = chunk.rfind(b"\n\n")
            if end < 0:
                held += chunk
                self._check(len(held))
                return []
            blocks = chunk[:end]
            if end + 2 < len(chunk):
                held += chunk[end + 2 :]
        self._check(len(held))
        return self._events(blocks)

    def close(self) -> list[SseEvent]:
        """The event that the end of the stream completes, if there is one."""
        rest = bytes(self._held)
        self._held.clear()
        return self._events(rest) if rest else []

    def _events(self, blocks: bytes) -> list[SseEvent]:
        if self._first:
            self._first = False
            blocks = blocks.removeprefix(_BOM)
        events: list[SseEvent] = []
        limit = self.max_event_bytes
        for block in blocks.split(b"\n\n"):
            if len(block) > limit:
                self._check(len(block))
            # Nearly every event of a model is one line of data, with or without a name before it.
            name, newline, data = block.partition(b"\n")
            if not newline and name.startswith(b"data: "):
                events.append(SseEvent("message", name[6:]))
            elif name in _NAMES and data.startswith(b"data: ") and b"\n" not in data:
                events.append(SseEvent(_NAMES[name], data[6:]))
            elif block and (event := _event(block)) is not None:
                events.append(event)
        return events

    def _with_newlines(self, chunk: bytes) -> bytes:
        """`chunk` with CRLF and CR as LF; a CRLF may be cut in two between chunks."""
        if self._skip_newline and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._skip_newline = False
        if chunk.endswith(b"\r"):
            self._skip_newline = True
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _check(self, size: int) -> None:
        if size > self.max_event_bytes:
            raise BadProviderOutput(
                f"an event of the stream is larger than {self.max_event_bytes:,} bytes",
                retryable=False,
            )


async def sse_events(
    chunks: AsyncIterable[bytes], *, max_event_bytes: int = MAX_EVENT_BYTES
) -> AsyncIterator[SseEvent]:
    """The events of a stream of bytes, in order. Raises as `SseParser.feed`."""
    parser = SseParser(max_event_bytes=max_event_bytes)
    async for chunk in chunks:
        for event in parser.feed(chunk):
            yield event
    for event in parser.close():
        yield event


def _event(block: bytes) -> SseEvent | None:
    """An event of several lines; `None` when it has no data (comments only, for one)."""
    name, data = "message", []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value.decode("utf-8", "replace") or "message"
    return SseEvent(name, b"\n".join(data)) if data else None
