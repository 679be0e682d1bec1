"""The published JSON Schemas: of what users write, and of what a run writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from muster.errors import UsageError

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ("NAMES", "schema_of")

OUTPUTS = ("result", "run", "report", "comparison", "trend", "power")
"""Of what a run writes, and of what is printed of runs with `--json`."""

NAMES = ("suite", "targets", *OUTPUTS, "stdio-protocol", "chaos", "cassette")

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def schema_of(name: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) called `name`, one of `NAMES`."""
    if name == "suite":
        from muster.evals.suites.models import suite_schema

        return suite_schema()
    if name == "targets":
        from muster.config.targets import targets_schema

        return targets_schema(_builtin_settings())
    if name in OUTPUTS:
        return _schema_of_output(name)
    if name == "stdio-protocol":
        from muster.providers.stdio_schema import protocol_schema

        return {"$schema": DRAFT, **protocol_schema()}
    if name == "chaos":
        from muster.proxy.plan import chaos_schema

        return {"$schema": DRAFT, **chaos_schema()}
    if name == "cassette":
        from muster.proxy.cassette import cassette_schema

        return {"$schema": DRAFT, **cassette_schema()}
    raise UsageError(f'no schema "{name}" (known: {", ".join(NAMES)})')


def _builtin_settings() -> dict[str, type[BaseModel]]:
    """The settings of each built-in provider, by its name; what a project registers has no part
    in a published file."""
    from muster.providers import providers
    from muster.targets import settings_for

    names = [entry.name for entry in providers.entries() if providers.is_builtin(entry.name)]
    models = {name: settings_for(providers, name) for name in names}
    return {name: model for name, model in models.items() if model is not None}


def _schema_of_output(name: str) -> dict[str, Any]:
    import msgspec

    from muster.evals.comparison import Comparisons
    from muster.evals.results import CaseResult
    from muster.evals.shapes import ReportSummary, RunRecord
    from muster.evals.sizing import Sizing
    from muster.evals.trend import Trends

    shapes = {
        "result": CaseResult, "run": RunRecord, "report": ReportSummary,
        "comparison": Comparisons, "trend": Trends, "power": Sizing,
    }  # fmt: skip
    return {"$schema": DRAFT, "title": f"Muster {name}", **msgspec.json.schema(shapes[name])}
