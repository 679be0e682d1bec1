"""How far a judge's verdicts on single answers are people's, and what draws it aside."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Any

import msgspec

from muster.evals.agreement import cohen_kappa, difference_of_means, share
from muster.evals.judge_examples import Example
from muster.evals.judge_records import JudgeId, told
from muster.evals.stats import Estimate, clustered_mean

__all__ = ("Judged", "agreement_report")

LEVELS = 10
"""Scores are compared in so many steps where labels are scores."""


class Judged(msgspec.Struct, frozen=True):
    """What a judge said of an example."""

    example: Example
    score: float
    passed: bool
    judge: JudgeId
    reason: str

    @property
    def error(self) -> float:
        """How much more the judge gives than people do."""
        return self.score - self.example.score


def agreement_report(judged: Sequence[Judged], bar: float) -> dict[str, Any]:
    """What is published of them; an answer passes from `bar` on."""
    labels = [one.example.score >= bar for one in judged]
    table = [[0, 0], [0, 0]]
    for one, good in zip(judged, labels, strict=True):
        table[not good][not one.passed] += 1
    (true_pass, false_fail), (false_pass, true_fail) = table
    graded = any(one.example.graded for one in judged)
    errors = [one.error for one in judged]
    return {
        "agreement": told(share(true_pass + true_fail, len(judged))),
        "kappa": told(cohen_kappa(table)),
        "weighted_kappa": told(_weighted(judged)) if graded else None,
        "confusion": {
            "labelled_pass": {"judged_pass": true_pass, "judged_fail": false_fail},
            "labelled_fail": {"judged_pass": false_pass, "judged_fail": true_fail},
        },
        "passes_found": told(share(true_pass, true_pass + false_fail)),
        "fails_found": told(share(true_fail, false_pass + true_fail)),
        "leniency": told(
            clustered_mean([float(one.passed) - good for one, good in
                            zip(judged, labels, strict=True)], bounds=(-1.0, 1.0))
        ),
        "score_error": told(clustered_mean(errors, bounds=(-1.0, 1.0))) if graded else None,
        "mean_absolute_error": math.fsum(map(abs, errors)) / len(errors) if graded else None,
        "length_bias": _length_bias(judged, labels),
    }  # fmt: skip


def _weighted(judged: Sequence[Judged]) -> Estimate | None:
    """Kappa with quadratic weights over scores in tenths."""
    table = [[0] * (LEVELS + 1) for _ in range(LEVELS + 1)]
    for one in judged:
        table[_level(one.example.score)][_level(one.score)] += 1
    return cohen_kappa(table, "quadratic")


def _level(score: float) -> int:
    return math.floor(score * LEVELS + 0.5)


def _length_bias(judged: Sequence[Judged], labels: Sequence[bool]) -> dict[str, Any] | None:
    """How much kinder the judge is to the longer half of the answers than people are.

    Verdict minus label is compared between the halves, so that long answers that *are* better
    count for nothing. `None` where all answers are of one length.
    """
    lengths = [len(one.example.output) for one in judged]
    middle = median(lengths)
    kindness = [float(one.passed) - good for one, good in zip(judged, labels, strict=True)]
    longer = [error for error, length in zip(kindness, lengths, strict=True) if length > middle]
    shorter = [error for error, length in zip(kindness, lengths, strict=True) if length <= middle]
    found = difference_of_means(longer, shorter, (-1.0, 1.0))
    if found is None:
        return None
    return {
        "median_length": middle,
        "longer": told(clustered_mean(longer, bounds=(-1.0, 1.0))),
        "shorter": told(clustered_mean(shorter, bounds=(-1.0, 1.0))),
        "difference": told(found),
    }
