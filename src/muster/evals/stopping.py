"""`stop_when`: a suite ends once its answer is known well enough, and the rest is not asked.

Cases then run in an order that is shuffled by a seed, and are looked at in that order, not in the
order in which answers come: a target may be slow on what it finds hard. What is told at the end
are bounds that hold whenever one stops (`sequential`), so that looking does not inflate the error.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import msgspec

from muster.errors import UsageError, nearest
from muster.evals.case import Case
from muster.evals.sequential import DifferenceTest, MeanSequence

__all__ = (
    "StopReport",
    "StopWhen",
    "Stopping",
    "checked_rule",
    "rule_of",
    "shuffled",
    "stop_when_of",
)

_FIRST_CHUNK, _LARGEST_CHUNK = 4_096, 20_000
"""Cases that are held at a time: the first some thousands are often all that is needed."""

_LOOK_EVERY = 50
"""The width is looked at again when there are a fiftieth more observations."""

_AHEAD = 64
"""Cases that may be begun beyond the first that is not done, or four a worker."""


class StopWhen(msgspec.Struct, frozen=True, kw_only=True):
    """When to stop: one of `ci_width` and `compare`."""

    ci_width: float | None = None
    """Each target stops when the interval of its mean score is so narrow."""
    compare: tuple[str, str] | None = None
    """Two targets stop when it is shown that one of them scores higher."""
    confidence: float = 0.95
    seed: int | None = None
    """Of the order; by default the suite's content gives one."""

    def describe(self) -> str:
        """In words."""
        level = f"{100 * self.confidence:g} %"
        if self.compare is not None:
            return f"{self.compare[0]} and {self.compare[1]} differ at {level}"
        return f"the {level} interval of the mean is {self.ci_width:g} wide"


def stop_when_of(words: Sequence[str]) -> dict[str, Any] | None:
    """What `--stop-when` says, each `ci-width=0.04`, `compare=A,B`, `confidence=0.99` or `seed=1`;
    empty for `never`, `None` when nothing was said.

    Raises:
        UsageError: it says something else.
    """
    if not words:
        return None
    if list(words) == ["never"]:
        return {}
    data: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        key = name.strip().replace("-", "_")
        if not equals or key not in StopWhen.__struct_fields__:
            near = nearest(key, StopWhen.__struct_fields__)
            hint = f"; did you mean {near[0].replace('_', '-')}=…?" if near and equals else ""
            raise UsageError(
                f'--stop-when "{word}": expected ci-width=0.04, compare=A,B, confidence=0.99, '
                f"seed=1 or never{hint}"
            )
        data[key] = value.split(",") if key == "compare" else value
    checked_rule(data, "--stop-when")
    return data


def checked_rule(data: Mapping[str, Any], where: str) -> StopWhen:
    """The rule that `data` says. Raises `UsageError` when it cannot be."""
    try:
        return rule_of(data)
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from None


def rule_of(data: Mapping[str, Any]) -> StopWhen:
    """The rule that `data` says. Raises `ValueError` when it cannot be."""
    rule = msgspec.convert(dict(data), StopWhen, strict=False)
    if (rule.ci_width is None) == (rule.compare is None):
        raise ValueError("expected one of ci_width and compare")
    if rule.ci_width is not None and not 0 < rule.ci_width < 1:
        raise ValueError(f"a width lies between 0 and 1, {rule.ci_width:g} does not")
    if rule.compare is not None and rule.compare[0] == rule.compare[1]:
        raise ValueError("compare needs two different targets")
    if not 0.5 <= rule.confidence < 1:
        raise ValueError(f"a confidence lies between 0.5 and 1, {rule.confidence:g} does not")
    return rule


def seed_of(rule: StopWhen, content_hash: str) -> int:
    """The same for the same suite, so that targets meet its cases in one order, and a run that is
    gone on with as well."""
    if rule.seed is not None:
        return rule.seed
    return int.from_bytes(hashlib.sha256(content_hash.encode()).digest()[:8])


def shuffled(
    cases: Callable[[], Iterable[Case]], count: int, seed: int
) -> Iterator[tuple[int, Case]]:
    """The first `count` of `cases` in random order, each with its place in it.

    A large suite is not held: the order is drawn first, as numbers; then some thousand cases at a
    time are picked in a pass over the suite, and given in their order.
    """
    order = list(range(count))
    random.Random(seed).shuffle(order)  # noqa: S311 - not for secrets
    start, size = 0, _FIRST_CHUNK
    while start < count:
        wanted = {number: start + at for at, number in enumerate(order[start : start + size])}
        found = [
            (wanted[number], case)
            for number, case in enumerate(islice(cases(), count))
            if number in wanted
        ]
        found.sort(key=lambda entry: entry[0])
        yield from found
        start, size = start + size, min(2 * size, _LARGEST_CHUNK)


class StopReport(msgspec.Struct, frozen=True, kw_only=True):
    """How a rule went: an entry of `stopping` in `run.json`."""

    suite: str
    targets: list[str]
    rule: str
    confidence: float
    stopped: bool
    """False: every case ran, and the rule did not come true."""
    cases: int
    """With a score, and looked at in their order (pairs, of two targets)."""
    of: int
    """Cases that there are."""
    results_saved: int
    """Results that were not asked for."""
    mean_score: float | None
    """Of one target; of two the difference."""
    interval: tuple[float, float] | None
    """That holds whenever one stops; of the mean score."""
    p_value: float | None
    """Of two targets; valid whenever one stops."""
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """The published form."""
        data: dict[str, Any] = msgspec.to_builtins(self)
        return data


Observed = tuple[float, float]
"""A case's mean score, and the share of its repeats that passed."""


class _Track:
    """The results of one target, put into the order of the cases."""

    def __init__(self, rule: StopWhen, workers: int) -> None:
        self.next = 0
        """The first place whose case is not done."""
        self.drawn = 0
        """Places that were handed out."""
        self.ahead = max(_AHEAD, 4 * workers)
        # A mean of 0.8 is known to the width asked for after about so many.
        tightest_at = 6 / rule.ci_width**2 if rule.ci_width is not None else 500.0
        self.scores = MeanSequence(rule.confidence, tightest_at=tightest_at)
        self.passes = MeanSequence(rule.confidence, tightest_at=tightest_at)
        self.stopped = False
        self._open: dict[int, list[float]] = {}
        self._ready: dict[int, Observed | None] = {}
        self._look_at = 2

    def add(
        self, place: int, repeats: int, score: float | None, passed: bool
    ) -> list[tuple[int, Observed | None]]:
        """One more result; the cases that are now done with all cases before them."""
        sums = self._open.setdefault(place, [0, 0, 0.0, 0])
        sums[0] += 1
        if score is not None:
            sums[1] += 1
            sums[2] += min(max(score, 0.0), 1.0)
            sums[3] += passed
        if sums[0] < repeats:
            return []
        _, judged, total, good = self._open.pop(place)
        self._ready[place] = (total / judged, good / judged) if judged else None
        released = []
        while self.next in self._ready:
            observed = self._ready.pop(self.next)
            if observed is not None:
                self.scores.add(min(observed[0], 1.0))
                self.passes.add(observed[1])
            released.append((self.next, observed))
            self.next += 1
        return released

    def narrow(self, width: float) -> bool:
        """The interval of the mean is at most so wide, looked at now and then."""
        n = self.scores.n
        if n < self._look_at:
            return False
        self._look_at = n + max(1, n // _LOOK_EVERY)
        return self.scores.width <= width


class Stopping:
    """Watches one suite on its targets, and says when enough is known."""

    def __init__(
        self,
        rule: StopWhen,
        suite: str,
        content_hash: str,
        targets: Mapping[str, tuple[int, int]],
    ) -> None:
        """`targets`: how many cases each has, and how many workers."""
        self.rule = rule
        self.suite = suite
        self.seed = seed_of(rule, content_hash)
        self.counts = {name: count for name, (count, _) in targets.items()}
        self.tracks = {name: _Track(rule, workers) for name, (_, workers) in targets.items()}
        self.test = DifferenceTest(rule.confidence)
        self._unpaired: dict[int, Observed | None] = {}
        from asyncio import Event

        self._changed = Event()

    def stopped(self, target: str) -> bool:
        """Nothing more is to be asked of it."""
        return self.tracks[target].stopped

    def drawn(self, target: str, place: int) -> None:
        """The case at `place` is handed out."""
        track = self.tracks[target]
        track.drawn = max(track.drawn, place + 1)

    def add(
        self, target: str, place: int, repeats: int, score: float | None, *, passed: bool
    ) -> None:
        """One more result; `score` is `None` of one that could not be judged."""
        track = self.tracks[target]
        released = track.add(place, repeats, score, passed)
        if self.rule.ci_width is not None:
            if released and track.narrow(self.rule.ci_width):
                track.stopped = True
        elif self._compares(target):
            for at, observed in released:
                self._pair(target, at, observed)
        self.wake()

    def _compares(self, target: str) -> bool:
        return self.rule.compare is not None and target in self.rule.compare

    def _pair(self, target: str, place: int, observed: Observed | None) -> None:
        if place not in self._unpaired:
            self._unpaired[place] = observed
            return
        other = self._unpaired.pop(place)
        assert self.rule.compare is not None
        if observed is not None and other is not None:
            sign = 1 if target == self.rule.compare[0] else -1
            self.test.add(min(max(sign * (observed[0] - other[0]), -1.0), 1.0))
        if self.test.decided:
            for name in self.rule.compare:
                self.tracks[name].stopped = True

    def has_room(self, target: str) -> bool:
        """The target is not too far ahead of its first case that is not done, nor of the target
        that it is compared with: what is asked beyond may never be needed."""
        track = self.tracks[target]
        return track.drawn - self._behind(target) < track.ahead

    async def change(self) -> None:
        """Wait for a result, or the end of a worker."""
        self._changed.clear()
        await self._changed.wait()

    def _behind(self, target: str) -> int:
        if not self._compares(target):
            return self.tracks[target].next
        assert self.rule.compare is not None
        return min(self.tracks[name].next for name in self.rule.compare)

    def wake(self) -> None:
        """Something has changed for those who wait for room."""
        self._changed.set()

    def reports(self, planned: Mapping[str, int], there: Mapping[str, int]) -> list[StopReport]:
        """How it went; `planned` and `there` are numbers of results by target."""

        def saved(names: Iterable[str]) -> int:
            return sum(planned[name] - there.get(name, 0) for name in names if self.stopped(name))

        common: dict[str, Any] = {
            "suite": self.suite,
            "rule": self.rule.describe(),
            "confidence": self.rule.confidence,
            "seed": self.seed,
        }
        if self.rule.compare is not None:
            names = list(self.rule.compare)
            return [
                StopReport(
                    targets=names,
                    stopped=self.stopped(names[0]),
                    cases=self.test.n,
                    of=self.counts[names[0]],
                    results_saved=saved(names),
                    mean_score=self.test.mean,
                    interval=None,
                    p_value=self.test.p_value,
                    **common,
                )
            ]
        return [
            StopReport(
                targets=[name],
                stopped=track.stopped,
                cases=track.scores.n,
                of=self.counts[name],
                results_saved=saved([name]),
                mean_score=track.scores.mean,
                interval=track.scores.interval() if track.scores.n else None,
                p_value=None,
                **common,
            )
            for name, track in self.tracks.items()
        ]
