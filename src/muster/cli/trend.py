"""`muster trend`: how the last runs of a suite went."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from muster.cli.options import json_option, target_option
from muster.errors import UsageError
from muster.evals.scored import ScoredRun
from muster.evals.trend import Trend, Trends

__all__ = ("trend_command",)


@click.command("trend")
@click.argument("runs", nargs=-1, metavar="[RUN...]")
@click.option("--suite", metavar="NAME", help="Only results of this suite, by name or file.")
@target_option("Only this target. Default: each that all of the runs have.")
@click.option(
    "--last",
    type=click.IntRange(min=2),
    default=10,
    show_default=True,
    metavar="N",
    help="How many of the project's runs.",
)
@click.option(
    "--fail-if",
    type=click.Choice(["degrading"]),
    help="Exit with 1 if the slope's interval lies below 0.",
)
@json_option()
def trend_command(
    runs: Sequence[str],
    *,
    suite: str | None,
    target: str | None,
    last: int,
    fail_if: str | None,
    as_json: bool,
) -> int:
    """Show how mean scores went over the last runs, and their slope with its 95 % interval.

    RUNs are given the earliest first; else the last N runs of the project count that have results
    of the suite. Only cases that have a score in every run are looked at.
    """
    from muster.reports.trend import render_trends

    found = _trends(_runs(runs, suite, target, last), suite, target)
    if as_json:
        import msgspec

        data = msgspec.json.encode(Trends(found))
        click.echo(msgspec.json.format(data, indent=2).decode())
    else:
        click.echo(render_trends(found))
    return 1 if fail_if and any(trend.direction == fail_if for trend in found) else 0


def _runs(
    names: Sequence[str], suite: str | None, target: str | None, last: int
) -> list[ScoredRun]:
    from muster.evals.scored import find_run, project_runs, read_scored

    here = Path.cwd()
    if names:
        return [read_scored(find_run(name, here)) for name in names]
    found: list[ScoredRun] = []
    for path in reversed(project_runs(here)):
        if len(found) == last:
            break
        try:
            run = read_scored(path)
        except UsageError:
            continue  # it was stopped before its first result
        if suite is None and not found:
            suite = run.results[0].suite_key
        if any(
            suite in (result.suite, result.suite_key) and target in (None, result.target)
            for result in run.results
        ):
            found.append(run)
    if len(found) < 2:
        raise UsageError(
            f"a trend needs two runs; there {'is one' if found else 'is none'}"
            + (f' of suite "{suite}"' if suite else "")
        )
    return found[::-1]


def _trends(runs: Sequence[ScoredRun], suite: str | None, target: str | None) -> list[Trend]:
    from muster.evals.trend import trend_of

    shared = [name for name in runs[-1].targets if all(name in run.targets for run in runs)]
    names = [target] if target is not None else shared
    if not names:
        raise UsageError("the runs share no target; name runs of one, or one with --target")
    others = dict.fromkeys(name for run in runs for name in run.targets)
    if target is None and (gone := [name for name in others if name not in shared]):
        runs[-1].notes.append(f"not in every run, and left out: {', '.join(gone)}")
    last = runs[-1].results[0]
    suites = [suite] if suite is not None else [last.suite_key, last.suite]
    if suite is None and all(len({r.suite_key for r in run.results}) == 1 for run in runs):
        suites = []  # each is of one suite, whatever it is called
    return [trend_of(runs, name, suites) for name in names]
