"""The grader `label`: the answer names the right class. Over a run, precision, recall and F1 of
each class are told."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

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
from muster.evals.graders.similarity import folded
from muster.evals.graders.text import clip

__all__ = ("Label",)


def _text(value: Any) -> Any:
    """YAML's numbers and booleans as the words that they are meant for."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int) else value


_Word = Annotated[str, Field(pattern=r"\S"), BeforeValidator(_text)]


class _Settings(FileModel):
    value: _Word | None = None
    """The right class; left out, it is the test's expected output."""
    labels: Annotated[list[_Word], Field(min_length=2)] | None = None
    """All classes. The answer may then be a sentence that names one of them."""
    extract: str | None = None
    """A pattern; its last match is the class, or group 1 of that match."""


class Label:
    """The class that the answer names is the one that is expected. Letter case and white space
    around it are set aside."""

    Settings: ClassVar[type[FileModel]] = _Settings
    __slots__ = ("_extract", "_labels", "_settings")

    def __init__(self, spec: GraderSpec) -> None:
        self._settings = settings = _Settings.model_validate(spec.config)
        self._labels = {folded(label): label.strip() for label in settings.labels or ()}
        if len(self._labels) < len(settings.labels or ()):
            raise SettingError("labels", "two labels are the same, letter case aside")
        self._extract = extraction_pattern(settings.extract)
        if settings.value is not None and self._labels:
            try:
                self._known(settings.value)
            except GraderError as error:
                raise SettingError("value", str(error)) from None

    def __call__(self, context: GradeContext) -> Score:
        wanted = self._wanted(context)
        found = self._found(context.output)
        hit = found is not None and folded(found) == folded(wanted)
        confusion = {wanted: {"tp": int(hit), "fp": 0, "fn": int(not hit), "tn": 0}}
        if found is not None and not hit:
            confusion[found] = {"tp": 0, "fp": 1, "fn": 0, "tn": 0}
        says = "names no class" if found is None else f'is of the class "{clip(found)}"'
        said = Assertion(f'the answer {says}, expected "{clip(wanted)}"', hit)
        details = {"expected": wanted, "found": found, "confusion": confusion}
        return Score(float(hit), (said,), details)

    def _wanted(self, context: GradeContext) -> str:
        """The right class.

        Raises:
            GraderError: there is none, or none that is known.
        """
        text = self._settings.value
        if text is None:
            text = context.reference_answer
        if text is None or not text.strip():
            raise GraderError("there is no right class: neither value nor expected_output")
        return self._known(text) if self._labels else _canonical(text)

    def _known(self, text: str) -> str:
        """The label that the text is.

        Raises:
            GraderError: it is none.
        """
        label = self._labels.get(folded(text))
        if label is None:
            known = ", ".join(self._labels.values())
            raise GraderError(f'the right class, "{clip(text)}", is none of the labels ({known})')
        return label

    def _found(self, output: str) -> str | None:
        """The class that the answer names; `None` if it names none, or several."""
        text = output
        if self._extract is not None:
            last = extracted(self._extract, output)
            if last is None:
                return None
            text = last
        if not self._labels:
            return _canonical(text) or None
        whole = self._labels.get(_bare(folded(text)))
        if whole is not None:
            return whole
        named = {match[0] for match in _any_of(tuple(self._labels)).finditer(folded(text))}
        return self._labels[named.pop()] if len(named) == 1 else None


def _canonical(text: str) -> str:
    """A class of which no list is given: one spelling for all."""
    return clip(_bare(folded(text)), 100)


def _bare(text: str) -> str:
    """Without the marks that models put around a word."""
    return text.strip(" \t\n\"'`*_.,:;!()[]")


@lru_cache(maxsize=64)
def _any_of(labels: Sequence[str]) -> re.Pattern[str]:
    """The labels as whole words, the longest first: `not spam` is not `spam`."""
    longest = sorted(labels, key=len, reverse=True)
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest))})(?!\w)")
