"""YAML and JSON files as plain data, with the line and column of every value kept.

Scalars follow YAML 1.2's core schema: only `true` and `false` are booleans (`yes`, `no`, `on` and
`off` are text), dates stay text. Duplicate keys are errors. The parser is libyaml's; its nodes are
kept, and places are looked up in them only when something has to be said about a value.

What would exhaust memory or the stack is refused: aliases that unfold without end, and nesting
deeper than anybody writes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import yaml

from muster.errors import ConfigError, Problem, field_path

__all__ = (
    "Document",
    "Location",
    "Mark",
    "Place",
    "parse_documents",
    "parse_yaml",
    "read_text",
    "read_yaml",
    "read_yaml_documents",
)

_STR = "tag:yaml.org,2002:str"
_MERGE = "tag:yaml.org,2002:merge"
_PLAIN = "plain"
"""Our tag of scalars with neither quotes nor a tag: they are what YAML 1.2 says."""

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]
    """libyaml's nodes, without PyYAML's reading of scalars, which is YAML 1.1's."""

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: tuple[bool, bool]) -> str:
        if kind is not yaml.ScalarNode:
            return ""
        if implicit[0]:
            return _MERGE if value == "<<" else _PLAIN
        return _STR


Location: TypeAlias = tuple[str | int, ...]

MAX_VALUES = 5_000_000
"""Values that a document may unfold to through its aliases ("billion laughs")."""

MAX_DEPTH = 100
"""Levels of lists and mappings within each other."""

_MANY_BRACKETS = 10_000
"""libyaml recurses over nested values; from some ten thousand levels up it overruns the C stack."""

_INLINE_LISTS = re.compile(rf"^(?: *[-?] ){{{MAX_DEPTH}}}", re.MULTILINE)

_INT = re.compile(r"[-+]?[0-9]+\Z")
_OCTAL_HEX = re.compile(r"0o[0-7]+\Z|0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("bool", "float", "int", "null"))
_WORDS: dict[str, object] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
}


class Mark(msgspec.Struct, frozen=True):
    """A place in a file, 1-based."""

    line: int
    column: int


@dataclass
class Document:
    """A parsed file: its data, and where each value stands. `path` is `None` for data made in
    memory; `line_offset` is added to lines (a JSONL row is a document of its own)."""

    data: Any
    path: Path | None = None
    node: Any = None
    line_offset: int = 0

    def mark(self, location: Sequence[str | int], *, of_key: bool = False) -> Mark | None:
        """Where the value at `location` stands, or the nearest value around it that is there.
        With `of_key`, where its key stands."""
        node, place = self.node, self.node
        for step in location:
            entry = self._children(node).get(step)
            if entry is None:
                break
            key, node = entry
            place = key if of_key and key is not None else node
        if place is None:
            return Mark(1 + self.line_offset, 1) if self.path is not None else None
        start = place.start_mark
        return Mark(start.line + 1 + self.line_offset, start.column + 1)

    def problem(
        self, location: Sequence[str | int], message: str, *, of_key: bool = False
    ) -> Problem:
        """`message` about the value at `location`, with file, line, column and field."""
        mark = self.mark(location, of_key=of_key)
        return Problem(
            message,
            path=self.path,
            line=mark.line if mark else None,
            column=mark.column if mark else None,
            field=field_path(location) or None,
        )

    @cached_property
    def _children_of(self) -> dict[int, dict[str | int, tuple[Any, Any]]]:
        return {}

    def _children(self, node: Any) -> dict[str | int, tuple[Any, Any]]:
        """`{step: (key node, value node)}`, remembered a node: many problems in one long list
        must not walk it again and again."""
        known = self._children_of.get(id(node))
        if known is not None:
            return known
        found: dict[str | int, tuple[Any, Any]] = {}
        if isinstance(node, yaml.MappingNode):
            merged: dict[str | int, tuple[Any, Any]] = {}
            for key, value in node.value:
                if key.tag == _MERGE:
                    sources = value.value if isinstance(value, yaml.SequenceNode) else [value]
                    for source in reversed(sources):
                        merged |= self._children(source)
                else:
                    found[str(key.value)] = (key, value)
            found = merged | found
        elif isinstance(node, yaml.SequenceNode):
            found = {index: (None, value) for index, value in enumerate(node.value)}
        self._children_of[id(node)] = found
        return found


class Place(msgspec.Struct, frozen=True):
    """Where a value stands: a document, and the way to the value in it."""

    document: Document
    location: Location = ()

    def at(self, *steps: str | int) -> Place:
        """The place of a value within this one."""
        return Place(self.document, (*self.location, *steps))

    def problem(self, message: str, *, of_key: bool = False) -> Problem:
        """`message` about the value here; with `of_key`, about its key."""
        return self.document.problem(self.location, message, of_key=of_key)


def read_text(path: Path) -> str:
    """The text of a user's file.

    Raises:
        ConfigError: it is not there, is a folder, or is not UTF-8 (with the line).
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(Problem("no such file", path)) from None
    except OSError as error:
        raise ConfigError(Problem(f"cannot be read: {error.strerror}", path)) from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(Problem("not UTF-8 text", path, line)) from error


def read_yaml(path: Path) -> Document:
    """A YAML (or JSON) file of one document. Raises `ConfigError` with line and column."""
    text = read_text(path)
    return parse_yaml(_json_as_yaml(text) if path.suffix == ".json" else text, path)


def read_yaml_documents(path: Path) -> list[Document]:
    """All documents of a YAML (or JSON) file, separated by `---`; empty ones are left out.

    Raises:
        ConfigError: with line and column, as `read_yaml`.
    """
    text = read_text(path)
    return parse_documents(_json_as_yaml(text) if path.suffix == ".json" else text, path)


# A pair of \uXXXX escapes for one character beyond U+FFFF, not preceded by an escaping backslash.
_SURROGATES = re.compile(
    r"(?<!\\)((?:\\\\)*)\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})"
)


def _json_as_yaml(text: str) -> str:
    """JSON that libyaml reads: no tabs at the start of lines, no surrogate pairs."""

    def character(match: re.Match[str]) -> str:
        high, low = int(match[2], 16) - 0xD800, int(match[3], 16) - 0xDC00
        return f"{match[1]}\\U{0x10000 + (high << 10) + low:08x}"

    text = re.sub(r"^[\t ]+", lambda match: " " * len(match[0]), text, flags=re.MULTILINE)
    return _SURROGATES.sub(character, text) if "\\u" in text else text


def parse_yaml(text: str, path: Path | None = None, *, line_offset: int = 0) -> Document:
    """Parse `text`; `path` and `line_offset` only serve the messages.

    Raises:
        ConfigError: a syntax error, a duplicate key, aliases that unfold without end, or more
            than 100 levels of nesting.
    """
    (node,) = _nodes(text, path, line_offset, many=False)
    return _document(node, path, line_offset)


def parse_documents(text: str, path: Path | None = None) -> list[Document]:
    """As `parse_yaml`, for a text of any number of documents; empty ones are left out."""
    nodes = _nodes(text, path, 0, many=True)
    documents = [_document(node, path, 0) for node in nodes]
    return [document for document in documents if document.data is not None]


def _nodes(text: str, path: Path | None, line_offset: int, *, many: bool) -> list[Any]:
    try:
        if _may_nest_deeply(text):
            _check_depth(text, path, line_offset)
        loader = _Loader(text)
        try:
            if not many:
                return [loader.get_single_node()]
            nodes = []
            while loader.check_node():
                nodes.append(loader.get_node())
            return nodes
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise ConfigError(_syntax_problem(error, text, path, line_offset)) from error


def _document(node: Any, path: Path | None, line_offset: int) -> Document:
    builder = _Builder(path, line_offset)
    data = builder.build(node) if node is not None else None
    if builder.problems:
        raise ConfigError(builder.problems)
    return Document(data, path, node, line_offset)


def _may_nest_deeply(text: str) -> bool:
    """A quick look: False for nearly all texts, however long."""
    if text.count("[") + text.count("{") > _MANY_BRACKETS:
        depth = 0
        for bracket in re.findall(r"[\[\]{}]", text):
            depth += 1 if bracket in "[{" else -1
            if depth > _MANY_BRACKETS:
                return True
    return _INLINE_LISTS.search(text) is not None


def _check_depth(text: str, path: Path | None, line_offset: int) -> None:
    """Raise `ConfigError` if the text nests too deeply; events come without recursion."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                mark: Any = event.start_mark
                place = mark.line + 1 + line_offset, mark.column + 1
                raise ConfigError(Problem(_TOO_DEEP, path, *place))
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


_TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep"


class _Builder:
    """Data from nodes; aliases to one anchor share one object."""

    def __init__(self, path: Path | None, line_offset: int) -> None:
        self.path = path
        self.line_offset = line_offset
        self.problems: list[Problem] = []
        self._done: dict[int, tuple[Any, int]] = {}
        self._open: set[int] = set()

    def build(self, node: Any) -> Any:
        return self._build(node)[0]

    def _build(self, node: Any) -> tuple[Any, int]:
        """The value and how many values it unfolds to."""
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node), 1
        known = self._done.get(id(node))
        if known is not None:
            return known
        if id(node) in self._open:
            self._complain(node, "an anchor that contains itself")
            return None, 1
        if len(self._open) == MAX_DEPTH:
            self._complain(node, _TOO_DEEP)
            return None, 1
        self._open.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            parts = [self._build(item) for item in node.value]
            result: tuple[Any, int] = [part[0] for part in parts], 1 + sum(p[1] for p in parts)
        else:
            result = self._mapping(node)
        self._open.discard(id(node))
        if result[1] > MAX_VALUES:
            if not self.problems:
                self._complain(node, f"aliases unfold to more than {MAX_VALUES:,} values")
            result = (None, 1)
        self._done[id(node)] = result
        return result

    def _mapping(self, node: Any) -> tuple[dict[Any, Any], int]:
        own: dict[Any, Any] = {}
        merged: dict[Any, Any] = {}
        size = 1
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                size += self._merge(value_node, merged)
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self._complain(key_node, "a key must be text")
                continue
            key = key_node.value  # keys are names: `1:` and `on:` stay text
            if key in own:
                self._complain(key_node, f'duplicate key "{key}"')
                continue
            own[key], count = self._build(value_node)
            size += count
        return ({**merged, **own} if merged else own), size

    def _merge(self, node: Any, into: dict[Any, Any]) -> int:
        size = 0
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for source in reversed(sources):
            value, count = self._build(source)
            size += count
            if isinstance(value, dict):
                into.update(value)
            else:
                self._complain(source, "`<<` takes a mapping")
        return size

    def _complain(self, node: Any, message: str) -> None:
        mark = node.start_mark
        self.problems.append(
            Problem(message, self.path, mark.line + 1 + self.line_offset, mark.column + 1)
        )


def _scalar(node: Any) -> Any:
    text = node.value
    if node.tag != _PLAIN and node.tag not in _TAGS:
        return text
    if text in _WORDS:
        return _WORDS[text]
    first = text[0]
    if first in "0123456789-+.":
        if _INT.match(text):
            return int(text) if len(text) < 4000 else text
        if _FLOAT.match(text):
            return float(text)
        if _OCTAL_HEX.match(text):
            return int(text, 0)
    return text


def _syntax_problem(
    error: yaml.YAMLError, text: str, path: Path | None, line_offset: int
) -> Problem:
    mark = getattr(error, "problem_mark", None)
    message = getattr(error, "problem", None) or str(error)
    context = getattr(error, "context", None)
    if mark is None:
        return Problem(f"not valid YAML: {message}", path)
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    if "\t" in line[: mark.column + 1] and line[: mark.column + 1].strip(" \t-") == "":
        message = "a tab is used to indent; YAML allows only spaces there"
    elif context:
        message = f"{message} ({context})"
    return Problem(f"not valid YAML: {message}", path, mark.line + 1 + line_offset, mark.column + 1)
