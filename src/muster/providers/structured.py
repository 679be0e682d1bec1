"""JSON Schemas of answers, as the model APIs want them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

__all__ = ("is_strict_schema", "schema_name", "with_schema")


def with_schema(system: str | None, schema: Mapping[str, Any]) -> str:
    """The system prompt and the wish for such JSON, for services that take no schema."""
    text = msgspec.json.encode(dict(schema)).decode()
    rule = f"Answer with nothing but JSON that satisfies this JSON Schema:\n{text}"
    return f"{system}\n\n{rule}" if system else rule


def schema_name(schema: Mapping[str, Any]) -> str:
    """A name for a schema that the APIs accept, from its title."""
    name = re.sub(r"[^a-zA-Z0-9_-]+", "_", str(schema.get("title") or "")).strip("_")
    return name[:64] or "answer"


def is_strict_schema(schema: object) -> bool:
    """True when OpenAI's strict mode takes the schema: objects closed, all fields required."""
    if isinstance(schema, list):
        return all(is_strict_schema(item) for item in schema)
    if not isinstance(schema, Mapping):
        return True
    if schema.get("type") == "object" or "properties" in schema:
        properties = schema.get("properties", {})
        closed = schema.get("additionalProperties") is False
        if not closed or set(schema.get("required", ())) != set(properties):
            return False
        return all(is_strict_schema(item) for item in properties.values())
    return all(
        is_strict_schema(schema[key]) for key in ("items", "anyOf", "$defs") if key in schema
    )
