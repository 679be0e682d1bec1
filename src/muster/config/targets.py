"""The targets of a project: found, listed, and resolved when they are used.

catalog = load_catalog(suite.parent, env=load_environment(suite.parent), …)
target = catalog.resolve("fast")
with catalog.locating(target):          # mistakes are told with file, line and column
    provider = create_provider(target)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from muster.config.dialects import (
    AGENTV_KINDS,
    FILE_NAMES,
    CatalogFile,
    Parts,
    RawTarget,
    parse_spec,
    read_catalog,
    read_entry,
)
from muster.config.document import Document, Place
from muster.config.project import Project, find_project
from muster.config.resolution import Resolution, SettingsFor, resolve_entry
from muster.config.secrets import Masker, secret_values
from muster.config.target_fields import targets_schema
from muster.config.validation import problems_at
from muster.errors import ConfigError, MusterError, Problem, UsageError, nearest
from muster.importing import CodeError
from muster.registry import UnknownName
from muster.target import ResolvedTarget

__all__ = ("SettingsFor", "TargetCatalog", "load_catalog", "targets_schema")

M = TypeVar("M", bound=BaseModel)

_BUILTIN_KINDS = frozenset(
    {"anthropic", "cli", "echo", "function", "http", "mock", "openai", "replay", "stdio", "team"}
)


def load_catalog(
    start: Path,
    *,
    explicit: Path | None = None,
    env: Mapping[str, str],
    safe: bool = False,
    settings_for: SettingsFor | None = None,
    is_provider: Callable[[str], bool] | None = None,
) -> TargetCatalog:
    """The targets for a suite in the folder `start`.

    The nearest file of targets counts, from `start` up to the project's root; none at all makes
    an empty catalog. `explicit` is a file, or a folder to look in, instead. `env` is what
    `load_environment` gives. `settings_for` knows the settings of the kinds of provider, and
    `is_provider` their names: both are asked only when a target is resolved, and can be set as
    attributes of the catalog until then.

    Raises:
        UsageError: `explicit` is not there.
        ConfigError: the file cannot be read, or its shape is wrong.
    """
    project = find_project(start)
    file = _named(explicit, project) if explicit is not None else _nearest(project)
    return TargetCatalog(
        file,
        project,
        env,
        safe=safe,
        settings_for=settings_for or _no_settings,
        is_provider=is_provider,
    )


def _no_settings(kind: str) -> type[BaseModel] | None:
    return None


def _nearest(project: Project) -> CatalogFile | None:
    for folder in project.folders:
        for name in FILE_NAMES:
            path = folder / name
            if path.is_file() and (file := read_catalog(path, project.root)) is not None:
                return file
    return None


def _named(explicit: Path, project: Project) -> CatalogFile:
    if not explicit.exists():
        raise UsageError(f"no such file or folder of targets: {explicit}")
    paths = [explicit]
    if explicit.is_dir():
        bare = [Path(name).name for name in FILE_NAMES]
        paths = [explicit / name for name in dict.fromkeys([*FILE_NAMES, *bare])]
    for path in paths:
        if not path.is_file():
            continue
        # A file named on the command line is trusted with its own surroundings.
        around = find_project(path).root
        root = around if not path.resolve().is_relative_to(project.root) else project.root
        file = read_catalog(path.resolve(), root)
        if file is not None:
            return file
    raise UsageError(f"no targets in {explicit} (looked for {', '.join(FILE_NAMES)})")


class TargetCatalog:
    """Targets by name. Nothing is asked of an entry before it is resolved."""

    def __init__(
        self,
        file: CatalogFile | None,
        project: Project,
        env: Mapping[str, str],
        *,
        safe: bool,
        settings_for: SettingsFor,
        is_provider: Callable[[str], bool] | None,
    ) -> None:
        self.path: Path | None = file.path if file else None
        self.project = project
        self.env = env
        self.safe = safe
        self.default_provider = file.default_provider if file else None
        self.default_grader = file.default_grader if file else None
        self.settings_for = settings_for
        self.is_provider = is_provider or self._has_settings
        self._entries = {entry.name: entry for entry in file.entries} if file else {}
        self._bare: dict[str, RawTarget] = {}
        self._resolved: dict[str, Resolution] = {}
        self._warnings: dict[str, None] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the targets, in the order of the file; then those added."""
        return tuple(self._entries)

    @property
    def entries(self) -> Mapping[str, RawTarget]:
        """The entries as they are written, by name."""
        return MappingProxyType(self._entries)

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line for each thing that was read, but should be written otherwise. Grows as
        targets are resolved."""
        return tuple(self._warnings)

    def resolve(self, name: str) -> ResolvedTarget:
        """The target called `name`; or, if there is none, the provider of that kind or spec
        (`mock`, `openai:gpt-4o`) with no further settings.

        Raises:
            UsageError: there is neither.
            ConfigError: its entry is wrong, or a variable that it needs is not set.
        """
        known = self._resolved.get(name)
        if known is None:
            entry = self.find(name)
            if entry is None:
                raise UsageError(self.not_found(name))
            known = self._resolved[name] = resolve_entry(entry, self)
            self._resolved.setdefault(known.target.name, known)
        return known.target

    def outline(self, name: str) -> dict[str, str | None]:
        """`name`, `provider`, `judge_target` and a `note` on the target called `name`, as they are
        written: nothing is filled in or checked, so this works whatever is unset or wrong."""
        entry = self._entries[name]
        fields = Parts.of(entry, [], lambda warning: None).fields
        told = {key: str(written.value) for key, written in fields.items()}
        provider, note = told.get("provider"), str(entry.value.get("description") or "")
        if "use_target" in told:
            note = note or f"uses {told['use_target']}"
        elif provider is None and (provider := self.env.get("AGENT_PROVIDER")):
            note = note or "by AGENT_PROVIDER"
        judge = told.get("judge_target", self.default_grader)
        return {"name": name, "provider": provider, "judge_target": judge, "note": note}

    def default_target(self, env: Mapping[str, str] | None = None) -> str:
        """The name of the target to use where none is named: `AGENT_PROVIDER` as a provider, the
        target `default`, the file's `defaults.provider`, or the only target there is.

        Raises:
            UsageError: none of these.
        """
        agent_provider = (self.env if env is None else env).get("AGENT_PROVIDER")
        if agent_provider:
            # A target may happen to have the provider's name: it is not what is asked for.
            taken = agent_provider in self._entries
            name = f"{agent_provider} (AGENT_PROVIDER)" if taken else agent_provider
            self._bare[name] = self._bare_entry(name, agent_provider)
            return name
        if "default" in self._entries:
            return "default"
        if self.default_provider is not None:
            return self.default_provider
        if len(self._entries) == 1:
            return next(iter(self._entries))
        if self._entries:
            raise UsageError(
                "no target is named, and none is called default: say --target NAME "
                f"(available: {', '.join(self._entries)})"
            )
        raise UsageError(f"no target is named, and there is {self._no_file()}")

    def add_inline(
        self, name: str, raw: Mapping[str, Any] | str, base_dir: Path, place: Place | None = None
    ) -> None:
        """Add a target that a suite defines itself; it goes before one of that name in the file.

        `raw` is an entry in any form, standing at `place` if it comes from a file.

        Raises:
            ConfigError: `raw` is not an entry.
        """
        entry = read_entry(raw, place or Place(Document(raw)), base_dir, name=name)
        before = self._entries.get(name)
        if before is None or before.value != entry.value or before.base_dir != base_dir:
            self._entries[name] = entry
            self._resolved.pop(name, None)

    @contextmanager
    def locating(self, target: ResolvedTarget) -> Iterator[None]:
        """Within it, what a provider's factory has against `target` is told with its place.

        Raises:
            ConfigError: for a `pydantic.ValidationError`, an unknown provider, code that fails to
                import, or another mistake that the factory names.
        """
        try:
            yield
        except ConfigError as error:
            resolution = self._resolved.get(target.name)
            told = any(problem.line is not None for problem in error.problems)
            if told or resolution is None or resolution.place.document.path is None:
                raise
            # A file that the target names is missing or unusable as a whole: say who names it.
            texts = [str(problem) for problem in error.problems]
            raise ConfigError(resolution.place.problem(text) for text in texts) from error
        except ValidationError as error:
            raise ConfigError(self._settings_problems(target, error)) from None
        except MusterError as error:
            unknown = isinstance(error, UnknownName)
            hint = _agentv_hint(target.provider) if unknown else ""
            message = self._masker(target).mask(f"{error}{hint}")
            resolution = self._resolved.get(target.name)
            if resolution is None or resolution.place.document.path is None:
                raise type(error)(message) from error
            # Code that `provider:` names by its path; other code is named by a setting.
            dotted = isinstance(error, CodeError) and ":" in target.provider
            place = resolution.provider_place if unknown or dotted else resolution.place
            raise ConfigError(place.problem(message)) from error

    def validate_settings(self, target: ResolvedTarget, model: type[M]) -> M:
        """The target's settings as the provider's `model`; raises `ConfigError` with places."""
        with self.locating(target):
            return model.model_validate(dict(target.config))

    def find(self, name: str) -> RawTarget | None:
        """The entry called `name`, or labelled otherwise with `name` as its id, or one made of
        `name` if that is a provider's name or spec."""
        entry = self._entries.get(name) or self._bare.get(name)
        if entry is None:
            labelled = (e for e in self._entries.values() if e.value.get("id") == name)
            entry = next(labelled, None)
        if entry is None and self._is_spec(name):
            entry = self._bare[name] = self._bare_entry(name, name)
        return entry

    def not_found(self, name: str) -> str:
        """`target "x" not found in FILE (near: …; available: …)`"""
        near = nearest(name, self._entries)
        hints = [f"near: {', '.join(near)}"] if near else []
        if self._entries:
            hints.append(f"available: {', '.join(self._entries)}")
        where = f" in {self.path}" if self.path else f": there is {self._no_file()}"
        return f'target "{name}" not found{where}' + (f" ({'; '.join(hints)})" if hints else "")

    def warn(self, problem: Problem) -> None:
        """Note a warning; the same one is told once."""
        self._warnings[str(problem)] = None

    def _bare_entry(self, name: str, provider: str) -> RawTarget:
        """An entry that nobody wrote, for a provider by itself."""
        return RawTarget(name, {"provider": provider}, Place(Document(None)), self.project.start)

    def _has_settings(self, kind: str) -> bool:
        return kind in _BUILTIN_KINDS or self.settings_for(kind) is not None

    def _is_spec(self, name: str) -> bool:
        if parse_spec(name, self.is_provider) is not None:
            return True
        module, colon, attribute = name.partition(":")
        # package.module:Factory, as the registry reads it
        dotted = all(part.isidentifier() for part in module.split("."))
        return bool(colon) and dotted and attribute.isidentifier()

    def _no_file(self) -> str:
        looked = f"from {self.project.start} up to {self.project.root}"
        if self.project.start == self.project.root:
            looked = f"in {self.project.root}"
        return f"no .muster/targets.yaml, .agentv/targets.yaml or targets.yaml {looked}"

    def _settings_problems(self, target: ResolvedTarget, error: ValidationError) -> list[Problem]:
        model = self.settings_for(target.provider)
        resolution = self._resolved.get(target.name)
        if resolution is None or resolution.place.document.path is None:
            place = Place(Document(dict(target.config)))
            found = problems_at(error, model, lambda loc: (place, loc))
            about = f'target "{target.name}": '
        else:
            found = problems_at(error, model, resolution.place_of)
            about = ""
        masker = self._masker(target)
        return [replace(problem, message=masker.mask(about + problem.message)) for problem in found]

    def _masker(self, target: ResolvedTarget) -> Masker:
        return Masker(secret_values(target.config))


def _agentv_hint(kind: str) -> str:
    if kind not in AGENTV_KINDS:
        return ""
    return (
        f'\n"{kind}" is a kind of AgentV\'s that Muster does not have: '
        "run the agent's command with provider: cli, or register a provider of that name"
    )
