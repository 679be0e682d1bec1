"""Graders of XML: `is-xml` and `contains-xml`.

An XML parser reads it. Nothing is fetched, and a document type with declarations of its own, by
which a small text can grow without bound, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar
from xml.parsers import expat

from pydantic import AliasChoices, BeforeValidator, Field

from muster.config.validation import FileModel
from muster.evals.graders.base import Assertion, GradeContext, GraderError, GraderSpec, Score

__all__ = ("ContainsXml", "IsXml")

MAX_DEPTH = 200
"""How deep elements may be nested."""

MAX_READ = 20_000_000
"""Letters that are read again, in looking for elements in a text."""

_TAG = re.compile(r"<[^\W\d]")


def _as_paths(value: Any) -> Any:
    """promptfoo's forms: one line with commas, or `{requiredElements: […]}`."""
    if isinstance(value, Mapping) and value.keys() == {"requiredElements"}:
        value = value["requiredElements"]
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
    return value


_Path = Annotated[str, Field(pattern=r"^[^.\s]+([.][^.\s]+)*$")]


class _Settings(FileModel):
    elements: Annotated[list[_Path] | None, Field(min_length=1), BeforeValidator(_as_paths)] = (
        Field(None, validation_alias=AliasChoices("elements", "value"))
    )
    """Elements that must be there, each by its path from the outermost: `report.summary`."""


class _Whole(Exception):
    """The outermost element has ended."""


class _Elements:
    """Reads XML, and keeps the paths of its elements."""

    def __init__(self, *, first_only: bool = False) -> None:
        self.paths: set[str] = set()
        self.end: int | None = None
        """Where the outermost element's closing tag begins, or it ends if it is empty; in bytes."""
        self._open: list[str] = []
        self._first_only = first_only
        self._parser = expat.ParserCreate("utf-8")
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._ended
        self._parser.StartDoctypeDeclHandler = self._doctype

    def read(self, data: bytes) -> None:
        """Raises `ValueError` when it is not XML."""
        try:
            self._parser.Parse(data, True)
        except expat.ExpatError as error:
            told = expat.ErrorString(error.code)
            raise ValueError(f"line {error.lineno}, column {error.offset + 1}: {told}") from None
        except _Whole:
            return

    @property
    def reached(self) -> int:
        """How many bytes were read."""
        return max(self._parser.CurrentByteIndex, 0)

    def _start(self, name: str, _attributes: Mapping[str, str]) -> None:
        if len(self._open) == MAX_DEPTH:
            raise ValueError("nested too deeply")
        path = f"{self._open[-1]}.{name}" if self._open else name
        self._open.append(path)
        self.paths.add(path)

    def _ended(self, _name: str) -> None:
        self._open.pop()
        if not self._open and self._first_only:
            self.end = self._parser.CurrentByteIndex
            raise _Whole

    def _doctype(self, _name: str, _system: str | None, _public: str | None, own: bool) -> None:
        if own:
            raise ValueError("a document type with declarations of its own is not read")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")


class IsXml:
    """The whole answer is one XML document, with all the elements that are wanted."""

    Settings: ClassVar[type[FileModel]] = _Settings
    __slots__ = ("_wanted",)

    def __init__(self, spec: GraderSpec) -> None:
        self._wanted = _Settings.model_validate(spec.config).elements or ()

    def __call__(self, context: GradeContext) -> Score:
        try:
            paths = self._read(context.output)
        except ValueError as error:
            return Score(0.0, (Assertion(f"Output {self._says(False)}", False, str(error)),))
        found = [Assertion(f"Output {self._says(True)}", True)]
        missing = [path for path in self._wanted if path not in paths]
        if missing:
            found.append(Assertion(f"XML lacks {', '.join(missing)}", False))
        elif self._wanted:
            found.append(Assertion(f"XML has {', '.join(self._wanted)}", True))
        return Score(float(not missing), tuple(found))

    def _read(self, text: str) -> set[str]:
        elements = _Elements()
        elements.read(_bytes(text.strip()))
        return elements.paths

    def _says(self, holds: bool) -> str:
        return f"is {'' if holds else 'not '}well-formed XML"


class ContainsXml(IsXml):
    """Somewhere in the answer are XML elements, and among them all those that are wanted."""

    __slots__ = ()

    def _read(self, text: str) -> set[str]:
        found = set().union(*_outermost(text))
        if not found:
            raise ValueError("no element that is closed")
        return found

    def _says(self, holds: bool) -> str:
        return "contains XML" if holds else "contains no XML"


def _outermost(text: str) -> Iterator[set[str]]:
    """The paths of each element in the text that is closed and stands in no other such.

    Raises:
        GraderError: it would take too long to look.
    """
    at, again = 0, 0
    while (tag := _TAG.search(text, at)) is not None:
        data = _bytes(text[tag.start() :])
        elements = _Elements(first_only=True)
        at = tag.end()
        try:
            elements.read(data)
        except ValueError:
            again += elements.reached + len(data) // 100
            if again > MAX_READ:
                raise GraderError("the answer has too many tags that are not closed") from None
            continue
        yield elements.paths
        end = elements.end or 0
        if data.startswith(b"</", end):  # told is where a closing tag begins
            end = data.index(b">", end) + 1
        at = tag.start() + len(data[:end].decode("utf-8"))
