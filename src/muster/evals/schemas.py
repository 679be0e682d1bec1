"""The published JSON Schemas: of what users write, and of what a run writes."""

from __future__ import annotations

from typing import Any

from muster.errors import UsageError

__all__ = ("NAMES", "schema_of")

NAMES = ("suite", "targets", "result")


def schema_of(name: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) called `name`, one of `NAMES`."""
    if name == "suite":
        from muster.evals.suites.models import suite_schema

        return suite_schema()
    if name == "targets":
        from muster.config.targets import targets_schema

        return targets_schema()
    if name == "result":
        import msgspec

        from muster.evals.results import CaseResult

        return msgspec.json.schema(CaseResult)
    raise UsageError(f'no schema "{name}" (known: {", ".join(NAMES)})')
