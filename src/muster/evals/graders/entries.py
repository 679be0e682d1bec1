"""An entry of an `assertions` list: where it stands, its common fields, its automatic name."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from pydantic import BaseModel

from muster.config.document import Document, Location
from muster.errors import Problem
from muster.evals.graders.text import clip

__all__ = (
    "COMMON_FIELDS",
    "Common",
    "EntryPlace",
    "automatic_name",
    "field_names",
    "read_common",
    "shown",
    "with_more",
)

COMMON_FIELDS = ("type", "name", "metric", "weight", "required", "min_score", "negate")
"""The fields that every entry may have; the others belong to the grader."""


class EntryPlace(NamedTuple):
    """Where a list or an entry stands; `chain` are the templates that lead there."""

    document: Document
    location: Location
    base_dir: Path
    chain: tuple[tuple[str, Path], ...] = ()

    def problem(self, message: str, *steps: str | int, of_key: bool = False) -> Problem:
        """`message` about the value that `steps` lead to from here."""
        return self.document.problem((*self.location, *steps), message, of_key=of_key)

    @property
    def test_id(self) -> str:
        """The id of the test around this place, or the name of the suite or file."""
        found = self.document.path.name if self.document.path else "suite"
        data = self.document.data
        for step in ((), *self.location):
            data = data if step == () else data[step]
            if isinstance(data, Mapping):
                found = str(data.get("id", data.get("name", found)))
        return found


class Common(msgspec.Struct, frozen=True):
    """The common fields of an entry."""

    name: str | None = None
    weight: float = 1.0
    required: bool = False
    min_score: float | None = None
    negate: bool = False


def read_common(
    entry: Mapping[str, Any], place: EntryPlace, problems: list[Problem], warnings: list[str] | None
) -> Common:
    """The common fields of `entry`; what is wrong with them is added to `problems`."""

    def expected(what: str, key: str) -> None:
        problems.append(place.problem(f"expected {what}, found {shown(entry[key])}", key))

    name = None
    for key in ("metric", "name"):
        if entry.get(key) is not None:
            name = entry[key]
            if not isinstance(name, str) or not name.strip():
                expected("a name", key)
    weight = entry.get("weight", 1.0)
    if not _is_number(weight) or not 0 <= weight < math.inf:
        expected("a finite number from 0 up", "weight")
    minimum = entry.get("min_score")
    if minimum is not None and not _is_share(minimum):
        expected("a number above 0, up to 1", "min_score")
    if not isinstance(entry.get("negate", False), bool):
        expected("true or false", "negate")
    required = entry.get("required", False)
    if _is_share(required):
        minimum = required if minimum is None else minimum
        if warnings is not None:
            text = f"a number is an old form; write required: true and min_score: {required}"
            warnings.append(str(place.problem(text, "required")))
    elif not isinstance(required, bool):
        expected("true or false", "required")
    return Common(name, weight, bool(required), minimum, entry.get("negate", False))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 < value <= 1


def automatic_name(kind: str, config: Mapping[str, Any]) -> str:
    """The name of an entry that gives none, as in AgentV: `contains-<text>`, `regex-<first 30
    characters>`, `contains-any-<number of texts>`, or else the type."""
    value = config.get("value")
    if kind in {"contains", "icontains", "starts-with", "ends-with", "equals"}:
        return f"{kind}-{clip(str(value), 60)}"
    if kind == "skill-trigger":
        return f"{kind}-{clip(str(config.get('skill')), 60)}"
    if kind == "regex":
        return f"{kind}-{str(value)[:30]}"
    if kind.endswith(("contains-any", "contains-all")) and isinstance(value, list):
        return f"{kind}-{len(value)}"
    return kind


def shown(value: object) -> str:
    """A value as a message tells it: short, and in the words of YAML."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    return f'"{clip(value, 60)}"' if isinstance(value, str) else clip(repr(value), 60)


@cache
def field_names(model: type[BaseModel]) -> frozenset[str]:
    """The names that the settings may be written under."""
    names: list[object] = []
    for name, info in model.model_fields.items():
        alias = info.validation_alias
        names += getattr(alias, "choices", [alias or name])
    return frozenset(name for name in names if isinstance(name, str))


_REFUSED = ("preprocessors", "transform")
"""Fields of AgentV's that would change what is graded."""


_CLOSE = 0.7
"""How like a known name a slip of the pen is."""


def with_more(config: Mapping[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """The settings, with fields that are none of the grader's moved to its `config`, as AgentV has
    it for programs. What may be a slip of the pen stays, to be told."""
    known = field_names(model)
    names = [*known, *COMMON_FIELDS]

    def is_slip(key: str) -> bool:
        close = difflib.get_close_matches(key, names, n=1, cutoff=_CLOSE)
        return bool(close) or any(name.startswith(key) for name in names)

    more = {
        key: value
        for key, value in config.items()
        if key not in known and key not in _REFUSED and not is_slip(str(key))
    }
    given = config.get("config", {})
    if not more or not isinstance(given, Mapping):
        return dict(config)
    kept = {key: value for key, value in config.items() if key not in more}
    return {**kept, "config": {**more, **given}}
