"""Graders of what an answer took, and why it ended: latency, cost, token-usage, finish-reason.

What the provider did not report is an error of the case, not a score of 0: a target that says
nothing about its cost would otherwise look expensive, and one that fails would look the same.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AliasChoices, Field, model_validator

from muster.config.validation import FileModel
from muster.evals.graders.base import Assertion, GradeContext, GraderError, GraderSpec, Score

__all__ = ("Cost", "FinishReason", "Latency", "TokenUsage")


class _LatencySettings(FileModel):
    threshold: float = Field(
        gt=0, allow_inf_nan=False, validation_alias=AliasChoices("threshold", "max_ms")
    )
    """Milliseconds that the answer may take; also `max_ms`."""


class Latency:
    """The answer took at most `threshold` milliseconds."""

    Settings = _LatencySettings
    __slots__ = ("_threshold",)

    def __init__(self, spec: GraderSpec) -> None:
        self._threshold = _LatencySettings.model_validate(spec.config).threshold

    def __call__(self, context: GradeContext) -> Score:
        took = context.duration_ms
        if took is None:
            took = context.response.duration_ms
        if took is None:
            raise GraderError("no duration is known for this answer")
        passed = took <= self._threshold
        says = "is within" if passed else "exceeds"
        text = f"Duration {took:.0f} ms {says} {self._threshold:g} ms"
        details = {"duration_ms": took, "threshold_ms": self._threshold}
        return Score(float(passed), (Assertion(text, passed),), details)


class _CostSettings(FileModel):
    budget: float = Field(
        ge=0,
        allow_inf_nan=False,
        validation_alias=AliasChoices("budget", "threshold", "max_usd"),
    )
    """US dollars that the answer may cost; also `threshold` and `max_usd`."""


class Cost:
    """The answer cost at most `budget` US dollars."""

    Settings = _CostSettings
    __slots__ = ("_budget",)

    def __init__(self, spec: GraderSpec) -> None:
        self._budget = _CostSettings.model_validate(spec.config).budget

    def __call__(self, context: GradeContext) -> Score:
        cost = context.response.cost_usd
        if cost is None:
            raise GraderError(
                "the cost of this answer is not known: the provider reports none, and no price "
                f"is known for {context.response.model or 'its model'}"
            )
        passed = cost <= self._budget
        says = "is within" if passed else "exceeds"
        text = f"Cost ${cost:.6f} {says} ${self._budget:.6f}"
        details = {"cost_usd": cost, "budget_usd": self._budget}
        return Score(float(passed), (Assertion(text, passed),), details)


class _TokenSettings(FileModel):
    max_total: int | None = Field(default=None, ge=0)
    """Input and output tokens together."""
    max_input: int | None = Field(default=None, ge=0)
    """Input tokens, cached ones included."""
    max_output: int | None = Field(default=None, ge=0)
    """Output tokens, reasoning included."""

    @model_validator(mode="after")
    def _has_a_limit(self) -> Self:
        if self.max_total is None and self.max_input is None and self.max_output is None:
            raise ValueError("needs at least one of max_total, max_input, max_output")
        return self


class TokenUsage:
    """The answer took at most so many tokens; all limits that are set must hold."""

    Settings = _TokenSettings
    __slots__ = ("_limits",)

    def __init__(self, spec: GraderSpec) -> None:
        settings = _TokenSettings.model_validate(spec.config)
        limits = (
            ("total", settings.max_total),
            ("input", settings.max_input),
            ("output", settings.max_output),
        )
        self._limits = [(name, limit) for name, limit in limits if limit is not None]

    def __call__(self, context: GradeContext) -> Score:
        usage = context.response.token_usage
        if usage is None:
            raise GraderError("the token usage of this answer is not known: the provider has none")
        assertions = []
        for name, limit in self._limits:
            count: int = getattr(usage, name)
            says = "are within" if count <= limit else "exceed"
            text = f"{count:,} {name} tokens {says} {limit:,}"
            assertions.append(Assertion(text, count <= limit))
        passed = all(assertion.passed for assertion in assertions)
        return Score(float(passed), tuple(assertions), {"token_usage": usage.to_dict()})


class _FinishSettings(FileModel):
    value: Annotated[str, Field(min_length=1)]
    """`stop`, `length`, `content_filter`, `tool_calls`, or the provider's own word."""


class FinishReason:
    """The answer ended for the reason that is expected; letter case aside."""

    Settings = _FinishSettings
    __slots__ = ("_value",)

    def __init__(self, spec: GraderSpec) -> None:
        self._value = _FinishSettings.model_validate(spec.config).value

    def __call__(self, context: GradeContext) -> Score:
        found = context.response.finish_reason
        if found is None:
            raise GraderError("it is not known why this answer ended: the provider does not say")
        passed = found.lower() == self._value.lower()
        says = "is" if passed else "is not"
        evidence = None if passed else f'it is "{found}"'
        text = f'Finish reason {says} "{self._value}"'
        return Score(float(passed), (Assertion(text, passed, evidence),))
