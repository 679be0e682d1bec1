"""A rule, and what comes of checking it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from muster.testing.trial import Trial

__all__ = ("Broken", "Check", "NotApplicable", "Outcome", "Result", "Rule", "Status")

Status: TypeAlias = Literal["passed", "failed", "not applicable"]

Check: TypeAlias = "Callable[[Trial], Awaitable[str | None]]"
"""Returns when the rule is kept, perhaps with what was measured; raises `Broken` or
`NotApplicable`."""


class Broken(Exception):
    """The rule is broken; the message is the evidence."""


class NotApplicable(Exception):
    """The rule has nothing to say of this provider; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a check ended; `text` is the evidence or the reason."""

    status: Status
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One thing that every provider owes to whoever uses it."""

    id: str
    """Stable, in kebab-case."""
    title: str
    why: str
    """What goes wrong for users when it is broken."""
    mend: str
    """What an author does about it."""
    run: Check
    alone: bool = False
    """It measures the whole process, so nothing else may run beside it."""
    after: tuple[str, ...] = ()
    """Rules without which this one cannot be told: while one of them is broken it does not fail,
    so that one mistake breaks one rule."""

    async def check(self, trial: Trial) -> Outcome:
        """Try the provider."""
        try:
            return Outcome("passed", await self.run(trial) or "")
        except Broken as broken:
            return Outcome("failed", str(broken))
        except NotApplicable as reason:
            return Outcome("not applicable", str(reason))


@dataclass(frozen=True, slots=True)
class Result:
    """A rule and how it ended for one provider."""

    rule: Rule
    outcome: Outcome
    seconds: float
