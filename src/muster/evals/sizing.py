"""From a run that was made to one that would see a difference: what must be larger."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from muster.errors import UsageError
from muster.evals.paired import mean_difference
from muster.evals.pairing import Side, Tally, pair, tally
from muster.evals.power import PairedSpread, cases_needed, detectable, repeats_needed
from muster.evals.stats import VarianceSplit, clustered_mean, split_variance

__all__ = ("Sizing", "size_for")


class Row(msgspec.Struct, frozen=True):
    """What one power takes."""

    power: float
    cases: dict[int, int | None]
    """By the number of repeats: cases needed; `None`: no number would do."""
    repeats: int | None
    """Needed with the cases there are; `None`: no number would do, or it is not known."""
    detectable: float | None
    """The smallest difference that the cases and repeats there are would show."""


class Sizing(msgspec.Struct, frozen=True, kw_only=True):
    """What it takes to see `difference` between two targets on cases like those of a run."""

    difference: float
    about: str
    paired: bool
    """The variance of differences was seen; else two targets are taken for unrelated."""
    cases: int
    repeats: float
    """On average, each side."""
    variance: float
    """Of a case's difference, with these repeats; clusters inflate it."""
    between: float | None
    """The part of it that repeats do not lessen; `None` without repeats."""
    within: float | None
    """That of a single repeat, both sides."""
    rows: list[Row]
    notes: list[str]
    schema_version: int = 1


_REPEATS = (1, 2, 3, 5, 10)


def size_for(
    sides: Sequence[Side], difference: float, powers: Sequence[float] = (0.8, 0.9)
) -> Sizing:
    """What it takes to see `difference`, by the variance in the results of `sides`: two that are
    compared, or one, of which another like it is imagined that goes its own way on every case.

    With repeats the variance is split (one-way analysis of variance), and the part within cases
    falls with their number.

    Raises:
        UsageError: there are not two cases with a score.
    """
    if len(sides) == 2:
        cases, repeats, variance, splits = _of_pair(sides[0], sides[1])
    else:
        cases, repeats, variance, splits = _of_one(sides[0])
    notes = list(dict.fromkeys(note for side in sides for note in side.run.notes))
    between = within = None
    spread = PairedSpread(variance, 0.0)
    if splits is not None:
        within = sum(split.within for split in splits)
        between = max(variance - within / repeats, 0.0)
        spread = PairedSpread(between, within)
    else:
        notes.append("without repeats it is not known what more of them would help")
    if variance <= 0:
        notes.append("no spread was seen at all: more would be found in more cases")
    asked = _REPEATS if splits is not None else ()
    rows = [
        Row(
            power,
            {count: cases_needed(difference, spread.variance(count), power) for count in asked}
            or {round(repeats): cases_needed(difference, variance, power)},
            None if splits is None else repeats_needed(difference, spread, cases, power),
            detectable(variance, cases, power) if variance > 0 else None,
        )
        for power in powers
    ]
    return Sizing(
        difference=difference,
        about=" and ".join(side.label for side in sides),
        paired=len(sides) == 2,
        cases=cases,
        repeats=repeats,
        variance=variance,
        between=between,
        within=within,
        rows=rows,
        notes=notes,
    )


def _of_pair(a: Side, b: Side) -> tuple[int, float, float, list[VarianceSplit] | None]:
    pairs = pair(a, b)
    _check_enough(pairs.n, f"{a.label} and {b.label}")
    differences = pairs.column(pairs.a, _mean) - pairs.column(pairs.b, _mean)
    found = mean_difference(differences, pairs.clusters())
    splits = [_split(pairs.a), _split(pairs.b)]
    known = [split for split in splits if split is not None]
    # The variance that matters is that of the mean, times the cases: so clusters count.
    variance = (found.standard_error or 0.0) ** 2 * pairs.n
    repeats = _repeats([*pairs.a, *pairs.b])
    return pairs.n, repeats, variance, known if len(known) == 2 else None


def _of_one(side: Side) -> tuple[int, float, float, list[VarianceSplit] | None]:
    by_case = {key: found for key, found in tally(side.run.of(side.target)).items() if found.judged}
    _check_enough(len(by_case), side.label)
    names = [
        (key[0], found.cluster) if found.cluster else key[:2] for key, found in by_case.items()
    ]
    found = clustered_mean([_mean(known) for known in by_case.values()], names)
    split = _split(by_case.values())
    n = len(by_case)
    # Two targets that go their own ways on each case: the variances add up.
    variance = 2 * (found.standard_error or 0.0) ** 2 * n
    return n, _repeats(by_case.values()), variance, None if split is None else [split, split]


def _mean(found: Tally) -> float:
    return found.score / found.judged


def _split(tallies: Iterable[Tally]) -> VarianceSplit | None:
    return split_variance((found.judged, found.score, found.squares) for found in tallies)


def _repeats(tallies: Iterable[Tally]) -> float:
    """The harmonic mean: what the variance of cases' means is divided by."""
    known = [found.judged for found in tallies]
    return len(known) / sum(1 / count for count in known)


def _check_enough(cases: int, label: str) -> None:
    if cases < 2:
        raise UsageError(f"{label}: one case has no spread; two or more are needed to plan by")
