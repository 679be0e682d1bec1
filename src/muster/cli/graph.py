"""`muster graph`: a team as a picture."""

from __future__ import annotations

from pathlib import Path

import click

from muster.cli.options import FILE, team_option, values_option
from muster.config.environment import load_environment
from muster.errors import UsageError
from muster.teams.manifests import load_manifests

__all__ = ("graph",)

_FORMATS = ("mermaid", "svg")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@team_option()
@click.option(
    "--format",
    "form",
    type=click.Choice(_FORMATS),
    help="By default svg for a file that ends in .svg, else mermaid.",
)
@click.option("-o", "--output", type=FILE, metavar="FILE", help="The file to write.")
@values_option
def graph(
    file: Path, team: str | None, form: str | None, output: Path | None, values: Path | None
) -> int:
    """Draw a team: its steps in the order in which they can run, conditions and loops dashed,
    approvals, delegation, teams within it.

    \b
    muster graph team.yaml                  Mermaid, which GitHub shows in Markdown
    muster graph team.yaml -o team.svg
    """
    from muster.reports.team_graph import diagram_of, mermaid

    folder = Path.cwd() if str(file) == "-" else file.resolve()
    bundle = load_manifests(
        file, values=values, env=load_environment(folder), lenient_templates=True
    )
    chosen = bundle.pick_team(team)
    for line in bundle.warnings:
        click.echo(f"warning: {line}", err=True)
    diagram = diagram_of(chosen)
    if form is None:
        form = "svg" if output is not None and output.suffix == ".svg" else "mermaid"
    if form == "svg":
        from muster.reports.team_svg import svg

        text = svg(diagram)
    else:
        text = mermaid(diagram)
    if output is None:
        click.echo(text, nl=False)
        return 0
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--output {output}: {error.strerror}") from None
    click.echo(f"wrote {output}", err=True)
    return 0
