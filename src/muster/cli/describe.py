"""`muster providers describe`: what a provider, or a target, can do, and what may be said of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import click

from muster.capabilities import UNKNOWN, Capabilities, capabilities_of
from muster.cli.options import json_option, safe_option, targets_option
from muster.config.environment import load_environment
from muster.config.project import find_project
from muster.config.secrets import masked_config
from muster.config.targets import load_catalog
from muster.errors import MusterError
from muster.provider import ProviderError
from muster.providers import providers as registry
from muster.registry import Registry
from muster.reports.terminal import format_table
from muster.target import ProviderFactory
from muster.targets import TargetPool, settings_for

__all__ = ("describe",)

MAX_DEPTH = 2
_SHOWN = {True: "yes", False: "no", None: "not known"}


@click.command("describe")
@click.argument("name", metavar="NAME|TARGET")
@targets_option
@safe_option
@json_option()
def describe(name: str, targets_file: Path | None, safe: bool, as_json: bool) -> None:
    """Show what a provider, or a target of the project, can do.

    Of a provider: where it comes from, its capabilities, and its settings with types, defaults and
    descriptions. Of a target: the same, with what its entry says, the model's context and prices as
    far as they are known, and its settings as they are. Nobody is asked anything; the child of a
    `stdio` target is started, and says what it can do.
    """
    here = Path.cwd()
    scoped = registry.for_project(find_project(here).provider_folders, safe=safe)
    catalog = load_catalog(here, explicit=targets_file, env=load_environment(here), safe=safe)
    if name in catalog.names or name not in scoped:
        pool = TargetPool(catalog, scoped)
        told = _of_target(pool, name, scoped)
    else:
        told = _of_provider(scoped, name)
    if as_json:
        import json

        click.echo(json.dumps(told, indent=2, ensure_ascii=False, default=str))
        return
    click.echo("\n".join(_as_text(told)))


@runtime_checkable
class Introduces(Protocol):
    """A provider that knows what it can do only when what it asks has started."""

    async def ready(self) -> Capabilities:
        """Start it, if need be, and hear what it can do. Raises `ProviderError`."""

    async def aclose(self) -> None:
        """End what was started."""


async def _heard(provider: Introduces) -> Capabilities | ProviderError:
    try:
        return await provider.ready()
    except ProviderError as error:
        return error
    finally:
        await provider.aclose()


def _of_provider(scoped: Registry[ProviderFactory], name: str) -> dict[str, Any]:
    entry = scoped.describe(name)
    factory = scoped.get(name)
    told: dict[str, Any] = {"provider": entry.name}
    if entry.name != name:
        told["alias"] = name
    about = (getattr(factory, "__doc__", None) or "").strip().split("\n\n")[0]
    told |= {"from": entry.source, "where": entry.location}
    if about:
        told["about"] = " ".join(about.split())
    told["capabilities"] = _declared(factory, entry.name).to_dict()
    told["settings"] = _settings(scoped, name)
    return told


def _of_target(pool: TargetPool, name: str, scoped: Registry[ProviderFactory]) -> dict[str, Any]:
    opened = pool.open(name)
    target = opened.resolved
    told: dict[str, Any] = {"target": opened.name}
    told |= _of_provider(scoped, target.provider) if target.provider in scoped else {}
    told.setdefault("provider", target.provider)
    told["capabilities"] = pool.priced_capabilities(name).to_dict()
    bare = pool.bare(name)
    if isinstance(bare, Introduces):
        heard = asyncio.run(_heard(bare))
        if isinstance(heard, Capabilities):
            told["capabilities"] = target.capabilities.over(heard).to_dict()
        else:
            told["not_known"] = str(heard)
    said = target.capabilities.to_dict()
    told["declared_by_target"] = sorted(key for key, value in said.items() if value is not None)
    told["config"] = masked_config(target)
    return told


def _declared(factory: object, kind: str) -> Capabilities:
    """What the class says of all its providers, or of those of that kind."""
    by_kind = getattr(factory, "capabilities_as", None)
    if by_kind is not None:
        found: Capabilities = by_kind(kind)
        return found
    if not isinstance(factory, type):
        return UNKNOWN  # a function that makes providers; what these say is only known of a target
    declared = getattr(factory, "capabilities", None)
    if not isinstance(declared, Capabilities | Mapping):
        return UNKNOWN  # said by each provider by itself
    try:
        return capabilities_of(factory)
    except ValueError as error:
        raise MusterError(f'provider "{kind}": {error}') from None


def _settings(scoped: Registry[ProviderFactory], name: str) -> list[dict[str, Any]] | None:
    """One row for each setting; `None` if the provider checks them itself."""
    model = settings_for(scoped, name)
    if model is None:
        return None
    schema = model.model_json_schema()
    rows = list(_rows(schema, schema.get("$defs", {}), ""))
    return sorted(rows, key=lambda row: "required" not in row or "." in row["name"])


def _rows(
    schema: Mapping[str, Any], definitions: Mapping[str, Any], within: str
) -> Iterator[dict[str, Any]]:
    """Its fields, those of mappings right after them: `workspace`, `workspace.template`."""
    required = set(schema.get("required", ()))
    for key, field in schema.get("properties", {}).items():
        row: dict[str, Any] = {"name": f"{within}{key}", "type": _type(field, definitions)}
        if key in required:
            row["required"] = True
        elif field.get("default") is not None and not isinstance(field["default"], dict):
            row["default"] = field["default"]
        row["description"] = " ".join(field.get("description", "").split())
        yield row
        inner = _mapping(field, definitions)
        if inner is not None and within.count(".") < MAX_DEPTH:
            yield from _rows(inner, definitions, f"{within}{key}.")


def _mapping(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The schema of the mapping with named fields that a field holds, if it holds one."""
    for choice in (field, *field.get("anyOf", ()), *field.get("allOf", ())):
        name = choice.get("$ref", "").rpartition("/")[2]
        if "properties" in definitions.get(name, {}):
            found: Mapping[str, Any] = definitions[name]
            return found
    return None


def _type(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """The JSON type in few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return _type(definitions.get(name, {}), definitions)
    if "enum" in schema:
        return " or ".join(f'"{value}"' for value in schema["enum"])
    if "const" in schema:
        return f'"{schema["const"]}"'
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            kinds = (_type(item, definitions) for item in schema[key])
            return " or ".join(dict.fromkeys(kind for kind in kinds if kind != "null")) or "null"
    kind = schema.get("type", "any value")
    if kind == "array":
        items = schema.get("items")
        return f"list of {_type(items, definitions)}" if isinstance(items, Mapping) else "list"
    names = {"object": "mapping", "string": "text", "boolean": "true or false"}
    return names.get(kind, kind) if isinstance(kind, str) else " or ".join(kind)


def _as_text(told: Mapping[str, Any]) -> Iterator[str]:
    if "target" in told:
        yield f"target    {told['target']}"
    alias = f" (by its other name, {told['alias']})" if "alias" in told else ""
    yield f"provider  {told['provider']}{alias}"
    if "from" in told:
        yield f"from      {told['from']}: {told['where']}"
    if "about" in told:
        yield f"\n{told['about']}"
    own = set(told.get("declared_by_target", ()))
    rows = [
        (name, _value(name, value), "said by the target" if name in own else "")
        for name, value in told["capabilities"].items()
    ]
    yield "\n" + format_table(("capability", "", ""), rows)
    if "not_known" in told:
        yield f"\nWhat it says itself is not known: {told['not_known']}"
    settings = told.get("settings")
    if settings is None:
        yield "\nIts settings are its own affair: it has no `Settings`."
    elif not settings:
        yield "\nIt has no settings."
    else:
        yield "\n" + format_table(
            ("setting", "type", "default", "meaning"), list(map(_row, settings))
        )
    if told.get("config"):
        import json

        yield "\nAs the target says:"
        yield json.dumps(told["config"], indent=2, ensure_ascii=False, default=str)


def _row(setting: Mapping[str, Any]) -> tuple[str, str, str, str]:
    import json

    default = "required" if setting.get("required") else ""
    if "default" in setting:
        default = json.dumps(setting["default"], ensure_ascii=False)
    return setting["name"], setting["type"], default, setting["description"]


def _value(name: str, value: object) -> str:
    if isinstance(value, bool) or value is None:
        return _SHOWN[value]
    return f"${value:g}" if name.endswith("usd_per_million") else f"{value:,}"
