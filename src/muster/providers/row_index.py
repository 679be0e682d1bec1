"""Rows of a JSON-lines file by key: only the places of the lines are kept in memory."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from muster.errors import ConfigError, Problem
from muster.providers.paths import PathError

__all__ = ("Row", "RowIndex")

_BOM = b"\xef\xbb\xbf"
MAX_PROBLEMS = 20
LONGEST_KEY = 48
"""Characters of a key that is kept as it is; a longer one, a question say, as its digest."""

Key: TypeAlias = str | bytes
Row: TypeAlias = dict[str, Any]


class RowIndex:
    """Finds rows by key. The file is read once to build it, and must not change afterwards."""

    def __init__(
        self, path: Path, key_of: Callable[[Row], str | None], *, torn_end: bool = False
    ) -> None:
        """`key_of(row)` gives a row's key, or `None` for rows to leave out; a `PathError` of it is
        a problem of the line. `torn_end` allows a last line that a killed process did not finish.

        Raises:
            ConfigError: the file cannot be read, or some lines are wrong; each is named.
        """
        self.path = path
        self._starts = array("Q")
        self._sizes = array("Q")
        self._lines = array("Q")
        """Where each row begins, its bytes, and the number of its line."""
        self._rows: dict[Key, int | list[int]] = {}
        self._example: str | None = None
        try:
            self._file = path.open("rb")
        except OSError as error:
            reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
            raise ConfigError(Problem(reason or "cannot be read", path)) from None
        try:
            self._build(key_of, torn_end)
        except BaseException:
            self._file.close()
            raise

    def __len__(self) -> int:
        return len(self._starts)

    def find(self, key: str) -> list[int]:
        """The numbers of the rows with this key, in the file's order."""
        found = self._rows.get(_short(key), [])
        return found if isinstance(found, list) else [found]

    def read(self, number: int) -> Row:
        """Row `number`, read from the file.

        Raises:
            ValueError: the file is no longer what it was.
        """
        data = os.pread(self._file.fileno(), self._sizes[number], self._starts[number])
        row = msgspec.json.decode(data.removeprefix(_BOM))
        if not isinstance(row, dict):
            raise ValueError("the file has changed")
        return row

    def place(self, number: int) -> str:
        """`file:line` of row `number`."""
        return f"{self.path}:{self._lines[number]}"

    def summary(self) -> str:
        """How many rows there are, and what a key looks like, for messages."""
        if self._example is None:
            return "it has no rows"
        shown = self._example if len(self._example) <= 60 else self._example[:57] + "…"
        return f'{len(self):,} rows, e.g. "{shown}"'

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _build(self, key_of: Callable[[Row], str | None], torn_end: bool) -> None:
        problems: list[Problem] = []
        decode = msgspec.json.Decoder().decode
        position = 0
        for line_number, line in enumerate(self._file, 1):
            start, position = position, position + len(line)
            if line.isspace():
                continue
            try:
                key = key_of(_checked(decode(line.removeprefix(_BOM))))
            except (msgspec.DecodeError, PathError) as error:
                if torn_end and not line.endswith(b"\n"):
                    break
                problems.append(Problem(_reason(error), self.path, line_number))
                if len(problems) == MAX_PROBLEMS:
                    break
                continue
            if key is not None:
                self._add(key, start, len(line), line_number)
        if problems:
            raise ConfigError(problems)

    def _add(self, key: str, start: int, size: int, line_number: int) -> None:
        if self._example is None:
            self._example = key
        number = len(self._starts)
        self._starts.append(start)
        self._sizes.append(size)
        self._lines.append(line_number)
        short = _short(key)
        known = self._rows.get(short)
        if known is None:
            self._rows[short] = number
        elif isinstance(known, list):
            known.append(number)
        else:
            self._rows[short] = [known, number]


def _short(key: str) -> Key:
    if len(key) <= LONGEST_KEY:
        return key
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _checked(row: object) -> Row:
    if not isinstance(row, dict):
        raise PathError("not a JSON object")
    return row


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, PathError) else f"not valid JSON: {error}"
