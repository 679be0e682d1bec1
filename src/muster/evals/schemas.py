"""The published JSON Schemas: of what users write, and of what a run writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from muster.errors import UsageError

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ("NAMES", "schema_of")

NAMES = ("suite", "targets", "result")

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def schema_of(name: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) called `name`, one of `NAMES`."""
    if name == "suite":
        from muster.evals.suites.models import suite_schema

        return suite_schema()
    if name == "targets":
        from muster.config.targets import targets_schema

        return targets_schema(_builtin_settings())
    if name == "result":
        return _result_schema()
    raise UsageError(f'no schema "{name}" (known: {", ".join(NAMES)})')


def _builtin_settings() -> dict[str, type[BaseModel]]:
    """The settings of each built-in provider, by its name; what a project registers has no part
    in a published file."""
    from muster.providers import providers
    from muster.targets import settings_for

    names = [entry.name for entry in providers.entries() if providers.is_builtin(entry.name)]
    models = {name: settings_for(providers, name) for name in names}
    return {name: model for name, model in models.items() if model is not None}


def _result_schema() -> dict[str, Any]:
    import msgspec

    from muster.evals.results import CaseResult

    return {"$schema": DRAFT, "title": "Muster result", **msgspec.json.schema(CaseResult)}
