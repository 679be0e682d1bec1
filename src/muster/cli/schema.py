"""`muster schema`: the JSON Schemas of the files that users write, for editors."""

from __future__ import annotations

import json

import click

__all__ = ("schema",)

NAMES = (
    "suite",
    "targets",
    "result",
    "run",
    "report",
    "comparison",
    "trend",
    "power",
    "team",
    "script",
    "stdio-protocol",
    "chaos",
    "cassette",
)


@click.command()
@click.argument("name", type=click.Choice(NAMES))
def schema(name: str) -> None:
    """Print the JSON Schema of a suite, a targets file, a line of results.jsonl, run.json, what
    `muster report`, `compare` (comparison), `trend` and `power` print with --json, a document of a
    manifest (team), a script of the mock with its tests (script), a line of the stdio protocol, a
    plan of faults for the proxy (chaos), or a line of its cassettes."""
    from muster.teams.schemas import schema_of

    click.echo(json.dumps(schema_of(name), indent=2))
