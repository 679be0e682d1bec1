"""How targets may be written: Muster's own form and AgentV's two, read into one normal form.

    targets:                       providers:                      (v5; also a bare list)
      - name: fast                   - id: openai:gpt-4o-mini
        provider: openai               label: fast
        model: gpt-4o-mini             config: {temperature: 0}
                                     - openai:gpt-4o               a spec by itself
                                     - anthropic:claude: {config: {…}}

What an entry says is looked at only when the entry is used (`Parts.of`), so that an unset variable
or an unknown field elsewhere in the file does not matter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from muster.config.document import Place, read_yaml
from muster.config.project import OutsideProject, resolve_inside
from muster.config.target_fields import TargetFields
from muster.errors import ConfigError, Problem, nearest

__all__ = (
    "AGENTV_KINDS",
    "FILE_NAMES",
    "KIND_ALIASES",
    "OLD_SETTINGS",
    "CatalogFile",
    "Parts",
    "RawTarget",
    "Written",
    "parse_spec",
    "read_catalog",
    "read_entry",
    "snake_case",
)

FILE_NAMES = (
    ".muster/targets.yaml",
    ".muster/targets.yml",
    ".agentv/targets.yaml",
    ".agentv/targets.yml",
    "targets.yaml",
    "targets.yml",
    ".muster/config.yaml",
    ".agentv/config.yaml",
    ".muster/providers.yaml",
    ".agentv/providers.yaml",
    "providers.yaml",
)
"""Where targets are looked for in each folder; the first that is there counts."""

COMMON_FIELDS = frozenset(TargetFields.model_fields)

_SAME_FIELD = {"grader_target": "judge_target", "extends": "use_target"}
_NO_EFFECT = {
    "provider_batching": "every request is a call of its own",
    "subagent_mode_allowed": "there is no subagent mode",
    "delay": "use requests_per_minute",
}
_V5_UNSUPPORTED = ("prompts", "transform", "inputs", "runtime", "environment", "hooks")
_NAMES = ("name", "label", "id", "description", "$schema")

OLD_SETTINGS: Mapping[str, tuple[str, ...]] = {
    "api_base": ("base_url",),
    "attachments_format": ("files_format",),
    "cli_verbose": ("verbose",),
    "deployment": ("model",),
    "endpoint": ("base_url", "url"),
    "execution_traces": ("file",),
    "fixtures": ("file",),
    "keep_output_files": ("keep_temp_files",),
    "variant": ("model",),
    "version": ("api_version",),
}
"""Names that older files use for a provider's settings, and what they are called now."""

KIND_ALIASES = {
    "azure-openai": "azure",
    "exec": "cli",
    "google": "gemini",
    "google-gemini": "gemini",
}

AGENTV_KINDS = frozenset(
    {"agentv", "transcript", "vscode", "vscode-insiders"}
    | {"claude-sdk", "codex-app-server", "codex-desktop", "codex-sdk"}
    | {"copilot-log", "copilot-sdk", "copilot_sdk", "pi-rpc", "pi-sdk"}
)
"""Kinds of AgentV's that Muster does not have: coding agents by other ways than their command."""

_MAIN_SETTING = {
    "cli": "command",
    "exec": "command",
    "function": "function",
    "replay": "file",
    "stdio": "command",
    "team": "file",
}
"""What follows the colon in a spec, for the kinds where it is not the model."""

_FORMATS = {"chat": "chat", "completions": "chat", "responses": "responses", "messages": None}
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class Written(NamedTuple):
    """A value of a file, and where it stands."""

    value: Any
    place: Place


class RawTarget(msgspec.Struct, frozen=True):
    """An entry as it is written; a spec by itself has become `{id: spec}`."""

    name: str
    value: Mapping[str, Any]
    place: Place
    base_dir: Path


class CatalogFile(msgspec.Struct, frozen=True):
    """What a file of targets says."""

    path: Path
    entries: tuple[RawTarget, ...]
    default_provider: str | None = None
    default_grader: str | None = None


class Parts(msgspec.Struct, frozen=True):
    """An entry taken apart: what every target has, and what is the provider's own."""

    fields: dict[str, Written]
    """By the names of `TargetFields`; `id` has become `provider`."""
    settings: dict[str, Written]
    """As written, `config:` and flat ones together."""
    nested: frozenset[str] = frozenset()
    """The settings that stand under `config:`."""

    @staticmethod
    def of(entry: RawTarget, problems: list[Problem], warn: Callable[[Problem], None]) -> Parts:
        """Take `entry` apart; mistakes go to `problems`."""
        fields: dict[str, Written] = {}
        settings: dict[str, Written] = {}
        v5 = "id" in entry.value and "provider" not in entry.value
        for key, value in entry.value.items():
            place = entry.place.at(key)
            if key == "config" and not (value is None or isinstance(value, Mapping)):
                problems.append(place.problem("expected a mapping of settings"))
            if key in _NAMES or key == "config":
                continue
            name = _field_name(key)
            if name is None and v5 and key in _V5_UNSUPPORTED:
                if not (key == "runtime" and value in ("host", {"mode": "host"})):
                    message = f'Muster does not support "{key}" of a provider'
                    problems.append(place.problem(message, of_key=True))
            elif name is None and key in _NO_EFFECT and (v5 or key != "delay"):
                warn(place.problem(f"has no effect: {_NO_EFFECT[key]}", of_key=True))
            elif name is None:
                settings[key] = Written(value, place)
            elif name in fields:
                both = f'"{key}" says again what "{fields[name].place.location[-1]}" says'
                problems.append(place.problem(both, of_key=True))
            else:
                if key != name and key not in _SAME_FIELD:
                    warn(place.problem(f'write "{name}" instead', of_key=True))
                fields[name] = Written(value, place)
        if v5:
            fields["provider"] = Written(entry.value["id"], entry.place.at("id"))
        nested = _nested_settings(entry, settings, problems)
        return Parts(fields, settings | nested, frozenset(nested))


def _nested_settings(
    entry: RawTarget, flat: Mapping[str, Written], problems: list[Problem]
) -> dict[str, Written]:
    config = entry.value.get("config")
    if not isinstance(config, Mapping):
        return {}
    nested = {key: Written(value, entry.place.at("config", key)) for key, value in config.items()}
    for key in nested.keys() & flat.keys():
        message = f'"{key}" is given twice, under "config" and beside it'
        problems.append(nested[key].place.problem(message, of_key=True))
    return nested


def _field_name(key: str) -> str | None:
    """The common field that `key` means; `None` for a setting of the provider's."""
    name = snake_case(key)
    name = _SAME_FIELD.get(name, name)
    return name if name in COMMON_FIELDS else None


def snake_case(name: str) -> str:
    """`baseUrl` as `base_url`."""
    return _HUMP.sub("_", name).lower() if _HUMP.search(name) else name


def parse_spec(spec: str, is_provider: Callable[[str], bool]) -> tuple[str, dict[str, str]] | None:
    """A provider written as one text: its kind, and the settings that the text holds.

    `openai:gpt-4o`, `openai:responses:o3`, `anthropic:messages:claude-…`, `exec:./agent.sh`,
    `replay:answers.jsonl`, `mock`. `None` if it does not begin with a provider's name.
    """
    if is_provider(spec):
        return spec, {}
    kind, colon, rest = spec.partition(":")
    if spec in AGENTV_KINDS or not colon:
        return (spec, {}) if spec in AGENTV_KINDS or spec in KIND_ALIASES else None
    if kind == "openai" and rest.split(":")[0] in AGENTV_KINDS:
        return rest.split(":")[0], {}
    if kind in AGENTV_KINDS:
        return kind, {}
    if not (is_provider(kind) or kind in KIND_ALIASES):
        return None
    if not rest.strip():
        return kind, {}
    if kind in _MAIN_SETTING:
        return kind, {_MAIN_SETTING[kind]: rest}
    form, colon, model = rest.partition(":")
    if colon and form in _FORMATS:
        api = _FORMATS[form]
        # Only `openai` has two interfaces to choose from.
        return kind, {"model": model} | ({"api_format": api} if api and kind == "openai" else {})
    return kind, {"model": rest}


# --- files --------------------------------------------------------------------------------------


def read_catalog(path: Path, root: Path) -> CatalogFile | None:
    """The targets of a file; `None` for a configuration that has none.

    Raises:
        ConfigError: the file cannot be read, or its shape is wrong.
        OutsideProject: it refers to a file outside `root`.
    """
    document = read_yaml(path)
    place = Place(document)
    data = document.data
    reader = _Reader(root)
    if isinstance(data, list):
        reader.read(data, place, path)
        return reader.result(path, {})
    if not isinstance(data, Mapping):
        raise ConfigError(place.problem('expected "targets:", a list of targets'))
    is_config = path.stem == "config"
    if is_config and not data.keys() & {"targets", "providers"}:
        return None
    if not is_config:
        reader.check_keys(data, place)
    for key in ("targets", "providers"):
        if key in data:
            reader.read(data[key], place.at(key), path)
    defaults = data.get("defaults")
    return reader.result(path, defaults if isinstance(defaults, Mapping) else {})


def read_entry(raw: Any, place: Place, base_dir: Path, *, name: str | None = None) -> RawTarget:
    """One entry, in any form; `name` if the entry need not have one of its own.

    Raises:
        ConfigError: it is neither text nor a mapping, or has no name.
    """
    if isinstance(raw, str) and raw.strip():
        raw = {"id": raw}
    elif isinstance(raw, Mapping) and len(raw) == 1:
        (key, inner), *_ = raw.items()
        is_spec = key not in _NAMES and key not in COMMON_FIELDS and (name is None or ":" in key)
        if is_spec and (inner is None or isinstance(inner, Mapping)):
            raw, place = {"id": key, **(inner or {})}, place.at(key)
    if not isinstance(raw, Mapping):
        raise ConfigError(place.problem("expected a target: a mapping with name and provider"))
    found = name
    for key in ("name", "label", "id"):
        if found is None and key in raw:
            found = raw[key]
            if not isinstance(found, str) or not found.strip():
                raise ConfigError(place.at(key).problem("expected text (a number goes in quotes)"))
    if found is None:
        near = nearest("name", raw)
        hint = f' (did you mean it by "{near[0]}"?)' if near else ""
        raise ConfigError(place.problem(f'"name" is required{hint}'))
    return RawTarget(found, raw, place, base_dir)


class _Reader(msgspec.Struct):
    root: Path
    entries: dict[str, RawTarget] = msgspec.field(default_factory=dict)
    problems: list[Problem] = msgspec.field(default_factory=list)
    open: tuple[Path, ...] = ()

    def check_keys(self, data: Mapping[str, Any], place: Place) -> None:
        known = ("targets", "providers", "defaults", "$schema")
        if not data.keys() & {"targets", "providers"}:
            self.problems.append(place.problem('expected "targets:", a list of targets'))
        for key in data.keys() - set(known):
            near = nearest(key, known)
            hint = f'did you mean "{near[0]}"?' if near else "known: targets, providers, defaults"
            self.problems.append(
                place.at(key).problem(f'unknown field "{key}" ({hint})', of_key=True)
            )

    def read(self, value: Any, place: Place, path: Path) -> None:
        """The entries of `value`, which stands at `place` in the file `path`."""
        for raw, where in self._items(value, place):
            if isinstance(raw, str) and raw.startswith("file://"):
                self._include(raw.removeprefix("file://"), where, path)
                continue
            try:
                entry = read_entry(raw, where, path.parent)
            except ConfigError as error:
                self.problems += error.problems
                continue
            first = self.entries.setdefault(entry.name, entry)
            if first is not entry:
                self._complain_of_twin(entry, first)

    def result(self, path: Path, defaults: Mapping[str, Any]) -> CatalogFile:
        if self.problems:
            raise ConfigError(self.problems)
        provider, grader = defaults.get("provider"), defaults.get("grader")
        return CatalogFile(
            path,
            tuple(self.entries.values()),
            provider if isinstance(provider, str) else None,
            grader if isinstance(grader, str) else None,
        )

    def _items(self, value: Any, place: Place) -> Iterator[tuple[Any, Place]]:
        is_list_of_targets = place.location == ("targets",)
        if isinstance(value, list):
            yield from ((item, place.at(index)) for index, item in enumerate(value))
        elif is_list_of_targets or not isinstance(value, str | Mapping):
            self.problems.append(place.problem("expected a list of targets"))
        elif isinstance(value, str) or "id" in value:
            yield value, place
        else:  # {spec: {…}, spec: {…}}
            for key, inner in value.items():
                yield (
                    {"id": key, **inner} if isinstance(inner, Mapping) else {"id": key},
                    place.at(key),
                )

    def _include(self, name: str, where: Place, path: Path) -> None:
        try:
            included = resolve_inside(path.parent, name, self.root)
        except OutsideProject as error:
            self.problems.append(where.problem(str(error)))
            return
        if included in self.open:
            self.problems.append(where.problem(f'"{name}" includes itself'))
            return
        if not included.is_file():
            self.problems.append(where.problem(f"no such file: {included}"))
            return
        document = read_yaml(included)
        data, place = document.data, Place(document)
        if isinstance(data, Mapping) and "providers" in data:
            data, place = data["providers"], place.at("providers")
        before, self.open = self.open, (*self.open, included)
        self.read(data, place, included)
        self.open = before

    def _complain_of_twin(self, entry: RawTarget, first: RawTarget) -> None:
        mark = first.place.document.mark(first.place.location)
        where = f" (the first is in line {mark.line})" if mark else ""
        self.problems.append(
            entry.place.problem(f'a second target is called "{entry.name}"{where}')
        )
