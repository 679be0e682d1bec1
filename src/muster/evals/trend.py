"""How the scores of a suite went over several runs: a slope, with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from muster.errors import UsageError
from muster.evals.paired import mean_difference
from muster.evals.pairing import CaseKey, tally
from muster.evals.scored import ScoredRun
from muster.evals.stats import Estimate, clustered_mean

__all__ = ("Trend", "TrendPoint", "trend_of")


class TrendPoint(msgspec.Struct, frozen=True):
    """One run, on the cases that all of the runs have."""

    run: str
    started_at: str | None
    mean_score: Estimate
    errors: int
    """Results without a score, of all its cases."""
    cases: int
    """That it has, shared or not."""


class Trend(msgspec.Struct, frozen=True):
    """The runs of one suite on one target, the earliest first."""

    suite: str
    target: str
    points: list[TrendPoint]
    cases: int
    """That have a score in every run."""
    left_out: int
    """That do not."""
    slope: Estimate
    """Change of the mean score from one run to the next."""
    notes: list[str]

    @property
    def direction(self) -> str:
        """By the slope's interval."""
        if self.slope.low is None or self.slope.high is None:
            return "unknown"
        if self.slope.low > 0:
            return "improving"
        return "degrading" if self.slope.high < 0 else "no trend is shown"

    def to_dict(self) -> dict[str, Any]:
        """The published form."""
        return {"direction": self.direction, **msgspec.to_builtins(self)}


def trend_of(
    runs: Sequence[ScoredRun], target: str, suite: str | None = None, confidence: float = 0.95
) -> Trend:
    """The trend of `target` over `runs`, the earliest first.

    Each case has a slope of its own, by least squares over the runs; their mean is the slope of
    the mean scores, and how they differ says how sure it is (Matthews, Altman, Campbell, Royston,
    BMJ 300 (1990) 230-235, on summary measures). Cases are what is sampled, and paired over the
    runs: with two runs this is their mean difference and its interval, as in a comparison.

    Raises:
        UsageError: fewer than two runs, or no case has a score in all of them.
    """
    import numpy as np

    if len(runs) < 2:
        raise UsageError("a trend needs two runs at least")
    tallies = [
        tally(r for r in run.of(target) if suite is None or suite in (r.suite, r.suite_key))
        for run in runs
    ]
    everywhere: list[CaseKey] = [
        key for key in tallies[0] if all(key in found and found[key].judged for found in tallies)
    ]
    if not everywhere:
        raise UsageError(f"no case has a score in all {len(runs)} runs of {target}")
    scores = np.array(
        [[found[key].score / found[key].judged for key in everywhere] for found in tallies]
    )
    steps = np.arange(len(runs)) - (len(runs) - 1) / 2
    slopes = steps @ scores / float(steps @ steps)
    names = [
        (key[0], tallies[0][key].cluster) if tallies[0][key].cluster else key[:2]
        for key in everywhere
    ]
    known: dict[object, int] = {}
    numbers = np.array([known.setdefault(name, len(known)) for name in names])
    groups = None if len(known) == len(names) else numbers
    every = {key for found in tallies for key in found}
    # No slope is steeper than that of scores that go from 0 to 1 half-way, or back.
    most = float(np.abs(steps).sum() / 2 / (steps @ steps))
    slope = mean_difference(slopes / most, groups, confidence)
    return Trend(
        suite=suite or everywhere[0][0],
        target=target,
        points=[
            TrendPoint(
                run.name,
                run.started_at,
                _mean(row.tolist(), None if groups is None else numbers.tolist(), confidence),
                sum(known.errors for known in found.values()),
                len(found),
            )
            for run, found, row in zip(runs, tallies, scores, strict=True)
        ],
        cases=len(everywhere),
        left_out=len(every) - len(everywhere),
        slope=_scaled(slope, most),
        notes=_notes(runs),
    )


def _mean(scores: list[float], clusters: list[int] | None, confidence: float) -> Estimate:
    binary = set(scores) <= {0.0, 1.0}
    return clustered_mean(scores, clusters, confidence, binary=binary)


def _scaled(estimate: Estimate, factor: float) -> Estimate:
    low, high, error = (
        None if number is None else number * factor
        for number in (estimate.low, estimate.high, estimate.standard_error)
    )
    return replace(
        estimate, value=estimate.value * factor, low=low, high=high, standard_error=error
    )


def _notes(runs: Sequence[ScoredRun]) -> list[str]:
    notes = list(dict.fromkeys(note for run in runs for note in run.notes))
    hashes: dict[str, set[str]] = {}
    for run in runs:
        for key, content in run.suites.items():
            hashes.setdefault(key, set()).add(content)
    return notes + [
        f"{key} has changed in between" for key, found in hashes.items() if len(found) > 1
    ]
