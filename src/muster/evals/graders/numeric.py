"""The `numeric` grader, and how numbers are read from text.

Numbers are decimal and exact, not binary: 0.3 is within 0.1 of 0.4, and long whole numbers that
differ in their last digit differ.
"""

from __future__ import annotations

import math
import re
from decimal import Context, Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from pydantic import AfterValidator

from muster.config.validation import FileModel
from muster.evals.graders.base import (
    Assertion,
    GradeContext,
    GraderError,
    GraderSpec,
    Score,
    SettingError,
)
from muster.evals.graders.regex import extracted, extraction_pattern
from muster.evals.graders.text import clip

if TYPE_CHECKING:
    pass

__all__ = ("Numeric", "Reading", "last_number")

_CURRENCY = r"(?:[$€£¥₹₩₽]|USD|EUR|GBP|CHF|JPY|CNY|INR|Rs\.?)"

_TOKEN = re.compile(
    r"""
      (?P<date> [0-9]+ (?:[/][0-9]+){2,} )
    | (?: (?P<whole> [0-9]+ ) [ ] (?=[0-9]+[/][0-9]) )?       # 1 3/4
      (?P<number>
        (?: (?: [0-9]{1,3} (?: (?:,[0-9]{3})+ | (?:[ \u00a0\u202f\u2009][0-9]{3})+ ) (?![0-9])
              | [0-9]{1,2} (?:,[0-9]{2})+ ,[0-9]{3} (?![0-9])     # 12,34,567
              | [0-9]+ (?:_[0-9]+)* )
            (?: [.][0-9]+ )?
          | (?<![\w.]) [.][0-9]+ )
        (?: e [-+\u2212]? [0-9]+ )? )
      (?: [ ]? [/] [ ]? (?P<below> [0-9]+ (?:[.][0-9]+)? ) )?
      (?: [ \u00a0]? (?P<scale> thousand|million|billion|trillion ) s?\b )?
    """,
    re.VERBOSE | re.IGNORECASE,
)
_BEFORE = re.compile(rf"(?:\A|\W|(?:\A|\W){_CURRENCY})(?<![0-9]\.)\Z")
"""What may stand before a number: not a letter, nor the first part of `1.2.3`."""
_SIGN = re.compile(rf"(?:\A|[^\w)\].])([-\u2212\u2013])(?:{_CURRENCY}[ ]?)?\Z")
_LONGEST_BEFORE = 8
_UP_TO_LAST_DIGIT = re.compile(r".*[0-9]", re.DOTALL)
_SCALES = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SEPARATORS = str.maketrans("\u2212", "-", ",_ \u00a0\u202f\u2009")
_EXACT = Context(prec=50, traps=[])


class Reading(msgspec.Struct, frozen=True):
    """A number found in a text, and the text it was read from."""

    value: Decimal
    """May be too large for a float; not finite if it is too large for a `Decimal`."""
    text: str


def last_number(text: str) -> Reading | None:
    """The last number in `text`; `None` if it has none.

    Understood are signs (U+2212 too), currency before and units behind, `1,234.5`, `1 234`,
    `1_234`, `1.2e3`, fractions `3/4` and `1 3/4`, and the words thousand to trillion. A comma is
    never a decimal point. Digits within a word (`H2O`, `x1`) and dates (`12/25/2024`) are no
    number.
    """
    for line in reversed(text.splitlines()):  # no number spans lines
        end = _UP_TO_LAST_DIGIT.match(line)
        if end is not None:
            tail = max(0, end.end() - 300)
            reading = _last_in(line, tail)
            if tail and (reading is None or len(reading.text) > 200):
                reading = _last_in(line, 0)  # it may begin before the tail
            if reading is not None:
                return reading
    return None


def _last_in(line: str, begin: int) -> Reading | None:
    for found in reversed(list(_TOKEN.finditer(line, begin))):
        start = found.start()
        before = line[max(0, start - _LONGEST_BEFORE) : start]
        if found["date"] is not None or not _BEFORE.search(before):
            continue
        sign = _SIGN.search(before)
        if sign is None:
            return Reading(_value(found), found.group())
        return Reading(_value(found).copy_negate(), before[sign.start(1) :] + found.group())
    return None


def _value(found: re.Match[str]) -> Decimal:
    value = _decimal(found["number"].translate(_SEPARATORS))
    if found["below"] is not None:
        value = _EXACT.divide(value, _decimal(found["below"]))  # not finite if that is 0
    if found["whole"] is not None:
        value = _EXACT.add(value, _decimal(found["whole"]))
    if found["scale"] is not None:
        value = _EXACT.scaleb(value, _SCALES[found["scale"].lower()])
    return value


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent beyond all bounds
        return Decimal("Infinity")


def _is_number_or_text(value: Any) -> Any:
    if value is None or (isinstance(value, int | float | str) and not isinstance(value, bool)):
        return value
    raise ValueError("expected a number, or text that holds one")


_NumberOrText = Annotated[Any, AfterValidator(_is_number_or_text)]


class _Settings(FileModel):
    value: _NumberOrText = None
    """The number that is right; left out, it is read from the expected output."""
    tolerance: _NumberOrText = 0
    """How far off the answer may be: a number, or a share of the right number, as in `1%`."""
    relative: bool = False
    """True: `tolerance` is a share of the right number, 0.01 for 1 %."""
    extract: str | None = None
    """A pattern; its last match, or group 1 of it, holds the answer."""


class Numeric:
    """The last number of the answer is `value`, within `tolerance`."""

    Settings = _Settings
    __slots__ = ("_extract", "_relative", "_right", "_tolerance")

    def __init__(self, spec: GraderSpec) -> None:
        settings = _Settings.model_validate(spec.config)
        self._extract = extraction_pattern(settings.extract)
        self._tolerance, self._relative = _tolerance(settings.tolerance, settings.relative)
        self._right = None if settings.value is None else self._static(settings.value)

    def __call__(self, context: GradeContext) -> Score:
        right = self._right or self._expected(context)
        found = self._read(context.output)
        if found is None:
            return Score(0.0, (Assertion(self._nothing_in("Output"), False),))
        passed = self._is_right(found.value, right.value)
        text = self._sentence(found, right, passed)
        details = {"found": _plain(found.value), "expected": _plain(right.value)}
        return Score(float(passed), (Assertion(text, passed),), details)

    def _static(self, value: float | str) -> Reading:
        """The right number as the file has it."""
        if isinstance(value, str):
            if self._extract is None and re.fullmatch(r"\s*[-+]?[0-9]+,[0-9]{1,2}\s*", value):
                raise SettingError("value", f'"{value.strip()}": write the decimals after a point')
            reading = self._read(value)
            if reading is None:
                raise SettingError("value", self._nothing_in(f'"{clip(value)}"'))
        else:
            reading = Reading(Decimal(repr(value)), f"{value}")
        if not reading.value.is_finite():
            raise SettingError("value", f"{reading.text} is not a finite number")
        return reading

    def _expected(self, context: GradeContext) -> Reading:
        """The right number as the expected output has it."""
        reference = context.reference_answer
        if reference is None:
            raise GraderError("has no value, and the test has no expected output")
        reading = self._read(reference)
        if reading is None:
            raise GraderError(self._nothing_in(f'the expected output "{clip(reference)}"'))
        if not reading.value.is_finite():
            raise GraderError(f"{reading.text}, in the expected output, is not a finite number")
        return reading

    def _read(self, text: str) -> Reading | None:
        if self._extract is not None:
            found = extracted(self._extract, text)
            if found is None:
                return None
            text = found
        return last_number(text)

    def _nothing_in(self, where: str) -> str:
        if self._extract is None:
            return f"{where} has no number"
        return f"{where} has no number where /{clip(self._extract.pattern)}/ looks for it"

    def _is_right(self, found: Decimal, right: Decimal) -> bool:
        if not found.is_finite() or not right.is_finite():
            return False
        if found == right:
            return True
        allowed = self._tolerance
        if self._relative:
            allowed = _EXACT.multiply(allowed, right.copy_abs())
        return _EXACT.subtract(found, right).copy_abs() <= allowed

    def _sentence(self, found: Reading, right: Reading, passed: bool) -> str:
        got, want = clip(found.text, 40), clip(right.text, 40)
        if not self._tolerance:
            return f"Number {got} {'equals' if passed else 'does not equal'} {want}"
        allowed = (
            f"{(self._tolerance * 100).normalize():f} %" if self._relative else f"{self._tolerance}"
        )
        return f"Number {got} {'is' if passed else 'is not'} within {allowed} of {want}"


def _tolerance(value: float | str, relative: bool) -> tuple[Decimal, bool]:
    text = str(value).strip()
    share = text.endswith("%")
    try:
        number = Decimal(text.removesuffix("%").strip())
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or number < 0:
        raise SettingError(
            "tolerance", f'"{text}" is neither a number from 0 up nor a share such as 1%'
        )
    return (number / 100, True) if share else (number, relative)


def _plain(value: Decimal) -> int | float | str:
    """For results: a number as JSON holds it, text where a float would be something else."""
    number = float(value)
    if not math.isfinite(number):
        return str(value)
    if number.is_integer():
        return int(number) if abs(number) < 2**53 else str(value)
    return number
