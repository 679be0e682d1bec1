"""Cassettes: recorded traffic, a line of JSON for each exchange of a request and its answer.

A line is written in one piece when its exchange ends. A process that is killed leaves whole lines,
and at worst a torn last one, which readers pass over and the next recording cuts off.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from muster.config.secrets import Masker
from muster.errors import ConfigError, MusterError, Problem

__all__ = (
    "VERSION",
    "Base64",
    "CassetteWriter",
    "Exchange",
    "Line",
    "RecordedRequest",
    "RecordedResponse",
    "cassette_schema",
    "data_of",
    "decode_line",
    "pieces_without_secrets",
    "recorded_lines",
    "text_of",
)

VERSION = 1

Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=86_400_000)]


class Base64(msgspec.Struct, frozen=True):
    """Bytes that are no UTF-8."""

    base64: str


Data = str | Base64


class RecordedRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was asked, without its secrets."""

    method: str
    path: str
    """With the query."""
    headers: dict[str, str] = {}
    sha256: str
    """Of the body, which is canonical when it is JSON. Requests are recognized by it."""
    json: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    """The body, if it is JSON."""
    body: Data | None = None
    """The body, if it is something else."""


class RecordedResponse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the server said: `body`, or `chunks` if it was a stream."""

    status: Annotated[int, msgspec.Meta(ge=200, le=599)]
    headers: dict[str, str] = {}
    after_ms: Milliseconds = 0.0
    """When the headers came; counted from the request, as are the chunks."""
    body: Data | None = None
    chunks: list[tuple[Milliseconds, Data]] | None = None
    broke_off: bool = False
    """The connection ended before the answer did."""


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a cassette."""

    version: Annotated[int, msgspec.Meta(ge=1, le=1)] = VERSION
    at: str
    """When it was asked, ISO 8601."""
    to: str
    """The base URL of the server."""
    request: RecordedRequest
    response: RecordedResponse


def cassette_schema() -> dict[str, Any]:
    """The JSON Schema of a line."""
    return {"title": "Muster cassette, one line", **msgspec.json.schema(Exchange)}


def text_of(data: bytes) -> Data:
    """Bytes as they stand in a line."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return Base64(base64.b64encode(data).decode())


def data_of(text: Data | None) -> bytes:
    """The reverse of `text_of`."""
    if text is None:
        return b""
    return text.encode() if isinstance(text, str) else base64.b64decode(text.base64)


def pieces_without_secrets(pieces: Sequence[bytes], masker: Masker) -> list[bytes]:
    """The pieces of a stream, masked; also where a secret is torn between two of them."""
    whole = b"".join(pieces)
    if not masker.found_in(whole):
        return list(pieces)
    # Each byte that is left has a piece to be in; the mask stands where its secret began.
    spans = masker.spans(whole)
    kept, start = [], 0
    for piece in pieces:
        end = start + len(piece)
        kept.append(_masked_between(whole, start, end, spans, masker))
        start = end
    return kept


def _masked_between(
    whole: bytes, start: int, end: int, spans: list[tuple[int, int]], masker: Masker
) -> bytes:
    parts, place = [], start
    for begins, ends in spans:
        if ends <= place or begins >= end:
            continue
        parts.append(whole[place : max(place, begins)])
        if begins >= start:
            parts.append(masker.mask_bytes(whole[begins:ends]))
        place = min(ends, end)
    return b"".join((*parts, whole[place:end]))


# --- writing --------------------------------------------------------------------------------------


class CassetteWriter:
    """Appends to a cassette, which no other process writes to meanwhile.

    Raises:
        MusterError: the file cannot be written, or another process records to it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.torn = 0
        """Bytes of a torn last line that were cut off."""
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise MusterError(f"{path}: cannot record here: {error.strerror}") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.torn = self._mend_end()
        except BlockingIOError:
            self.close()
            raise MusterError(f"{path}: another process records to this file") from None
        except OSError as error:
            self.close()
            raise MusterError(f"{path}: cannot record here: {error.strerror}") from None
        except MusterError:
            self.close()
            raise

    def write(self, exchange: Exchange) -> None:
        """Append a line.

        Raises:
            OSError: it could not be written whole; what was written of it is taken back.
        """
        line = msgspec.json.encode(exchange) + b"\n"
        size = os.fstat(self._file).st_size
        written = 0
        try:
            while written < len(line):
                written += os.write(self._file, line[written:])
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._file, size)
            raise

    def close(self) -> None:
        """Let others write to the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _mend_end(self) -> int:
        """Cut off what a killed process left of a line; how many bytes that was."""
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, 0) != b"{":
            raise MusterError(f"{self.path}: this is no cassette; nothing is recorded to it")
        end = self._end_of_lines(size)
        if end == size:
            return 0
        try:
            decode_line(os.pread(self._file, size - end, end))
        except (ValueError, RecursionError):
            os.ftruncate(self._file, end)
            return size - end
        os.write(self._file, b"\n")  # whole after all
        return 0

    def _end_of_lines(self, end: int) -> int:
        while end > 0:
            start = max(0, end - 65536)
            newline = os.pread(self._file, end - start, start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            end = start
        return 0


# --- reading --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Line:
    """An exchange, and the bytes of the file where it stands."""

    exchange: Exchange
    start: int
    length: int


_decoder = msgspec.json.Decoder(Exchange)


def decode_line(line: bytes) -> Exchange:
    """Raises `ValueError` with what is wrong with it."""
    exchange = _decoder.decode(line)
    response = exchange.response
    for data in (
        exchange.request.body,
        response.body,
        *(text for _, text in response.chunks or ()),
    ):
        if isinstance(data, Base64):
            try:
                base64.b64decode(data.base64, validate=True)
            except binascii.Error as error:
                raise ValueError(f"not valid base64: {error}") from None
    for name, value in (*exchange.request.headers.items(), *response.headers.items()):
        if not name or any(mark in name + value for mark in "\r\n\0"):
            raise ValueError("a header that HTTP does not allow")
    return exchange


def recorded_lines(path: Path) -> Iterator[Line]:
    """The exchanges of a cassette, in order.

    Raises:
        ConfigError: the file cannot be read, or a line is no exchange. A last line without its
            end, as a killed process leaves it, is passed over.
    """
    try:
        with path.open("rb") as file:
            start = 0
            for number, line in enumerate(file, 1):
                try:
                    exchange = _exchange(line, path, number) if line.strip() else None
                except ConfigError:
                    if line.endswith(b"\n"):
                        raise
                    return
                if exchange is not None:
                    yield Line(exchange, start, len(line))
                start += len(line)
    except OSError as error:
        raise ConfigError(Problem(f"cannot be read: {error.strerror}", path)) from None


def _exchange(line: bytes, path: Path, number: int) -> Exchange:
    try:
        return decode_line(line)
    except (ValueError, RecursionError) as error:
        message = f"not a line of a cassette: {error}"
        raise ConfigError(Problem(message, path, number)) from None
