"""`muster grade`: a run's recorded answers, graded again."""

from __future__ import annotations

import asyncio
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import click

from muster.cli.eval import cache_word, exit_code, show_evaluation, watched
from muster.cli.options import (
    budget_option,
    cache_options,
    ending_options,
    keeping_options,
    safe_option,
    target_option,
    targets_option,
    threshold_option,
    workers_option,
)
from muster.cli.report import files_asked, report_on_run
from muster.errors import UsageError
from muster.evals.plan import EvalOptions
from muster.evals.regrade import Regrading, plan_regrading
from muster.evals.scored import find_run

__all__ = ("grade",)


@click.command("grade")
@click.argument("run", metavar="RUN")
@click.option(
    "--suite",
    "paths",
    multiple=True,
    metavar="FILE",
    help="Grade by this suite, not the run's own as it is now; may be given several times.",
)
@target_option("Only this target's answers; may be given several times.", multiple=True)
@targets_option
@workers_option
@threshold_option
@budget_option("Grade nothing more when judges have cost this much.")
@click.option(
    "--resume", is_flag=True, help="Go on with the run in --output DIR, where it was broken off."
)
@keeping_options
@cache_options
@click.option("--dry-run", is_flag=True, help="Show what would be graded, and by which graders.")
@safe_option
@ending_options
def grade(**given: Any) -> int:
    """Grade the answers of RUN again, by the graders that its suite has now.

    RUN is a run's folder, a run's id or its beginning, or `latest`. No target is asked. Judges
    are, if the suite has graders that need one; what they cost is shown, and --cache keeps what
    they say. The result is a run of its own; RUN stays as it is.

    \b
    muster grade .muster/results/20260101-120000-sums
    muster grade latest --suite stricter.eval.yaml --output regraded
    """
    names = ("paths", "targets", "targets_file", "judge", "threshold", "workers", "output",
             "budget_usd", "record", "cache_path", "cache_mb", "safe")  # fmt: skip
    options = EvalOptions(**{name: given[name] for name in names}, cache=cache_word(given["cache"]))
    if given["resume"] and options.output is None:
        raise UsageError("--resume goes on with the run in a folder: name it with --output DIR")
    given["reports"] = files_asked(given["reports"])
    folder = Path(given["run"])
    if not folder.is_dir():
        folder = find_run(given["run"], Path.cwd())
    with redirect_stdout(sys.stderr):  # what users' code prints is no part of our answer
        regrading = plan_regrading(folder, options)
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
    plan = regrading.plan
    evaluation, received = await watched(
        given,
        plan,
        resume=plan.options.output if given["resume"] else None,
        skip=regrading.skip,
        graded_from=regrading.about,
    )
    same = "".join(f" --suite {path}" for path in given["paths"])
    again = f"muster grade {given['run']}{same} --output {evaluation.folder} --resume"
    show_evaluation(given, plan, evaluation, again)
    report_on_run(evaluation.folder, given["reports"])
    if not given["as_json"]:
        click.echo(f"graded again: {regrading.recorded.folder}; tokens and cost are as recorded")
    return exit_code(given, evaluation, received)
