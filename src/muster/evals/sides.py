"""What is compared with what: runs and targets, as the command line names them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from muster.errors import UsageError, nearest
from muster.evals.pairing import Side
from muster.evals.scored import ScoredRun

__all__ = ("choose_sides", "only_target")


def choose_sides(
    runs: Sequence[ScoredRun], targets: Sequence[str] = (), *, all_pairs: bool = False
) -> list[tuple[Side, Side]]:
    """Pairs (what is judged, what it is measured against).

    Of one run, its first target (or the first of `targets`) against each of the others. Of
    several, the first run against each of the others, target by target. Where no targets are named,
    those that one run lacks are told in the notes of the other.

    Raises:
        UsageError: there is nothing to compare, or a target that is named is not there.
    """
    for name in targets:
        _check_there(name, runs)
    if len(runs) == 1:
        return _within(runs[0], list(targets) or runs[0].targets, all_pairs)
    first, *others = runs
    pairs = [pair for other in others for pair in _between(first, other, targets)]
    if all_pairs and len(runs) > 2:
        for one, two in combinations(others, 2):
            pairs += _between(one, two, targets)
    return pairs


def only_target(run: ScoredRun, asked: str | None) -> str:
    """The target that is meant: the one that is asked for, or the run's only one.

    Raises:
        UsageError: it is not there, or there are several.
    """
    if asked is not None:
        _check_there(asked, [run])
        return asked
    if len(run.targets) > 1:
        raise UsageError(
            f"{run.name} is of several targets; name one with --target: {', '.join(run.targets)}"
        )
    return run.targets[0]


def _check_there(name: str, runs: Sequence[ScoredRun]) -> None:
    known = list(dict.fromkeys(target for run in runs for target in run.targets))
    if name not in known:
        near = nearest(name, known)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        raise UsageError(f'no results of target "{name}" (there are {", ".join(known)}){hint}')


def _within(run: ScoredRun, names: list[str], all_pairs: bool) -> list[tuple[Side, Side]]:
    names = list(dict.fromkeys(names))
    if len(names) < 2:
        raise UsageError(
            f"{run.name} has results of one target only, {names[0]}: name another run to compare "
            "it with"
        )
    sides = [Side(run, name, name) for name in names]
    if all_pairs:
        return list(combinations(sides, 2))
    return [(sides[0], other) for other in sides[1:]]


def _between(a: ScoredRun, b: ScoredRun, targets: Sequence[str]) -> list[tuple[Side, Side]]:
    named = list(dict.fromkeys(targets)) or a.targets
    shared = [name for name in named if name in a.targets and name in b.targets]
    names = [(name, name) for name in shared]
    if not names and len(targets) == 2:
        names = [(targets[0], targets[1])]
    elif not names and not targets and len(a.targets) == len(b.targets) == 1:
        names = [(a.targets[0], b.targets[0])]
    if not names or names[0][0] not in a.targets or names[0][1] not in b.targets:
        raise UsageError(
            f"{a.name} and {b.name} share no target: the one is of {', '.join(a.targets)}, the "
            f"other of {', '.join(b.targets)}; name one of each with --targets X Y"
        )
    if shared and not targets:
        _tell_of_missing(a, b)
        _tell_of_missing(b, a)
    several = len(names) > 1
    return [
        (Side(a, one, _label(a, b, one, several)), Side(b, two, _label(b, a, two, several)))
        for one, two in names
    ]


def _tell_of_missing(run: ScoredRun, other: ScoredRun) -> None:
    """Who is told that two runs are alike must know of what no comparison was made."""
    missing = [name for name in run.targets if name not in other.targets]
    if missing:
        run.notes.append(f"only {run.name} has the target {', '.join(missing)}: not compared")


def _label(run: ScoredRun, other: ScoredRun, target: str, several: bool) -> str:
    """What tells the side from the other: the run, and the target where that says more."""
    name = run.name if run.name != other.name else str(run.path)
    same = not several and run.targets == other.targets
    return name if same else f"{name}:{target}"
