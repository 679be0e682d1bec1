"""Why a result is not `ok`."""

from __future__ import annotations

from typing import Any

from muster.evals.results import CaseResult
from muster.plain import one_line

__all__ = ("reason_of", "turn_scores")


def reason_of(result: CaseResult) -> str:
    """Why a result is not `ok`, in one line that a terminal can be given."""
    return one_line(_reason_of(result))


def _reason_of(result: CaseResult) -> str:
    if result.error is not None:
        return result.error
    failed = [
        str(assertion.get("text", ""))
        for score in [*result.scores, *turn_scores(result)]
        if score.get("verdict") == "fail"
        for assertion in score.get("assertions", ())
        if not assertion.get("passed")
    ]
    return "; ".join(" ".join(text.split()) for text in failed[:2]) or "below the threshold"


def turn_scores(result: CaseResult) -> list[dict[str, Any]]:
    """The scores of the turns of a conversation."""
    return [score for turn in result.turns or () for score in turn.get("scores", ())]
