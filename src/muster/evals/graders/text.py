"""Graders that look for text in the answer: contains, icontains, starts-with, ends-with, equals;
and `word-count`.

Scores are 1 or 0. The answer is the text of the last assistant message.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from typing import Annotated, Any, Self, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from muster.config.validation import FileModel
from muster.evals.graders.base import Assertion, GradeContext, GraderSpec, Score

__all__ = (
    "Contains",
    "ContainsAll",
    "ContainsAny",
    "EndsWith",
    "Equals",
    "IContains",
    "IContainsAll",
    "IContainsAny",
    "StartsWith",
    "WordCount",
    "clip",
)

_Sized = TypeVar("_Sized", str, list[str])


def clip(text: str, limit: int = 200) -> str:
    """`text`, cut to `limit` characters with an ellipsis when it is longer."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _as_text(value: Any) -> Any:
    """Numbers and booleans as they are written in YAML; anything else is left to pydantic."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


def _as_texts(value: Any) -> Any:
    """promptfoo's one-line list, `a, "b, c"`, as a list."""
    if isinstance(value, str):
        row = next(csv.reader([value], skipinitialspace=True), [])
        return [part.strip() for part in row]
    return value


def _not_empty(value: _Sized) -> _Sized:
    if not value:
        raise ValueError("is empty, and would judge every answer the same")
    return value


_Text = Annotated[str, BeforeValidator(_as_text)]
_NonEmpty = Annotated[_Text, AfterValidator(_not_empty)]
_Texts = Annotated[list[_NonEmpty], BeforeValidator(_as_texts), AfterValidator(_not_empty)]


class _TextSettings(FileModel):
    value: _NonEmpty
    """The text to look for; numbers are taken as written."""


class _AnyTextSettings(FileModel):
    value: _Text
    """The text to compare with; may be empty."""


class _ListSettings(FileModel):
    value: _Texts
    """The texts to look for: a list, or one line with commas between them."""


def _verdict(passed: bool, text: str, evidence: str | None = None) -> Score:
    return Score(1.0 if passed else 0.0, (Assertion(text, passed, evidence),))


class Contains:
    """The answer contains `value`, letter case included."""

    Settings = _TextSettings
    __slots__ = ("_value",)

    def __init__(self, spec: GraderSpec) -> None:
        self._value = self.Settings.model_validate(spec.config).value

    def __call__(self, context: GradeContext) -> Score:
        passed = self._value in context.output
        says = "contains" if passed else "does not contain"
        return _verdict(passed, f'Output {says} "{clip(self._value)}"')


class IContains:
    """The answer contains `value`, letter case aside."""

    Settings = _TextSettings
    __slots__ = ("_lower", "_value")

    def __init__(self, spec: GraderSpec) -> None:
        self._value = self.Settings.model_validate(spec.config).value
        self._lower = self._value.lower()

    def __call__(self, context: GradeContext) -> Score:
        passed = self._lower in context.output.lower()
        says = "contains" if passed else "does not contain"
        return _verdict(passed, f'Output {says} "{clip(self._value)}" (case-insensitive)')


class ContainsAny:
    """The answer contains at least one of `value`."""

    Settings = _ListSettings
    __slots__ = ("_values",)
    fold = False

    def __init__(self, spec: GraderSpec) -> None:
        self._values = self.Settings.model_validate(spec.config).value

    def __call__(self, context: GradeContext) -> Score:
        found = next(iter(_present(self._values, context.output, fold=self.fold)), None)
        note = _note(self.fold)
        if found is not None:
            return _verdict(True, f'Output contains "{clip(found)}"{note}')
        return _verdict(False, f"Output contains none of: {_quoted(self._values)}{note}")


class ContainsAll:
    """The answer contains every one of `value`."""

    Settings = _ListSettings
    __slots__ = ("_values",)
    fold = False

    def __init__(self, spec: GraderSpec) -> None:
        self._values = self.Settings.model_validate(spec.config).value

    def __call__(self, context: GradeContext) -> Score:
        present = _present(self._values, context.output, fold=self.fold)
        missing = [value for value in self._values if value not in present]
        note = _note(self.fold)
        if not missing:
            return _verdict(True, f"Output contains all {len(self._values)} expected strings{note}")
        return _verdict(False, f"Output missing: {_quoted(missing)}{note}")


class IContainsAny(ContainsAny):
    """The answer contains at least one of `value`, letter case aside."""

    __slots__ = ()
    fold = True


class IContainsAll(ContainsAll):
    """The answer contains every one of `value`, letter case aside."""

    __slots__ = ()
    fold = True


def _present(values: Sequence[str], output: str, *, fold: bool) -> dict[str, None]:
    """Those of `values` that are in `output`, in order."""
    if not fold:
        return {value: None for value in values if value in output}
    lower = output.lower()
    return {value: None for value in values if value.lower() in lower}


def _note(fold: bool) -> str:
    return " (case-insensitive)" if fold else ""


def _quoted(values: Sequence[str]) -> str:
    return ", ".join(f'"{clip(value)}"' for value in values)


class StartsWith:
    """The answer starts with `value`; white space around both is set aside."""

    Settings = _TextSettings
    __slots__ = ("_value",)

    def __init__(self, spec: GraderSpec) -> None:
        self._value = self.Settings.model_validate(spec.config).value.strip()

    def __call__(self, context: GradeContext) -> Score:
        output = context.output.strip()
        if output.startswith(self._value):
            return _verdict(True, f'Output starts with "{clip(self._value)}"')
        return _verdict(
            False,
            f'Output does not start with "{clip(self._value)}"',
            f'it starts with "{clip(output[: len(self._value) + 20])}"',
        )


class EndsWith:
    """The answer ends with `value`; white space around both is set aside."""

    Settings = _TextSettings
    __slots__ = ("_value",)

    def __init__(self, spec: GraderSpec) -> None:
        self._value = self.Settings.model_validate(spec.config).value.strip()

    def __call__(self, context: GradeContext) -> Score:
        output = context.output.strip()
        if output.endswith(self._value):
            return _verdict(True, f'Output ends with "{clip(self._value)}"')
        tail = output[-(len(self._value) + 20) :]
        return _verdict(
            False,
            f'Output does not end with "{clip(self._value)}"',
            f'it ends with "{tail if len(tail) <= 200 else "…" + tail[-199:]}"',
        )


class Equals:
    """The answer is `value`; white space around both is set aside."""

    Settings = _AnyTextSettings
    __slots__ = ("_value",)

    def __init__(self, spec: GraderSpec) -> None:
        self._value = self.Settings.model_validate(spec.config).value.strip()

    def __call__(self, context: GradeContext) -> Score:
        output = context.output.strip()
        if output == self._value:
            return _verdict(True, f'Output equals "{clip(self._value)}"')
        return _verdict(
            False, f'Output does not equal "{clip(self._value)}"', f'it is "{clip(output)}"'
        )


class _CountSettings(FileModel):
    value: Annotated[int, Field(ge=0)] | None = None
    """How many it must be."""
    min: Annotated[int, Field(ge=0)] | None = None
    """How many it must be at least."""
    max: Annotated[int, Field(ge=0)] | None = None
    """How many it may be."""

    @model_validator(mode="before")
    @classmethod
    def _bounds_in_value(cls, data: Any) -> Any:
        """promptfoo's form: `value: {min: 20, max: 50}`."""
        value = data.get("value") if isinstance(data, dict) else None
        if isinstance(value, dict) and value.keys() <= {"min", "max"}:
            return {key: item for key, item in data.items() if key != "value"} | value
        return data

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        bounds = (self.min, self.max)
        if (self.value is None) == (bounds == (None, None)):
            raise ValueError("needs either value, or min or max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is above max")
        return self


class WordCount:
    """The answer has so many words: what stands between white space."""

    Settings = _CountSettings
    __slots__ = ("_settings",)

    def __init__(self, spec: GraderSpec) -> None:
        self._settings = _CountSettings.model_validate(spec.config)

    def __call__(self, context: GradeContext) -> Score:
        count = len(context.output.split())
        wanted = self._settings
        low = wanted.min if wanted.value is None else wanted.value
        high = wanted.max if wanted.value is None else wanted.value
        passed = (low is None or count >= low) and (high is None or count <= high)
        if wanted.value is not None:
            asked = f"{wanted.value}"
        else:
            ends = (
                "" if low is None else f"at least {low}",
                "" if high is None else f"at most {high}",
            )
            asked = " and ".join(end for end in ends if end)
        return _verdict(passed, f"Output has {count} words, wanted {asked}")
