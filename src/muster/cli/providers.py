"""`muster providers`: which there are, and where each comes from."""

from __future__ import annotations

from pathlib import Path

import click

from muster.cli.describe import describe
from muster.cli.options import json_option
from muster.config.project import find_project
from muster.providers import providers as registry
from muster.reports.terminal import format_table

__all__ = ("providers",)


@click.group(invoke_without_command=True)
@click.pass_context
def providers(ctx: click.Context) -> None:
    """List providers and where they come from.

    A name is looked up in the project's .muster/providers/*.py, among the built-ins and installed
    packages (entry points `muster.providers`), and last as a dotted path package.module:Factory.
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_providers)


@providers.command("list")
@json_option()
def list_providers(as_json: bool = False) -> None:
    """List every provider by name, with its source and location."""
    project = find_project(Path.cwd())
    scoped = registry.for_project(project.provider_folders)
    entries = scoped.entries()
    if as_json:
        import json

        rows = [{"name": e.name, "source": e.source, "location": e.location} for e in entries]
        click.echo(json.dumps({"providers": rows, "failures": scoped.failures}, indent=2))
    else:
        rows_of_text = [(e.name, e.source, e.location) for e in entries]
        click.echo(format_table(("provider", "from", "where"), rows_of_text))
    for failure in scoped.failures:
        click.echo(f"not loaded: {failure}", err=True)


providers.add_command(describe)
