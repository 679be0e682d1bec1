"""From which score a grader passes, and what a `threshold` of its own makes of that: a verdict,
which counts as 1 or 0 in place of the score."""

from __future__ import annotations

from dataclasses import replace

from muster.evals.case import DEFAULT_THRESHOLD
from muster.evals.graders.base import GradeContext, GraderSpec, Score, SettingError

__all__ = ("bar_of", "held_to", "own_bar")


def own_bar(threshold: float | None, spec: GraderSpec) -> float | None:
    """The threshold that the entry says.

    Raises:
        SettingError: it says `min_score` too.
    """
    if threshold is not None and spec.min_score is not None:
        told = "threshold says when it passes, and so does min_score; keep one"
        raise SettingError("threshold", told)
    return threshold


def bar_of(bar: float | None, context: GradeContext) -> float:
    """The score from which a grader passes: `bar` if its entry says one, else the case's."""
    if bar is not None:
        return bar
    return DEFAULT_THRESHOLD if context.threshold is None else context.threshold


def held_to(score: Score, threshold: float | None) -> Score:
    """With a threshold, what counts is whether the score reaches it: 1 or 0. Who says himself that
    an answer fails is not overruled."""
    if threshold is None:
        return score
    passed = score.score >= threshold and score.passed is not False
    return replace(score, passed=passed, counted=float(passed))
