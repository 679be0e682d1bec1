"""`muster grade`: a run's recorded answers, graded again."""

from __future__ import annotations

import asyncio
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import click

from muster.cli.eval import exit_code, show_evaluation
from muster.cli.options import FOLDER, json_option, safe_option, targets_option
from muster.cli.progress import Progress
from muster.cli.signals import cancel_on_signals
from muster.evals.evaluation import run
from muster.evals.plan import EvalOptions
from muster.evals.regrade import Regrading, plan_regrading
from muster.evals.summary import RunTotals

__all__ = ("grade",)


@click.command("grade")
@click.argument("folder", metavar="RUN", type=FOLDER)
@click.option(
    "--suite",
    "paths",
    multiple=True,
    metavar="FILE",
    help="Grade by this suite, not the run's own as it is now; may be given several times.",
)
@click.option(
    "-t", "--target", "targets", multiple=True, metavar="NAME", help="Only this target's answers."
)
@targets_option
@click.option("--judge", metavar="TARGET", help="Who judges where nobody else is named.")
@click.option("--threshold", type=click.FloatRange(0, 1), help="The score from which a case is ok.")
@click.option("-w", "--workers", type=click.IntRange(min=1), help="Cases at a time, each target.")
@click.option("-o", "--output", type=FOLDER, metavar="DIR", help="Where the new run is kept.")
@click.option("--record", is_flag=True, help="Keep every exchange with a judge in the new run.")
@click.option("--dry-run", is_flag=True, help="Show what would be graded, and by which graders.")
@json_option("Print the summary as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.option("-v", "--verbose", is_flag=True, help="A line for each result.")
@safe_option
@click.option(
    "--allow-errors",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Up to N execution errors do not fail the run.",
)
@click.option("--no-gate", is_flag=True, help="Failing cases do not fail the command.")
def grade(**given: Any) -> int:
    """Grade the answers of RUN again, by the graders that its suite has now.

    No target is asked. Judges are, if the suite has graders that need one; what they cost is shown.
    The result is a run of its own; RUN stays as it is.

    \b
    muster grade .muster/results/20260101-120000-sums
    muster grade RUN --suite stricter.eval.yaml --output regraded
    """
    names = ("paths", "targets", "targets_file", "judge", "threshold", "workers", "output")
    options = EvalOptions(
        **{name: given[name] for name in (*names, "record", "safe")},
    )
    with redirect_stdout(sys.stderr):  # what users' code prints is no part of our answer
        regrading = plan_regrading(Path(given["folder"]), options)
    for line in regrading.plan.warnings:
        click.echo(f"warning: {line}", err=True)
    for line in regrading.left_out.lines():
        click.echo(f"left out: {line}", err=True)
    if given["dry_run"]:
        click.echo(_describe(regrading))
    return asyncio.run(_carry_out(given, regrading))


def _describe(regrading: Regrading) -> str:
    lines = []
    for job in regrading.plan.jobs:
        asked = "judges are asked" if job.judges else "nobody is asked"
        lines.append(
            f"{job.suite_key} · {job.target.name}: {job.results} recorded answers; {asked}"
        )
    return "\n".join(lines)


async def _carry_out(given: dict[str, Any], regrading: Regrading) -> int:
    try:
        return 0 if given["dry_run"] else await _grade(given, regrading)
    finally:
        await regrading.aclose()


async def _grade(given: dict[str, Any], regrading: Regrading) -> int:
    style = "quiet" if given["quiet"] else "live" if sys.stderr.isatty() else "plain"
    shown: list[Progress] = []

    def observe(total: int, totals: RunTotals) -> Progress:
        progress = Progress(total, totals, style=style, verbose=given["verbose"])
        progress.__enter__()
        shown.append(progress)
        return progress

    plan, stop = regrading.plan, asyncio.Event()
    work = run(plan, observe=observe, stop=stop, skip=regrading.skip, graded_from=regrading.about)
    task = asyncio.ensure_future(work)
    received = cancel_on_signals(task, stop)
    with redirect_stdout(sys.stderr):
        try:
            evaluation = await task
        finally:
            for progress in shown:
                progress.__exit__(None, None, None)
    show_evaluation(given, plan, evaluation, resumable=False)
    if not given["as_json"]:
        click.echo(f"graded again: {regrading.recorded.folder}; tokens and cost are as recorded")
    return exit_code(given, evaluation, received)
