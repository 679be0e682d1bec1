"""The grader `field-accuracy`: fields of a JSON answer against those that are expected."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, Field

from muster.config.validation import FileModel
from muster.evals.classification import f1_of
from muster.evals.graders.base import Assertion, GradeContext, GraderError, GraderSpec, Score
from muster.evals.graders.dates import check_format, read_date
from muster.evals.graders.json_values import MISSING, answer_json, expected_json
from muster.evals.graders.numeric import last_number
from muster.evals.graders.similarity import similarity, similarity_library
from muster.evals.graders.text import clip
from muster.evals.graders.trace import look_up, same

__all__ = ("FieldAccuracy",)


class _FieldSettings(FileModel):
    path: Annotated[str, Field(min_length=1)]
    """Where it is: `invoice.lines[0].amount`."""
    match: Literal["exact", "numeric_tolerance", "date", "fuzzy"] = "exact"
    """How it is compared."""
    required: bool = True
    """`false`: an answer without it is not counted."""
    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """How much it counts."""
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Of numbers: how far off it may be."""
    relative: bool = False
    """`true`: `tolerance` is a share of the expected number."""
    formats: list[Annotated[str, AfterValidator(check_format)]] = Field(default_factory=list)
    """Of dates: how they are written, as in `DD/MM/YYYY`; tried before any guess."""
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Of `fuzzy` texts: how alike they must be."""


class _Settings(FileModel):
    fields: Annotated[list[_FieldSettings], Field(min_length=1)]
    """The fields that are compared."""
    aggregation: Literal["weighted_average", "all_or_nothing", "f1"] = "weighted_average"
    """`all_or_nothing`: one field that is wrong makes the score 0. `f1`: the harmonic mean of the
    share of the given values that are right, and of the expected ones that are found."""


class _Found(NamedTuple):
    path: str
    weight: float
    hit: bool
    text: str
    evidence: str | None = None
    outcome: tuple[str, ...] = ()
    """Of `tp`, `fp`, `fn` and `tn`, what it is; empty: it is not counted."""


class FieldAccuracy:
    """The weighted share of fields that are as expected."""

    Settings = _Settings
    __slots__ = ("_settings",)

    def __init__(self, spec: GraderSpec) -> None:
        self._settings = _Settings.model_validate(spec.config)
        if any(field.match == "fuzzy" for field in self._settings.fields):
            similarity_library()

    def __call__(self, context: GradeContext) -> Score:
        expected = expected_json(context)
        try:
            actual = answer_json(context.output)
        except ValueError as error:
            nothing = Assertion("Output holds no JSON to compare", False, str(error))
            missing = [_compare(field, {}, expected) for field in self._settings.fields]
            return Score(0.0, (nothing,), {"confusion": _confusion(missing)})
        if all(look_up(expected, field.path) is MISSING for field in self._settings.fields):
            raise GraderError("none of the fields is in the test's expected_output")
        found = [_compare(field, actual, expected) for field in self._settings.fields]
        said = tuple(Assertion(one.text, one.hit, one.evidence) for one in found)
        details = {
            "fields": {one.path: one.hit for one in found},
            "confusion": _confusion(found),
        }
        return Score(self._score(found), said, details)

    def _score(self, found: Sequence[_Found]) -> float:
        if self._settings.aggregation == "all_or_nothing":
            return float(all(one.hit for one in found))
        if self._settings.aggregation == "f1":
            counts = [
                math.fsum(one.weight for one in found if kind in one.outcome)
                for kind in ("tp", "fp", "fn")
            ]
            f1 = f1_of(*counts)
            return 1.0 if f1 is None else f1  # nothing was to be found, and nothing was
        total = math.fsum(one.weight for one in found)
        gained = math.fsum(one.weight for one in found if one.hit)
        return min(gained / total, 1.0) if total else 0.0


def _confusion(found: Sequence[_Found]) -> dict[str, dict[str, int]]:
    """What each field is: a value that is right (`tp`), one that was not asked for (`fp`), one that
    is not there (`fn`), a wrong one (both), or none where none is expected (`tn`)."""
    confusion: dict[str, dict[str, int]] = {}
    for one in found:
        if one.outcome:  # a path may be checked in several ways
            counts = confusion.setdefault(one.path, dict.fromkeys(("tp", "fp", "fn", "tn"), 0))
            for kind in one.outcome:
                counts[kind] += 1
    return confusion


def _is_empty(value: Any) -> bool:
    return value is MISSING or value is None or (isinstance(value, str) and not value.strip())


def _outcome(wanted: Any, given: Any, *, hit: bool) -> tuple[str, ...]:
    if _is_empty(wanted):
        return ("tn",) if _is_empty(given) else ("fp",)
    if _is_empty(given):
        return ("fn",)
    return ("tp",) if hit else ("fp", "fn")


def _compare(field: _FieldSettings, actual: Any, expected: Any) -> _Found:
    path, weight = field.path, field.weight
    wanted, given = look_up(expected, path), look_up(actual, path)
    outcome = _outcome(wanted, given, hit=False)
    if wanted is MISSING:
        return _Found(path, weight, True, f"{path}: nothing is expected", outcome=outcome)
    if given is MISSING:
        if not field.required:
            return _Found(path, 0.0, True, f"{path} is left out, and need not be there")
        return _Found(path, weight, False, f"{path} is missing", outcome=outcome)
    if field.match == "exact":
        hit, why = same(given, wanted), ""
    elif field.match == "numeric_tolerance":
        hit, why = _near(field, given, wanted)
    elif field.match == "date":
        hit, why = _same_day(field, given, wanted)
    else:
        hit, why = _alike(field, given, wanted)
    text = f"{path} is {'as expected' if hit else 'not as expected'}{why}"
    told = f"expected {_shown(wanted)}, found {_shown(given)}"
    outcome = _outcome(wanted, given, hit=hit)
    return _Found(path, weight, hit, text, None if hit else told, outcome)


def _near(field: _FieldSettings, given: Any, wanted: Any) -> tuple[bool, str]:
    one, other = _number(given), _number(wanted)
    if one is None or other is None:
        return False, ": it is no number" if one is None else ": what is expected is no number"
    off = abs(one - other)
    allowed = Fraction(Decimal(repr(field.tolerance)))
    if field.relative and other:
        allowed *= abs(other)
    return off <= allowed, f": off by {float(off):.6g}"


def _number(value: Any) -> Fraction | None:
    """The number, exactly: 0.1 is a tenth."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    elif isinstance(value, str) and (reading := last_number(value)) is not None:
        number = reading.value
    else:
        return None
    return Fraction(number) if number.is_finite() and abs(number.adjusted()) < 300 else None


def _same_day(field: _FieldSettings, given: Any, wanted: Any) -> tuple[bool, str]:
    one, other = read_date(str(given), field.formats), read_date(str(wanted), field.formats)
    if one is None or other is None:
        return False, ": it is no date" if one is None else ": what is expected is no date"
    return one == other, f": {one.isoformat()}"


def _alike(field: _FieldSettings, given: Any, wanted: Any) -> tuple[bool, str]:
    if not isinstance(given, str) or not isinstance(wanted, str):
        return same(given, wanted), ""
    share = similarity(given, wanted)
    return share >= field.threshold, f": {share:.0%} alike"


def _shown(value: Any) -> str:
    return clip(repr(value), 100)
