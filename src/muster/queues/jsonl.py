"""Many tasks in a file: one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from muster.errors import ConfigError, Problem, nearest

__all__ = ("NewTask", "read_jsonl")


@dataclass(frozen=True, slots=True)
class NewTask:
    """A task that is to be put in; `None`: as the others."""

    prompt: str
    id: str | None = None
    meta: Mapping[str, str] = field(default_factory=dict)
    max_attempts: int | None = None
    delay: float | None = None


_FIELDS = ("prompt", "id", "meta", "max_attempts", "delay")


def read_jsonl(path: Path) -> list[NewTask]:
    """All lines of a file: `prompt`, and perhaps `id`, `meta`, `max_attempts`, `delay`.

    Raises:
        ConfigError: all that is wrong with them.
    """
    found, problems = [], []
    for number, line in _lines(path):
        try:
            found.append(_row(line))
        except ValueError as error:
            problems.append(Problem(str(error), path, number))
    if problems:
        raise ConfigError(problems)
    return found


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    data = path.read_bytes()
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.strip():
            yield number, line.decode("utf-8", "surrogateescape")


def _row(line: str) -> NewTask:
    try:
        row = json.loads(line)
        line.encode()
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg}, at character {error.pos + 1}") from None
    except UnicodeEncodeError:
        raise ValueError("not UTF-8") from None
    if not isinstance(row, dict):
        raise ValueError(f"expected an object with `prompt`, found {type(row).__name__}")
    for name in row:
        if name not in _FIELDS:
            near = nearest(name, _FIELDS)
            hint = f'did you mean "{near[0]}"?' if near else f"known: {', '.join(_FIELDS)}"
            raise ValueError(f'unknown field "{name}" ({hint})')
    prompt, meta = row.get("prompt"), row.get("meta", {})
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError("prompt: expected a text")
    if not isinstance(meta, dict) or not all(isinstance(value, str) for value in meta.values()):
        raise ValueError("meta: expected an object of texts")
    id, attempts, delay = row.get("id"), row.get("max_attempts"), row.get("delay")
    if id is not None and not isinstance(id, str):
        raise ValueError("id: expected a text")
    if attempts is not None and (type(attempts) is not int or attempts < 1):
        raise ValueError("max_attempts: expected a whole number from 1")
    if delay is not None and (type(delay) not in (int, float) or not 0 <= delay < float("inf")):
        raise ValueError("delay: expected seconds, from 0")
    return NewTask(prompt, id, meta, attempts, delay)
