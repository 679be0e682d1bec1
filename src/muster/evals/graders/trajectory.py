"""The grader `tool-trajectory`: which tools an agent called, in which order, with what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, BeforeValidator, Field, model_validator

from muster.config.validation import FileModel
from muster.evals.graders.base import Assertion, GradeContext, GraderSpec, Score
from muster.evals.graders.text import clip
from muster.evals.graders.trace import MISSING, arguments_of, calls_of, contains, look_up, same
from muster.provider import ToolCall

__all__ = ("ArgsMatch", "ExpectedCall", "ToolTrajectory", "as_call", "fits")

_SHOWN = 50
"""Calls that are told one by one; an agent may make thousands."""

ArgsMatch = (
    Literal["exact", "partial", "superset", "subset", "ignore"]
    | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
)


def as_call(value: Any) -> Any:
    """A tool's name alone."""
    return {"tool": value} if isinstance(value, str) else value


class ExpectedCall(FileModel):
    tool: Annotated[str, Field(min_length=1)]
    """The tool's name."""
    args: dict[str, Any] | Literal["any"] | None = None
    """The arguments; `any`, or none said: whatever they are."""
    args_match: ArgsMatch | None = Field(
        None, validation_alias=AliasChoices("args_match", "argsMatch")
    )
    """How they are compared, in place of the grader's `args_match`."""
    max_duration_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, validation_alias=AliasChoices("max_duration_ms", "maxDurationMs")
    )
    """Milliseconds that the call may take."""


class _Settings(FileModel):
    mode: Literal["any_order", "in_order", "exact", "subset", "superset"]
    """What must hold of the calls."""
    minimums: dict[str, Annotated[int, Field(ge=0)]] | None = None
    """For `any_order`: how often each tool is called at least."""
    expected: list[Annotated[ExpectedCall, BeforeValidator(as_call)]] | None = None
    """For the other modes: the calls; a name alone is a tool."""
    args_match: ArgsMatch = Field("exact", validation_alias=AliasChoices("args_match", "argsMatch"))
    """`exact`, `partial` (the call has these, at any depth, and maybe more), `superset` (the same
    for the outermost names alone), `subset` (it has no others), `ignore`, or the paths of the
    arguments that are compared."""

    @model_validator(mode="after")
    def _says_what(self) -> Self:
        counts, calls = self.minimums is not None, self.expected is not None
        if self.mode == "any_order":
            if not self.minimums or calls:
                raise ValueError("any_order has minimums, such as {search: 1}, and no expected")
        elif counts or not calls:
            raise ValueError(f"{self.mode} has expected, a list of calls, and no minimums")
        elif not self.expected and self.mode in {"in_order", "superset"}:
            raise ValueError(f"{self.mode} of no calls would hold of every answer")
        return self


class ToolTrajectory:
    """The calls of tools are those that are expected."""

    Settings = _Settings
    __slots__ = ("_expected", "_grade", "_match", "_minimums")

    def __init__(self, spec: GraderSpec) -> None:
        settings = _Settings.model_validate(spec.config)
        self._expected = settings.expected or []
        self._minimums = settings.minimums or {}
        self._match = settings.args_match
        self._grade = {
            "any_order": self._any_order,
            "in_order": self._in_order,
            "exact": self._exact,
            "subset": self._subset,
            "superset": self._superset,
        }[settings.mode]

    def __call__(self, context: GradeContext) -> Score:
        return self._grade(calls_of(context))

    def _any_order(self, calls: Sequence[ToolCall]) -> Score:
        made = Counter(call.tool for call in calls)
        said = [
            Assertion(
                f"{tool} is called {_times(made[tool])}, wanted {least} or more",
                made[tool] >= least,
            )
            for tool, least in self._minimums.items()
        ]
        return Score(sum(one.passed for one in said) / len(said), tuple(said))

    def _in_order(self, calls: Sequence[ToolCall]) -> Score:
        found = _Found()
        at = 0
        for item in self._expected:
            while at < len(calls) and calls[at].tool != item.tool:
                at += 1
            if at == len(calls):
                found.miss(item, f"{item.tool} is not called after what comes before it")
                continue
            call, at = calls[at], at + 1
            if self._fits(item, call):
                found.hit(item, call, f"{item.tool} is call {at}")
            else:
                found.miss(item, f"{item.tool} is call {at}, with other arguments", _told(call))
        return found.score(len(self._expected))

    def _exact(self, calls: Sequence[ToolCall]) -> Score:
        found = _Found()
        wanted = len(self._expected)
        for number, item in enumerate(self._expected, 1):
            if number > len(calls):
                found.miss(item, f"call {number}: expected {item.tool}, found none")
                continue
            call = calls[number - 1]
            if call.tool != item.tool:
                found.miss(item, f"call {number}: expected {item.tool}, found {call.tool}")
            elif self._fits(item, call):
                found.hit(item, call, f"call {number} is {item.tool}")
            else:
                text = f"call {number}: {item.tool} has other arguments"
                found.miss(item, text, _told(call))
        if len(calls) <= wanted:
            return found.score(wanted) if wanted else Score(1.0, (Assertion("no calls", True),))
        more = ", ".join(call.tool for call in calls[wanted : wanted + _SHOWN])
        text = f"Expected {_times(wanted, 'call')}, found {len(calls)}"
        found.said.append(Assertion(text, False, f"beyond them: {clip(more)}"))
        # One call too many is enough: a long list that is right before it does not outweigh it.
        return found.score(len(calls), passed=False)

    def _superset(self, calls: Sequence[ToolCall]) -> Score:
        left = list(calls)
        found = _Found()
        for item in self._expected:
            call = next((call for call in left if self._is(item, call)), None)
            if call is None:
                found.miss(item, f"{item.tool} is not called as expected")
            else:
                left.remove(call)
                found.hit(item, call, f"{item.tool} is called")
        return found.score(len(self._expected))

    def _subset(self, calls: Sequence[ToolCall]) -> Score:
        if not calls:
            return Score(1.0, (Assertion("no calls", True),))
        stray = [
            (number, call)
            for number, call in enumerate(calls, 1)
            if not any(self._is(item, call) for item in self._expected)
        ]
        allowed = len(calls) - len(stray)
        said = [Assertion(f"{allowed} of {_times(len(calls), 'call')} allowed", not stray)]
        said += [
            Assertion(f"call {number}, {call.tool}, is not allowed", False, _told(call))
            for number, call in stray[:_SHOWN]
        ]
        return Score(allowed / len(calls), tuple(said))

    def _is(self, item: ExpectedCall, call: ToolCall) -> bool:
        return call.tool == item.tool and self._fits(item, call)

    def _fits(self, item: ExpectedCall, call: ToolCall) -> bool:
        return fits(item, call, self._match)


def fits(item: ExpectedCall, call: ToolCall, usual: Any) -> bool:
    """Whether the arguments of the call are those expected, compared as the entry says, or else as
    is usual."""
    match = usual if item.args_match is None else item.args_match
    if item.args is None or item.args == "any" or match == "ignore":
        return True
    made = arguments_of(call)
    if not isinstance(made, Mapping):
        return False
    try:
        return _arguments_match(item.args, made, match)
    except RecursionError:  # nested deeper than anything that is expected
        return False


def _arguments_match(wanted: Mapping[str, Any], made: Mapping[str, Any], match: Any) -> bool:
    if match == "exact":
        return same(wanted, made)
    if match == "partial":
        return contains(made, wanted)
    if match == "superset":
        return all(key in made and same(made[key], value) for key, value in wanted.items())
    if match == "subset":
        return all(key in wanted and same(wanted[key], value) for key, value in made.items())
    for path in match:
        value = look_up(wanted, path)
        if value is not MISSING and not same(value, look_up(made, path)):
            return False
    return True


class _Found:
    """What is found of a list of calls, one after the other. The time of a call is a check of its
    own; where it is not known, it is none."""

    def __init__(self) -> None:
        self.said: list[Assertion] = []
        self._hits = 0
        self._timed = 0
        self._untimed: list[str] = []

    def hit(self, item: ExpectedCall, call: ToolCall, text: str) -> None:
        self._hits += 1
        self.said.append(Assertion(text, True))
        limit, took = item.max_duration_ms, call.duration_ms
        if limit is None:
            return
        if took is None:
            self._untimed.append(item.tool)
            return
        self._timed += 1
        self._hits += took <= limit
        says = "within" if took <= limit else "over"
        text = f"{item.tool} took {took:g} ms, {says} {limit:g} ms"
        self.said.append(Assertion(text, took <= limit))

    def miss(self, item: ExpectedCall, text: str, evidence: str | None = None) -> None:
        self._timed += item.max_duration_ms is not None
        self.said.append(Assertion(text, False, evidence))

    def score(self, calls: int, passed: bool | None = None) -> Score:
        details = {"without_duration": self._untimed} if self._untimed else None
        return Score(self._hits / (calls + self._timed), tuple(self.said), details, passed=passed)


def _told(call: ToolCall) -> str:
    return f"it is called with {clip(repr(arguments_of(call)))}"


def _times(count: int, what: str = "time") -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
