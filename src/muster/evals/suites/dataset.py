"""Where tests come from when they are not written in the suite: files, folders and generators.

`rows_of` takes a reference as a suite writes it and gives a `RowSource`: something to iterate over
any number of times, each time a fresh pass in the same order. JSONL and CSV are read line by line,
so that a data set of any length needs the memory of one row.
"""

from __future__ import annotations

import glob
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Protocol, TypeAlias

import msgspec

from muster.config.document import Document, Location, read_yaml
from muster.errors import ConfigError, Problem, nearest
from muster.evals.suites.dataset_json import JsonDocument, bad_line, read_json

__all__ = ("PROMPTFOO", "OnProblem", "Row", "RowSource", "check_inside", "find_file", "rows_of")

OnProblem: TypeAlias = Callable[[Problem], None]
"""Told of a row that cannot be read; the pass then goes on with the next one."""

_BOM = b"\xef\xbb\xbf"
_GENERATOR = re.compile(r"(?P<file>.+\.py)(?::(?P<function>[A-Za-z_][\w.]*))?\Z")
_SCRIPT = re.compile(r".+\.[cm]?[jt]s(:\w+)?\Z")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
PROMPTFOO = "promptfoo+"
"""Before a reference: what it stands for is written as promptfoo has it."""
_CASE_FILES = ("case.yaml", "case.yml")
_KNOWN = (
    ".jsonl, .json, .yaml, .csv, .tsv, a folder of <name>/case.yaml, a glob, or file.py:function"
)


class Row(msgspec.Struct):
    """One test as it was written: `data`, which stands at `location` in `document`."""

    data: dict[str, Any]
    document: Document
    location: Location
    line: int | None
    """The line it starts on, 1-based; `None` where rows have no lines."""


class RowSource(Protocol):
    """Tests of one data set; every pass gives the same rows in the same order."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that the rows are read from; their content identifies the data set."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was found beside the tests and is not used."""
        ...

    def __iter__(self) -> Iterator[Row]:
        """A fresh pass. Raises `ConfigError` at the first row that cannot be read."""
        ...

    def read(self, on_problem: OnProblem | None = None) -> Iterator[Row]:
        """A fresh pass that tells `on_problem` of rows that cannot be read, and goes on.

        Raises:
            ConfigError: the file as a whole cannot be read; or, without `on_problem`, a row.
        """
        ...


def rows_of(
    ref: str,
    *,
    base_dir: Path,
    project_root: Path,
    safe: bool = False,
    allow_outside: bool = False,
) -> RowSource:
    """The tests that `ref` stands for: `file://` or a bare path to a file, a folder of
    `<name>/case.yaml`, a glob, or `file.py:function`. Relative paths start in `base_dir`.

    Raises:
        ConfigError: it is not there, lies outside `project_root` (unless `allow_outside`), or is
            of an unknown kind.
        MusterError: a generator is refused (`safe`) or fails.
    """
    root = None if allow_outside else project_root
    if ref.startswith(PROMPTFOO):
        from muster.evals.suites.promptfoo_values import PromptfooRows

        rows = rows_of(
            ref.removeprefix(PROMPTFOO),
            base_dir=base_dir,
            project_root=project_root,
            safe=safe,
            allow_outside=allow_outside,
        )
        return PromptfooRows(rows, base_dir, root)
    text = ref.removeprefix("file://")
    if scheme := _SCHEME.match(text):
        raise ConfigError(Problem(f'cannot read tests from "{scheme[1]}://" (known: {_KNOWN})'))
    path = base_dir / text
    if glob.has_magic(text) and not path.exists():
        return _globbed(text, base_dir, root, safe)
    if generator := _GENERATOR.match(text):
        from muster.evals.suites.dataset_python import generated_rows

        script = find_file(base_dir / generator["file"], root)
        return generated_rows(script, generator["function"], safe=safe)
    if _SCRIPT.match(text):
        problem = "JavaScript is not run here; write the generator in Python (file.py:function)"
        raise ConfigError(Problem(problem, path))
    return _source(find_file(path, root), root, safe)


def check_inside(path: Path, root: Path | None) -> None:
    """Refuse a path outside the folder `root`, symbolic links followed; `None` allows all.

    Raises:
        ConfigError: it is outside.
    """
    if root is not None and not path.resolve().is_relative_to(root.resolve()):
        raise ConfigError(Problem(f"is outside the project ({root})", path))


def find_file(path: Path, root: Path | None) -> Path:
    """`path` without its `..`, which must exist inside `root`.

    Raises:
        ConfigError: it is outside, or not there; with the nearest name there is.
    """
    path = Path(os.path.normpath(path))
    check_inside(path, root)
    if path.exists():
        return path
    folder = path.parent
    if not folder.is_dir():
        raise ConfigError(Problem(f"no such file (there is no folder {folder})", path))
    near = nearest(path.name, [entry.name for entry in folder.iterdir()])
    hint = f' (did you mean "{near[0]}"?)' if near else ""
    raise ConfigError(Problem(f"no such file{hint}", path))


def open_lines(path: Path) -> IO[bytes]:
    """The file as bytes, `.gz` unpacked, past a byte order mark."""
    file: Any
    if path.suffix == ".gz":
        import gzip

        file = gzip.open(path)  # noqa: SIM115
    else:
        file = path.open("rb")
    try:
        if file.peek(len(_BOM))[: len(_BOM)] == _BOM:
            file.read(len(_BOM))
    except BaseException:
        file.close()
        raise
    return file  # type: ignore[no-any-return]


def unreadable(path: Path, error: Exception) -> ConfigError:
    """What `open_lines` or reading on raised, said of the file."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return ConfigError(Problem(f"cannot be read: {reason}", path))


UNREADABLE = (OSError, EOFError, zlib.error)


def complain(problem: Problem, on_problem: OnProblem | None) -> None:
    """Tell `on_problem`, or raise when there is nobody to tell."""
    if on_problem is None:
        raise ConfigError(problem)
    on_problem(problem)


# --- which reader ---------------------------------------------------------------------------------


def _source(path: Path, root: Path | None, safe: bool) -> RowSource:
    if path.is_dir():
        return _folder(path, root)
    name = path.name.lower()
    suffix = Path(name.removesuffix(".gz")).suffix
    if suffix in (".jsonl", ".ndjson"):
        return JsonLines(path)
    if suffix in (".csv", ".tsv"):
        from muster.evals.suites.dataset_csv import CsvRows

        return CsvRows(path, delimiter="\t" if suffix == ".tsv" else ",")
    if suffix == ".py":
        from muster.evals.suites.dataset_python import generated_rows

        return generated_rows(path, None, safe=safe)
    if suffix in (".json", ".yaml", ".yml") and not name.endswith(".gz"):
        return _list_file(path)
    if suffix in (".xlsx", ".xls", ".ods"):
        raise ConfigError(Problem("is a spreadsheet; save it as CSV", path))
    raise ConfigError(Problem(f"cannot read tests from this kind of file (known: {_KNOWN})", path))


def _globbed(pattern: str, base_dir: Path, root: Path | None, safe: bool) -> RowSource:
    found = glob.glob(os.path.join(glob.escape(str(base_dir)), pattern), recursive=True)
    files = sorted(path for path in map(Path, found) if path.is_file())
    if not files:
        raise ConfigError(Problem("no file matches", base_dir / pattern))
    return _Chain(tuple(_source(find_file(path, root), root, safe) for path in files))


def _folder(folder: Path, root: Path | None) -> RowSource:
    """Each subfolder with a `case.yaml` is one test."""
    cases: list[Path] = []
    warnings: list[str] = []
    for entry in sorted(folder.iterdir()):
        if not entry.is_dir() or entry.name.startswith("."):
            continue
        here = [entry / name for name in _CASE_FILES if (entry / name).is_file()]
        if not here:
            warnings.append(f"{entry}: holds no case.yaml; not a test")
            continue
        check_inside(here[0], root)
        cases.append(here[0])
        warnings += [f"{other}: not read; {here[0].name} is beside it" for other in here[1:]]
    if not cases:
        raise ConfigError(Problem("holds no test: no <name>/case.yaml in it", folder))
    return _Rows(tuple(cases), tuple(map(_case_file, cases)), tuple(warnings))


# --- JSONL ----------------------------------------------------------------------------------------


class JsonLines(msgspec.Struct, frozen=True):
    """One JSON object a line; blank lines are skipped."""

    path: Path
    warnings: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[Path, ...]:
        """The one file."""
        return (self.path,)

    def __iter__(self) -> Iterator[Row]:
        return self.read()

    def read(self, on_problem: OnProblem | None = None) -> Iterator[Row]:
        """A fresh pass; see `RowSource`."""
        decode = msgspec.json.Decoder().decode
        path = self.path
        try:
            with open_lines(path) as file:
                for number, line in enumerate(file, 1):
                    try:
                        data = decode(line)
                    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                        if not line.isspace():
                            complain(bad_line(path, number, line, error), on_problem)
                        continue
                    if type(data) is not dict:
                        text = f"expected an object (a test), found {_kind(data)}"
                        complain(Problem(text, path, number, 1), on_problem)
                        continue
                    yield Row(data, JsonDocument(data, path, number, line), (), number)
        except UNREADABLE as error:
            raise unreadable(path, error) from error


# --- whole files of tests -------------------------------------------------------------------------


class _Rows(msgspec.Struct, frozen=True):
    """Tests that were read as a whole; in the place of one that cannot be read, its problems."""

    paths: tuple[Path, ...]
    entries: tuple[Row | ConfigError, ...]
    warnings: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Row]:
        return self.read()

    def read(self, on_problem: OnProblem | None = None) -> Iterator[Row]:
        """A fresh pass over the same rows; see `RowSource`."""
        for entry in self.entries:
            if isinstance(entry, Row):
                yield entry
            elif on_problem is None:
                raise entry
            else:
                for problem in entry.problems:
                    on_problem(problem)


class _Chain(msgspec.Struct, frozen=True):
    """Several sources, one after the other."""

    sources: tuple[RowSource, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(path for source in self.sources for path in source.paths)

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(warning for source in self.sources for warning in source.warnings)

    def __iter__(self) -> Iterator[Row]:
        return self.read()

    def read(self, on_problem: OnProblem | None = None) -> Iterator[Row]:
        """A fresh pass; see `RowSource`."""
        for source in self.sources:
            yield from source.read(on_problem)


def _list_file(path: Path) -> RowSource:
    """A YAML or JSON file: a list of tests, a mapping with `tests`, or one test."""
    document = read_json(path) if path.suffix.lower() == ".json" else read_yaml(path)
    data = document.data
    warnings: tuple[str, ...] = ()
    if isinstance(data, dict) and "tests" in data:
        others = sorted(data.keys() - {"tests", "$schema", "name", "description"})
        if others:
            warnings = (f"{path}: only its `tests` are read, not {', '.join(others)}",)
        base: Location = ("tests",)
        data = data["tests"]
    elif isinstance(data, dict):
        return _Rows((path,), (_row(document, (), data),))
    else:
        base = ()
    if not isinstance(data, list):
        problem = document.problem(base, f"expected a list of tests, found {_kind(data)}")
        raise ConfigError(problem)
    rows = tuple(_row(document, (*base, number), item) for number, item in enumerate(data))
    return _Rows((path,), rows, warnings)


def _case_file(path: Path) -> Row | ConfigError:
    """The test of a folder of its own; the folder's name is its id unless it says another."""
    try:
        document = read_yaml(path)
    except ConfigError as error:
        return error
    row = _row(document, (), document.data)
    if isinstance(row, Row) and "id" not in row.data:
        row.data = {"id": path.parent.name, **row.data}
    return row


def _row(document: Document, location: Location, data: Any) -> Row | ConfigError:
    if not isinstance(data, dict):
        text = f"expected a mapping (a test), found {_kind(data)}"
        return ConfigError(document.problem(location, text))
    # In JSON the places are not known until something must be said, and cost a second reading.
    mark = None if isinstance(document, JsonDocument) else document.mark(location)
    return Row(data, document, location, mark.line if mark else None)


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return "text" if isinstance(value, str) else json.dumps(value)
