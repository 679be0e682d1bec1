"""Whether an agent used a skill: `skill-used` and `skill-trigger`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field

from muster.config.validation import FileModel
from muster.evals.graders.base import Assertion, GradeContext, GraderSpec, Score
from muster.evals.graders.text import clip
from muster.evals.graders.tool_use import Counted, Used
from muster.evals.graders.trace import arguments_of, calls_of, matches_name
from muster.provider import Message, ToolCall

__all__ = ("SkillTrigger", "SkillUsed")


class SkillUsed(Used):
    """The skill is used, or all skills of a list; with `not-`, none of them."""

    what = "skill"
    __slots__ = ()

    def _used(self, context: GradeContext) -> list[str]:
        return list(_skills(context))

    def _is(self, name: str, wanted: str) -> bool:
        return name == wanted.strip()

    def _fits(self, name: str, value: Counted) -> bool:
        named = value.name is None or name == value.name.strip()
        return named and (value.pattern is None or matches_name(name, value.pattern))

    def _least(self, value: Counted) -> int:
        return 1 if value.max is None else 0


_SKILL_PATH = re.compile(r"(?:^|[\\/])skills[\\/]([^\\/\s]+)[\\/]")


def _skills(context: GradeContext) -> Iterator[str]:
    """The names of the skills that were used: those that the target tells, or else those that its
    calls say."""
    told = _told_skills(context)
    if told is not None:
        yield from told
        return
    for call in calls_of(context):
        arguments = arguments_of(call)
        if call.status == "error" or not isinstance(arguments, Mapping):
            continue
        if call.tool.lower() == "skill":
            name = _first(arguments, "skill", "name", "command")
            if name is not None:
                yield name.strip()
        elif call.tool.lower() == "read":
            found = _SKILL_PATH.search(_first(arguments, "file_path", "path") or "")
            if found is not None:
                yield found[1]


def _told_skills(context: GradeContext) -> list[str] | None:
    places: list[Any] = [message.metadata for message in context.response.output]
    raw = context.response.raw
    if isinstance(raw, Mapping):
        places += [raw, raw.get("metadata")]
    found: list[str] | None = None
    for place in places:
        if not isinstance(place, Mapping):
            continue
        calls = place.get("skill_calls", place.get("skillCalls"))
        if isinstance(calls, list | tuple):
            found = (found or []) + [
                call["name"]
                for call in calls
                if isinstance(call, Mapping)
                and isinstance(call.get("name"), str)
                and call.get("is_error", call.get("isError")) is not True
            ]
    return found


def _first(arguments: Mapping[str, Any], *names: str) -> str | None:
    values = (arguments.get(name) for name in names)
    return next((value for value in values if isinstance(value, str) and value.strip()), None)


class _TriggerSettings(FileModel):
    skill: Annotated[str, Field(pattern=r"\S")]
    """The skill's name, or a part of it."""
    should_trigger: bool = True
    """`false`: it must not be used."""


class SkillTrigger:
    """The skill is called, its files are read, or what a tool answered names one of them."""

    Settings = _TriggerSettings
    __slots__ = ("_settings",)

    def __init__(self, spec: GraderSpec) -> None:
        self._settings = _TriggerSettings.model_validate(spec.config)

    def __call__(self, context: GradeContext) -> Score:
        skill = self._settings.skill
        calls = calls_of(context)
        evidence = next(filter(None, (_trace_of(skill, call) for call in calls)), None)
        passed = (evidence is not None) is self._settings.should_trigger
        says = "is not used" if evidence is None else "is used"
        told = evidence or f"{len(calls)} calls of tools"
        return Score(float(passed), (Assertion(f'skill "{skill}" {says}', passed, told),))


def _trace_of(skill: str, call: ToolCall) -> str | None:
    arguments = arguments_of(call)
    given: Mapping[str, Any] = arguments if isinstance(arguments, Mapping) else {}
    folder = f"skills/{skill}/"
    tool = call.tool.lower()
    if tool == "skill" and skill in str(given.get("skill", "")):
        return f"the tool {call.tool} is called with {clip(str(given['skill']))}"
    if tool == "read" and folder in (path := _first(given, "file_path", "path") or ""):
        return f"the tool {call.tool} reads {clip(path)}"
    if call.output is not None and folder in Message("tool", call.output).text:
        return f"what the tool {call.tool} answered names {folder}"
    return None
