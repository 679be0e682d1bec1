"""How alike two texts are, letter by letter. `rapidfuzz` is loaded when it is used."""

from __future__ import annotations

from typing import Any

__all__ = ("folded", "needs", "similarity", "similarity_library")


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
    to the other, as a share of the longer one's length."""
    if fold:
        one, other = folded(one), folded(other)
    share: float = similarity_library().normalized_similarity(one, other)
    return share


def folded(text: str) -> str:
    """Letter case aside, and each run of white space as one space."""
    return " ".join(text.casefold().split())
