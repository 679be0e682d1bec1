"""The JSON Schema of manifests, for editors."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from muster.teams.manifests.kinds import (
    ARK_API,
    KINDS,
    MUSTER_API,
    ConfigMapData,
    Kind,
    Metadata,
    SecretData,
)

__all__ = ("manifest_schema",)


def manifest_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of one document of a manifest, of any kind."""
    definitions: dict[str, Any] = {}
    documents = []
    for kind in KINDS:
        spec = _defined(kind.spec, definitions)
        metadata = _defined(Metadata, definitions)
        documents.append(_document(ARK_API, [kind.name, *kind.older], kind, spec, metadata))
        if kind.muster is not None:
            documents.append(_document(MUSTER_API, [kind.muster], kind, spec, metadata))
    documents += [_defined(model, definitions) for model in (ConfigMapData, SecretData)]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Muster manifest",
        "oneOf": documents,
        "$defs": definitions,
    }


def _document(
    api: str, names: list[str], kind: Kind, spec: dict[str, Any], metadata: dict[str, Any]
) -> dict[str, Any]:
    return {
        "type": "object",
        "title": names[0],
        "description": (kind.spec.__doc__ or "").partition("\n")[0],
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "additionalProperties": False,
        "properties": {
            "apiVersion": {"const": api},
            "kind": {"enum": names},
            "metadata": metadata,
            "spec": spec,
            "status": {"description": "What a cluster says; read, not used."},
        },
    }


def _defined(model: type[BaseModel], definitions: dict[str, Any]) -> dict[str, Any]:
    """A reference to the model's schema, which is put with those it needs into `definitions`."""
    name = model.__name__
    if name not in definitions:
        schema = model.model_json_schema(ref_template="#/$defs/{model}")
        definitions.update(schema.pop("$defs", {}))
        definitions[name] = schema
    return {"$ref": f"#/$defs/{name}"}
