"""Which results of two sides are about the same case, and what each case came to on both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from muster.errors import UsageError
from muster.evals.scored import Scored, ScoredRun, first_words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ("CaseKey", "Pairs", "Side", "known_alike", "pair", "shown_case", "tally")

CaseKey: TypeAlias = tuple[str, str, str | None]
"""(suite key, test id, prompt)."""


class Side(msgspec.Struct, frozen=True):
    """One of the two that are compared: a target of a run."""

    run: ScoredRun
    target: str
    label: str


class Tally(msgspec.Struct, gc=False):
    """A case on one side: sums over its repeats."""

    suite: str
    cluster: str | None
    threshold: float | None = None
    judged: int = 0
    errors: int = 0
    passed: int = 0
    score: float = 0.0
    squares: float = 0.0
    costed: int = 0
    cost: float = 0.0
    timed: int = 0
    duration: float = 0.0

    @property
    def is_graded(self) -> bool:
        """It has a score that is neither 0 nor 1."""
        return self.squares != self.score

    def add(self, result: Scored) -> None:
        """One more repeat."""
        if not result.judged:
            self.errors += 1
            return
        score = result.score or 0.0
        self.judged += 1
        self.passed += result.passed
        self.score += score
        self.squares += score * score
        if result.cost_usd is not None:
            self.costed += 1
            self.cost += result.cost_usd
        if result.duration_ms is not None:
            self.timed += 1
            self.duration += result.duration_ms


def tally(results: Iterable[Scored]) -> dict[CaseKey, Tally]:
    """Results of one target, by case."""
    found: dict[CaseKey, Tally] = {}
    for result in results:
        key = (result.suite_key, result.test_id, result.prompt)
        known = found.get(key)
        if known is None:
            known = found[key] = Tally(result.suite, result.cluster, result.threshold)
        known.add(result)
    return found


_LEVELS: tuple[tuple[str, Callable[[CaseKey, Tally], tuple[Any, ...]]], ...] = (
    ("", lambda key, tally: key),
    ("by the suites' names, not their files", lambda key, tally: (tally.suite, *key[1:])),
    ("by test id and prompt alone: the suites differ", lambda key, tally: key[1:]),
    ("by test id alone: the suites and prompts differ", lambda key, tally: (key[1],)),
)
"""What a case is known by, the surest first."""


class Pairs(msgspec.Struct):
    """The cases that both sides have, as columns; and those that cannot be compared."""

    keys: list[CaseKey]
    a: list[Tally]
    b: list[Tally]
    only_a: list[CaseKey]
    only_b: list[CaseKey]
    errored_a: list[CaseKey]
    """Shared, but without a score on side a."""
    errored_b: list[CaseKey]
    how: str
    """How cases were paired, where it is not by all that they are known by."""
    errors_a: int = 0
    """Results without a score, of the cases that both have."""
    errors_b: int = 0
    _numbers: list[int] | None = None

    @property
    def n(self) -> int:
        """Cases that can be compared."""
        return len(self.keys)

    @property
    def thresholds(self) -> tuple[float, float] | None:
        """The scores from which the two sides pass, of the first case where these differ and that
        makes a difference; `None` if there is no such case."""
        for one, two in zip(self.a, self.b, strict=True):
            low, high = one.threshold, two.threshold
            if low is None or high is None or low == high:
                continue
            if one.is_graded or two.is_graded or not low or not high:
                return low, high
        return None

    @property
    def repeated(self) -> bool:
        """Some case has several scores on a side."""
        return any(tally.judged > 1 for side in (self.a, self.b) for tally in side)

    def column(self, side: list[Tally], value: Callable[[Tally], float]) -> NDArray[np.float64]:
        """A number a case."""
        import numpy as np

        return np.fromiter((value(tally) for tally in side), dtype=np.float64, count=len(side))

    def clusters(self) -> NDArray[np.intp] | None:
        """The number of each case's cluster; `None` when each case stands for itself."""
        import numpy as np

        if self._numbers is None:
            self._numbers = _numbered(self)
        if not self._numbers:
            return None
        return np.array(self._numbers, dtype=np.intp)


def _numbered(pairs: Pairs) -> list[int]:
    """Clusters numbered; empty when there are as many as cases. The prompts of one test are of one
    cluster."""
    numbers: dict[tuple[str, str, str], int] = {}
    column = []
    for key, a, b in zip(pairs.keys, pairs.a, pairs.b, strict=True):
        cluster = a.cluster or b.cluster
        name = (key[0], "cluster", cluster) if cluster is not None else (key[0], "test", key[1])
        column.append(numbers.setdefault(name, len(numbers)))
    return column if len(numbers) < len(column) else []


def known_alike(
    sides: Sequence[Mapping[CaseKey, Tally]],
) -> tuple[str, list[dict[tuple[Any, ...], CaseKey]]] | None:
    """The cases of each side by what they are known by on all of them, and how that is less than
    everything; `None` where they share no case."""
    for how, known_by in _LEVELS:
        keys = [{known_by(key, found): key for key, found in side.items()} for side in sides]
        ambiguous = any(len(mine) < len(side) for mine, side in zip(keys, sides, strict=True))
        if not ambiguous and set[Any].intersection(*(set(mine) for mine in keys)):
            return how, keys
    return None


def pair(a: Side, b: Side) -> Pairs:
    """The cases of both sides, matched.

    By suite file, test id and prompt; where the sides share none so, by less, as long as that
    tells the cases of each side apart.

    Raises:
        UsageError: they share no case.
    """
    of_a, of_b = tally(a.run.of(a.target)), tally(b.run.of(b.target))
    if found := known_alike((of_a, of_b)):
        how, (keys_a, keys_b) = found
        return _matched(of_a, of_b, keys_a, keys_b, how)
    raise UsageError(
        f"{a.label} and {b.label} share no case, so there is nothing to compare: the one has "
        f"{len(of_a)} ({first_words(map(shown_case, of_a), 3)}), the other {len(of_b)} "
        f"({first_words(map(shown_case, of_b), 3)})"
    )


def _matched(
    of_a: dict[CaseKey, Tally],
    of_b: dict[CaseKey, Tally],
    keys_a: dict[tuple[Any, ...], CaseKey],
    keys_b: dict[tuple[Any, ...], CaseKey],
    how: str,
) -> Pairs:
    pairs = Pairs([], [], [], [], [], [], [], how)
    for name, key in keys_a.items():
        other = keys_b.get(name)
        if other is None:
            pairs.only_a.append(key)
            continue
        one, two = of_a[key], of_b[other]
        pairs.errors_a += one.errors
        pairs.errors_b += two.errors
        if not one.judged:
            pairs.errored_a.append(key)
        if not two.judged:
            pairs.errored_b.append(key)
        if one.judged and two.judged:
            pairs.keys.append(key)
            pairs.a.append(one)
            pairs.b.append(two)
    pairs.only_b = [key for name, key in keys_b.items() if name not in keys_a]
    return pairs


def shown_case(key: CaseKey) -> str:
    """A case in a line for people: its id, and the prompt where there are several."""
    return key[1] if key[2] is None else f"{key[1]} [{key[2]}]"
