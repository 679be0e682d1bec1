"""Tests made by a Python function: `file.py:function`, sync or async, a generator or not.

The function runs once; what it gives is written to a temporary JSONL file, from which every pass
reads. So passes repeat exactly, whatever the function does, and memory stays flat.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import itertools
import os
import tempfile
import weakref
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from muster.config.document import Document, Mark
from muster.errors import ConfigError, MusterError, Problem, field_path, nearest
from muster.evals.suites.dataset import OnProblem, Row
from muster.importing import CodeError, describe_failure, import_file

__all__ = ("DEFAULT_FUNCTION", "generated_rows")

DEFAULT_FUNCTION = "generate_tests"
"""What a `file.py` without a function's name means, as in promptfoo."""


def generated_rows(path: Path, function: str | None, *, safe: bool) -> GeneratedRows:
    """Run the function once and keep what it gives.

    Raises:
        MusterError: refused (`safe`), no such function, or it fails, with file, line and error.
        ConfigError: what it gives are not tests.
    """
    name = function or DEFAULT_FUNCTION
    if safe:
        raise MusterError(f"--safe refuses the data set {path}:{name}: it would run Python code")
    make = _function(path, name)
    code = getattr(inspect.unwrap(make), "__code__", None)
    origin = _Origin(path, name, code.co_firstlineno if code is not None else None)
    descriptor, spool = tempfile.mkstemp(prefix="muster-", suffix=".jsonl")
    rows = GeneratedRows(origin, Path(spool))
    weakref.finalize(rows, _remove, spool)
    number = itertools.count()
    with os.fdopen(descriptor, "wb") as file:
        _each(make, origin, lambda item: file.write(_encoded(item, origin, next(number))))
    return rows


class _Origin(msgspec.Struct, frozen=True):
    """The function that made a row."""

    path: Path
    function: str
    line: int | None

    def problem(self, message: str, number: int | None = None, field: str = "") -> Problem:
        """`message` about the function, or about the row of that number, from 0."""
        place = f"{self.function}()" if number is None else f"{self.function}()[{number}]"
        place = f"{place}.{field}" if field else place
        return Problem(message, self.path, self.line, 1 if self.line else None, place)


class _GeneratedDocument(Document):
    """A row that a function made: its place is the function, and the row's number."""

    def __init__(self, data: Any, origin: _Origin, number: int) -> None:
        super().__init__(data, origin.path)
        self._origin = origin
        self._number = number

    def mark(self, location: Any, *, of_key: bool = False) -> Mark | None:
        """Where the function starts."""
        return Mark(self._origin.line, 1) if self._origin.line else None

    def problem(self, location: Any, message: str, *, of_key: bool = False) -> Problem:
        """`message` about the value at `location` of the row."""
        return self._origin.problem(message, self._number, field_path(location))


class GeneratedRows:
    """The rows that a function gave, kept in a temporary file as long as this object lives."""

    def __init__(self, origin: _Origin, spool: Path) -> None:
        self._origin = origin
        self._spool = spool

    @property
    def paths(self) -> tuple[Path, ...]:
        """The file with the function, and the temporary file with what it gave."""
        return (self._origin.path, self._spool)

    @property
    def warnings(self) -> tuple[str, ...]:
        """None."""
        return ()

    def __iter__(self) -> Iterator[Row]:
        return self.read()

    def read(self, on_problem: OnProblem | None = None) -> Iterator[Row]:
        """A fresh pass; every row was found readable when it was made."""
        decode = msgspec.json.Decoder().decode
        with self._spool.open("rb") as file:
            for number, line in enumerate(file):
                data = decode(line)
                yield Row(data, _GeneratedDocument(data, self._origin, number), (), None)


def _remove(spool: str) -> None:
    Path(spool).unlink(missing_ok=True)


def _function(path: Path, name: str) -> Callable[[], Any]:
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    module = import_file(path, name=f"_muster_dataset_{digest}_{path.stem}")
    found: Any = module
    for step in name.split("."):
        found = getattr(found, step, None)
    if callable(found):
        return found  # type: ignore[no-any-return]
    functions = [key for key, value in vars(module).items() if inspect.isfunction(value)]
    near = nearest(name, functions)
    hint = f"near: {near[0]}" if near else f"functions: {', '.join(functions) or 'none'}"
    raise CodeError(f'{path}: there is no function "{name}" ({hint})')


def _each(make: Callable[[], Any], origin: _Origin, accept: Callable[[Any], object]) -> None:
    """Call `accept` with everything that the function gives; its failure is a `CodeError`."""
    try:
        found = make()
        if inspect.isawaitable(found) or isinstance(found, AsyncIterable):
            found = _run(found, accept)
        if isinstance(found, str | bytes | dict) or not isinstance(found, Iterable):
            text = f"must give the tests one by one (a list or an iterator), not {_kind(found)}"
            raise ConfigError(origin.problem(text))
        for item in found:
            accept(item)
    except MusterError:
        raise
    except Exception as error:
        raise CodeError(describe_failure(error, path=origin.path)) from error


def _run(found: Any, accept: Callable[[Any], object]) -> Any:
    """Await the function, which may give its tests as an async iterator or as anything else; on a
    thread of its own, since a loop may run in this one."""

    async def consume() -> Any:
        value = await found if inspect.isawaitable(found) else found
        if not isinstance(value, AsyncIterable):
            return value
        async for item in value:
            accept(item)
        return ()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, consume()).result()


def _encoded(item: Any, origin: _Origin, number: int) -> bytes:
    if not isinstance(item, dict):
        text = f"expected a dict (a test), found {_kind(item)}"
        raise ConfigError(origin.problem(text, number))
    try:
        return msgspec.json.encode(item) + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        text = f"cannot be written as JSON: {error}"
        raise ConfigError(origin.problem(text, number)) from None


def _kind(value: object) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"
