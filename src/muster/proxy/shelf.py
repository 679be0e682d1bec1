"""The recorded answers: which one a request gets, and what is told when there is none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, Literal

import msgspec

from muster.errors import ConfigError, Problem
from muster.proxy.cassette import Exchange, data_of, decode_line, recorded_lines
from muster.proxy.scrub import Asked

__all__ = ("NotRecorded", "Shelf", "UsedUp")

UsedUp = Literal["error", "last", "again"]
"""What a request gets that is asked more often than it was recorded: an error, the last answer
for ever, or all of them from the first one on."""

MAX_COMPARED = 200
"""Recorded requests that are looked at to find the nearest one."""

MAX_VALUES = 2000
"""Values of a body that are compared."""

MAX_TOLD = 4
EXCERPT = 60

_Key = tuple[str, str, str]


class NotRecorded(Exception):
    """There is no answer for this request; the text says what is nearest."""


@dataclass(slots=True)
class _Recorded:
    """The answers to one request."""

    places: list[tuple[int, int]] = field(default_factory=list)
    """Beginning and length of their lines."""
    taken: int = 0


class Shelf:
    """A cassette's answers. The file's lines are read again when they are needed.

    Raises:
        ConfigError: the file is no cassette.
    """

    def __init__(self, path: Path, *, used_up: UsedUp = "error") -> None:
        self.path = path
        self._used_up = used_up
        self._found: defaultdict[_Key, _Recorded] = defaultdict(_Recorded)
        self._size = 0
        self.to = ""
        """The base URL that the first request was sent to."""
        for line in recorded_lines(path):
            request = line.exchange.request
            key = (request.method, request.path, request.sha256)
            self._found[key].places.append((line.start, line.length))
            self._size += 1
            self.to = self.to or line.exchange.to
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise ConfigError(Problem(f"cannot be read: {error.strerror}", path)) from None

    def __len__(self) -> int:
        return self._size

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def take(self, asked: Asked) -> Exchange:
        """The next answer to this request, in the order in which they were recorded.

        Raises:
            NotRecorded: there is none.
        """
        found = self._found.get((asked.method, asked.path, asked.sha256))
        if found is None:
            raise NotRecorded(self._nearest(asked))
        number = found.taken
        if number >= len(found.places):
            if self._used_up == "error":
                raise NotRecorded(
                    f"{asked.method} {asked.path}{_with_body(asked)} is recorded "
                    f"{_times(len(found.places))}, and was asked once more "
                    "(--used-up says what to do then)"
                )
            number = len(found.places) - 1 if self._used_up == "last" else 0
        found.taken = number + 1
        return self._read(found.places[number])

    def _read(self, place: tuple[int, int]) -> Exchange:
        self._file.seek(place[0])
        try:
            return decode_line(self._file.read(place[1]))
        except (ValueError, RecursionError):
            raise NotRecorded(f"{self.path} was changed while it is replayed") from None

    def _nearest(self, asked: Asked) -> str:
        """What is recorded that looks most like it, and how it differs."""
        if not self._found:
            return f"{asked.method} {asked.path} is not recorded: {self.path} is empty"
        told = f"{asked.method} {asked.path}{_with_body(asked)} is not recorded in {self.path}. "
        same = [key for key in self._found if key[:2] == (asked.method, asked.path)]
        if not same:
            names = {f"{method} {path}" for method, path, _ in self._found}
            near = max(names, key=lambda name: _alike(name, f"{asked.method} {asked.path}"))
            return f"{told}The nearest request is {near}"
        compared = [(self._read(self._found[key].places[0]), key) for key in same[:MAX_COMPARED]]
        ranked = [(differences(_body_of(exchange), asked), exchange) for exchange, _ in compared]
        found, exchange = min(ranked, key=lambda pair: len(pair[0]))
        more = f"; and {len(found) - MAX_TOLD} more" if len(found) > MAX_TOLD else ""
        return f"{told}The nearest one, of {exchange.at}, differs in " + (
            "; ".join(found[:MAX_TOLD]) + more
        )


def _body_of(exchange: Exchange) -> Any:
    request = exchange.request
    if isinstance(request.json, msgspec.Raw):
        return msgspec.json.decode(request.json)
    return data_of(request.body)


def differences(recorded: Any, asked: Asked) -> list[str]:
    """Where two bodies differ, each place with both values."""
    if isinstance(recorded, bytes) or not asked.is_json:
        kinds = (
            ("no JSON" if isinstance(recorded, bytes) else "JSON"),
            ("JSON" if asked.is_json else "no JSON"),
        )
        if kinds[0] != kinds[1]:
            return [f"the body: recorded {kinds[0]}, asked {kinds[1]}"]
        return ["the body's bytes"]
    old, new = dict(_values(recorded)), dict(_values(asked.json))
    places = [*old, *(place for place in new if place not in old)]
    return [
        f"{place or 'the body'}: recorded {_shown(old, place)}, asked {_shown(new, place)}"
        for place in places
        if old.get(place, _MISSING) != new.get(place, _MISSING)
    ] or ["values beyond those that are compared"]


def _with_body(asked: Asked) -> str:
    return " with this body" if asked.body else ""


_MISSING = object()


def _values(value: Any) -> Iterator[tuple[str, Any]]:
    """Every value that holds no others, with the place where it stands; a bounded number."""
    waiting: list[tuple[str, Any]] = [("", value)]
    for _ in range(MAX_VALUES):
        if not waiting:
            return
        place, item = waiting.pop()
        if isinstance(item, dict) and item:
            inner = [(f"{place}.{key}" if place else str(key), each) for key, each in item.items()]
            waiting += reversed(inner)
        elif isinstance(item, list) and item:
            waiting += reversed([(f"{place}[{i}]", each) for i, each in enumerate(item)])
        else:
            yield place, item


def _shown(values: dict[str, Any], place: str) -> str:
    if place not in values:
        return "nothing"
    text = msgspec.json.encode(values[place]).decode()
    return text if len(text) <= EXCERPT else f"{text[:EXCERPT]}…"


def _alike(one: str, other: str) -> float:
    return SequenceMatcher(None, one[:500], other[:500]).ratio()


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
