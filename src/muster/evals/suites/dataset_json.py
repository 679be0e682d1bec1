"""JSON files and lines as documents: decoded fast, with places found when one is asked for."""

from __future__ import annotations

import json
import re
from functools import cached_property
from pathlib import Path
from typing import Any

from muster.config.document import Document, parse_yaml, read_text, read_yaml
from muster.errors import ConfigError, Problem

__all__ = ("JsonDocument", "bad_line", "read_json")

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
"""YAML has no surrogate pairs; six other characters in their place keep the columns right."""


class JsonDocument(Document):
    """JSON whose places are looked up only when something must be said about a value."""

    def __init__(self, data: Any, path: Path | None, line: int, raw: bytes) -> None:
        # Not the dataclass's own: `node` is found on demand here.
        self.data = data
        self.path = path
        self.line_offset = line - 1
        self._raw = raw

    @cached_property
    def node(self) -> Any:
        """The row as YAML nodes, which JSON nearly is; `None` where it is not."""
        try:
            return parse_yaml(_SURROGATE.sub("______", self._raw.decode())).node
        except (ConfigError, RecursionError):
            return None


def bad_line(path: Path, number: int, line: bytes, error: Exception) -> Problem:
    """Why the line could not be decoded; `error` is what msgspec raised."""
    try:
        text = line.decode().rstrip("\r\n")
    except UnicodeDecodeError as bad:
        column = len(line[: bad.start].decode()) + 1
        return Problem("not UTF-8 text", path, number, column)
    message = str(error)
    if isinstance(error, RecursionError):
        return Problem("not valid JSON: nested too deeply", path, number)
    place = re.search(r" \(byte (\d+)\)\Z", message)
    if place is None:
        return Problem("not valid JSON: the line ends too early", path, number, len(text) + 1)
    message = message[: place.start()].removeprefix("JSON is malformed: ")
    column = len(line[: int(place[1])].decode(errors="replace")) + 1
    return Problem(f"not valid JSON: {message}", path, number, column)


class _DuplicateKey(Exception):
    """A JSON object names a key twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise _DuplicateKey(next(name for name in names if names.count(name) > 1))
    return found


def read_json(path: Path) -> Document:
    """A JSON file.

    Raises:
        ConfigError: it is not there, not UTF-8, not JSON, or an object names a key twice.
    """
    text = read_text(path)
    try:
        data = json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        problem = Problem(f"not valid JSON: {error.msg}", path, error.lineno, error.colno)
        raise ConfigError(problem) from None
    except _DuplicateKey as error:
        read_yaml(path)  # raises, naming the place
        raise ConfigError(Problem(f'duplicate key "{error}"', path)) from None
    except RecursionError:
        raise ConfigError(Problem("not valid JSON: nested too deeply", path)) from None
    return JsonDocument(data, path, 1, text.encode())
