"""Measures of the words that two texts share, which need no library: `token-overlap` and `gleu`."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from muster.evals.graders.text_metrics import Metric, MetricSettings

__all__ = ("Gleu", "TokenOverlap")

_NO_WORD = re.compile(r"[^\w\s]")


def _words(text: str) -> list[str]:
    """Lower-cased words, without punctuation."""
    return _NO_WORD.sub("", text.lower()).split()


class _OverlapSettings(MetricSettings):
    measure: Literal["cosine", "jaccard", "f1"] = "cosine"
    """Of the counts of words the cosine, of the sets of words the share that both have, or the
    harmonic mean of precision and recall."""


def _cosine(one: Mapping[str, int], other: Mapping[str, int]) -> float:
    dot = sum(count * other.get(word, 0) for word, count in one.items())
    squares = [sum(count * count for count in counts.values()) for counts in (one, other)]
    return dot / math.sqrt(squares[0] * squares[1]) if all(squares) else 0.0


def _jaccard(one: Mapping[str, int], other: Mapping[str, int]) -> float:
    either = one.keys() | other.keys()
    return len(one.keys() & other.keys()) / len(either) if either else 0.0


def _f1(one: Mapping[str, int], other: Mapping[str, int]) -> float:
    shared = sum(min(count, other.get(word, 0)) for word, count in one.items())
    both = sum(one.values()) + sum(other.values())
    return 2 * shared / both if both else 0.0


_OVERLAPS = {"cosine": _cosine, "jaccard": _jaccard, "f1": _f1}


class TokenOverlap(Metric):
    """Which words both texts have, their order aside."""

    Settings = _OverlapSettings
    __slots__ = ()

    def _prepare(self) -> None:
        """It needs no library."""

    def _name(self) -> str:
        return f"overlap of words ({self._settings.measure})"

    def _measured(self, output: str, texts: Sequence[str]) -> float:
        overlap = _OVERLAPS[self._settings.measure]
        given = Counter(_words(output))
        return max(overlap(given, Counter(_words(text))) for text in texts)


class Gleu(Metric):
    """GLEU of one text (Wu et al., Google's Neural Machine Translation System, 2016, 5.2): of the
    runs of 1 to 4 words the share that both have, in that text which has more of them. Words stand
    between white space; letter case and dots at their ends are set aside."""

    __slots__ = ()

    def _prepare(self) -> None:
        """It needs no library."""

    def _name(self) -> str:
        return "GLEU"

    def _measured(self, output: str, texts: Sequence[str]) -> float:
        given = _runs(output)
        return max(_gleu(given, _runs(text)) for text in texts)


def _runs(text: str) -> Counter[tuple[str, ...]]:
    words = [word.rstrip(".") for word in text.lower().split()]
    return Counter(
        tuple(words[at : at + length])
        for length in range(1, 5)
        for at in range(len(words) - length + 1)
    )


def _gleu(one: Counter[tuple[str, ...]], other: Counter[tuple[str, ...]]) -> float:
    most = max(one.total(), other.total())
    return (one & other).total() / most if most else 0.0
