"""`muster baseline`: a run's scores, kept for later runs to be held to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from muster.cli.compare import TargetsCommand, comparison_options, show_comparisons, targets_names
from muster.cli.options import json_option

__all__ = ("baseline",)

_name_option = click.option(
    "--name", default="main", show_default=True, metavar="NAME", help="Of the baseline."
)


@click.group()
def baseline() -> None:
    """Keep a run's scores in .muster/baselines, and hold later runs to them.

    RUN is as in `muster compare`; without it, the latest run of the project.
    """


@baseline.command("set")
@click.argument("run", required=False, default="latest", metavar="[RUN]")
@_name_option
def set_command(run: str, name: str) -> None:
    """Keep RUN as a baseline, in place of the one that has its name."""
    from muster.evals.baseline import set_baseline
    from muster.evals.scored import find_run, read_scored

    here = Path.cwd()
    found = read_scored(find_run(run, here))
    path = set_baseline(found, name, here)
    click.echo(f"{name} is {found.name}: {len(found.results)} results, in {path}")
    for note in found.notes:
        click.echo(f"note: {note}", err=True)


@baseline.command("check", cls=TargetsCommand)
@click.argument("run", required=False, default="latest", metavar="[RUN]")
@_name_option
@targets_names
@comparison_options
def check(run: str, name: str, targets: Sequence[str], **given: Any) -> int:
    """Compare RUN with a baseline; exit with 1 if it is shown to be worse."""
    from muster.evals.baseline import find_baseline
    from muster.evals.scored import find_run, read_scored
    from muster.evals.sides import choose_sides

    here = Path.cwd()
    kept = find_baseline(name, here)
    found = read_scored(find_run(run, here))
    if given["fail_if"] is None:
        given["fail_if"] = "worse"
    return show_comparisons(choose_sides([found, kept], targets), given)


@baseline.command("list")
@json_option()
def list_command(as_json: bool) -> None:
    """List the project's baselines."""
    import msgspec

    from muster.evals.baseline import list_baselines
    from muster.reports.terminal import format_table

    found = list_baselines(Path.cwd())
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    elif not found:
        click.echo("no baselines yet; set one: muster baseline set RUN")
    else:
        rows = [
            (
                each["name"],
                each["run_id"],
                str(each["set_at"]),
                ", ".join(each["targets"]),
                str(each["results"]),
            )
            for each in found
        ]
        header = ("name", "run", "set", "targets", "results")
        click.echo(format_table(header, rows, right_from=4))
