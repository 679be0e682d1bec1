"""Answers that end before their time: where a body is cut."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

from muster.proxy.answers import Answer
from muster.proxy.plan import Cut

__all__ = ("CutAnswer", "cut_answer")

_BLANK_LINE = re.compile(rb"\r\n\r\n|\n\n|\r\r")


@dataclass(slots=True)
class CutAnswer:
    """The beginning of an answer."""

    chunks: AsyncIterator[bytes]
    length: int | None
    """Of all that comes; `None` when that is not known."""
    whole_length: int | None
    """What the answer would have had."""
    reached: bool = False
    """The cut was made; a short answer may be over before."""


async def cut_answer(answer: Answer, cut: Cut, *, max_body: int) -> CutAnswer:
    """The answer up to its cut. One in one piece is read to its end first, up to `max_body`."""
    if answer.streamed:
        made = CutAnswer(answer.chunks, None, None)
        limit = _Bytes(cut.bytes) if cut.bytes is not None else _Events(cut.events)
        made.chunks = _up_to(answer.chunks, limit, made)
        return made
    data = await _collected(answer.chunks, max_body)
    size = int(len(data) * cut.share) if cut.bytes is None else min(cut.bytes, len(data))
    return CutAnswer(_one(data[:size]), size, len(data), reached=size < len(data))


async def _one(data: bytes) -> AsyncIterator[bytes]:
    if data:
        yield data


async def _collected(chunks: AsyncIterator[bytes], most: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for chunk in chunks:
        parts.append(chunk)
        size += len(chunk)
        if size > most:
            break
    return b"".join(parts)


async def _up_to(
    chunks: AsyncIterator[bytes], limit: _Bytes | _Events, made: CutAnswer
) -> AsyncIterator[bytes]:
    if limit.left == 0:
        made.reached = True
        return
    async for chunk in chunks:
        end = limit.end_in(chunk)
        if end is None:
            yield chunk
            continue
        if end:
            yield chunk[:end]
        made.reached = True
        return


class _Bytes:
    """Finds the end of so many bytes."""

    def __init__(self, count: int) -> None:
        self.left = count

    def end_in(self, chunk: bytes) -> int | None:
        """Where the end is in the next chunk, if it is there."""
        if self.left <= len(chunk):
            return self.left
        self.left -= len(chunk)
        return None


class _Events:
    """Finds the end of so many server-sent events."""

    def __init__(self, count: int) -> None:
        self.left = count
        self._tail = b""

    def end_in(self, chunk: bytes) -> int | None:
        """As `_Bytes.end_in`."""
        data = self._tail + chunk
        place = 0
        for found in _BLANK_LINE.finditer(data):
            place = found.end()
            self.left -= 1
            if self.left == 0:
                return place - len(self._tail)
        # A blank line may be torn: four bytes at most.
        self._tail = data[max(place, len(data) - 3) :]
        return None
