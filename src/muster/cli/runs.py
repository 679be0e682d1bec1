"""`muster runs`: what the journal knows of the runs of teams."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from msgspec.structs import replace

from muster.cli.options import FILE, json_option
from muster.errors import UsageError
from muster.reports.runs import RunLines, render_run, render_runs
from muster.store.export import run_as_data, suite_cases, suite_text
from muster.store.forgetting import forget_run
from muster.store.journal import Journal, journal_path
from muster.store.processes import state_of, terminate
from muster.store.records import (
    CANCELLED,
    ENDED,
    INTERRUPTED,
    PENDING,
    RUN_STATUSES,
    RUNNING,
    SUCCEEDED,
    RunRecord,
    RunTotals,
)
from muster.store.waiting import INTERVAL

__all__ = ("journal_option", "opened", "runs")

_PAUSE = 0.05
_EXIT_CODES = {"TimedOut": 3, "BudgetExceeded": 4}

journal_option = click.option(
    "--journal",
    type=FILE,
    metavar="FILE",
    help="The journal, instead of the project's .muster/runs.db.",
)
_force_option = click.option("--force", is_flag=True, help="Replace a file that is there.")


@contextmanager
def opened(path: Path | None) -> Iterator[Journal]:
    """The project's journal. Raises `UsageError` when there is none."""
    from muster.config.environment import load_environment
    from muster.config.secrets import Masker, environment_secrets

    here = Path.cwd()
    chosen = journal_path(here) if path is None else path
    if not chosen.exists():
        raise UsageError(f"no runs yet: there is no journal {chosen}")
    with Journal.open(chosen, masker=Masker(environment_secrets(load_environment(here)))) as found:
        yield found


@click.group()
def runs() -> None:
    """List, show, watch, cancel, delete and export the runs of teams.

    RUN is an id, the beginning of one, or `latest`.
    """


@runs.command("list")
@click.option("--team", metavar="NAME", help="Only runs of this team.")
@click.option("--status", type=click.Choice(RUN_STATUSES), help="Only runs with this status.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="At most so many."
)
@json_option()
@journal_option
def list_runs(
    team: str | None, status: str | None, limit: int, as_json: bool, journal: Path | None
) -> None:
    """List runs, the latest first."""
    if journal is None and not journal_path(Path.cwd()).exists():
        click.echo("[]" if as_json else "no runs yet")
        return
    with opened(journal) as book:
        open_ones = [*book.runs(status=RUNNING), *book.runs(status=PENDING)]
        settled = {run.id: book.settled(run.id) for run in open_ones}
        found = book.runs(team=team, status=status, limit=limit + 1)
        shown = [settled.get(run.id, run) for run in found[:limit]]
        totals = book.totals(run.id for run in shown)
    if as_json:
        _print_json([_outline(run, totals[run.id]) for run in shown])
    elif not shown:
        asked = " ".join(part for part in (team and f"of {team}", status and f"({status})") if part)
        click.echo(f"no runs {asked}".rstrip())
    else:
        click.echo(render_runs(shown, totals))
        if len(found) > limit:
            click.echo(f"\nthe latest {limit}; --limit shows more", err=True)


def _outline(run: RunRecord, totals: RunTotals) -> dict[str, Any]:
    """The row of the table, with what a script needs besides."""
    usage = run.token_usage or totals.token_usage
    cost = totals.cost_usd if run.cost_usd is None else run.cost_usd
    return {
        **run.to_dict(),
        "steps": totals.steps,
        **({} if usage is None else {"token_usage": usage.to_dict()}),
        **({} if cost is None else {"cost_usd": cost}),
        **totals.left_out(),
    }


@runs.command("show")
@click.argument("run_id", metavar="RUN")
@json_option()
@journal_option
def show(run_id: str, as_json: bool, journal: Path | None) -> None:
    """Show a run: its steps as a tree, with attempts, tools, usage, and why it failed."""
    with opened(journal) as book:
        run = book.settled(run_id)
        view = replace(book.view(run.id, chunks=as_json), run=run)
    if as_json:
        _print_json(run_as_data(view))
    else:
        click.echo(render_run(view))


@runs.command("watch")
@click.argument("run_id", metavar="RUN")
@journal_option
def watch(run_id: str, journal: Path | None) -> int:
    """Follow a run until it ends; the exit code is the run's."""
    with opened(journal) as book:
        run = book.run(run_id)
        lines, version = RunLines(run.id), None
        while True:
            run = book.settled(run.id)
            if version != (version := book.version()) or run.status in ENDED:
                view = replace(book.view(run.id, chunks=False), run=run)
                _print_lines(lines.news(view))
                if view.run.status in ENDED:
                    _print_lines(lines.end(view))
                    return exit_code(view.run)
            time.sleep(INTERVAL)


def _print_lines(lines: list[str]) -> None:
    for line in lines:
        click.echo(line)
    sys.stdout.flush()


def exit_code(run: RunRecord) -> int:
    """What a command ends with that has seen the run to its end."""
    if run.status == SUCCEEDED:
        return 0
    if run.status in (CANCELLED, INTERRUPTED):
        return 130
    return _EXIT_CODES.get(run.reason or "", 1)


# --- changing -----------------------------------------------------------------------------------


@runs.command("cancel")
@click.argument("run_ids", metavar="RUN...", nargs=-1, required=True)
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the end.",
)
@click.option(
    "--force",
    is_flag=True,
    help="For a run on another machine that is gone: mark it as cancelled.",
)
@journal_option
def cancel(run_ids: tuple[str, ...], wait: float, force: bool, journal: Path | None) -> int:
    """Stop runs that go on. A run whose process has died is marked as interrupted.

    Exit code 1 when a run has not ended in time.
    """
    with opened(journal) as book:
        asked = [run for run_id in run_ids if (run := _ask(book, run_id, force)) is not None]
        end = time.monotonic() + wait
        left = [run for run in asked if not _ends(book, run.id, end)]
    for run in left:
        click.echo(f"{run.id}: asked to stop, but it goes on in {_where(run)}", err=True)
    return 1 if left else 0


def _ask(book: Journal, run_id: str, force: bool) -> RunRecord | None:
    """Ask the run to stop. `None`: there is nothing to wait for."""
    before = book.run(run_id)
    run = book.settle(before.id)
    if run.status in ENDED:
        told = "has ended already" if before.status in ENDED else "its process is gone"
        click.echo(f"{run.id}: {told}: {run.status}")
        return None
    book.request_cancel(run.id)
    where = state_of(run.pid, run.process)
    if where == "elsewhere" and force:
        book.end_abandoned(run.id)
    elif where == "alive" and not run.shares_process and run.pid and run.process:
        terminate(run.pid, run.process)
    return run


def _ends(book: Journal, run_id: str, end: float) -> bool:
    while (run := book.settle(run_id)).status not in ENDED:
        if time.monotonic() >= end:
            return False
        time.sleep(_PAUSE)
    click.echo(f"{run_id}: {run.status}")
    return True


def _where(run: RunRecord) -> str:
    if state_of(run.pid, run.process) == "elsewhere":
        return f"process {run.pid} on another machine; if that is gone, say --force"
    return f"process {run.pid}"


@runs.command("delete")
@click.argument("run_ids", metavar="RUN...", nargs=-1, required=True)
@journal_option
def delete(run_ids: tuple[str, ...], journal: Path | None) -> None:
    """Forget runs, with everything about them; what they spent counts for budgets all the same."""
    with opened(journal) as book:
        chosen = dict.fromkeys(book.run(run_id).id for run_id in run_ids)
        for run_id in chosen:
            forget_run(book, run_id)
            click.echo(f"deleted {run_id}")


# --- export -------------------------------------------------------------------------------------


@runs.command("export")
@click.argument("run_ids", metavar="RUN...", nargs=-1, required=True)
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Everything about the runs as JSON into FILE. Without --json and --as-suite: to stdout.",
)
@click.option(
    "--as-suite",
    "suite_file",
    type=FILE,
    metavar="FILE",
    help="The runs as cases of a suite, into FILE (.yaml or .jsonl).",
)
@click.option(
    "--step", metavar="NAME", help="With --as-suite: cases from the answers of this step."
)
@_force_option
@journal_option
def export(
    *,
    run_ids: tuple[str, ...],
    json_file: Path | None,
    suite_file: Path | None,
    step: str | None,
    force: bool,
    journal: Path | None,
) -> None:
    """Write runs as JSON, or as the cases of a suite for `muster eval`."""
    if step is not None and suite_file is None:
        raise UsageError("--step goes with --as-suite")
    with opened(journal) as book:
        found = list({run.id: run for run in map(book.settled, run_ids)}.values())
        tests = suite_cases(book, found, step) if suite_file is not None else []
        data = {"runs": [run_as_data(replace(book.view(run.id), run=run)) for run in found]}
    if suite_file is not None:
        _write(suite_file, suite_text(tests, suite_file), force)
        count = "1 case" if len(tests) == 1 else f"{len(tests)} cases"
        click.echo(f"wrote {suite_file}: {count}; try: muster eval {suite_file}", err=True)
    if json_file is not None and str(json_file) != "-":
        _write(json_file, _as_json(data) + "\n", force)
        click.echo(f"wrote {json_file}", err=True)
    elif json_file is not None or suite_file is None:
        click.echo(_as_json(data))


def _write(path: Path, text: str, force: bool) -> None:
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path} is there already (--force replaces it)") from None


def _as_json(data: Any) -> str:
    import msgspec

    return msgspec.json.format(msgspec.json.encode(data, enc_hook=str), indent=2).decode()


def _print_json(data: Any) -> None:
    click.echo(_as_json(data))
