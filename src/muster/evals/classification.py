"""Hits and misses of graders that classify, added up over a run: precision, recall and F1.

Such a grader says in its details what the answer did to each class (or field, or tool):
`confusion`, a mapping of names to counts `tp`, `fp`, `fn`, `tn`. Programs that write AgentV's
`metrics` are read as well.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from muster.evals.stats import Estimate, effective_size, wilson_interval

__all__ = ("ClassTotals", "Counts", "confusion_of", "f1_of")

KINDS = ("tp", "fp", "fn", "tn")

_MEASURES = {
    "precision": ((1, 0, 0), (1, 1, 0)),
    "recall": ((1, 0, 0), (1, 0, 1)),
    "f1": ((2, 0, 0), (2, 1, 1)),
}
"""Each is a ratio of sums over cases: the weights of tp, fp and fn above and below the line."""

MAX_CLASSES = 1000
"""Of a grader. A program that makes names up must not fill the memory."""


def f1_of(tp: float, fp: float, fn: float) -> float | None:
    """The harmonic mean of precision and recall; `None` where nothing was there to be found, and
    nothing was."""
    below = 2 * tp + fp + fn
    return 2 * tp / below if below else None


def confusion_of(details: object) -> Mapping[str, Mapping[str, Any]] | None:
    """What a score's details say of classes; `None` if they say nothing of them."""
    if not isinstance(details, Mapping):
        return None
    for key in ("confusion", "metrics"):
        found = details.get(key)
        if isinstance(found, Mapping) and found and all(map(_is_counts, found.values())):
            return found
    return None


def _is_counts(value: object) -> bool:
    if not isinstance(value, Mapping) or not any(kind in value for kind in KINDS[:3]):
        return False
    return all(
        isinstance(number, int | float) and not isinstance(number, bool) and 0 <= number < math.inf
        for number in (value.get(kind, 0) for kind in KINDS)
    )


class Counts(msgspec.Struct):
    """The counts of one class, with what an interval needs: sums over units (cases, or clusters of
    cases) of the counts and of their products."""

    sums: list[float] = msgspec.field(default_factory=lambda: [0.0] * 4)
    _products: list[float] = msgspec.field(default_factory=lambda: [0.0] * 9)
    _units: list[int] = msgspec.field(default_factory=lambda: [0] * 3)
    """For each measure, how many units have a part in it."""
    _clusters: dict[Hashable, list[float]] = msgspec.field(default_factory=dict)

    def add(self, counts: Sequence[float], cluster: Hashable | None) -> None:
        """Count one case; those of one `cluster` are one unit."""
        for number, count in enumerate(counts):
            if count:
                self.sums[number] += count
        if cluster is None:
            self._add_unit(counts, self._products, self._units)
            return
        known = self._clusters.setdefault(cluster, [0.0] * 4)
        for number, count in enumerate(counts):
            known[number] += count

    @staticmethod
    def _add_unit(counts: Sequence[float], products: list[float], units: list[int]) -> None:
        there = [(at, count) for at, count in enumerate(counts[:3]) if count]
        for row, count in there:
            for column, other in there:
                products[3 * row + column] += count * other
        for number, (_, below) in enumerate(_MEASURES.values()):
            units[number] += any(below[at] for at, _ in there)

    def estimates(self) -> dict[str, Estimate | None]:
        """Precision, recall and F1; `None` where what stands below the line is 0.

        The standard error of a ratio of sums is that of its linearisation over units (Cochran,
        Sampling Techniques, 1977, 6.3 and 11.8); the interval is Wilson's for as many tries as
        would have it, as it is for a clustered pass rate.
        """
        products, units = list(self._products), list(self._units)
        for counts in self._clusters.values():
            self._add_unit(counts, products, units)
        return {
            name: self._ratio(above, below, products, units[number])
            for number, (name, (above, below)) in enumerate(_MEASURES.items())
        }

    def _ratio(
        self,
        above: Sequence[int],
        below: Sequence[int],
        products: Sequence[float],
        units: int,
    ) -> Estimate | None:
        size = math.fsum(weight * self.sums[at] for at, weight in enumerate(below))
        if not size:
            return None
        value = math.fsum(weight * self.sums[at] for at, weight in enumerate(above)) / size
        residual = [one - value * other for one, other in zip(above, below, strict=True)]
        spread = math.fsum(
            residual[row] * residual[column] * products[3 * row + column]
            for row in range(3)
            for column in range(3)
        )
        error = None
        tries = float(units)
        if units == size:  # each unit is one try: a rate
            error = math.sqrt(value * (1 - value) / size)
        elif units > 1:
            error = math.sqrt(max(spread, 0.0) / size**2 * units / (units - 1))
            tries = effective_size(value, error, math.ceil(size), units)
        low, high = wilson_interval(min(value * tries, tries), tries)
        return Estimate(value, low, high, error, units, math.ceil(size))

    def to_dict(self) -> dict[str, Any]:
        """The published form."""
        counts = {kind: _plain(self.sums[at]) for at, kind in enumerate(KINDS)}
        return counts | {name: _told(found) for name, found in self.estimates().items()}


def _plain(number: float) -> float:
    return int(number) if number.is_integer() else number


def _told(found: Estimate | None) -> dict[str, Any] | None:
    if found is None:
        return None
    interval = found.interval
    return {"value": found.value, "interval": None if interval is None else list(interval)}


class _Grader(msgspec.Struct):
    classes: dict[str, Counts] = msgspec.field(default_factory=dict)
    together: Counts = msgspec.field(default_factory=Counts)
    cases: int = 0
    left_out: int = 0
    """Counts of classes beyond the thousandth: in the totals alone."""


class ClassTotals:
    """The classes of a target's graders."""

    def __init__(self) -> None:
        self._graders: dict[str, _Grader] = {}

    def add(self, scores: Sequence[Mapping[str, Any]], cluster: Hashable | None) -> None:
        """Look at the scores of one result."""
        for name, confusion in _found(scores):
            grader = self._graders.setdefault(name, _Grader())
            grader.cases += 1
            total = [0.0] * 4
            for label, counts in confusion.items():
                values = [float(counts.get(kind, 0)) for kind in KINDS]
                total = [one + other for one, other in zip(total, values, strict=True)]
                known = grader.classes.get(str(label))
                if known is None:
                    if len(grader.classes) >= MAX_CLASSES:
                        grader.left_out += 1
                        continue
                    known = grader.classes[str(label)] = Counts()
                known.add(values, cluster)
            grader.together.add(total, cluster)

    def to_list(self) -> list[dict[str, Any]]:
        """The published form: `classification` of a target."""
        return [
            {
                "grader": name,
                "cases": grader.cases,
                "micro": grader.together.to_dict(),
                "macro_f1": _macro(grader.classes),
                "classes": {label: one.to_dict() for label, one in sorted(grader.classes.items())},
                "left_out": grader.left_out,
            }
            for name, grader in self._graders.items()
        ]


def _macro(classes: Mapping[str, Counts]) -> float | None:
    """The mean of the classes' F1; one that never was expected nor found has no part in it."""
    known = [f1_of(*one.sums[:3]) for one in classes.values()]
    values = [value for value in known if value is not None]
    return math.fsum(values) / len(values) if values else None


def _found(rows: Any, depth: int = 0) -> Iterator[tuple[str, Mapping[str, Mapping[str, Any]]]]:
    """What the graders say of classes, those within sets too."""
    for row in rows if isinstance(rows, list | tuple) and depth < 20 else ():
        if not isinstance(row, Mapping):
            continue
        confusion = confusion_of(row.get("details"))
        if confusion is not None:
            yield str(row.get("name")), confusion
        if "scores" in row:
            yield from _found(row["scores"], depth + 1)
