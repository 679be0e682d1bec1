"""Which request gets which fault, by a plan and its seed.

What is left to chance is drawn from the seed, the rule, and the request itself: its method, its
path, its body, and how often the same was asked before. So requests that run side by side get the
same faults in whatever order they come. `every` and `burst` count arrivals: with requests side by
side, how many are hit is certain, which ones is not.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import blake2b

from muster.proxy.plan import (
    ChaosPlan,
    Cut,
    Fixed,
    Latency,
    LogNormal,
    Match,
    Normal,
    Rule,
    StatusFault,
    Uniform,
)
from muster.proxy.scrub import Asked

__all__ = ("Chaos", "Decision", "End")


@dataclass(frozen=True, slots=True)
class End:
    """The fault that decides how an answer ends."""

    rule: str
    kind: str
    """`status 429`, `drop before_headers`, `truncate`, `end_early`, `garbage`."""
    status: StatusFault | None = None
    after_headers: bool = False
    cut: Cut | None = None
    """Where; for the last three."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What happens to one request."""

    delay: float = 0.0
    """Seconds, before anything else."""
    delayed_by: tuple[str, ...] = ()
    """Names of the rules that delay it."""
    rate: float | None = None
    """Bytes a second."""
    slowed_by: str = ""
    end: End | None = None


@dataclass(slots=True)
class _State:
    """A rule, and what it has done so far."""

    name: str
    rule: Rule
    matched: int = 0
    fired: int = 0
    burst_left: int = 0


class Chaos:
    """Decides; `seed` goes before that of the plan."""

    def __init__(self, plan: ChaosPlan, seed: int | None = None) -> None:
        self._seed = plan.seed if seed is None else seed
        self._rules = [
            _State(rule.name or f"rule {number}", rule) for number, rule in enumerate(plan.rules, 1)
        ]
        self._seen: defaultdict[bytes, int] = defaultdict(int)

    def decide(self, asked: Asked) -> Decision:
        """What happens to this request. To be called once for each, when it has arrived."""
        content = "\0".join((asked.method, asked.path, asked.sha256)).encode()
        digest = blake2b(content, digest_size=16).digest()
        occurrence = self._seen[digest]
        self._seen[digest] += 1
        delay, delayed_by = 0.0, []
        rate, slowed_by = None, ""
        end = None
        for number, state in enumerate(self._rules):
            if not matches(state.rule.match, asked):
                continue
            chance = self._chance(number, digest, occurrence)
            if not _fires(state, chance):
                continue
            if state.rule.latency is not None:
                delay += seconds_of(state.rule.latency, chance)
                delayed_by.append(state.name)
            if state.rule.slow is not None and rate is None:
                rate, slowed_by = state.rule.slow, state.name
            end = end or _end_of(state)
        return Decision(delay, tuple(delayed_by), rate, slowed_by, end)

    def _chance(self, rule: int, digest: bytes, occurrence: int) -> random.Random:
        text = f"{self._seed}:{rule}:{occurrence}:".encode() + digest
        number = int.from_bytes(blake2b(text, digest_size=8).digest(), "big")
        return random.Random(number)  # noqa: S311 - it has to be predictable


def matches(match: Match, asked: Asked) -> bool:
    """Whether a rule is about this request."""
    if match.method is not None and match.method.upper() != asked.method:
        return False
    if match.stream is not None and match.stream != asked.wants_stream:
        return False
    if match.path is not None and not fnmatchcase(asked.path.partition("?")[0], match.path):
        return False
    return match.model is None or (
        asked.model is not None and fnmatchcase(asked.model, match.model)
    )


def _fires(state: _State, chance: random.Random) -> bool:
    rule = state.rule
    drawn = chance.random()  # in any case, so that later draws are the same
    state.matched += 1
    if rule.times is not None and state.fired >= rule.times:
        return False
    if state.burst_left:
        state.burst_left -= 1
    elif _is_due(state, drawn):
        state.burst_left = rule.burst - 1
    else:
        return False
    state.fired += 1
    return True


def _is_due(state: _State, drawn: float) -> bool:
    if state.rule.every is not None:
        return state.matched % state.rule.every == 0
    return state.rule.probability is None or drawn < state.rule.probability


def seconds_of(latency: Latency, chance: random.Random) -> float:
    """A delay drawn from a distribution."""
    match latency:
        case Fixed():
            return latency.seconds
        case Uniform():
            return chance.uniform(latency.min, latency.max)
        case Normal():
            return min(latency.max, max(0.0, chance.gauss(latency.mean, latency.deviation)))
        case LogNormal():
            return min(latency.max, chance.lognormvariate(math.log(latency.median), latency.sigma))
        case _:
            return latency


def _end_of(state: _State) -> End | None:
    rule, name = state.rule, state.name
    if rule.status is not None:
        fault = StatusFault(code=rule.status) if isinstance(rule.status, int) else rule.status
        return End(name, f"status {fault.code}", status=fault)
    if rule.drop is not None:
        return End(name, f"drop {rule.drop}", after_headers=rule.drop == "after_headers")
    for kind in ("truncate", "end_early", "garbage"):
        cut = getattr(rule, kind)
        if cut is not None:
            return End(name, kind, cut=cut)
    return None
