"""From a target of a project to a subject: pointed at the environment, without its keys.

Nothing is paid for. A setting that says where the service is (`base_url`, `url`) is replaced by the
environment's; every key, in the settings and among the variables, by the environment's; a team's
agents are all answered by it. Commands see the usual variables (`OPENAI_BASE_URL`, …) of the
environment and an empty home folder, so that they find no login; Python code cannot connect to
anything but this machine.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from pydantic import SecretStr

from muster.config.environment import load_environment
from muster.config.project import find_project
from muster.config.secrets import is_secret_variable
from muster.config.targets import TargetCatalog, load_catalog
from muster.errors import UsageError
from muster.provider import Provider
from muster.providers import providers
from muster.providers.agents import AGENT_ALIASES, AGENTS
from muster.providers.create import create_provider
from muster.providers.endpoint import ModelSettings
from muster.providers.presets import preset_for
from muster.registry import Registry, UnknownName
from muster.target import ProviderFactory, ResolvedTarget, Secret
from muster.targets import settings_for
from muster.testing.dialects import Dialect, Shape
from muster.testing.environment import Environment
from muster.testing.guard import forbid_outside
from muster.testing.subject import Subject

__all__ = ("Pointed", "target_named")

PLACEHOLDER = "key-of-the-environment"
"""Stands for every key until there is an environment."""

VARIABLE = re.compile(r"\$\{\{\s*(?:env\.)?(\w+)")
SIMPLE_PATH = re.compile(r"[A-Za-z_][\w-]*(?:\[\d+\])?(?:\.[A-Za-z_][\w-]*(?:\[\d+\])?)*")
ORIGIN = re.compile(r"^https?://[^/?]*")
COMMANDS = frozenset({"cli", "stdio", *AGENTS, *AGENT_ALIASES})
RELAYS = COMMANDS | {"function", "team"}
"""What calls a service there is not the provider."""
PLACES = ("base_url", "endpoint", "api_base", "url")
"""What settings call the place of a service."""
MODELS = {"anthropic": "claude-3-5-haiku-latest"}
MODEL = "gpt-4o-mini"
"""For a provider named without a model: it has a price."""


@dataclass(frozen=True)
class Pointed:
    """A target as a subject, and what was done so that nothing is paid."""

    subject: Subject
    notes: tuple[str, ...]
    folder: tempfile.TemporaryDirectory[str] | None = field(default=None, repr=False)
    """What it needs on disk, for as long as it is kept."""


def target_named(
    name: str,
    start: Path,
    *,
    targets_file: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    dialect: Dialect | None = None,
) -> Pointed:
    """The target, or the provider, called `name`, pointed at the environment.

    `settings` replace its own; `{url}` and `{key}` in them are the environment's. `dialect` is what
    its service speaks.

    Raises:
        MusterError: there is none, its settings are wrong, or it cannot be pointed.
    """
    forbid_outside()
    env = {
        key: PLACEHOLDER if is_secret_variable(key) else value
        for key, value in load_environment(start).items()
    }
    for key in [key for key in os.environ if is_secret_variable(key)]:
        os.environ[key] = PLACEHOLDER  # for code that looks there by itself
    catalog = load_catalog(start, explicit=targets_file, env=env)
    registry = providers.for_project(find_project(start).provider_folders)
    catalog.settings_for = lambda kind: settings_for(registry, kind)
    catalog.is_provider = registry.__contains__
    if (entry := catalog.find(name)) is not None:
        # Without its keys a target can be checked as well as with them.
        for key in VARIABLE.findall(json.dumps(entry.value, default=str)):
            if is_secret_variable(key):
                env.setdefault(key, PLACEHOLDER)
    elif name not in registry:
        try:
            registry.get(name)  # says which are near, and what could not be loaded
        except UnknownName as error:
            raise UsageError(f"{catalog.not_found(name)}; {error}") from None
    target = catalog.resolve(name)
    given = dict(settings or {})
    target = replace(target, config=_merged(target.config, given))
    pointed = _Pointing(target, catalog, registry, given).pointed()
    return replace(pointed, subject=replace(pointed.subject, dialect=dialect))


class _Pointing:
    """How one target is made for an environment."""

    def __init__(
        self,
        target: ResolvedTarget,
        catalog: TargetCatalog,
        registry: Registry[ProviderFactory],
        given: Mapping[str, Any],
    ) -> None:
        self.target = target
        self.catalog = catalog
        self.registry = registry
        self.given = given
        self.kind = target.provider if registry.is_builtin(target.provider) else ""
        model = settings_for(registry, target.provider)
        fields = model.model_fields if model is not None else {}
        self.fields = set(fields)
        self.secrets = [name for name, each in fields.items() if _is_secret(each.annotation)]
        self.is_model = model is not None and issubclass(model, ModelSettings)
        self.folder: tempfile.TemporaryDirectory[str] | None = None

    def pointed(self) -> Pointed:
        target, notes = self.target, []
        place: Callable[[Environment], dict[str, Any]] = self._own_place
        shape = Shape()
        if self.is_model:
            place = self._model
            notes.append("base_url is replaced by the environment's, on this machine")
        elif self.kind == "http":
            place, shape = self._http, _shape_of(target)
            notes.append("the host of url is replaced by the environment's, on this machine")
        elif self.kind == "team":
            place = self._team
            notes.append("every agent is answered by the environment, on this machine")
        elif self.kind in COMMANDS:
            place = self._command
            notes += [
                f"settings.{name} is replaced by the environment's, on this machine"
                for name in self._child_places()
            ]
            notes.append(
                "the command gets the environment as OPENAI_BASE_URL, ANTHROPIC_BASE_URL and "
                "MUSTER_CHECK_URL, and an empty HOME"
            )
        elif found := self._place_setting():
            notes.append(f"{found} is replaced by the environment's, on this machine")
        notes.append("keys are replaced; connections to other machines are refused")
        if self.kind in COMMANDS | {"team"}:
            self.folder = tempfile.TemporaryDirectory(prefix="muster-check-")

        def factory(environment: Environment) -> Provider:
            config = _filled(self.target.config, environment) | place(environment)
            made = replace(target, config=config, env=self._variables(environment))
            if self.kind == "team":
                made = replace(made, targets_file=self._targets_file(environment))
            with self.catalog.locating(made):
                return create_provider(made, self.registry)

        subject = Subject(
            name=target.name,
            factory=factory,
            relays=self.kind in RELAYS,
            price_as=self._seller(),
            shape=shape,
        )
        return Pointed(subject, tuple(notes), self.folder)

    def _seller(self) -> str | None:
        if not self.is_model or not self.kind:
            return None
        return "anthropic" if self.kind == "anthropic" else preset_for(self.kind)[1].price_as

    def _model(self, environment: Environment) -> dict[str, Any]:
        config: dict[str, Any] = dict.fromkeys(("endpoint", "resource", "max_output_tokens"))
        config = {name: None for name in config if name in self.target.config}
        at = environment.url if self.kind in ("anthropic", "azure") else f"{environment.url}/v1"
        config["base_url"] = at
        config["api_key"] = Secret(environment.key)
        named = any(name in self.target.config for name in ("model", "deployment", "variant"))
        if not named:
            config["model"] = MODELS.get(self.kind, MODEL)
        return config | self._patience(environment)

    def _http(self, environment: Environment) -> dict[str, Any]:
        written = str(self.target.config.get("url", "")).replace("{url}", environment.url)
        url = ORIGIN.sub(environment.url, written)
        return {"url": url} | self._patience(environment)

    def _child_places(self) -> dict[str, str]:
        """What a stdio child is told of the places of its service."""
        settings = self.target.config.get("settings")
        if self.kind != "stdio" or not isinstance(settings, Mapping):
            return {}
        said = {name: str(settings[name]) for name in PLACES if name in settings}
        return {name: value for name, value in said.items() if ORIGIN.match(value)}

    def _command(self, environment: Environment) -> dict[str, Any]:
        places = self._child_places()
        if not places:
            return {}
        moved = {name: ORIGIN.sub(environment.url, value) for name, value in places.items()}
        return {"settings": {**_filled(self.target.config["settings"], environment), **moved}}

    def _patience(self, environment: Environment) -> dict[str, Any]:
        if environment.read_timeout is None or "read_timeout_seconds" not in self.fields:
            return {}
        return {"read_timeout_seconds": environment.read_timeout}

    def _place_setting(self) -> str | None:
        """What a provider of somebody else's calls the place of its service, unless it is given."""
        if any("{url}" in str(value) for value in self.given.values()):
            return None
        known = [name for name in PLACES if name in self.target.config or name in self.fields]
        return known[0] if known else None

    def _own_place(self, environment: Environment) -> dict[str, Any]:
        keys: dict[str, Any] = {
            name: Secret(environment.key)
            for name in self.secrets
            if name not in self.target.config  # else its own is replaced
        }
        keys |= self._patience(environment)
        setting = self._place_setting()
        if setting is None:
            return keys
        written = self.target.config.get(setting)
        at = ORIGIN.sub(environment.url, written) if written else environment.url
        return {**keys, setting: at}

    def _team(self, environment: Environment) -> dict[str, Any]:
        own = ("provider_for_all", "script")
        config = {name: None for name in own if name in self.target.config}
        return {**config, "target_for_all": "environment"}

    def _targets_file(self, environment: Environment) -> Path:
        """The targets of a team's agents: one, which is the environment."""
        assert self.folder is not None
        path = Path(self.folder.name) / f"{environment.url.rpartition(':')[2]}.yaml"
        agent = {
            "name": "environment",
            "provider": "openai",
            "base_url": f"{environment.url}/v1",
            "api_key": "${{ OPENAI_API_KEY }}",
            "model": MODEL,
            "max_retries": 0,
        }
        path.write_text(json.dumps({"targets": [agent]}), encoding="utf-8")
        return path

    def _variables(self, environment: Environment) -> dict[str, str]:
        around = os.environ if self.target.env is None else self.target.env
        env = {
            key: environment.key if is_secret_variable(key) else value
            for key, value in around.items()
        }
        env |= {
            "OPENAI_BASE_URL": f"{environment.url}/v1",
            "ANTHROPIC_BASE_URL": environment.url,
            "OPENAI_API_KEY": environment.key,
            "ANTHROPIC_API_KEY": environment.key,
            "MUSTER_CHECK_URL": environment.url,
            "MUSTER_CHECK_KEY": environment.key,
        }
        if self.folder is not None and self.kind in COMMANDS:
            home = self.folder.name
            env |= {"HOME": home, "XDG_CONFIG_HOME": f"{home}/.config"}
        return env


def _is_secret(annotation: Any) -> bool:
    """A setting's type is `SecretStr`, or that or nothing."""
    return annotation is SecretStr or SecretStr in get_args(annotation)


def _merged(config: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """`config` with what is `given` over it, mappings within mappings too."""
    merged = dict(config)
    for name, value in given.items():
        below = merged.get(name)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            merged[name] = _merged(below, value)
        else:
            merged[name] = value
    return merged


def _filled(value: Any, environment: Environment) -> Any:
    """`value` with the environment's key in place of every secret, and with what `{url}` and
    `{key}` stand for."""
    if isinstance(value, Secret):
        before, blank, _ = value.partition(" ")  # as in `Bearer KEY`
        return Secret(f"{before} {environment.key}" if blank else environment.key)
    if isinstance(value, str):
        value = value.replace("{url}", environment.url).replace("{key}", environment.key)
        return value.replace(PLACEHOLDER, environment.key)
    if isinstance(value, Mapping):
        return {name: _filled(item, environment) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(item, environment) for item in value]
    return value


def _shape_of(target: ResolvedTarget) -> Shape:
    """Where an `http` target looks for what, so that it finds it in the environment's answers.

    Raises:
        UsageError: it looks by expressions that cannot be turned around.
    """
    response = dict(target.config.get("response") or {})
    usage = dict(response.get("usage") or {})
    for name in ("messages", "format"):
        if response.get(name) not in (None, "auto", "json"):
            raise UsageError(
                f'target "{target.name}": response.{name} cannot be checked: the environment '
                "answers with JSON that has a text"
            )
    found: dict[str, str] = {}
    for setting, name in (("finish_reason", "finish"), *((n, n) for n in _SHAPE)):
        path = response.get(setting)
        if path is not None:
            found[name] = _simple(target, f"response.{setting}", path)
    for name in ("input", "output", "cached", "reasoning"):
        if usage.get(name) is not None:
            found[name] = _simple(target, f"response.usage.{name}", usage[name])
    if response.get("done") is not None:
        found["done"] = str(response["done"])
    return Shape(**found)


_SHAPE = ("text", "cost", "model", "error", "delta")


def _simple(target: ResolvedTarget, setting: str, path: Any) -> str:
    if not isinstance(path, str) or not SIMPLE_PATH.fullmatch(path):
        raise UsageError(
            f'target "{target.name}": {setting} cannot be checked: the environment can put values '
            f"at plain paths such as result.items[0].text, not at {path!r}; check it with the "
            "pytest contract and a factory of your own"
        )
    return path
