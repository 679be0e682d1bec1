"""The grader `execution-metrics`: several limits on what an answer took, and how the agent went
about it.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AliasChoices, Field, model_validator

from muster.config.validation import FileModel
from muster.evals.graders.base import Assertion, GradeContext, GraderError, GraderSpec, Score
from muster.evals.graders.trace import calls_of
from muster.evals.unpriced import lacks_cost

__all__ = ("ExecutionMetrics",)

_EXPLORING = frozenset(
    ("read", "grep", "glob", "search", "list", "Read", "Grep", "Glob", "WebSearch", "WebFetch")
)

_Count = Annotated[int, Field(ge=0)]
_Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Settings(FileModel):
    max_tool_calls: _Count | None = None
    """Calls of tools."""
    max_llm_calls: _Count | None = None
    """Messages of the model: each turn is one."""
    max_tokens: _Count | None = Field(
        None, validation_alias=AliasChoices("max_tokens", "max_total_tokens")
    )
    """Input and output tokens together (`max_total_tokens` is the same)."""
    max_cost_usd: _Amount | None = Field(
        None, validation_alias=AliasChoices("max_cost_usd", "max_usd")
    )
    """US dollars (`max_usd` is the same)."""
    max_duration_ms: _Amount | None = Field(
        None, validation_alias=AliasChoices("max_duration_ms", "max_ms")
    )
    """Milliseconds (`max_ms` is the same)."""
    target_exploration_ratio: Annotated[float, Field(ge=0, le=1)] | None = None
    """The share of calls that read, search or list."""
    exploration_tolerance: Annotated[float, Field(ge=0, le=1)] = 0.2
    """How far off that share may be."""

    @model_validator(mode="after")
    def _has_a_limit(self) -> Self:
        if not self.model_fields_set - {"exploration_tolerance"}:
            raise ValueError("needs at least one limit, such as max_tool_calls: 10")
        return self


class ExecutionMetrics:
    """The share of the limits that hold. What is not known is an error."""

    Settings = _Settings
    __slots__ = ("_settings",)

    def __init__(self, spec: GraderSpec) -> None:
        self._settings = _Settings.model_validate(spec.config)

    def __call__(self, context: GradeContext) -> Score:
        said = []
        details: dict[str, float] = {}
        for what, limit, name in (
            ("calls of tools", self._settings.max_tool_calls, "tool_calls"),
            ("calls of the model", self._settings.max_llm_calls, "llm_calls"),
            ("tokens", self._settings.max_tokens, "tokens"),
            ("US dollars", self._settings.max_cost_usd, "cost_usd"),
            ("ms", self._settings.max_duration_ms, "duration_ms"),
        ):
            if limit is None:
                continue
            took = details[name] = _taken(context, name)
            if name == "cost_usd" and took <= limit and lacks_cost(context.response.output):
                raise GraderError("a part of the cost of this answer is not known")
            says = "within" if took <= limit else "over"
            said.append(Assertion(f"{took:,.6g} {what}, {says} {limit:,.6g}", took <= limit))
        if self._settings.target_exploration_ratio is not None:
            said.append(self._explored(context, self._settings.target_exploration_ratio, details))
        return Score(sum(one.passed for one in said) / len(said), tuple(said), details)

    def _explored(
        self, context: GradeContext, target: float, details: dict[str, float]
    ) -> Assertion:
        calls = calls_of(context)
        if not calls:
            return Assertion("no calls of tools, of which a share could explore", False)
        share = sum(call.tool in _EXPLORING for call in calls) / len(calls)
        details["exploration_ratio"] = share
        # 0.7 is within 0.2 of 0.5, whatever binary fractions make of it.
        near = abs(share - target) <= self._settings.exploration_tolerance + 1e-9
        text = f"{share:.2f} of the calls explore, wanted {target:g}"
        return Assertion(f"{text} ± {self._settings.exploration_tolerance:g}", near)


def _taken(context: GradeContext, name: str) -> float:
    """What the answer took.

    Raises:
        GraderError: it is not known.
    """
    response = context.response
    if name == "tool_calls":
        return len(calls_of(context))
    if name == "llm_calls":
        calls_of(context)
        return sum(message.role == "assistant" for message in response.output)
    took: float | None
    if name == "tokens":
        took = None if response.token_usage is None else response.token_usage.total
    elif name == "cost_usd":
        took = response.cost_usd
    else:
        took = context.duration_ms if context.duration_ms is not None else response.duration_ms
    if took is None:
        what = {"tokens": "token usage", "cost_usd": "cost", "duration_ms": "duration"}[name]
        raise GraderError(f"the {what} of this answer is not known")
    return took
