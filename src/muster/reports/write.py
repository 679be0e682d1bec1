"""Reports written to files, each whole or not at all."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TextIO

from muster.config.environment import load_environment
from muster.config.secrets import Masker, environment_secrets
from muster.errors import MusterError, UsageError
from muster.evals.results import RESULTS_FILE, RUN_FILE
from muster.reports.overview import Overview
from muster.reports.run_files import open_runs

__all__ = (
    "FORMATS",
    "STDOUT",
    "check_files",
    "open_overview",
    "write_report",
    "write_step_summary",
)

FORMATS = ("html", "junit", "markdown", "csv", "parquet")

STDOUT = "-"

_STEP_LIMIT = 1_048_576
"""Bytes that GitHub takes as the summary of one step, whoever wrote them."""


def open_overview(folders: Sequence[Path]) -> Overview:
    """Read runs and add them up.

    Raises:
        UsageError: a folder holds no run.
    """
    secrets: set[str] = set()
    for folder in (Path(), *folders):
        secrets |= environment_secrets(load_environment(folder, os.environ))
    return Overview(open_runs(folders, Masker(secrets)))


def check_files(files: Mapping[str, str], folders: Sequence[Path] = ()) -> None:
    """See that reports can be written there, before there is anything to lose.

    Raises:
        UsageError: two go to one place, one to a folder or over a run's own file.
    """
    taken: dict[str, str] = {}
    own = {
        os.path.realpath(folder / name) for folder in folders for name in (RESULTS_FILE, RUN_FILE)
    }
    for form, file in files.items():
        place = file if file == STDOUT else os.path.realpath(file)
        if place in taken:
            raise UsageError(f"{taken[place]} and {form} would both be written to {file}")
        taken[place] = form
        if place in own:
            raise UsageError(f"{form}: {file} is a file of the run itself")
        if form == "parquet":
            _check_parquet(file)
        if file != STDOUT and Path(file).is_dir():
            raise UsageError(f"{form}: {file} is a folder; give the name of a file")


def _check_parquet(file: str) -> None:
    if file == STDOUT:
        raise UsageError("parquet needs the name of a file")
    if find_spec("pyarrow") is None:
        raise UsageError("Parquet needs pyarrow: pip install 'muster-ai[parquet]'")


def write_report(overview: Overview, form: str, file: str) -> None:
    """Write one report in one of `FORMATS`; `-` is the standard output.

    Raises:
        MusterError: it cannot be written.
    """
    if file == STDOUT:
        sys.stdout.reconfigure(encoding="utf-8", newline="")  # type: ignore[union-attr]
        _write_text(overview, form, sys.stdout)
        return
    path = Path(file)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            if form == "parquet":
                from muster.reports.parquet import write_parquet

                write_parquet(overview, draft)
            else:
                with draft.open("w", encoding="utf-8", newline="") as out:
                    _write_text(overview, form, out)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise MusterError(f"{path}: cannot be written: {error.strerror}") from error


def _write_text(overview: Overview, form: str, out: TextIO) -> None:
    if form == "html":
        from muster.reports.html import write_html

        write_html(overview, out)
    elif form == "junit":
        from muster.reports.junit import write_junit

        write_junit(overview, out)
    elif form == "csv":
        from muster.reports.csv_table import write_csv

        write_csv(overview, out)
    else:
        from muster.reports.markdown import render_markdown

        out.write(render_markdown(overview))


def write_step_summary(overview: Overview, file: str) -> None:
    """Add the Markdown to a step's summary, as far as GitHub takes it.

    Raises:
        MusterError: it cannot be written.
    """
    from muster.reports.markdown import LIMIT, render_markdown

    path = Path(file)
    try:
        with path.open("a", encoding="utf-8") as out:
            left = min(LIMIT, _STEP_LIMIT - 1_000 - out.tell())
            out.write(render_markdown(overview, limit=left))
    except OSError as error:
        raise MusterError(f"{path}: cannot be written: {error.strerror}") from error
