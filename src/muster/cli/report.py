"""`muster report`: what runs came to, for browsers, CI, spreadsheets and programs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from muster.cli.options import json_option
from muster.errors import UsageError

if TYPE_CHECKING:
    from muster.reports.overview import Overview

__all__ = ("report_command",)


@click.command("report")
@click.argument("runs", nargs=-1, metavar="[RUN...]")
@click.option("--html", metavar="FILE", help="One page for a browser, with all results in it.")
@click.option("--junit", metavar="FILE", help="JUnit XML, for a CI.")
@click.option("--markdown", metavar="FILE", help="A summary for GitHub, up to 1 MB.")
@click.option("--csv", metavar="FILE", help="A line a result, for a spreadsheet.")
@click.option("--parquet", metavar="FILE", help="The same for data frames; needs pyarrow.")
@click.option(
    "--github/--no-github",
    default=None,
    help="Add the Markdown to the step's summary; by default where GITHUB_STEP_SUMMARY is set.",
)
@json_option("Print the summary as JSON.")
def report_command(
    runs: Sequence[str], *, github: bool | None, as_json: bool, **files: str | None
) -> None:
    """Report on runs: as a summary on the terminal, or into files.

    RUN is a run's folder, a run's id or its beginning, or `latest`, which is the default. Of
    several runs, a target that they share is told with its run. FILE may be `-`, the standard
    output, but for Parquet.

    \b
    muster report --html report.html
    muster report latest --junit results.xml --markdown -
    """
    from muster.evals.scored import find_run
    from muster.reports.write import STDOUT, check_files, open_overview, write_report

    here = Path.cwd()
    folders = [_folder(find_run(name, here)) for name in runs or ("latest",)]
    asked = {form: file for form, file in files.items() if file is not None}
    check_files(asked, folders)
    if as_json and STDOUT in asked.values():
        raise UsageError("--json is printed; another report on the standard output would mix in")
    overview = open_overview(folders)
    for note in overview.notes:
        click.echo(f"warning: {note}", err=True)
    for form, file in asked.items():
        write_report(overview, form, file)
        if file != STDOUT:
            click.echo(f"{form}: {file}", err=True)
    _step_summary(overview, github)
    if as_json:
        import msgspec

        text = msgspec.json.format(msgspec.json.encode(overview.to_dict(), enc_hook=str), indent=2)
        click.echo(text.decode())
    elif not asked:
        click.echo(_summary(overview))


def _folder(path: Path) -> Path:
    """A run may be named by one of its files."""
    return path.parent if path.name in ("results.jsonl", "run.json") and path.is_file() else path


def _step_summary(overview: Overview, asked: bool | None) -> None:
    from muster.reports.write import STEP_SUMMARY, write_step_summary

    file = os.environ.get(STEP_SUMMARY)
    if asked and not file:
        raise UsageError(f"--github: {STEP_SUMMARY} is not set; is this a step of GitHub Actions?")
    if file and asked is not False:
        write_step_summary(overview, file)


def _summary(overview: Overview) -> str:
    import msgspec

    from muster.evals.runner import Outcome
    from muster.evals.stopping import StopReport
    from muster.reports.terminal import WHY_NOT, render_summary

    runs = overview.runs
    stopping = []
    with suppress(msgspec.ValidationError):  # another version's; the numbers do not hang on it
        for run in runs:
            stopping += msgspec.convert(run.record.get("stopping") or [], list[StopReport])
    ends = {str(run.record.get("status")) for run in runs} - {"complete", "running"}
    status = min(ends & set(WHY_NOT), default="complete")
    folder = runs[0].folder if len(runs) == 1 else None
    outcome = Outcome(overview.totals, status, stopping=stopping)
    planned = overview.totals.count + sum(run.missing + run.saved for run in runs)
    return render_summary(outcome, folder=folder, planned=planned)
