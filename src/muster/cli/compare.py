"""`muster compare`: two runs, or targets of one, on the cases that they share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muster.cli.options import json_option, together
from muster.errors import UsageError
from muster.evals.comparison import Comparisons, Settings, compare_all, gate
from muster.evals.pairing import Side

if TYPE_CHECKING:
    from muster.evals.scored import ScoredRun

__all__ = ("compare_command", "comparison_options", "named_targets", "show_comparisons")


class TargetsCommand(click.Command):
    """A command whose `--targets` takes all the names that follow it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, named_targets(args))


def named_targets(args: Sequence[str]) -> list[str]:
    """`--targets X Y` as `--targets X --targets Y`."""
    found: list[str] = []
    taking = False
    for arg in args:
        if arg == "--targets":
            taking = True
            continue
        if arg.startswith("-") and arg != "-":
            taking = False
        found += ["--targets", arg] if taking else [arg]
    return found


targets_names = click.option(
    "-t",
    "--target",
    "--targets",
    "targets",
    multiple=True,
    metavar="NAME...",
    help="Only these targets; --targets takes all names up to the next option.",
)

comparison_options: Callable[[Any], Any] = together(
    click.option(
        "--fail-if",
        type=click.Choice(["worse", "possibly-worse"]),
        help="Exit with 1 if a is shown to be worse; or unless it is shown not to be.",
    ),
    click.option(
        "--margin",
        type=click.FloatRange(0, 1),
        default=0.0,
        show_default=True,
        metavar="D",
        help="How much worse is good enough for --fail-if.",
    ),
    click.option(
        "--confidence",
        type=click.FloatRange(0.5, 1, max_open=True),
        default=0.95,
        show_default=True,
        help="Of the intervals.",
    ),
    click.option(
        "--draws",
        type=click.IntRange(100, 1_000_000),
        default=10_000,
        show_default=True,
        help="Of the bootstrap, and of a permutation test that is not exact.",
    ),
    click.option("--seed", type=click.IntRange(min=0), default=0, help="Of these draws."),
    click.option(
        "--most",
        type=click.IntRange(min=0),
        default=10,
        show_default=True,
        metavar="N",
        help="Cases to show that changed most.",
    ),
    json_option(),
)


@click.command("compare", cls=TargetsCommand)
@click.argument("runs", nargs=-1, required=True, metavar="A [B...]")
@targets_names
@click.option("--all-pairs", is_flag=True, help="Everything with everything, not A with the rest.")
@comparison_options
def compare_command(
    runs: Sequence[str], targets: Sequence[str], all_pairs: bool, **given: Any
) -> int:
    """Compare runs, or targets of one run, case by case.

    A is what is judged, B what it is measured against: a win is a case where A scores higher, a
    difference is A - B. Each is a run's folder, a run's id or its beginning, `latest`, a baseline,
    AgentV's index.jsonl or its folder, promptfoo's results (JSON), or a target of the run that is
    named, or of the latest.

    \b
    muster compare new old
    muster compare small large
    muster compare RUN --targets small large
    muster compare new old --fail-if worse --margin 0.01
    """
    from muster.evals.sides import choose_sides

    found, named = _runs_and_targets(runs)
    return show_comparisons(choose_sides(found, (*named, *targets), all_pairs=all_pairs), given)


def _runs_and_targets(names: Sequence[str]) -> tuple[list[ScoredRun], list[str]]:
    """The runs that are named, and the names that are no runs but targets of one; without a run
    among them, the latest is meant."""
    from muster.evals.scored import LATEST, find_run, project_runs, read_scored

    here = Path.cwd()
    paths: list[Path] = []
    others: dict[str, UsageError] = {}
    for name in names:
        try:
            paths.append(find_run(name, here))
        except UsageError as error:
            others[name] = error
    if others and not paths:
        if not project_runs(here):
            raise next(iter(others.values()))
        paths = [find_run(LATEST, here)]
    read = {path: read_scored(path) for path in dict.fromkeys(paths)}
    known = {target for run in read.values() for target in run.targets}
    for name, why in others.items():
        if name not in known:
            where = ", ".join(run.name for run in read.values())
            raise UsageError(f"{why}, and no target of {where}")
    return [read[path] for path in paths], list(others)


def show_comparisons(sides: Sequence[tuple[Side, Side]], given: dict[str, Any]) -> int:
    """Compare, print, and judge; the exit code."""
    from muster.reports.compare import render_comparisons, render_gate

    settings = Settings(
        confidence=given["confidence"],
        draws=given["draws"],
        seed=given["seed"],
        most_changed=given["most"],
    )
    found = compare_all(sides, settings)
    judged = None
    if given["fail_if"] is not None:
        judged = gate(found, given["fail_if"], given["margin"], given["confidence"])
    if given["as_json"]:
        import msgspec

        data = msgspec.json.encode(Comparisons(found, judged))
        click.echo(msgspec.json.format(data, indent=2).decode())
    else:
        click.echo(render_comparisons(found))
        if judged is not None:
            click.echo("\n" + render_gate(found, judged))
    return 1 if judged is not None and judged.failed else 0
