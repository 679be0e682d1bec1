"""What makes two sides of a comparison unlike, besides what is compared."""

from __future__ import annotations

from muster.evals.pairing import Pairs, Side

__all__ = ("notes_of",)


def notes_of(a: Side, b: Side, pairs: Pairs) -> list[str]:
    """What a reader of the comparison must know of the two sides."""
    early = (side.run.early[side.target] for side in (a, b) if side.target in side.run.early)
    notes = list(dict.fromkeys((*early, *a.run.notes, *b.run.notes)))
    if pairs.how:
        notes.append(f"cases are paired {pairs.how}")
    notes += [
        f"{key} is not what it was: the two runs are of different versions of it"
        for key in sorted(a.run.suites.keys() & b.run.suites.keys())
        if a.run.suites[key] != b.run.suites[key]
    ]
    notes += _other_judges(a, b)
    if (bars := pairs.thresholds) is not None:
        notes.append(
            f"cases pass from {bars[0]:g} on in {a.label}, from {bars[1]:g} on in {b.label}: pass "
            "rates are not of the same thing"
        )
    if pairs.n == 1:
        notes.append("one case: there is no spread to tell an interval from")
    return notes


def _other_judges(a: Side, b: Side) -> list[str]:
    """Graders whose scores were given by another judge on the other side, or were asked for
    otherwise."""
    notes = []
    left, right = a.run.judges.get(a.target, {}), b.run.judges.get(b.target, {})
    for grader in sorted(left.keys() & right.keys()):
        if set(left[grader]) == set(right[grader]):
            continue
        one, two = (
            " and ".join(sorted({judge.rpartition(" ")[0] for judge in side[grader]}))
            for side in (left, right)
        )
        if one == two:
            if not set(left[grader]).isdisjoint(right[grader]):
                continue  # questions differ from case to case, and one side has more of them
            notes.append(f"{grader}: the judge, {one}, was not asked the same on both sides")
        else:
            notes.append(
                f"{grader} was judged by {one} in {a.label}, by {two} in {b.label}: the difference "
                "may be theirs"
            )
    return notes
