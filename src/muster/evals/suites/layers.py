"""What tests inherit: the suite's settings, its `default_test` and a scenario's `config`.

Each is a `Layer`; the nearer one wins, lists of assertions and metadata add up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from muster.config.document import Place, read_text, read_yaml
from muster.errors import ConfigError
from muster.evals.graders.base import BoundGrader, GraderFactory
from muster.evals.graders.load import bind_graders
from muster.evals.graders.templates import TemplateFiles
from muster.evals.suites.messages import FileFinder
from muster.evals.suites.models import DefaultTest, Options, TestEntry
from muster.evals.suites.notes import Notes
from muster.evals.suites.prompts import Prompt
from muster.evals.suites.targets import SuiteTargets
from muster.evals.suites.variables import has_braces
from muster.registry import Registry

__all__ = (
    "Binder",
    "GraderList",
    "Layer",
    "SuiteSettings",
    "judge_of",
    "judge_prompt_of",
    "layer_of",
    "loaded_vars",
    "merged_metadata",
    "over",
)


class Binder:
    """Builds graders from what suites write."""

    def __init__(
        self,
        registry: Registry[GraderFactory],
        *,
        base_dir: Path,
        project_root: Path,
        safe: bool,
        notes: Notes,
    ) -> None:
        self._registry = registry
        self._base_dir = base_dir
        self._project_root = project_root
        self._safe = safe
        self._notes = notes
        self.templates = TemplateFiles()

    def bind(
        self,
        entries: list[Any],
        place: Place,
        substitute: Callable[[object], object] | None,
    ) -> tuple[BoundGrader, ...]:
        """The graders of the list at `place`; `substitute` fills in a test's variables.

        Raises:
            ConfigError: one problem for each mistake.
        """
        path = place.document.path
        warnings: list[str] = []
        bound = bind_graders(
            entries,
            document=place.document,
            location=place.location,
            base_dir=path.parent if path is not None else self._base_dir,
            project_root=self._project_root,
            registry=self._registry,
            safe=self._safe,
            substitute=substitute,
            warnings=warnings,
            templates=self.templates,
        )
        for line in warnings:
            self._notes(line)
        return bound

    def listed(self, entries: list[Any], place: Place) -> GraderList:
        """The list at `place`; built here and now unless variables are in it."""
        varies = False

        def watch(text: object) -> object:
            nonlocal varies
            varies = varies or has_braces(text)
            return text

        try:
            shared = self.bind(entries, place, watch)
        except ConfigError:
            if not varies:
                raise
            # Settings such as `value: "{{ answer }}"` may be wrong only until they are filled in.
            return GraderList(entries, place, None)
        return GraderList(entries, place, None if varies else shared)


class GraderList(msgspec.Struct, frozen=True):
    """A list of assertions; `shared` are its graders when they are the same for all tests."""

    entries: list[Any]
    place: Place
    shared: tuple[BoundGrader, ...] | None


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """What tests take where they say nothing."""

    vars: Mapping[str, Any] = msgspec.field(default_factory=dict)
    graders: tuple[GraderList, ...] = ()
    metadata: Mapping[str, Any] = msgspec.field(default_factory=dict)
    tags: tuple[str, ...] = ()
    threshold: float | None = None
    repeat: int | None = None
    timeout_seconds: float | None = None
    targets: tuple[str, ...] | None = None
    prompts: tuple[str, ...] | None = None
    """Labels of the only prompts to use."""
    prefix: str = ""
    suffix: str = ""
    response_schema: Mapping[str, Any] | None = None
    judge_target: str | None = None
    judge_prompt: str | None = None


class SuiteSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a suite says for all its tests."""

    name: str
    base_dir: Path
    layer: Layer
    category: str | None = None
    input: Any = None
    input_place: Place
    input_files: tuple[str, ...] = ()
    input_files_place: Place
    prompts: tuple[Prompt, ...] = ()
    cluster_by: str | None = None
    """`file`, or the metadata field or variable that names a test's cluster."""
    files_in_vars: bool = False
    """v5: a variable `file://…` is that file's content."""
    env: Mapping[str, str] = msgspec.field(default_factory=dict)


def over(upper: Layer, lower: Layer) -> Layer:
    """Both as one; `upper` is the nearer to the test."""

    def first(name: str) -> Any:
        value = getattr(upper, name)
        return getattr(lower, name) if value is None else value

    return Layer(
        vars={**lower.vars, **upper.vars},
        graders=upper.graders + lower.graders,
        metadata=merged_metadata(lower.metadata, upper.metadata),
        tags=tuple(dict.fromkeys((*lower.tags, *upper.tags))),
        threshold=first("threshold"),
        repeat=first("repeat"),
        timeout_seconds=first("timeout_seconds"),
        targets=first("targets"),
        prompts=first("prompts"),
        prefix=upper.prefix or lower.prefix,
        suffix=upper.suffix or lower.suffix,
        response_schema=first("response_schema"),
        judge_target=first("judge_target"),
        judge_prompt=first("judge_prompt"),
    )


def merged_metadata(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> Mapping[str, Any]:
    """`upper` wins, but lists are joined, what is twice in them once."""
    if not lower:
        return upper
    if not upper:
        return lower
    merged = {**lower, **upper}
    for key in lower.keys() & upper.keys():
        below, above = lower[key], upper[key]
        if isinstance(below, list) and isinstance(above, list):
            joined: list[Any] = []
            for item in (*below, *above):
                if item not in joined:
                    joined.append(item)
            merged[key] = joined
    return merged


def layer_of(
    entry: DefaultTest,
    place: Place,
    binder: Binder,
    *,
    targets: SuiteTargets,
    files: FileFinder,
    files_in_vars: bool,
) -> Layer:
    """The layer that a `default_test`, or a scenario's `config`, stands for."""
    options = entry.options
    graders: tuple[GraderList, ...] = ()
    if entry.assertions:
        graders = (binder.listed(entry.assertions, place.at("assertions")),)
    variables: Mapping[str, Any] = entry.vars or {}
    if files_in_vars:
        variables = loaded_vars(variables, place.at("vars"), files)
    repeat = entry.repeat
    if repeat is None and options is not None:
        repeat = options.repeat
    return Layer(
        vars=variables,
        graders=graders,
        metadata=entry.metadata or {},
        tags=tuple(entry.tags or ()),
        threshold=entry.threshold,
        repeat=repeat,
        timeout_seconds=entry.timeout_seconds,
        targets=targets.of(entry, place) or None,
        prompts=wanted_prompts(entry.prompts),
        prefix=options.prefix if options is not None else "",
        suffix=options.suffix if options is not None else "",
        response_schema=entry.response_schema,
        judge_target=judge_of(entry, place, targets),
        judge_prompt=judge_prompt_of(options, place, files),
    )


def judge_of(entry: DefaultTest | TestEntry, place: Place, targets: SuiteTargets) -> str | None:
    """The target that the entry at `place` names as its judge."""
    if entry.judge_target is not None:
        return entry.judge_target
    if entry.options is None or entry.options.provider is None:
        return None
    where = place.at("options", "provider")
    names = targets.named(entry.options.provider, where)
    if len(names) != 1:
        raise ConfigError(where.problem("one target judges; for several, use `panel`"))
    return names[0]


def judge_prompt_of(options: Options | None, place: Place, files: FileFinder) -> str | None:
    """The template of what judges are asked that the options of the entry at `place` give."""
    if options is None or options.rubric_prompt is None:
        return None
    from muster.evals.graders.llm_prompt import FREE, own_prompt  # Jinja takes its time

    where = place.at("options", "rubric_prompt")
    text = options.rubric_prompt
    if not isinstance(text, str):
        raise ConfigError(where.problem("expected a template, as text or file://…"))
    if text.startswith("file://"):
        text = read_text(files.find(text, where))
    try:
        whole, text = own_prompt(text, FREE, None, rubrics=False)
    except ValueError as error:
        raise ConfigError(where.problem(str(error))) from None
    if not whole:
        raise ConfigError(
            where.problem("a template shows the judge the answer: it needs {{ output }}")
        )
    return text


def wanted_prompts(value: str | list[str] | None) -> tuple[str, ...] | None:
    """The labels that `prompts` of a test names."""
    if value is None:
        return None
    return (value,) if isinstance(value, str) else tuple(value)


def loaded_vars(variables: Mapping[str, Any], place: Place, files: FileFinder) -> Mapping[str, Any]:
    """The variables; those that are `file://…` as the file's text, or its data (YAML, JSON)."""
    if not any(isinstance(v, str) and v.startswith("file://") for v in variables.values()):
        return variables
    return {
        name: _file_value(value, place.at(name), files)
        if isinstance(value, str) and value.startswith("file://")
        else value
        for name, value in variables.items()
    }


def _file_value(value: str, place: Place, files: FileFinder) -> Any:
    path = files.find(value, place)
    suffix = path.suffix.lower()
    if suffix in (".py", ".js", ".cjs", ".mjs", ".ts"):
        raise ConfigError(place.problem("a variable cannot be made by code; name a data file"))
    if suffix in (".yaml", ".yml", ".json"):
        return read_yaml(path).data
    return read_text(path)
