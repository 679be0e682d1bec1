"""What a run knows while it goes on: its inputs, and what its steps have said so far."""

from __future__ import annotations

from collections.abc import Mapping
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

    def spend(self, usage: TokenUsage | None, cost_usd: float | None) -> None:
        """Count what a call has used."""
        if usage is not None:
            self.token_usage = usage + self.token_usage
        if cost_usd is not None:
            self.cost_usd = (self.cost_usd or 0.0) + cost_usd
        if self.parent is not None:
            self.parent.spend(usage, cost_usd)


@dataclass(slots=True)
class StepState:
    """One step, as far as it got."""

    name: str
    status: str = PENDING
    output: str = ""
    data: Any = NO_JSON
    """The answer's JSON, when it has some."""
    artifacts: Mapping[str, str] = field(default_factory=dict)
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
    """The inputs, and the steps in the order of the file."""

    def __init__(self, inputs: Mapping[str, Any], names: tuple[str, ...]) -> None:
        self.inputs = dict(inputs)
        self.steps = {name: StepState(name) for name in names}

    def data(self, *, envelopes: bool) -> dict[str, Any]:
        """What templates see. With `envelopes`, for prompts: outputs are marked as data.

        A step that has not ended has no entry, one that was skipped an empty output.
        """
        steps = {
            step.name: _entry(step, envelopes=envelopes)
            for step in self.steps.values()
            if step.satisfied or step.iterations
        }
        return {
            "input": self.inputs,
            "pipeline": {"input": self.inputs},
            "steps": steps,
        }


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
