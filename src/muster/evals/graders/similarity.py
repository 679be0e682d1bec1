"""How alike two texts are, letter by letter. `rapidfuzz` is loaded when it is used."""

from __future__ import annotations

from typing import Any

from muster.evals.graders.base import GraderError

__all__ = ("MAX_LETTERS", "check_size", "folded", "needs", "similarity", "similarity_library")

MAX_LETTERS = 10**10
"""The product of two texts' lengths up to which edits are counted: a second or so."""


def similarity_library() -> Any:
    """The module that counts edits.

    Raises:
        ValueError: it is not installed.
    """
    try:
        from rapidfuzz.distance import Levenshtein
    except ImportError:
        raise ValueError(needs("rapidfuzz")) from None
    return Levenshtein


def needs(library: str) -> str:
    """What to do when a library of the extra is not there."""
    return f"this needs {library}: pip install 'muster-ai[metrics]'"


def similarity(one: str, other: str, *, fold: bool = True) -> float:
    """From 0 to 1: 1 less the edits (a letter added, removed or replaced) that lead from one text
    to the other, as a share of the longer one's length.

    Raises:
        GraderError: they are too long.
    """
    if fold:
        one, other = folded(one), folded(other)
    check_size(len(one), len(other), MAX_LETTERS)
    share: float = similarity_library().normalized_similarity(one, other)
    return share


def check_size(one: int, other: int, most: int) -> None:
    """Raise `GraderError` for texts whose comparison would hold up everything else."""
    if one * other > most:
        raise GraderError(f"texts of {one:,} and {other:,} are too long to be compared")


def folded(text: str) -> str:
    """Letter case aside, and each run of white space as one space."""
    return " ".join(text.casefold().split())
