"""Examples that people have labelled, for the measurement of a judge: YAML, JSON, JSONL or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from pydantic import Field

from muster.config.document import Document, Place, parse_yaml, read_text, read_yaml
from muster.config.validation import FileModel, validate
from muster.errors import ConfigError, Problem

__all__ = ("Example", "ExampleFile", "Pair", "read_examples")

_PASS = {"pass": 1.0, "passed": 1.0, "true": 1.0, "yes": 1.0, "good": 1.0, "correct": 1.0}
_FAIL = {"fail": 0.0, "failed": 0.0, "false": 0.0, "no": 0.0, "bad": 0.0, "incorrect": 0.0}
_WORDS = _PASS | _FAIL
_SIDES = {"a": "a", "b": "b", "tie": "tie", "same": "tie"}

MAX_PROBLEMS = 20


class _Entry(FileModel):
    """One labelled example."""

    id: Annotated[str, Field(coerce_numbers_to_str=True)] | None = None
    """What reports call it; its number by default."""
    input: Any = ""
    """What was asked."""
    output: Any = None
    """The answer that is labelled."""
    label: Any = None
    """`pass` or `fail`; of a pair `a`, `b` or `tie`."""
    score: Any = None
    """In place of a label: how good the answer is, from 0 to 1."""
    a: Any = None
    """Of a pair: one answer."""
    b: Any = None
    """Of a pair: the other."""
    criteria: str | None = None
    """What to judge this example by, where the judge has no criteria of its own."""
    expected_output: Any = None
    """The right answer."""
    metadata: dict[str, Any] | None = None
    """Anything."""


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """An answer with the score that people give it."""

    id: str
    input: str
    output: str
    score: float
    graded: bool
    """The label is a score, not just pass or fail."""
    criteria: str | None = None
    expected_output: str | None = None


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """Two answers, and which of them people prefer."""

    id: str
    input: str
    a: str
    b: str
    winner: str | None
    """`a`, `b`, `tie`; `None` if nobody said."""
    criteria: str | None = None
    expected_output: str | None = None


class ExampleFile(msgspec.Struct, frozen=True, kw_only=True):
    """What a file of examples holds."""

    path: Path
    examples: tuple[Example, ...]
    pairs: tuple[Pair, ...]
    judge: Mapping[str, Any]
    """The fields of an `llm-grader` that the file says beside its examples."""
    place: Place
    """Where these stand."""


def read_examples(path: Path) -> ExampleFile:
    """The file at `path`.

    Raises:
        ConfigError: with a problem for each mistake, up to 20.
    """
    judge: dict[str, Any] = {}
    place = Place(Document({}, path))
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        rows = list(_table(path, "\t" if suffix == ".tsv" else ","))
    elif suffix in (".jsonl", ".ndjson"):
        rows = list(_lines(path))
    else:
        document = read_yaml(path)
        data, place = document.data, Place(document)
        if isinstance(data, dict):
            judge = {key: value for key, value in data.items() if key != "examples"}
            data, listed = data.get("examples"), place.at("examples")
        else:
            listed = place
        if not isinstance(data, list):
            raise ConfigError(place.problem("expected `examples`: a list of labelled examples"))
        rows = [(listed.at(number), item) for number, item in enumerate(data)]
    if not rows:
        raise ConfigError(Problem("holds no example", path))
    return _checked(path, rows, judge, place)


def _checked(
    path: Path, rows: list[tuple[Place, Any]], judge: dict[str, Any], place: Place
) -> ExampleFile:
    found: list[Example | Pair] = []
    problems: list[Problem] = []
    seen: set[str] = set()
    for number, (where, item) in enumerate(rows, 1):
        try:
            one = _example(item, where, number)
        except ConfigError as error:
            problems += error.problems
            if len(problems) >= MAX_PROBLEMS:
                break
            continue
        if one.id in seen:
            problems.append(where.at("id").problem(f'two examples have the id "{one.id}"'))
        seen.add(one.id)
        found.append(one)
    if problems:
        raise ConfigError(problems)
    return ExampleFile(
        path=path,
        examples=tuple(one for one in found if isinstance(one, Example)),
        pairs=tuple(one for one in found if isinstance(one, Pair)),
        judge=judge,
        place=place,
    )


def _table(path: Path, delimiter: str) -> Iterator[tuple[Place, Any]]:
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), delimiter=delimiter)
    try:
        for row in reader:
            line = reader.line_num
            place = Place(Document(None, path, None, line - 1))
            if None in row or any(value is None for value in row.values()):
                text = f"has not as many columns as the header ({len(reader.fieldnames or ())})"
                raise ConfigError(place.problem(text))
            yield place, {key.strip(): value for key, value in row.items() if value != ""}
    except csv.Error as error:
        raise ConfigError(Problem(f"not a table: {error}", path, reader.line_num)) from None


def _lines(path: Path) -> Iterator[tuple[Place, Any]]:
    for number, line in enumerate(read_text(path).splitlines()):
        if line.strip():
            try:
                msgspec.json.decode(line)
            except msgspec.MsgspecError as error:
                raise ConfigError(Problem(f"not valid JSON: {error}", path, number + 1)) from None
            document = parse_yaml(line, path, line_offset=number)
            yield Place(document), document.data


def _example(item: Any, place: Place, number: int) -> Example | Pair:
    entry = validate(_Entry, item, _seen_as(item, place), place.location)
    name = entry.id or str(number)
    shared: dict[str, Any] = {
        "id": name,
        "input": _text(entry.input),
        "criteria": entry.criteria,
        "expected_output": None if entry.expected_output is None else _text(entry.expected_output),
    }
    if entry.a is not None or entry.b is not None:
        if entry.a is None or entry.b is None or entry.output is not None:
            raise ConfigError(place.problem("a pair has `a` and `b`, and no `output`"))
        winner = _winner(entry.label, place)
        return Pair(a=_text(entry.a), b=_text(entry.b), winner=winner, **shared)
    if entry.output is None:
        raise ConfigError(place.problem('"output" is required, or `a` and `b` for a pair'))
    score, graded = _label(entry, place)
    return Example(output=_text(entry.output), score=score, graded=graded, **shared)


def _seen_as(item: Any, place: Place) -> Document:
    """The document, or for a row of a table, which has none, one that stands for it."""
    document = place.document
    if document.data is None:
        return Document(item, document.path, None, document.line_offset)
    return document


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode() if value is not None else ""


def _winner(label: Any, place: Place) -> str | None:
    if label is None:
        return None
    winner = _SIDES.get(str(label).strip().lower())
    if winner is None:
        raise ConfigError(place.at("label").problem(f'expected a, b or tie, found "{label}"'))
    return winner


def _label(entry: _Entry, place: Place) -> tuple[float, bool]:
    if entry.score is not None:
        if entry.label is not None:
            raise ConfigError(place.problem("has both `label` and `score`; keep one"))
        number = _share(entry.score)
        if number is None:
            text = f"expected a score from 0 to 1, found {entry.score!r}"
            raise ConfigError(place.at("score").problem(text))
        return number, True
    if entry.label is None:
        raise ConfigError(place.problem('"label" is required: pass or fail (or a `score`)'))
    if isinstance(entry.label, bool):
        return float(entry.label), False
    word = str(entry.label).strip().lower()
    if word in _WORDS:
        return _WORDS[word], False
    number = _share(entry.label)
    if number is None:
        text = f'expected pass or fail, or a number from 0 to 1, found "{entry.label}"'
        raise ConfigError(place.at("label").problem(text))
    return number, number not in (0.0, 1.0)


def _share(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if 0 <= number <= 1 else None
