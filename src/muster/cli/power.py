"""`muster power`: how large a comparison must be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from muster.cli.compare import TargetsCommand
from muster.cli.options import json_option
from muster.errors import UsageError

__all__ = ("power_command",)


@click.command("power", cls=TargetsCommand)
@click.argument("runs", nargs=-1, required=True, metavar="RUN [RUN]")
@click.option(
    "-d",
    "--difference",
    type=click.FloatRange(0, 1, min_open=True),
    required=True,
    metavar="D",
    help="Of mean scores, that is to be seen.",
)
@click.option(
    "-t",
    "--target",
    "--targets",
    "targets",
    multiple=True,
    metavar="NAME...",
    help="One target, or the two that are compared; --targets takes all names that follow.",
)
@click.option(
    "--power",
    "powers",
    type=click.FloatRange(0.05, 1, min_open=True, max_open=True),
    multiple=True,
    default=(0.8, 0.9),
    show_default=True,
    help="The chance of seeing it; may be given several times.",
)
@json_option()
def power_command(
    runs: Sequence[str],
    difference: float,
    targets: Sequence[str],
    powers: Sequence[float],
    as_json: bool,
) -> int:
    """Tell how many cases, or repeats, it takes to see a difference between two targets.

    The variance is that of RUN: of two targets, or of two RUNs, that of their differences, else
    that of the one target. Tests are two-sided at 5 %.
    """
    from muster.evals.pairing import Side
    from muster.evals.scored import find_run, read_scored
    from muster.evals.sides import choose_sides, only_target
    from muster.evals.sizing import size_for
    from muster.reports.trend import render_sizing

    here = Path.cwd()
    read = [read_scored(find_run(name, here)) for name in runs]
    if len(read) > 2 or len(targets) > 2:
        raise UsageError("a difference is between two: give two runs, or two targets, at most")
    if len(read) == 1 and (len(targets) == 1 or len(read[0].targets) == 1):
        name = only_target(read[0], targets[0] if targets else None)
        sides = [Side(read[0], name, name)]
    else:
        pairs = choose_sides(read, targets)
        if len(pairs) > 1:
            known = ", ".join(read[0].targets)
            raise UsageError(f"name the target, or the two, with --targets: {known}")
        sides = list(pairs[0])
    sizing = size_for(sides, difference, powers)
    if as_json:
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(sizing), indent=2).decode())
    else:
        click.echo(render_sizing(sizing))
    return 0
