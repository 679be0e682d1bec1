"""An answer that is noted while it passes, and becomes a line of the cassette at its end."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime

import msgspec

from muster.proxy.answers import Answer, BrokenOff, request_headers
from muster.proxy.cassette import (
    Exchange,
    RecordedRequest,
    RecordedResponse,
    pieces_without_secrets,
    text_of,
)
from muster.proxy.scrub import Asked, scrubbed_headers, without_tokens

__all__ = ("Recording",)

_LAST_EVENT = re.compile(
    rb"^(?:data: ?\[DONE\]"
    rb"|event: ?(?:message_stop|error|response\.(?:completed|incomplete|failed))\b"
    rb'|data: ?\{"type": ?"(?:message_stop|response\.(?:completed|incomplete|failed))")',
    re.MULTILINE,
)
"""After these, clients go without waiting for the end of the body."""

_SHORT = 4096
"""A last event that is looked for as it passes; longer ones are when the client goes."""


class Recording:
    """Notes one exchange; `write` is called once, when its answer is whole or broke off."""

    def __init__(
        self, asked: Asked, to: str, write: Callable[[Exchange], bool], *, max_body: int
    ) -> None:
        self._asked = asked
        self._to = to
        self._write = write
        self._max_body = max_body
        self._started = time.perf_counter()
        self._at = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._after = 0.0
        self._pieces: list[tuple[float, bytes]] = []
        self._size = 0
        self._answer: Answer | None = None
        self._tried = False
        self.written = False
        self.too_large = False
        """The answer was passed on, and is not kept."""

    def noting(self, answer: Answer) -> Answer:
        """The same answer, whose body is noted as it is read."""
        self._after = self._now()
        self._answer = answer
        return Answer(answer.status, answer.headers, self._chunks(answer), answer.length)

    def client_left(self) -> None:
        """Nobody reads any more: a stream that had said its last word is whole all the same."""
        if self._answer is not None and self._answer.streamed and self._has_ended():
            self._end()

    async def _chunks(self, answer: Answer) -> AsyncIterator[bytes]:
        try:
            async for chunk in answer.chunks:
                self._note(chunk)
                # Who has got the last byte finds the line in the file.
                if self._size == answer.length or (answer.streamed and self._has_ended(_SHORT)):
                    self._end()
                yield chunk
        except BrokenOff:
            self._end(broke_off=True)
            raise
        self._end()

    def _note(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size > self._max_body:
            self.too_large = True
            self._pieces.clear()
        if not self.too_large:
            self._pieces.append((self._now(), chunk))

    def _has_ended(self, within: int = 0) -> bool:
        """Whether the last event is one that ends a stream."""
        parts: list[bytes] = []
        size = 0
        for _, piece in reversed(self._pieces):
            parts.append(piece)
            size += len(piece)
            if within and size > within:
                break
        tail = b"".join(reversed(parts)).replace(b"\r\n", b"\n")
        if not tail.endswith(b"\n\n"):
            return False
        _, blank, last = tail.rstrip(b"\n").rpartition(b"\n\n")
        if not blank and size < self._size:
            return False  # its beginning is further up
        return _LAST_EVENT.search(last) is not None

    def _end(self, *, broke_off: bool = False) -> None:
        if self._tried or self.too_large or self._answer is None:
            return
        self._tried = True
        self.written = self._write(self._exchange(self._answer, broke_off))

    def _exchange(self, answer: Answer, broke_off: bool) -> Exchange:
        asked, body, chunks = self._asked, None, None
        kept = pieces_without_secrets([piece for _, piece in self._pieces], asked.masker)
        if answer.streamed:
            times = [at for at, _ in self._pieces]
            chunks = [(at, text_of(piece)) for at, piece in zip(times, kept, strict=True)]
        elif kept:
            body = text_of(without_tokens(b"".join(kept)))
        return Exchange(
            at=self._at,
            to=asked.masker.mask(self._to),
            request=RecordedRequest(
                method=asked.method,
                path=asked.path,
                headers=request_headers(asked.headers.items()),
                sha256=asked.sha256,
                json=msgspec.Raw(asked.body) if asked.is_json else msgspec.UNSET,
                body=text_of(asked.body) if asked.body and not asked.is_json else None,
            ),
            response=RecordedResponse(
                status=answer.status,
                headers=scrubbed_headers(answer.headers.items(), asked.masker),
                after_ms=self._after,
                body=body,
                chunks=chunks,
                broke_off=broke_off,
            ),
        )

    def _now(self) -> float:
        return round((time.perf_counter() - self._started) * 1000, 1)
