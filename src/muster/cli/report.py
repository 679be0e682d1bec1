"""`muster report`: what runs came to, for browsers, CI, spreadsheets and programs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from muster.cli.options import json_option
from muster.errors import MusterError, UsageError

if TYPE_CHECKING:
    from muster.reports.overview import Overview

__all__ = ("files_asked", "report_command", "report_on_run")

STEP_SUMMARY = "GITHUB_STEP_SUMMARY"


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
    from muster.reports.write import FORMATS, STDOUT, check_files, open_overview, write_report

    folders = [_folder(name) for name in runs or ("latest",)]
    asked = {form: file for form in FORMATS if (file := files[form]) is not None}
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


def files_asked(words: Sequence[str]) -> dict[str, str]:
    """`html=report.html` and the like, by format; checked before a run begins.

    Raises:
        UsageError: no such format, or no file to write to.
    """
    files: dict[str, str] = {}
    if not words:
        return files
    from muster.reports.write import FORMATS, STDOUT, check_files

    for word in words:
        form, _, file = word.partition("=")
        if form not in FORMATS or file in ("", STDOUT):
            raise UsageError(
                f"--report {word}: expected FORMAT=FILE, of the formats {', '.join(FORMATS)}; "
                "for example html=report.html"
            )
        if form in files:
            raise UsageError(f"--report {form}=… is given twice")
        files[form] = file
    check_files(files)
    return files


def report_on_run(folder: Path, files: Mapping[str, str]) -> None:
    """Write what was asked for, and the summary of the step of GitHub Actions that this may be.

    Raises:
        MusterError: a report cannot be written.
    """
    if not files and not os.environ.get(STEP_SUMMARY):
        return
    from muster.reports.write import open_overview, write_report

    overview = open_overview([folder])
    for form, file in files.items():
        write_report(overview, form, file)
        click.echo(f"{form}: {file}", err=True)
    _step_summary(overview, asked=None)


def _folder(name: str) -> Path:
    """The folder of a run, which may be named by one of its files too."""
    from muster.evals.scored import find_run

    path = Path(name)
    if not path.exists():
        path = find_run(name, Path.cwd())
    return path.parent if path.name in ("results.jsonl", "run.json") and path.is_file() else path


def _step_summary(overview: Overview, asked: bool | None) -> None:
    from muster.reports.write import write_step_summary

    file = os.environ.get(STEP_SUMMARY)
    if asked and not file:
        raise UsageError(f"--github: {STEP_SUMMARY} is not set; is this a step of GitHub Actions?")
    if not file or asked is False:
        return
    try:
        write_step_summary(overview, file)
    except MusterError as error:
        if asked:
            raise
        click.echo(f"warning: {error}", err=True)  # nobody asked for it by name


def _summary(overview: Overview) -> str:
    import msgspec

    from muster.evals.runner import Outcome
    from muster.evals.stopping import StopReport
    from muster.reports.terminal import WHY_NOT, render_summary

    runs = overview.runs
    stopping = []
    with suppress(msgspec.ValidationError):  # another version's; the numbers do not hang on it
        for run in runs:
            stopping += msgspec.convert(run.recorded("stopping"), list[StopReport])
    ends = {str(run.record.get("status")) for run in runs} - {"complete", "running"}
    status = min(ends & set(WHY_NOT), default="complete")
    folder = runs[0].folder if len(runs) == 1 else None
    outcome = Outcome(overview.totals, status, stopping=stopping)
    planned = overview.totals.count + sum(run.missing + run.saved for run in runs)
    return render_summary(outcome, folder=folder, planned=planned)
