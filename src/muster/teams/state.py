"""What a run knows while it goes on: its inputs, and what its steps have said so far."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from muster.provider import TokenUsage
from muster.store.records import FAILED, PENDING, RUNNING, SKIPPED, SUCCEEDED
from muster.teams.json_output import NO_JSON
from muster.teams.prompt import enveloped

__all__ = (
    "FAILED",
    "PENDING",
    "RUNNING",
    "SKIPPED",
    "SUCCEEDED",
    "Account",
    "RunState",
    "StepState",
)


@dataclass(slots=True)
class Account:
    """What was used by something; it counts for what that is part of, too."""

    parent: Account | None = None
    token_usage: TokenUsage | None = None
    cost_usd: float | None = None
    untold: int = 0
    """Calls that did not tell their usage, so that the rest is not all."""
    unpriced: int = 0
    """Calls whose cost is not known."""

    def spend(
        self,
        usage: TokenUsage | None,
        cost_usd: float | None,
        *,
        untold: int = 0,
        unpriced: int = 0,
    ) -> None:
        """Count what a call, or several, used."""
        self.untold += untold
        self.unpriced += unpriced
        if usage is not None:
            self.token_usage = usage + self.token_usage
        if cost_usd is not None:
            self.cost_usd = (self.cost_usd or 0.0) + cost_usd
        if self.parent is not None:
            self.parent.spend(usage, cost_usd, untold=untold, unpriced=unpriced)

    def add(self, other: Account) -> None:
        """Count all of another."""
        self.spend(other.token_usage, other.cost_usd, untold=other.untold, unpriced=other.unpriced)


@dataclass(slots=True)
class StepState:
    """One step, as far as it got."""

    name: str
    status: str = PENDING
    output: str = ""
    data: Any = NO_JSON
    """The answer's JSON, when it has some."""
    artifacts: Mapping[str, Any] = field(default_factory=dict)
    """Paths by name; of a step with items, lists of them."""
    message: str | None = None
    error: str | None = None
    error_kind: str | None = None
    agent: str | None = None
    reason: str | None = None
    """Why this agent was chosen, when it was."""
    iterations: int = 0
    attempts: int = 0
    validation_attempts: int = 0
    account: Account = field(default_factory=Account)
    """All that was asked for it."""
    seconds: float = 0.0

    @property
    def satisfied(self) -> bool:
        """Whether the steps that depend on it may begin."""
        return self.status in (SUCCEEDED, SKIPPED)


class RunState:
    """The inputs, and the steps in the order of the file.

    `spent` is what an earlier part of the run has used, by the name of the step; from now on
    `account` is charged too.
    """

    def __init__(
        self,
        inputs: Mapping[str, Any],
        names: tuple[str, ...],
        spent: Mapping[str, Account] | None = None,
        account: Account | None = None,
    ) -> None:
        self.inputs = dict(inputs)
        self.steps = {name: StepState(name) for name in names}
        self.account = Account()
        """Of the whole run."""
        for step in self.steps.values():
            step.account.parent = self.account
        for name, known in (spent or {}).items():
            own = self.steps[name].account if name in self.steps else self.account
            own.add(known)
        self.account.parent = account  # which knows of the earlier part itself

    def data(self, *, envelopes: bool, own: str | None = None) -> dict[str, Any]:
        """What templates see. With `envelopes`, for prompts: outputs are marked as data.

        A step that has not ended has no entry, one that was skipped an empty output. The step
        `own`, which looks back at what it said itself, has one from the beginning.
        """
        return {
            "input": self.inputs,
            "pipeline": {"input": self.inputs},
            "steps": _Entries(self.steps, envelopes, own),
        }


class _Entries(Mapping[str, dict[str, Any]]):
    """What templates see of the steps. An entry is made when a template asks for it: most ask for
    one or two of what may be a thousand."""

    __slots__ = ("_envelopes", "_own", "_steps")

    def __init__(self, steps: Mapping[str, StepState], envelopes: bool, own: str | None) -> None:
        self._steps = steps
        self._envelopes = envelopes
        self._own = own

    def __getitem__(self, name: str) -> dict[str, Any]:
        step = self._steps[name]
        if not self._is_shown(step):
            raise KeyError(name)
        return _entry(step, envelopes=self._envelopes)

    def __iter__(self) -> Iterator[str]:
        return (step.name for step in self._steps.values() if self._is_shown(step))

    def __len__(self) -> int:
        return sum(map(self._is_shown, self._steps.values()))

    def _is_shown(self, step: StepState) -> bool:
        return step.satisfied or step.name == self._own


def _entry(step: StepState, *, envelopes: bool) -> dict[str, Any]:
    wrap = envelopes and step.output != ""
    entry: dict[str, Any] = {
        "output": enveloped(step.name, step.output) if wrap else step.output,
    }
    if step.data is not NO_JSON:
        entry["data"] = step.data
    if step.artifacts:
        entry["artifacts"] = dict(step.artifacts)
    return entry
