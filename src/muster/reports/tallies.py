"""Sums that reports keep while results stream by: means with intervals that know of clusters."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from muster.evals.results import CaseResult
from muster.evals.stats import Estimate, mean_of_sums

__all__ = ("BINS", "Cluster", "Tally", "bin_of", "cluster_of", "is_named_by_value", "named_scores")

Cluster: TypeAlias = tuple[str, str, str]

BINS = 10
"""Of a distribution of scores, all of one width; the last one holds 1.0."""


def cluster_of(result: CaseResult, *, repeated: bool) -> Cluster | None:
    """What the result shares with others that are not independent of it; `None` if there are none.

    The same units as in a run's totals: the `cluster`, else the test with its repeats and prompts.
    """
    if result.cluster is not None:
        return (result.suite_key, "cluster", result.cluster)
    if repeated or result.prompt is not None:
        return (result.suite_key, "test", result.test_id)
    return None


class Tally:
    """Of several numbers a result: sums, and the sums of each cluster."""

    def __init__(self, width: int) -> None:
        self.n = 0
        self._width = width
        self._singles = [0.0] * width
        self._squares = [0.0] * width
        self._alone = 0
        self._clusters: dict[Cluster, array[float]] = {}

    def add(self, cluster: Cluster | None, values: Sequence[float]) -> None:
        """Count one result."""
        self.n += 1
        if cluster is None:
            self._alone += 1
            for column, value in enumerate(values):
                self._singles[column] += value
                self._squares[column] += value * value
            return
        sums = self._clusters.get(cluster)
        if sums is None:
            sums = self._clusters[cluster] = array("d", [0.0] * (self._width + 1))
        sums[0] += 1
        for column, value in enumerate(values, 1):
            sums[column] += value

    def total(self, column: int) -> float:
        """The sum of one of the numbers."""
        return self._singles[column] + sum(sums[column + 1] for sums in self._clusters.values())

    def estimate(
        self, column: int, *, bounds: tuple[float, float] | None = (0.0, 1.0), binary: bool = False
    ) -> Estimate | None:
        """The mean of one of the numbers with its 95 % interval; `None` of nothing."""
        if not self.n:
            return None
        return mean_of_sums(
            ((int(sums[0]), sums[column + 1]) for sums in self._clusters.values()),
            singles=self._alone,
            single_sum=self._singles[column],
            single_squares=self._squares[column],
            bounds=bounds,
            binary=binary,
        )


def bin_of(score: float) -> int:
    """Where a score belongs in a distribution; what rounding took from 0.3 does not matter."""
    return min(int(score * BINS + 1e-9), BINS - 1)


def is_named_by_value(row: Mapping[str, Any]) -> bool:
    """Whether a grader's name is its type and what it looks for, such as `contains-Paris`."""
    return str(row.get("name")).startswith(f"{row.get('type')}-")


def named_scores(
    result: CaseResult, grouped: Collection[str] = ()
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each grader's row with a name of its own: the second `contains` of a case is `contains#2`.

    Args:
        grouped: types whose graders, where they are named by what they look for, go by the type.
    """
    seen: dict[str, int] = {}
    for row in result.scores:
        kind = str(row.get("type"))
        name = str(row.get("name") or row.get("type") or "grader")
        if kind in grouped and is_named_by_value(row):
            name = kind
        count = seen[name] = seen.get(name, 0) + 1
        yield (name if count == 1 else f"{name}#{count}"), row
