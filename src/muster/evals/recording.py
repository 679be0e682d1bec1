"""`records.jsonl`: every exchange of a run with its targets and judges, one line each.

Appended in one write as each exchange ends, before the result that it led to; a line that a killed
process did not finish is cut off when the run goes on.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from muster.config.secrets import Masker
from muster.errors import MusterError
from muster.evals.results import each_text, masked_texts, whole_text

__all__ = ("Recorder",)

RECORDS_FILE = "records.jsonl"

_encode = msgspec.json.Encoder(enc_hook=str).encode
_BLOCK = 1 << 16


class Recorder:
    """Appends exchanges to a run's folder, once it is opened."""

    def __init__(self) -> None:
        self._fd = -1
        self._path = Path()
        self._masker: Masker | None = None
        self._failure: MusterError | None = None

    def open(self, folder: Path, masker: Masker) -> None:
        """Write to `folder` from now on, with the secrets that `masker` knows masked.

        Raises:
            MusterError: the file cannot be written.
        """
        self._path = folder / RECORDS_FILE
        self._masker = masker or None
        try:
            # What was said may be private: others of this machine need not read it.
            self._fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            _cut_torn_end(self._fd)
        except OSError as error:
            raise MusterError(f"{self._path}: cannot be written: {error.strerror}") from error

    def note(self, row: dict[str, Any]) -> None:
        """Put one exchange on disk. A disk that does not take it is told by `check`: the answer
        that was paid for is not thrown away."""
        if self._fd < 0 or self._failure is not None:
            return
        try:
            line = self._line(row) + b"\n"
            written = os.write(self._fd, line)
            while written < len(line):
                line = line[written:]
                written = os.write(self._fd, line)
        except OSError as error:
            self._failure = MusterError(f"{self._path}: cannot be written: {error.strerror}")

    def check(self) -> None:
        """Raise `MusterError` when an exchange could not be written."""
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Flush to the disk itself."""
        if self._fd >= 0:
            with suppress(OSError):
                os.fsync(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _line(self, row: dict[str, Any]) -> bytes:
        try:
            line = _encode(row)
        except UnicodeEncodeError:  # half a surrogate pair
            row = each_text(msgspec.to_builtins(row, enc_hook=str), whole_text)
            line = _encode(row)
        if self._masker is not None and self._masker.found_in(line):
            line = _encode(masked_texts(msgspec.json.decode(line), self._masker))
        return line


def _cut_torn_end(descriptor: int) -> None:
    """Take off what stands after the last line break."""
    size = end = os.fstat(descriptor).st_size
    while end > 0:
        start = max(0, end - _BLOCK)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            end = start + found + 1
            break
        end = start
    if end < size:
        os.ftruncate(descriptor, end)
