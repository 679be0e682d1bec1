"""The published JSON Schemas, those of manifests and scripts among them."""

from __future__ import annotations

from typing import Any

from muster.evals import schemas as of_evals

__all__ = ("NAMES", "schema_of")

NAMES = (*of_evals.NAMES, "team", "script")


def schema_of(name: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) called `name`, one of `NAMES`.

    Raises:
        UsageError: there is none of that name.
    """
    if name == "team":
        from muster.teams.manifests import manifest_schema

        return manifest_schema()
    if name == "script":
        from muster.teams.mock_script import ScriptFile

        schema = ScriptFile.model_json_schema()
        return {"$schema": of_evals.DRAFT, **schema, "title": "Muster script of a team"}
    return of_evals.schema_of(name)
