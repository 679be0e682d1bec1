"""Rubrics: criteria one by one, each met or not, or given points from 0 to 10 by described ranges.

The score is the weight of what is met over the weight of *all* criteria, whatever a judge leaves
out. A `required` criterion that is not met makes it 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from pydantic import BeforeValidator, Field, StrictBool

from muster.config.validation import FileModel
from muster.evals.graders.base import Assertion, SettingError
from muster.evals.graders.llm_answer import Unreadable, Verdict, read_object, shown_value

__all__ = (
    "Criterion",
    "Item",
    "ScoreRange",
    "criteria_of",
    "read_checks",
    "schema_of",
    "verdict_of",
)

TOP = 10
"""Points that a criterion with ranges has at most."""

PASSING = 0.7
"""The share of the points from which such a criterion is met, if nothing else is said."""

_Text = Annotated[str, Field(min_length=1, pattern=r"\S")]
_Points = Annotated[int, Field(ge=0, le=TOP, strict=True)]


class ScoreRange(FileModel):
    """What points mean."""

    score_range: Annotated[list[_Points], Field(min_length=2, max_length=2)]
    """The lowest and the highest of them, both included: `[0, 3]`."""
    outcome: _Text
    """What an answer is like that gets them."""


def _ranges(value: Any) -> Any:
    """The shorthand `{0: …, 4: …, 8: …}` as a list: each begins at its number."""
    if not isinstance(value, Mapping):
        return value
    starts: list[int] = []
    for key in value:
        text = str(key)
        if not text.isdigit() or int(text) > TOP:
            raise ValueError(f'score_ranges begin at numbers from 0 to {TOP}, not at "{key}"')
        starts.append(int(text))
    if starts != sorted(set(starts)):
        raise ValueError("score_ranges begin at numbers that rise, each once")
    ends = [start - 1 for start in starts[1:]] + [TOP]
    return [
        {"score_range": [start, end], "outcome": outcome}
        for start, end, outcome in zip(starts, ends, value.values(), strict=True)
    ]


def _item(value: Any) -> Any:
    """A criterion by itself may be written as its text."""
    if isinstance(value, str):
        return {"outcome": value}
    if isinstance(value, Mapping) and "criteria" in value and "outcome" not in value:
        value = dict(value)
        value["outcome"] = value.pop("criteria")
    return value


class Item(FileModel):
    """A criterion as it is written."""

    id: Annotated[str, Field(min_length=1, max_length=100, coerce_numbers_to_str=True)] | None = (
        None
    )
    """What results call it; `rubric-1`, `rubric-2` … by default."""
    outcome: _Text | None = None
    """What must hold of the answer."""
    operator: Literal["correctness", "contradiction"] = "correctness"
    """`contradiction`: it is met unless the answer contradicts the outcome."""
    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """How much it counts."""
    required: StrictBool | None = None
    """`true`: when it is not met, the score is 0."""
    min_score: Annotated[float, Field(gt=0, le=1)] | None = None
    """With `score_ranges`: the share of the points from which it is met."""
    required_min_score: Annotated[float, Field(ge=0, le=TOP)] | None = None
    """Old form of `required: true` and `min_score`, in points."""
    score_ranges: Annotated[list[ScoreRange], BeforeValidator(_ranges)] | None = None
    """What 0 to 10 points mean."""


Items = Annotated[list[Annotated[Item, BeforeValidator(_item)]], Field(min_length=1)]


class Criterion(msgspec.Struct, frozen=True, kw_only=True):
    """A criterion, checked."""

    id: str
    outcome: str
    operator: str = "correctness"
    weight: float = 1.0
    required: bool = False
    passing: float = 1.0
    """The share from which it is met."""
    ranges: tuple[tuple[int, int, str], ...] = ()
    """Lowest and highest points, and what they mean; empty: it is met or not."""

    def to_dict(self) -> dict[str, Any]:
        """What a judge is shown of it."""
        return {
            "id": self.id,
            "outcome": self.outcome,
            "operator": self.operator,
            "weight": self.weight,
            "required": self.required,
            "score_ranges": [
                {"score_range": [low, high], "outcome": outcome}
                for low, high, outcome in self.ranges
            ],
        }


def criteria_of(
    items: Sequence[Item], key: str, remark: Callable[..., None]
) -> tuple[Criterion, ...]:
    """The criteria that stand under `key` of an entry.

    Raises:
        SettingError: two have one id, ranges overlap or leave points out, or nothing has a weight.
    """
    found: list[Criterion] = []
    for number, item in enumerate(items):
        criterion = _criterion(item, key, number, remark)
        if any(other.id == criterion.id for other in found):
            raise SettingError(key, f'two criteria have the id "{criterion.id}"', number, "id")
        found.append(criterion)
    if not any(criterion.weight for criterion in found):
        raise SettingError(key, "all weights are 0; nothing would count")
    return tuple(found)


def _criterion(item: Item, key: str, number: int, remark: Callable[..., None]) -> Criterion:
    ranges = _checked_ranges(item.score_ranges or (), key, number)
    outcome = item.outcome
    if outcome is None:
        if not ranges:
            raise SettingError(key, '"outcome" is required: what must hold', number)
        outcome = "How well does the answer fit these descriptions?"
    minimum, required = item.min_score, bool(item.required)
    if item.required_min_score is not None:
        share = item.required_min_score / TOP
        remark(
            f"an old form; write required: true and min_score: {share:g}",
            key, number, "required_min_score",
        )  # fmt: skip
        minimum, required = share if minimum is None else minimum, True
    passing = 1.0
    if ranges:
        # As in AgentV, a required criterion without a bar of its own needs all points.
        passing = minimum if minimum is not None else 1.0 if required else PASSING
    return Criterion(
        id=item.id or f"rubric-{number + 1}",
        outcome=outcome.strip(),
        operator=item.operator,
        weight=item.weight,
        required=required,
        passing=passing,
        ranges=ranges,
    )


def _checked_ranges(
    ranges: Sequence[ScoreRange], key: str, number: int
) -> tuple[tuple[int, int, str], ...]:
    owner: dict[int, int] = {}
    made = []
    for at, one in enumerate(ranges):
        low, high = one.score_range
        where = (number, "score_ranges", at, "score_range")
        if low > high:
            raise SettingError(key, f"the range [{low}, {high}] runs backwards", *where)
        for points in range(low, high + 1):
            if points in owner:
                other = ranges[owner[points]].score_range
                raise SettingError(
                    key,
                    f"Overlapping score_ranges: [{low}, {high}] and [{other[0]}, {other[1]}] both "
                    f"hold {points}",
                    *where,
                )
            owner[points] = at
        made.append((low, high, one.outcome))
    missing = [str(points) for points in range(TOP + 1) if points not in owner]
    if made and missing:
        raise SettingError(
            key,
            f"Incomplete score_ranges coverage: they reach from 0 to {TOP}; missing coverage for "
            f"scores: {', '.join(missing)}",
            number,
            "score_ranges",
        )
    return tuple(made)


# --- the judge's checks ---------------------------------------------------------------------------


def schema_of(criteria: Sequence[Criterion]) -> Mapping[str, Any]:
    """The JSON Schema of the checks of these criteria."""
    kinds = []
    for ranged in (False, True):
        ids = [criterion.id for criterion in criteria if bool(criterion.ranges) == ranged]
        if not ids:
            continue
        answer: dict[str, Any] = {"satisfied": {"type": "boolean"}}
        if ranged:
            answer = {"score": {"type": "integer", "enum": list(range(TOP + 1))}}
        properties = {"id": {"type": "string", "enum": ids}, "reasoning": {"type": "string"}}
        properties |= answer
        kinds.append(
            {
                "type": "object",
                "additionalProperties": False,
                "required": list(properties),
                "properties": properties,
            }
        )
    return {
        "title": "checks",
        "type": "object",
        "additionalProperties": False,
        "required": ["checks", "overall_reasoning"],
        "properties": {
            "checks": {
                "type": "array",
                "items": kinds[0] if len(kinds) == 1 else {"anyOf": kinds},
            },
            "overall_reasoning": {"type": "string"},
        },
    }


def read_checks(
    text: str, criteria: Sequence[Criterion], finish: str | None = None
) -> tuple[dict[str, float], dict[str, str], str | None]:
    """What share of each criterion is met, why, and the reason of the whole.

    Raises:
        Unreadable: a criterion is left out, is there twice, is not known, or is not answered.
    """
    value = read_object(text, lambda found: "checks" in found, finish=finish)
    checks = value.get("checks")
    if not isinstance(checks, list):
        raise Unreadable('its JSON has no list "checks"')
    known = {criterion.id: criterion for criterion in criteria}
    shares: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for check in checks:
        if not isinstance(check, dict) or not isinstance(check.get("id"), str | int):
            raise Unreadable("a check has no id")
        name = str(check["id"])
        if name not in known:
            raise Unreadable(f'no criterion has the id "{name[:60]}"; known: {", ".join(known)}')
        if name in shares:
            raise Unreadable(f'it checks "{name}" twice')
        shares[name] = _share(check, known[name])
        reason = check.get("reasoning", check.get("reason"))
        if reason:
            reasons[name] = str(reason)
    missing = [name for name in known if name not in shares]
    if missing:
        raise Unreadable(f"it leaves out {', '.join(missing)}")
    overall = value.get("overall_reasoning")
    return shares, reasons, str(overall) if overall else None


def _share(check: Mapping[str, Any], criterion: Criterion) -> float:
    if not criterion.ranges:
        said = check.get("satisfied", check.get("passed", check.get("pass")))
        if not isinstance(said, bool):
            text = f'"satisfied" of "{criterion.id}" is {shown_value(said)}, neither true nor false'
            raise Unreadable(text)
        return float(said)
    points = check.get("score")
    if isinstance(points, float) and points.is_integer():
        points = int(points)
    if isinstance(points, bool) or not isinstance(points, int) or not 0 <= points <= TOP:
        text = f'"score" of "{criterion.id}" is {shown_value(points)}, not a whole number from 0'
        raise Unreadable(f"{text} to {TOP}")
    return points / TOP


def verdict_of(
    criteria: Sequence[Criterion],
    shares: Mapping[str, float],
    reasons: Mapping[str, str],
    reason: str | None = None,
) -> Verdict:
    """The score that the checks come to."""
    assertions = []
    gate: list[str] = []
    total = gained = 0.0
    for criterion in criteria:
        share = shares[criterion.id]
        met = share >= criterion.passing - 1e-9
        if criterion.required and not met:
            gate.append(criterion.id)
        total += criterion.weight
        gained += criterion.weight * share
        text = criterion.outcome
        if criterion.ranges:
            text += f" ({share * TOP:g}/{TOP})"
        assertions.append(Assertion(text, met, reasons.get(criterion.id)))
    if gate:
        assertions.append(Assertion(f"required, and not met: {', '.join(gate)}", False))
    score = 0.0 if gate else min(gained / total, 1.0)
    return Verdict(score=score, assertions=tuple(assertions), reason=reason, checks=dict(shares))
