"""Measures of how near a text is to texts that are right: `rouge`, `bleu`, `chrf`, `fuzzy` and
`levenshtein`. Their libraries are of the extra `metrics`, and loaded when a suite names one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AliasChoices, BeforeValidator, Field

from muster.config.validation import FileModel
from muster.evals.graders.base import Assertion, GradeContext, GraderError, GraderSpec, Score
from muster.evals.graders.similarity import (
    MAX_LETTERS,
    check_size,
    folded,
    needs,
    similarity,
    similarity_library,
)
from muster.evals.graders.text import clip
from muster.evals.graders.thresholds import bar_of, held_to, own_bar

__all__ = (
    "Bleu",
    "Chrf",
    "Fuzzy",
    "Levenshtein",
    "Metric",
    "MetricSettings",
    "Rouge",
    "judged",
    "references",
)


MAX_WORDS = 5_000_000
"""The product of two texts' words up to which a longest common subsequence is looked for."""


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class MetricSettings(FileModel):
    """What graders have that compare with texts that are right."""

    value: Annotated[list[str] | None, Field(min_length=1), BeforeValidator(_as_list)] = None
    """The text that is right, or several, of which the nearest counts; left out, it is the test's
    expected output."""
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    """The score from which it passes; what counts is then the verdict: 1 or 0."""


def references(given: Sequence[str] | None, context: GradeContext) -> Sequence[str]:
    """The texts that are right.

    Raises:
        GraderError: there are none.
    """
    if given is not None:
        return given
    reference = context.reference_answer
    if reference is None or not reference.strip():
        raise GraderError("there is nothing to compare with: neither value nor expected_output")
    return (reference,)


def judged(
    score: float, threshold: float | None, bar: float, text: str, details: dict[str, Any]
) -> Score:
    """A measure as a score, which passes from `bar` on; with a threshold, what counts is whether
    that is reached."""
    if threshold is None:
        return Score(score, (Assertion(text, score >= bar),), details)
    said = (Assertion(f"{text}, wanted {threshold:g}", score >= threshold),)
    return held_to(Score(score, said, details), threshold)


class Metric(ABC):
    """The nearest reference counts."""

    Settings: ClassVar[type[FileModel]] = MetricSettings
    __slots__ = ("_min_score", "_settings", "_threshold")

    def __init__(self, spec: GraderSpec) -> None:
        settings: Any = self.Settings.model_validate(spec.config)
        self._settings = settings
        self._threshold = own_bar(settings.threshold, spec)
        self._min_score = spec.min_score
        self._prepare()

    def __call__(self, context: GradeContext) -> Score:
        texts = references(self._settings.value, context)
        score = min(max(self._measured(context.output, texts), 0.0), 1.0)
        text = f"{self._name()} {score:.3f}"
        bar = bar_of(self._min_score, context)
        return judged(score, self._threshold, bar, text, {"references": len(texts)})

    @abstractmethod
    def _prepare(self) -> None:
        """Raises `ValueError` when the library is not there."""

    @abstractmethod
    def _name(self) -> str:
        """What it is called in sentences."""

    @abstractmethod
    def _measured(self, output: str, texts: Sequence[str]) -> float:
        """The score of the answer against the texts that are right."""


# --- rouge ----------------------------------------------------------------------------------------


class _RougeSettings(MetricSettings):
    variant: Literal["rouge1", "rouge2", "rouge3", "rougeL", "rougeLsum"] = "rougeL"
    """Which n-grams are compared, or the longest common subsequence (`rougeL`)."""
    measure: Literal["fmeasure", "precision", "recall"] = "fmeasure"
    """Which of its numbers is the score."""
    stem: bool = False
    """`true`: English words are compared by their stems."""


@lru_cache(maxsize=16)
def _rouge(variant: str, stem: bool) -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise ValueError(needs("rouge-score")) from None
    return RougeScorer([variant], use_stemmer=stem)


class Rouge(Metric):
    """ROUGE, as `rouge-score` counts it."""

    Settings = _RougeSettings
    __slots__ = ()

    def _prepare(self) -> None:
        _rouge(self._settings.variant, self._settings.stem)

    def _name(self) -> str:
        return f"{self._settings.variant} ({self._settings.measure})"

    def _measured(self, output: str, texts: Sequence[str]) -> float:
        variant = self._settings.variant
        scorer = _rouge(variant, self._settings.stem)
        if variant.startswith("rougeL"):
            for text in texts:
                check_size(len(output.split()), len(text.split()), MAX_WORDS)
        found = (scorer.score(text, output)[variant] for text in texts)
        return max(float(getattr(one, self._settings.measure)) for one in found)


# --- bleu and chrf --------------------------------------------------------------------------------


class _BleuSettings(MetricSettings):
    lowercase: bool = False
    """`true`: letter case aside."""
    tokenize: Literal["13a", "intl", "char", "zh", "none"] = "13a"
    """How texts are cut into words."""


@lru_cache(maxsize=16)
def _bleu(lowercase: bool, tokenize: str) -> Any:
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ImportError:
        raise ValueError(needs("sacrebleu")) from None
    return BLEU(lowercase=lowercase, tokenize=tokenize, effective_order=True)


class Bleu(Metric):
    """BLEU of one text, with effective order and exponential smoothing, as `sacrebleu` counts it;
    several references are taken together."""

    Settings = _BleuSettings
    __slots__ = ()

    def _prepare(self) -> None:
        _bleu(self._settings.lowercase, self._settings.tokenize)

    def _name(self) -> str:
        return "BLEU"

    def _measured(self, output: str, texts: Sequence[str]) -> float:
        metric = _bleu(self._settings.lowercase, self._settings.tokenize)
        return float(metric.sentence_score(output, list(texts)).score) / 100


class _ChrfSettings(MetricSettings):
    word_order: Annotated[int, Field(ge=0, le=2)] = 0
    """Word n-grams that count as well: 2 is chrF++."""
    lowercase: bool = False
    """`true`: letter case aside."""


@lru_cache(maxsize=16)
def _chrf(word_order: int, lowercase: bool) -> Any:
    try:
        from sacrebleu.metrics.chrf import CHRF
    except ImportError:
        raise ValueError(needs("sacrebleu")) from None
    return CHRF(word_order=word_order, lowercase=lowercase)


class Chrf(Metric):
    """chrF of one text, as `sacrebleu` counts it."""

    Settings = _ChrfSettings
    __slots__ = ()

    def _prepare(self) -> None:
        _chrf(self._settings.word_order, self._settings.lowercase)

    def _name(self) -> str:
        return f"chrF{'+' * self._settings.word_order}"

    def _measured(self, output: str, texts: Sequence[str]) -> float:
        metric = _chrf(self._settings.word_order, self._settings.lowercase)
        return float(metric.sentence_score(output, list(texts)).score) / 100


# --- edits ----------------------------------------------------------------------------------------


class _FuzzySettings(MetricSettings):
    fold: bool = True
    """Letter case and runs of white space are set aside; `false`: they count."""


class Fuzzy(Metric):
    """How alike the texts are, letter by letter."""

    Settings = _FuzzySettings
    __slots__ = ()

    def _prepare(self) -> None:
        similarity_library()

    def _name(self) -> str:
        return "similarity"

    def _measured(self, output: str, texts: Sequence[str]) -> float:
        return max(similarity(output, text, fold=self._settings.fold) for text in texts)


class _LevenshteinSettings(FileModel):
    value: Annotated[list[str] | None, Field(min_length=1), BeforeValidator(_as_list)] = None
    """The text that is right, or several; left out, it is the test's expected output."""
    max_distance: Annotated[int, Field(ge=0)] = Field(
        5, validation_alias=AliasChoices("max_distance", "threshold")
    )
    """Edits that the answer may be away (`threshold` is the same)."""
    fold: bool = False
    """`true`: letter case and runs of white space are set aside."""


class Levenshtein:
    """The answer is at most so many edits away."""

    Settings = _LevenshteinSettings
    __slots__ = ("_settings",)

    def __init__(self, spec: GraderSpec) -> None:
        self._settings = _LevenshteinSettings.model_validate(spec.config)
        similarity_library()

    def __call__(self, context: GradeContext) -> Score:
        distance = similarity_library().distance
        form: Callable[[str], str] = folded if self._settings.fold else str
        texts = references(self._settings.value, context)
        for text in texts:
            check_size(len(context.output), len(text), MAX_LETTERS)
        away, nearest = min((distance(form(context.output), form(text)), text) for text in texts)
        passed = away <= self._settings.max_distance
        text = f'{away} edits away from "{clip(nearest)}", wanted {self._settings.max_distance}'
        return Score(float(passed), (Assertion(text, passed),), {"distance": away})
