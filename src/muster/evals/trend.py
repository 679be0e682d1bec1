"""How the scores of a suite went over several runs: a slope, with its interval."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from muster.errors import UsageError
from muster.evals.paired import mean_difference
from muster.evals.pairing import known_alike, tally
from muster.evals.scored import ScoredRun
from muster.evals.stats import Estimate, clustered_mean

__all__ = ("Trend", "TrendPoint", "Trends", "trend_of")


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
    direction: str
    """By the slope's interval: `improving`, `degrading`, `no trend is shown`; `unknown` without."""
    notes: list[str]


class Trends(msgspec.Struct, frozen=True):
    """What `muster trend --json` prints; its schema is published."""

    trends: list[Trend]
    schema_version: int = 1


def _direction(slope: Estimate) -> str:
    if slope.low is None or slope.high is None:
        return "unknown"
    if slope.low > 0:
        return "improving"
    return "degrading" if slope.high < 0 else "no trend is shown"


def trend_of(
    runs: Sequence[ScoredRun], target: str, suites: Sequence[str] = (), confidence: float = 0.95
) -> Trend:
    """The trend of `target` over `runs`, the earliest first, on one suite: any of `suites` may be
    its name or its file.

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
        tally(r for r in run.of(target) if not suites or {r.suite, r.suite_key} & set(suites))
        for run in runs
    ]
    how, keys = known_alike(tallies) or ("", [{} for _ in runs])
    everywhere = [
        name
        for name in keys[0]
        if all(
            name in mine and of[mine[name]].judged for mine, of in zip(keys, tallies, strict=True)
        )
    ]
    if not everywhere:
        raise UsageError(f"no case has a score in all {len(runs)} runs of {target}")
    found = [
        [of[mine[name]] for name in everywhere] for mine, of in zip(keys, tallies, strict=True)
    ]
    scores = np.array([[known.score / known.judged for known in column] for column in found])
    steps = np.arange(len(runs)) - (len(runs) - 1) / 2
    slopes = steps @ scores / float(steps @ steps)
    first = [keys[0][name] for name in everywhere]
    names = [
        (key[0], known.cluster) if known.cluster else key[:2]
        for key, known in zip(first, found[0], strict=True)
    ]
    known_names: dict[object, int] = {}
    numbers = np.array([known_names.setdefault(name, len(known_names)) for name in names])
    groups = None if len(known_names) == len(names) else numbers
    every = {name for mine in keys for name in mine}
    # No slope is steeper than that of scores that go from 0 to 1 half-way, or back.
    most = float(np.abs(steps).sum() / 2 / (steps @ steps))
    slope = _scaled(mean_difference(slopes / most, groups, confidence), most)
    return Trend(
        suite=suites[0] if suites else first[0][0],
        target=target,
        points=[
            TrendPoint(
                run.name,
                run.started_at,
                _mean(row.tolist(), None if groups is None else numbers.tolist(), confidence),
                sum(tallied.errors for tallied in of.values()),
                len(of),
            )
            for run, of, row in zip(runs, tallies, scores, strict=True)
        ],
        cases=len(everywhere),
        left_out=len(every) - len(everywhere),
        slope=slope,
        direction=_direction(slope),
        notes=_notes(runs, target) + ([f"cases are matched {how}"] if how else []),
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


def _notes(runs: Sequence[ScoredRun], target: str) -> list[str]:
    early = [run.early[target] for run in runs if target in run.early]
    notes = early + list(dict.fromkeys(note for run in runs for note in run.notes))
    hashes: dict[str, set[str]] = {}
    for run in runs:
        for key, content in run.suites.items():
            hashes.setdefault(key, set()).add(content)
    judges: dict[str, set[str]] = {}
    for run in runs:
        for grader, named in run.judges.get(target, {}).items():
            who = sorted({judge.rpartition(" ")[0] for judge in named})
            judges.setdefault(grader, set()).add(" and ".join(who))
    notes += [
        f"{grader} was not judged by the same in all runs: {'; '.join(sorted(found))}"
        for grader, found in judges.items()
        if len(found) > 1
    ]
    return notes + [
        f"{key} has changed in between" for key, found in hashes.items() if len(found) > 1
    ]
