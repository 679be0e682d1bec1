"""Graders of single facts about an agent's way: `tool-used`, `tool-sequence`, `tool-args-match`,
`step-count`. Each is 1 or 0.

Names are compared letter case aside, and may have `*` and `?`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import AliasChoices, BeforeValidator, Field, model_validator

from muster.config.validation import FileModel
from muster.evals.graders.base import Assertion, GradeContext, GraderError, GraderSpec, Score
from muster.evals.graders.text import clip
from muster.evals.graders.trace import arguments_of, calls_of, contains, matches_name, same
from muster.provider import Message, ToolCall

__all__ = ("Counted", "StepCount", "ToolArgsMatch", "ToolSequence", "ToolUsed", "Used")

_Name = Annotated[str, Field(min_length=1, pattern=r"\S")]
_Count = Annotated[int, Field(ge=0)]


class _Named(FileModel):
    name: _Name | None = None
    """The name."""
    pattern: _Name | None = None
    """The name, with `*` and `?`."""

    @property
    def wanted(self) -> str:
        return self.pattern or self.name or "*"

    @model_validator(mode="after")
    def _is_named(self) -> Self:
        if self.pattern is None and self.name is None:
            raise ValueError("needs name or pattern")
        return self


class Counted(_Named):
    """A name, and how often it is used."""

    min: _Count | None = None
    """How often at least; 1 by default."""
    max: _Count | None = None
    """How often at most."""

    def bounds(self, least: int) -> tuple[int, float]:
        """How often at least, and at most; `least` if nothing is said."""
        return (
            least if self.min is None else self.min,
            float("inf") if self.max is None else self.max,
        )


def _as_item(value: Any) -> Any:
    """A name alone as a mapping."""
    return {"pattern": value} if isinstance(value, str) else value


class _UsedSettings(FileModel):
    value: Annotated[list[_Name], Field(min_length=1)] | Counted = Field(union_mode="left_to_right")
    """A name, a list of them, or `{name | pattern, min, max}`."""

    @model_validator(mode="before")
    @classmethod
    def _one_name(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and isinstance(data.get("value"), str):
            return {**data, "value": [data["value"]]}
        return data


class Used(ABC):
    """What the graders of used tools and of used skills have in common."""

    Settings: ClassVar[type[FileModel]] = _UsedSettings
    what: ClassVar[str]
    __slots__ = ("_value", "negated")

    def __init__(self, spec: GraderSpec) -> None:
        value = _UsedSettings.model_validate(spec.config).value
        self._value = value
        self.negated = spec.negate and isinstance(value, list)
        """Of a list, the opposite is that none of it is used; not that one is missing."""
        if isinstance(value, Counted):
            least, most = value.bounds(self._least(value))
            if least > most:
                raise ValueError(f"at least {least} and at most {most:g} cannot be; say both")

    def __call__(self, context: GradeContext) -> Score:
        used = self._used(context)
        told = f"used: {clip(', '.join(used))}" if used else f"no {self.what} is used"
        if isinstance(self._value, Counted):
            wanted = self._value.wanted
            least, most = self._value.bounds(self._least(self._value))
            count = sum(self._fits(name, self._value) for name in used)
            passed = least <= count <= most
            bound = f"{least} or more" if most == float("inf") else f"{least} to {most:g}"
            text = f'{self.what} "{wanted}" is used {count} times, wanted {bound}'
            return Score(float(passed), (Assertion(text, passed, told),))
        said = []
        for wanted in self._value:
            found = any(self._is(name, wanted) for name in used)
            says = "is" if found else "is not"
            text = f'{self.what} "{wanted}" {says} used'
            said.append(Assertion(text, found is not self.negated, told))
        return Score(float(all(one.passed for one in said)), tuple(said))

    @abstractmethod
    def _used(self, context: GradeContext) -> list[str]:
        """The names of what is used, once for each use."""

    def _is(self, name: str, wanted: str) -> bool:
        return matches_name(name, wanted)

    def _fits(self, name: str, value: Counted) -> bool:
        return matches_name(name, value.wanted)

    def _least(self, value: Counted) -> int:
        return 1


class ToolUsed(Used):
    """The tool is called, or all tools of a list; with `not-`, none of them."""

    what = "tool"
    __slots__ = ()

    def _used(self, context: GradeContext) -> list[str]:
        return [call.tool for call in calls_of(context)]


# --- sequences and arguments ----------------------------------------------------------------------


class _Steps(FileModel):
    mode: Literal["in_order", "exact"] = "in_order"
    """`in_order`: others may be called between them; `exact`: no others are called at all."""
    steps: Annotated[list[Annotated[_Named, BeforeValidator(_as_item)]], Field(min_length=1)]
    """The tools, in order: names, or `{name}`, `{pattern}`."""


def _as_steps(value: Any) -> Any:
    return {"steps": value} if isinstance(value, list | tuple) else value


class _SequenceSettings(FileModel):
    value: Annotated[_Steps, BeforeValidator(_as_steps)]
    """A list of tools, or `{mode, steps}`."""


class ToolSequence:
    """The tools are called in this order."""

    Settings = _SequenceSettings
    __slots__ = ("_exact", "_wanted")

    def __init__(self, spec: GraderSpec) -> None:
        value = _SequenceSettings.model_validate(spec.config).value
        self._wanted = [step.wanted for step in value.steps]
        self._exact = value.mode == "exact"

    def __call__(self, context: GradeContext) -> Score:
        calls = [call.tool for call in calls_of(context)]
        order = ", ".join(self._wanted)
        told = f"called: {clip(', '.join(calls))}" if calls else "no tool is called"
        if self._exact:
            pairs = zip(calls, self._wanted, strict=False)
            passed = len(calls) == len(self._wanted) and all(
                matches_name(name, wanted) for name, wanted in pairs
            )
            text = f"the calls are {order}" if passed else f"the calls are not {order}"
            return Score(float(passed), (Assertion(text, passed, told),))
        left = iter(calls)
        for wanted in self._wanted:
            if not any(matches_name(name, wanted) for name in left):
                text = f'"{wanted}" of {order} is not called in this order'
                return Score(0.0, (Assertion(text, False, told),))
        return Score(1.0, (Assertion(f"called in order: {order}", True, told),))


class _Arguments(_Named):
    args: Any = Field(validation_alias=AliasChoices("args", "arguments"))
    """The arguments."""
    mode: Literal["partial", "exact"] = "partial"
    """`partial`: the call has these, at any depth, and maybe more."""
    defaults: dict[str, Any] = Field(default_factory=dict)
    """Arguments that are set aside where the call gives them this value."""
    ignore: list[_Name] = Field(default_factory=list)
    """Names of arguments that are not compared, with `*` and `?`."""

    @model_validator(mode="before")
    @classmethod
    def _one_ignored(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and isinstance(data.get("ignore"), str):
            return {**data, "ignore": [data["ignore"]]}
        return data


class _ArgumentsSettings(FileModel):
    value: _Arguments
    """The tool, and the arguments of one of its calls."""


class ToolArgsMatch:
    """Some call of the tool has these arguments."""

    Settings = _ArgumentsSettings
    __slots__ = ("_value",)

    def __init__(self, spec: GraderSpec) -> None:
        self._value = _ArgumentsSettings.model_validate(spec.config).value

    def __call__(self, context: GradeContext) -> Score:
        wanted = self._value.wanted
        made = [arguments_of(call) for call in calls_of(context) if matches_name(call.tool, wanted)]
        if not made:
            return Score(0.0, (Assertion(f'"{wanted}" is not called', False),))
        for arguments in made:
            if self._fits(arguments):
                text = f'"{wanted}" is called with the arguments'
                return Score(1.0, (Assertion(text, True, clip(repr(arguments))),))
        text = f'no call of "{wanted}" has the arguments'
        told = clip("; ".join(repr(arguments) for arguments in made[:20]), 1000)
        return Score(0.0, (Assertion(text, False, told),))

    def _fits(self, made: Any) -> bool:
        value = self._value
        made, wanted = self._compared(made), self._compared(value.args)
        if isinstance(made, Mapping):
            made = {
                name: given
                for name, given in made.items()
                if not (name in value.defaults and same(given, value.defaults[name]))
            }
        try:
            return same(made, wanted) if value.mode == "exact" else contains(made, wanted)
        except RecursionError:  # nested deeper than anything that is expected
            return False

    def _compared(self, arguments: Any) -> Any:
        if not isinstance(arguments, Mapping):
            return arguments
        return {
            name: value
            for name, value in arguments.items()
            if not any(matches_name(name, one) for one in self._value.ignore)
        }


# --- steps ----------------------------------------------------------------------------------------

_COMMANDS = frozenset(("exec_command", "local_shell", "shell"))
"""Tools whose calls are commands, of which the command's own name counts."""

_SEARCH = re.compile(r"(?:^|[\s._:/-])(?:search|find|lookup|retriev(?:e|al))(?:$|[\s._:/-])", re.I)

_StepType = Literal["tool", "command", "message", "reasoning", "search", "span"]


class _Step(NamedTuple):
    types: frozenset[str]
    names: tuple[str, ...]


class _StepCountValue(FileModel):
    type: _StepType | Annotated[list[_StepType], Field(min_length=1)] | None = None
    """Which steps are counted: calls of tools, commands given to a shell, messages of the agent,
    its reasoning, searches; `span`, or none said: all."""
    name: _Name | None = None
    """Those of this name."""
    pattern: _Name | None = None
    """Those whose name is this, with `*` and `?`."""
    min: _Count | None = None
    """How many at least."""
    max: _Count | None = None
    """How many at most."""

    @model_validator(mode="after")
    def _is_bounded(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("needs min or max")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is more than max {self.max}")
        return self


class _StepSettings(FileModel):
    value: _StepCountValue
    """`{type, pattern, min, max}`."""


class StepCount:
    """The agent took so many steps."""

    Settings = _StepSettings
    __slots__ = ("_types", "_value")

    def __init__(self, spec: GraderSpec) -> None:
        self._value = value = _StepSettings.model_validate(spec.config).value
        types = [value.type] if isinstance(value.type, str) else value.type or ()
        self._types = frozenset(types)

    def __call__(self, context: GradeContext) -> Score:
        value = self._value
        calls_of(context)  # says so if nothing is known of steps
        steps = list(_steps(context.response.output))
        if "reasoning" in self._types and not any("reasoning" in step.types for step in steps):
            raise GraderError("the target does not tell its reasoning")
        count = sum(self._counts(step) for step in steps)
        passed = (value.min is None or count >= value.min) and (
            value.max is None or count <= value.max
        )
        bounds = [
            f"{word} {bound}"
            for word, bound in (("at least", value.min), ("at most", value.max))
            if bound is not None
        ]
        what = value.pattern or value.name
        kind = "/".join(sorted(self._types)) or "all"
        named = f' called "{what}"' if what else ""
        text = f"{count} steps ({kind}){named}, wanted {' and '.join(bounds)}"
        return Score(float(passed), (Assertion(text, passed),))

    def _counts(self, step: _Step) -> bool:
        if self._types and not self._types & step.types and "span" not in self._types:
            return False
        wanted = self._value.pattern or self._value.name
        return wanted is None or any(matches_name(name, wanted) for name in step.names)


def _steps(messages: Sequence[Message]) -> Iterator[_Step]:
    for message in messages:
        if message.role != "assistant":
            continue
        metadata = message.metadata or {}
        kind = metadata.get("type", metadata.get("codex.item.type"))
        if kind == "reasoning":
            yield _Step(frozenset({"reasoning"}), (message.name or "reasoning",))
        elif message.text:
            yield _Step(frozenset({"message"}), (message.name or "message",))
        for call in message.tool_calls:
            yield _step_of(call)


def _step_of(call: ToolCall) -> _Step:
    types = {"tool"}
    names = [call.tool]
    command = _command(arguments_of(call)) if call.tool.lower() in _COMMANDS else None
    if command is not None:
        types = {"command"}
        names += [command, command.split()[0]]
    if _SEARCH.search(call.tool):
        types.add("search")
    return _Step(frozenset(types), tuple(names))


def _command(arguments: Any) -> str | None:
    """The command line of a call of a shell."""
    if not isinstance(arguments, Mapping):
        return None
    for name in ("cmd", "command", "commands"):
        value = arguments.get(name)
        if isinstance(value, list | tuple):
            value = ("; " if name == "commands" else " ").join(map(str, value))
        if isinstance(value, str) and value.strip():
            return value.strip()
    return None
