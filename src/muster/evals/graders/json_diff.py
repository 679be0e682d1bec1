"""The grader `json-diff`: how much of a JSON answer is as expected, leaf by leaf."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Annotated, Any

from pydantic import Field

from muster.config.validation import FileModel
from muster.evals.graders.base import Assertion, GradeContext, GraderSpec, Score, SettingError
from muster.evals.graders.json_values import MISSING, answer_json, as_json, expected_json
from muster.evals.graders.text import clip
from muster.evals.graders.trace import same

__all__ = ("JsonDiff",)

_SHOWN = 50


class _Settings(FileModel):
    value: Any = None
    """What is expected; left out, it is the test's expected output."""
    ignore: list[Annotated[str, Field(min_length=1)]] = Field(default_factory=list)
    """Paths that are not compared, and all within them: `items[*].id`; `*` and `?` fit anything."""
    ignore_order: bool = False
    """`true`: lists are compared as bags."""
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """How far off numbers may be."""


class JsonDiff:
    """The share of leaves, of both values together, that are the same in both."""

    Settings = _Settings
    __slots__ = ("_given", "_ignored", "_settings")

    def __init__(self, spec: GraderSpec) -> None:
        self._settings = settings = _Settings.model_validate(spec.config)
        self._ignored = [glob.replace("[", "[[]") for glob in settings.ignore]
        self._given = MISSING
        if "value" in spec.config:
            try:
                given = settings.value
                self._given = answer_json(given) if isinstance(given, str) else as_json(given)
            except ValueError as error:
                raise SettingError("value", f"expected JSON: {error}") from None

    def __call__(self, context: GradeContext) -> Score:
        expected = expected_json(context) if self._given is MISSING else self._given
        try:
            actual = answer_json(context.output)
        except ValueError as error:
            return Score(0.0, (Assertion("Output holds no JSON to compare", False, str(error)),))
        same_leaves = 0
        differences: list[Assertion] = []
        count = 0
        for path, wanted, given in self._pairs("", expected, actual):
            if self._equal(wanted, given):
                same_leaves += 1
                continue
            count += 1
            if count <= _SHOWN:
                differences.append(_difference(path, wanted, given))
        total = same_leaves + count
        text = f"{same_leaves} of {total} values are as expected"
        said = (Assertion(text, not count), *differences)
        return Score(same_leaves / total if total else 1.0, said, {"differences": count})

    def _pairs(self, path: str, wanted: Any, given: Any) -> Iterator[tuple[str, Any, Any]]:
        """The leaves of two values: path, and what stands there in each (`MISSING`: nothing)."""
        if path and any(fnmatchcase(path, glob) for glob in self._ignored):
            return
        kind = _common_kind(wanted, given)
        if kind is None:
            yield path, wanted, given
            return
        one, other = (_empty(kind) if value is MISSING else value for value in (wanted, given))
        if not one and not other:
            yield path, wanted, given  # nothing in either, or nothing in one where the other is not
        elif kind == "object":
            for key in dict.fromkeys((*one, *other)):
                here = f"{path}.{key}" if path else key
                yield from self._pairs(here, one.get(key, MISSING), other.get(key, MISSING))
        else:
            if self._settings.ignore_order:
                one, other = _matched(one, other)
            for number in range(max(len(one), len(other))):
                yield from self._pairs(
                    f"{path}[{number}]",
                    one[number] if number < len(one) else MISSING,
                    other[number] if number < len(other) else MISSING,
                )

    def _equal(self, wanted: Any, given: Any) -> bool:
        if wanted is MISSING or given is MISSING:
            return False
        if self._settings.tolerance and _is_number(wanted) and _is_number(given):
            off = abs(Decimal(repr(wanted)) - Decimal(repr(given)))
            return off <= Decimal(repr(self._settings.tolerance))
        return same(wanted, given)


def _common_kind(one: Any, other: Any) -> str | None:
    """`object` or `list`, if what is there of the two is of this kind; `None` for leaves."""
    kinds = {
        "object" if isinstance(value, Mapping) else "list" if isinstance(value, list) else None
        for value in (one, other)
        if value is not MISSING
    }
    return kinds.pop() if len(kinds) == 1 else None


def _empty(kind: str) -> Any:
    return {} if kind == "object" else []


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _matched(one: list[Any], other: list[Any]) -> tuple[list[Any], list[Any]]:
    """The lists with what is the same in both put side by side, and the rest after it."""
    keys = [[_key(value) for value in values] for values in (one, other)]
    both = Counter(keys[0]) & Counter(keys[1])
    sides = []
    for values, names in zip((one, other), keys, strict=True):
        left = Counter(both)
        first: list[tuple[str, Any]] = []
        rest = []
        for name, value in zip(names, values, strict=True):
            if left[name] > 0:
                left[name] -= 1
                first.append((name, value))
            else:
                rest.append(value)
        first.sort(key=lambda pair: pair[0])
        sides.append([value for _, value in first] + rest)
    return sides[0], sides[1]


def _key(value: Any) -> str:
    """The same text for values that are the same."""
    return json.dumps(_whole(value), sort_keys=True)


def _whole(value: Any) -> Any:
    """1.0 as 1, at every depth."""
    if isinstance(value, Mapping):
        return {key: _whole(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_whole(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _difference(path: str, wanted: Any, given: Any) -> Assertion:
    where = path or "the value"
    if given is MISSING:
        return Assertion(f"{where} is missing", False, f"expected {_shown(wanted)}")
    if wanted is MISSING:
        return Assertion(f"{where} is not expected", False, f"found {_shown(given)}")
    told = f"expected {_shown(wanted)}, found {_shown(given)}"
    return Assertion(f"{where} differs", False, told)


def _shown(value: Any) -> str:
    return clip(json.dumps(value, ensure_ascii=False, default=str), 100)
