"""`muster schema`: the JSON Schemas of the files that users write, for editors."""

from __future__ import annotations

import json

import click

__all__ = ("schema",)


@click.command()
@click.argument("name", type=click.Choice(["suite", "targets", "result", "team", "script"]))
def schema(name: str) -> None:
    """Print the JSON Schema of a suite, a targets file, a line of results.jsonl, a document of a
    manifest (team), or a script of the mock with its tests (script)."""
    from muster.teams.schemas import schema_of

    click.echo(json.dumps(schema_of(name), indent=2))
