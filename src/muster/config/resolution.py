"""From an entry as written to a `ResolvedTarget`: aliases followed, names put right, variables
filled in, secrets marked, and every mistake told with its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import msgspec
from pydantic import BaseModel, ValidationError

from muster.capabilities import UNKNOWN
from muster.config.dialects import (
    COMMON_FIELDS,
    KIND_ALIASES,
    OLD_SETTINGS,
    Parts,
    RawTarget,
    Written,
    parse_spec,
    snake_case,
)
from muster.config.document import Location, Place
from muster.config.interpolation import (
    fill_text,
    is_whole_variable,
    odd_variable,
    variables_in,
)
from muster.config.secrets import is_secret_name, is_secret_variable
from muster.config.target_fields import TargetFields
from muster.config.validation import field_names, problems_at
from muster.errors import ConfigError, Problem, nearest
from muster.target import ResolvedTarget, Secret

__all__ = ("Catalog", "Resolution", "SettingsFor", "resolve_entry")

MAX_ALIASES = 10

SettingsFor: TypeAlias = Callable[[str], type[BaseModel] | None]
"""The model of the settings of a kind of provider; `None` for kinds that check their own."""

# `config:` holds all settings of a v5 provider, these of Muster's too; not what says which it is.
_IN_CONFIG = COMMON_FIELDS - {"provider", "use_target", "env"}


class Catalog(Protocol):
    """What is asked of the catalog that an entry stands in."""

    path: Path | None
    env: Mapping[str, str]
    safe: bool
    default_grader: str | None
    settings_for: SettingsFor
    is_provider: Callable[[str], bool]

    def find(self, name: str) -> RawTarget | None:
        """The entry called `name`, or one made of it if it is a provider's spec."""
        ...

    def not_found(self, name: str) -> str:
        """What to say when there is none."""
        ...

    def warn(self, problem: Problem) -> None:
        """Tell of something that is read all the same."""
        ...


class Resolution(msgspec.Struct, frozen=True):
    """A target, and where each part of it was written."""

    target: ResolvedTarget
    place: Place
    provider_place: Place
    places: Mapping[str, Place]
    """Of the settings, by the names they have in `target.config`."""

    def place_of(self, loc: Location) -> tuple[Place, Location]:
        """Where the setting at `loc` of the configuration stands, and the steps left to go."""
        place = self.places.get(str(loc[0])) if loc else None
        return (place, loc[1:]) if place is not None else (self.place, loc)


def resolve_entry(entry: RawTarget, catalog: Catalog) -> Resolution:
    """`entry` as its provider's factory gets it.

    Raises:
        ConfigError: with all that is wrong with it.
    """
    return _Resolving(entry, catalog).result()


class _Resolving(msgspec.Struct):
    entry: RawTarget
    catalog: Catalog
    problems: list[Problem] = msgspec.field(default_factory=list)
    variables: Mapping[str, str] = msgspec.field(default_factory=dict)

    def result(self) -> Resolution:
        self.variables = self.catalog.env
        parts, defined_in = self._merged()
        kind, from_spec, provider_place = self._provider(parts)
        model = self.catalog.settings_for(kind) if kind else None
        parts = self._sorted(parts, kind, model)
        self._add_spec(parts, from_spec, kind, model, provider_place)
        overlay = self._environment(parts, model)
        given = {name: self._fill(*written, False) for name, written in parts.fields.items()}
        config = {
            name: self._fill(*written, is_secret_name(name))
            for name, written in parts.settings.items()
        }
        fields = self._fields(given, parts)
        if self.problems or fields is None:
            raise ConfigError(self.problems)
        target = ResolvedTarget(
            name=self.entry.name,
            provider=kind,
            config=config,
            judge_target=fields.judge_target or self.catalog.default_grader,
            workers=fields.workers,
            timeout_seconds=fields.timeout_seconds,
            retry=fields.retry_policy(),
            rate_limits=fields.rate_limits(),
            fallback_targets=fields.fallback_targets,
            cacheable=fields.cacheable,
            capabilities=fields.capabilities.known() if fields.capabilities else UNKNOWN,
            base_dir=defined_in.base_dir,
            targets_file=self.catalog.path,
            env={**self.catalog.env, **overlay} if overlay else self.catalog.env,
            safe=self.catalog.safe,
        )
        places = {name: written.place for name, written in parts.settings.items()}
        return Resolution(target, self.entry.place, provider_place, places)

    def _merged(self) -> tuple[Parts, RawTarget]:
        """The entry over those that `use_target` leads to, and the last of these."""
        chain = [self.entry]
        all_parts = [Parts.of(self.entry, self.problems, self.catalog.warn)]
        while use := all_parts[-1].fields.pop("use_target", None):
            name = self._fill(*use, False)
            if self.problems:
                raise ConfigError(self.problems)
            passed = [entry.name for entry in chain]
            path = " -> ".join([*passed, str(name)])
            if name in passed:
                message = f"Circular use_target reference detected: {path}"
                raise ConfigError(use.place.problem(message))
            if len(chain) > MAX_ALIASES:
                message = f"use_target leads through more than {MAX_ALIASES} targets: {path}"
                raise ConfigError(use.place.problem(message))
            found = self.catalog.find(name) if isinstance(name, str) else None
            if found is None:
                raise ConfigError(use.place.problem(self.catalog.not_found(str(name))))
            chain.append(found)
            all_parts.append(Parts.of(found, self.problems, self.catalog.warn))
        fields: dict[str, Written] = {}
        settings: dict[str, Written] = {}
        nested: frozenset[str] = frozenset()
        for parts in reversed(all_parts):
            fields |= parts.fields
            settings |= parts.settings
            nested = nested - parts.settings.keys() | parts.nested
        return Parts(fields, settings, nested), chain[-1]

    def _provider(self, parts: Parts) -> tuple[str, Mapping[str, str], Place]:
        """The kind, the settings that its spec holds, and where it is named."""
        value, place = parts.fields.pop("provider", (None, self.entry.place))
        if value is not None:
            value = self._fill(value, place, False)
        else:
            value = self.variables.get("AGENT_PROVIDER") or None
        if value is None:
            self.problems.append(place.problem('"provider" is required, or set AGENT_PROVIDER'))
            return "", {}, place
        if not isinstance(value, str):
            self.problems.append(place.problem("expected the name of a provider"))
            return "", {}, place
        kind, settings = parse_spec(value, self.catalog.is_provider) or (value, {})
        if kind in KIND_ALIASES and not self.catalog.is_provider(kind):
            if kind != "exec":
                self.catalog.warn(
                    place.problem(f'write "{KIND_ALIASES[kind]}" instead of "{kind}"')
                )
            kind = KIND_ALIASES[kind]
        return kind, settings, place

    def _sorted(self, parts: Parts, kind: str, model: type[BaseModel] | None) -> Parts:
        """Settings under the names that the provider's model knows; a custom provider's stay."""
        if model is None:
            return parts
        known = field_names(model)
        settings: dict[str, Written] = {}
        for key, written in parts.settings.items():
            name = _current_name(key, known)
            common = snake_case(key)
            if name is None and key in parts.nested and common in _IN_CONFIG:
                if common in parts.fields:
                    message = f'"{key}" is given twice, under "config" and beside it'
                    self.problems.append(written.place.problem(message, of_key=True))
                parts.fields[common] = written
                name = common
            elif name is None:
                if model.model_config.get("extra") != "allow":
                    self._unknown(key, written.place, kind, known)
                    continue
                settings[key] = written
            elif name in settings:
                message = f'"{key}" says again what "{settings[name].place.location[-1]}" says'
                self.problems.append(written.place.problem(message, of_key=True))
            else:
                settings[name] = written
            if name is not None and name != key:
                self.catalog.warn(written.place.problem(f'write "{name}" instead', of_key=True))
        for name in known & parts.fields.keys():
            written = parts.fields.pop(name) if name == "env" else parts.fields[name]
            settings.setdefault(name, written)
        return Parts(parts.fields, settings, parts.nested)

    def _unknown(self, key: str, place: Place, kind: str, known: set[str]) -> None:
        shown = sorted(known)
        near = nearest(key, [*shown, *COMMON_FIELDS, "name"])
        hint = f'did you mean "{near[0]}"?' if near else f"it knows: {', '.join(shown)}"
        message = f'unknown field "{key}" for provider "{kind}" ({hint})'
        self.problems.append(place.problem(message, of_key=True))

    def _add_spec(
        self,
        parts: Parts,
        from_spec: Mapping[str, str],
        kind: str,
        model: type[BaseModel] | None,
        place: Place,
    ) -> None:
        """What the spec says, where no setting says otherwise."""
        for name, value in from_spec.items():
            if model is not None and name not in field_names(model):
                message = f'provider "{kind}" has no setting "{name}" for "{value}"'
                self.problems.append(place.problem(message))
            parts.settings.setdefault(name, Written(value, place))

    def _environment(self, parts: Parts, model: type[BaseModel] | None) -> dict[str, str]:
        """The target's own variables; its other values may mention them."""
        written = parts.fields.get("env")
        if written is None:
            return {}
        if model is None:  # a custom provider may look for it among its settings
            parts.settings["env"] = parts.fields.pop("env")
        if not isinstance(written.value, Mapping):
            return {}
        filled = {
            name: self._fill(value, written.place.at(name), False)
            for name, value in written.value.items()
        }
        overlay = {name: value for name, value in filled.items() if isinstance(value, str)}
        self.variables = {**self.variables, **overlay}
        return overlay

    def _fill(self, value: Any, place: Place, secret: bool, by_name: bool = True) -> Any:
        """`value` with variables filled in and secrets marked. `secret`: it is one by its name;
        names within lists (a scripted tool call, say) do not count."""
        if isinstance(value, str):
            return self._fill_text(value, place, secret)
        if isinstance(value, Mapping):
            variables = place.location[-1:] == ("env",)
            is_secret = is_secret_variable if variables else is_secret_name
            return {
                key: self._fill(
                    item, place.at(key), secret or (by_name and is_secret(key)), by_name
                )
                for key, item in value.items()
            }
        if isinstance(value, list):
            return [
                self._fill(item, place.at(index), secret, by_name=False)
                for index, item in enumerate(value)
            ]
        return value

    def _fill_text(self, text: str, place: Place, secret: bool) -> str:
        names = variables_in(text)
        if odd := odd_variable(text):
            form = "${{ NAME }} or ${{ NAME:-default }}"
            self.catalog.warn(place.problem(f'"{odd}" stays as it is; a variable is {form}'))
        missing: list[str] = []
        filled = fill_text(text, self.variables, missing.append) if names else text
        for name in missing:
            near = nearest(name, self.variables)
            hint = f" (near: {near[0]})" if near else ""
            self._lacks(place, name, f"is not set{hint}")
        if not filled and not missing and is_whole_variable(text) and ":-" not in text:
            self._lacks(place, names[0], "is empty")
        if secret and text and not names:
            suggested = f"{self.entry.name}_{snake_case(str(place.location[-1]))}".upper()
            variable = "".join(c if c.isalnum() and c.isascii() else "_" for c in suggested)
            message = f"a secret is written in the file; better ${{{{ {variable} }}}}"
            self.catalog.warn(place.problem(message))
        return Secret(filled) if secret or any(map(is_secret_variable, names)) else filled

    def _lacks(self, place: Place, variable: str, how: str) -> None:
        message = (
            f'target "{self.entry.name}" needs the environment variable {variable}, which {how}'
        )
        self.problems.append(place.problem(message))

    def _fields(self, given: Mapping[str, Any], parts: Parts) -> TargetFields | None:
        try:
            fields = TargetFields.model_validate(given)
        except ValidationError as error:
            self.problems += problems_at(
                error, TargetFields, lambda loc: (parts.fields[str(loc[0])].place, loc[1:])
            )
            return None
        for index, name in enumerate(fields.fallback_targets):
            if self.catalog.find(name) is None:
                place = parts.fields["fallback_targets"].place
                self.problems.append(place.at(index).problem(self.catalog.not_found(name)))
        return fields


def _current_name(key: str, known: set[str]) -> str | None:
    """What a model that knows `known` calls the setting `key`."""
    snake = snake_case(key)
    candidates = (key, snake, *OLD_SETTINGS.get(snake, ()))
    return next((name for name in candidates if name in known), None)
