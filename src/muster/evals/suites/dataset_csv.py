"""CSV and TSV data sets with promptfoo's magic columns, read record by record.

A plain column is a variable of that name. Columns that start with `__` say the rest of the test:
`__expected` and `__expected1`, `__expected2`, … (assertions, see `expected_dsl`), `__description`,
`__prefix`, `__suffix`, `__metric`, `__threshold`, `__metadata:<key>` (`__metadata:<key>[]` for a
list), `__config:__expected:<setting>`, and, of our own, `__id`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import msgspec

from muster.config.document import Document, Mark
from muster.errors import ConfigError, Problem, field_path, nearest
from muster.evals.suites.dataset import UNREADABLE, OnProblem, Row, open_lines, unreadable
from muster.evals.suites.expected_dsl import parse_expected, threshold_field

__all__ = ("CsvRows",)

_MAX_CELL = 2**31 - 1
_PLAIN = ("__id", "__description", "__prefix", "__suffix", "__metric", "__threshold")
_KNOWN = (*_PLAIN, "__expected", "__metadata:<key>", "__config:__expected:threshold")
_SETTINGS = ("threshold", "weight")
_EXPECTED = re.compile(r"__expected(\d*)\Z")
_CONFIG = re.compile(r"__config:(__expected\d*):(\w+)\Z")


class _Header(msgspec.Struct, frozen=True):
    """The columns' names by what they are for; numbers are places in a record."""

    names: tuple[str, ...]
    vars: tuple[tuple[int, str], ...]
    plain: dict[str, int]
    expected: tuple[int, ...]
    metadata: tuple[tuple[int, str, bool], ...]
    """Place, key, and whether it holds a list."""
    config: tuple[tuple[int, str, str], ...]
    """Place, the column that it sets up (`__expected`: all of them), and the setting."""


class _CsvDocument(Document):
    """One record: its places are worked out only when something must be said about a cell."""

    def __init__(
        self,
        path: Path,
        line: int,
        lines: Sequence[str],
        header: _Header,
        delimiter: str,
    ) -> None:
        self.data = {}
        self.path = path
        self.node = None
        self.line_offset = line - 1
        self._lines = lines
        self._header = header
        self._delimiter = delimiter

    def mark(self, location: Sequence[str | int], *, of_key: bool = False) -> Mark | None:
        """Where the cell starts that the value at `location` was made from."""
        column = self._column(location)
        return self.cell(column) if column is not None else Mark(self.line_offset + 1, 1)

    def problem(
        self, location: Sequence[str | int], message: str, *, of_key: bool = False
    ) -> Problem:
        """`message` about a cell, which is called by the name of its column."""
        column = self._column(location)
        if column is not None:
            return self.cell_problem(column, message)
        place = Mark(self.line_offset + 1, 1)
        return Problem(message, self.path, place.line, place.column, field_path(location) or None)

    def cell_problem(self, column: int, message: str) -> Problem:
        """`message` about the cell of that number."""
        mark = self.cell(column)
        return Problem(message, self.path, mark.line, mark.column, self._header.names[column])

    def cell(self, column: int) -> Mark:
        """Where the cell of that number starts, its quotation mark included."""
        text = "".join(self._lines)
        at, quoted, place = 0, False, 0
        while place < column and at < len(text):
            if text[at] == '"':
                quoted = not quoted
            elif text[at] == self._delimiter and not quoted:
                place += 1
            at += 1
        line_start = text.rfind("\n", 0, at) + 1
        return Mark(self.line_offset + 1 + text.count("\n", 0, at), at - line_start + 1)

    def _column(self, location: Sequence[str | int]) -> int | None:
        match tuple(location):
            case ("vars", str(name), *_):
                return next((at for at, known in self._header.vars if known == name), None)
            case ("assert", int(number), *_):
                return self._filled[number] if number < len(self._filled) else None
            case ("metadata", str(key), *_):
                return next((at for at, known, _ in self._header.metadata if known == key), None)
            case ("options", str(name), *_) | (str(name), *_):
                return self._header.plain.get(f"__{name}")
        return None

    @cached_property
    def _filled(self) -> list[int]:
        """The `__expected` columns of this record that are not blank: one assertion each."""
        cells = next(csv.reader(self._lines, delimiter=self._delimiter))
        return [at for at in self._header.expected if cells[at].strip()]


class CsvRows(msgspec.Struct, frozen=True, dict=True):
    """The tests of a CSV file (RFC 4180; the first record names the columns)."""

    path: Path
    delimiter: str = ","

    @property
    def paths(self) -> tuple[Path, ...]:
        """The one file."""
        return (self.path,)

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """Variables whose name looks like a magic column with one underscore missing."""
        with closing(self._records()) as records:
            _, _, header = next(records)
        return tuple(
            f'{self.path}: column "{name}" is a variable; did you mean "_{name}"?'
            for _, name in header.vars
            if name.startswith("_") and (f"_{name}" in _PLAIN or _EXPECTED.match(f"_{name}"))
        )

    def __iter__(self) -> Iterator[Row]:
        return self.read()

    def read(self, on_problem: OnProblem | None = None) -> Iterator[Row]:
        """A fresh pass; see `RowSource`."""
        with closing(self._records()) as records:
            next(records)
            for line, (cells, lines), header in records:
                document = _CsvDocument(self.path, line, lines, header, delimiter=self.delimiter)
                try:
                    document.data = _test(cells, header, document)
                except ConfigError as error:
                    if on_problem is None:
                        raise
                    for problem in error.problems:
                        on_problem(problem)
                    continue
                yield Row(document.data, document, (), line)

    def _records(self) -> Generator[tuple[int, tuple[list[str], list[str]], _Header], None, None]:
        """The line each record starts on, its cells and lines, and the header; the header's own
        record comes first."""
        # The module's limit of 128 kB a cell is smaller than documents that people put in cells.
        csv.field_size_limit(_MAX_CELL)
        line = 1
        try:
            with open_lines(self.path) as file:
                source = _Lines(file, self.path)
                reader = csv.reader(source, delimiter=self.delimiter, strict=True)
                header = None
                for cells in reader:
                    lines, start = source.taken, line
                    source.taken, line = [], reader.line_num + 1
                    if not cells:
                        continue
                    if header is None:
                        header = self._header(cells, lines, start)
                    yield start, (cells, lines), header
        except csv.Error as error:
            text = f"not valid CSV: {error}"
            if "unexpected end of data" in text:
                text = "not valid CSV: a quotation mark that opens in this record is never closed"
            raise ConfigError(Problem(text, self.path, line, 1)) from None
        except UNREADABLE as error:
            raise unreadable(self.path, error) from error
        if header is None:
            raise ConfigError(Problem("is empty; the first line must name the columns", self.path))

    def _header(self, cells: list[str], lines: list[str], line: int) -> _Header:
        names = tuple(cell.strip() for cell in cells)
        document = _CsvDocument(
            self.path, line, lines, _Header(names, (), {}, (), (), ()), delimiter=self.delimiter
        )
        problems: list[Problem] = []
        header = _sort_columns(names, document, problems)
        if problems:
            raise ConfigError(problems)
        return header


class _Lines:
    """A file's lines as text for the csv module; `taken` are those of the record being read."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file = file
        self._path = path
        self.taken: list[str] = []

    def __iter__(self) -> Iterator[str]:
        for number, raw in enumerate(self._file, 1):
            try:
                text = raw.decode()
            except UnicodeDecodeError as error:
                column = len(raw[: error.start].decode()) + 1
                problem = Problem("not UTF-8 text", self._path, number, column)
                raise ConfigError(problem) from None
            self.taken.append(text)
            yield text


def _sort_columns(
    names: tuple[str, ...], document: _CsvDocument, problems: list[Problem]
) -> _Header:
    variables: list[tuple[int, str]] = []
    plain: dict[str, int] = {}
    expected: list[int] = []
    metadata: list[tuple[int, str, bool]] = []
    config: list[tuple[int, str, str]] = []
    for at, name in enumerate(names):
        wrong = None
        if not name:
            wrong = f"column {at + 1} has no name"
        elif name in names[:at]:
            wrong = f'two columns are called "{name}"'
        elif not name.startswith("__"):
            variables.append((at, name))
        elif name in _PLAIN:
            plain[name] = at
        elif _EXPECTED.match(name):
            expected.append(at)
        elif name.startswith("__metadata:") and len(name.removesuffix("[]")) > len("__metadata:"):
            key = name.removeprefix("__metadata:")
            metadata.append((at, key.removesuffix("[]"), key.endswith("[]")))
        elif (setting := _CONFIG.match(name)) and setting[2] in _SETTINGS:
            if setting[1] not in ("__expected", *names):
                wrong = f'sets up the column "{setting[1]}", which is not there'
            config.append((at, setting[1], setting[2]))
        else:
            wrong = _unknown_column(name)
        if wrong is not None:
            problems.append(document.cell_problem(at, wrong))
    return _Header(names, tuple(variables), plain, tuple(expected), tuple(metadata), tuple(config))


def _unknown_column(name: str) -> str:
    if name.replace("_", "").lower() == "provideroutput":
        return "recorded outputs are not read from data sets; use a target of provider: replay"
    if name.startswith("__config:"):
        return f"expected __config:__expected<number>:<setting>, of {' or '.join(_SETTINGS)}"
    if name.startswith("__metadata"):
        return "say which key, for example __metadata:category"
    near = nearest(name, _KNOWN)
    return (
        f"unknown magic column ({f'near: {near[0]}; ' if near else ''}known: {', '.join(_KNOWN)})"
    )


# --- a record as a test ---------------------------------------------------------------------------


def _test(cells: list[str], header: _Header, document: _CsvDocument) -> dict[str, Any]:
    """The test that a record stands for. Raises `ConfigError` with all that is wrong in it."""
    if len(cells) != len(header.names):
        text = f"found {len(cells)} cells where the header has {len(header.names)}"
        raise ConfigError(document.problem((), text))
    problems: list[Problem] = []
    test: dict[str, Any] = {}
    plain = {name: cells[at] for name, at in header.plain.items() if cells[at].strip()}
    for name in ("id", "description"):
        if f"__{name}" in plain:
            test[name] = plain[f"__{name}"].strip()
    test["vars"] = {name: cells[at] for at, name in header.vars}
    test["assert"] = _assertions(cells, header, document, problems)
    if "__metric" in plain:
        for assertion in test["assert"]:
            assertion["metric"] = plain["__metric"].strip()
    if "__threshold" in plain:
        test["threshold"] = _number(header.plain["__threshold"], cells, document, problems)
    metadata = {
        key: _items(cells[at]) if is_list else cells[at]
        for at, key, is_list in header.metadata
        if cells[at].strip()
    }
    if metadata:
        test["metadata"] = metadata
    options = {name: plain[f"__{name}"] for name in ("prefix", "suffix") if f"__{name}" in plain}
    if options:
        test["options"] = options
    if problems:
        raise ConfigError(problems)
    return test


def _assertions(
    cells: list[str], header: _Header, document: _CsvDocument, problems: list[Problem]
) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for at in header.expected:
        if not cells[at].strip():
            continue
        try:
            found[header.names[at]] = parse_expected(cells[at])
        except ValueError as error:
            problems.append(document.cell_problem(at, str(error)))
    # The settings for all columns come first, so that those for one column win.
    for at, column, setting in sorted(header.config, key=lambda item: item[1] != "__expected"):
        if not cells[at].strip():
            continue
        value = _number(at, cells, document, problems)
        for name, assertion in found.items():
            if column in (name, "__expected"):
                field = threshold_field(assertion["type"]) if setting == "threshold" else setting
                assertion[field] = value
    return list(found.values())


def _number(
    at: int, cells: list[str], document: _CsvDocument, problems: list[Problem]
) -> float | None:
    try:
        return float(cells[at])
    except ValueError:
        problems.append(document.cell_problem(at, f'expected a number, found "{cells[at]}"'))
        return None


def _items(text: str) -> list[str]:
    r"""`a, b\,c` as its two items."""
    return [item.replace("\\,", ",").strip() for item in re.split(r"(?<!\\),", text)]
