"""`muster run` and `muster retry`: run a team of agents."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from muster.cli.asking import Questions
from muster.cli.options import team_option, together
from muster.cli.run_view import open_view
from muster.cli.runs import exit_code, opened
from muster.cli.signals import cancel_on_signals
from muster.cli.team_options import (
    BOUNDS,
    bounds,
    chosen_script,
    launch_options,
    read_inputs,
    with_bounds,
    with_launch_options,
)
from muster.config.secrets import Masker
from muster.errors import RunBroken, UsageError
from muster.reports.team_run import outcome_json, outcome_text
from muster.store.journal import journal_path
from muster.teams.dry_run import describe_run
from muster.teams.launch import Launched, launch
from muster.teams.preparing import Prepared, prepare, resumed

__all__ = ("retry", "run_command")

COLLECT_AFTER = 10_000
"""New objects between two looks of the garbage collector: a thousand steps that wait are many
objects, and no garbage."""

_FORMATS = ("text", "json")
_OTHER_FORMATS = ("yaml", "yml", "jsonl", "ndjson", "xml", "csv", "table", "markdown", "md", "html")
"""Words that somebody means a format by, and no file."""

_input_option = click.option(
    "-i",
    "--input",
    "inputs",
    multiple=True,
    metavar="JSON|KEY=VALUE|@FILE",
    help="Inputs, over the manifest's own; may be given several times.",
)

_VIEW = ("watch", "trace", "output", "yes")

_with_view_options = together(
    click.option("--watch", is_flag=True, help="Show steps, texts, tools and tokens as they come."),
    click.option("--trace", is_flag=True, help="Print the run's tree at the end."),
    click.option(
        "--output",
        "output",
        metavar="text|json|FILE",
        default="text",
        show_default=True,
        help="How the outcome is printed; a file gets the output alone.",
    ),
    click.option("--yes", is_flag=True, help="Approve every step that asks."),
)


@click.command("run")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@_input_option
@team_option()
@with_launch_options("the run")
@click.option("--dry-run", is_flag=True, help="Show graph, prompts and an estimate; ask nobody.")
@click.option("--resume", metavar="RUN", help="Go on with a run that was stopped, or: latest.")
@_with_view_options
def run_command(**given: Any) -> int:
    """Run a team of agents, written in YAML.

    \b
    muster run team.yaml --watch
    muster run team.yaml --input topic="bees" --provider mock
    muster run --resume latest

    Exit codes: 0 succeeded; 1 failed; 2 bad usage or files; 3 timed out; 4 budget exceeded;
    130 interrupted.
    """
    _check_output(given["output"])
    if given["resume"] is not None:
        _refuse_others()
        return _go_on(given, given["resume"], again=False)
    if given["file"] is None:
        raise UsageError("which team? Give its file: muster run team.yaml")
    prepared = prepare(launch_options(given), script=chosen_script(given))
    if given["dry_run"]:
        _warn(prepared)
        click.echo(
            prepared.masker().mask(
                describe_run(prepared.team, prepared.inputs, lenient=prepared.options.lenient)
            )
        )
        return 0
    return asyncio.run(_run(given, prepared))


@click.command("retry")
@click.argument("run_id", metavar="RUN")
@_input_option
@with_bounds("the run")
@_with_view_options
def retry(**given: Any) -> int:
    """Run again what failed in RUN; steps that succeeded keep their results, and cost nothing.

    RUN is an id, the beginning of one, or `latest`. Bounds take the place of those that the run
    was started with.
    """
    _check_output(given["output"])
    return _go_on(given, given["run_id"], again=True)


def _refuse_others() -> None:
    """A run goes on as it was started; another word about that would go unheard."""
    context = click.get_current_context()
    heard = ("resume", "file", "inputs", *BOUNDS, *_VIEW)
    for option in context.command.params:
        name = option.name or ""
        if name not in heard and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise UsageError(
                f"{option.opts[0]}: a run goes on with what it was started with; beside --resume "
                "there can be inputs, bounds, and how it is shown"
            )


def _check_output(output: str) -> None:
    """Whether the outcome can be written, which is better known before anything is paid for."""
    if output in _FORMATS:
        return
    if output.lower() in (*_FORMATS, *_OTHER_FORMATS):
        raise UsageError(
            f'--output "{output}": the formats are text and json; a file of that name is ./{output}'
        )
    path = Path(output)
    if not output or path.is_dir():
        what = "a folder" if output else "nothing"
        raise UsageError(f'--output "{output}": expected text, json or a file, found {what}')
    if not path.parent.is_dir():
        raise UsageError(f"--output {output}: there is no folder {path.parent}")


def _go_on(given: dict[str, Any], run_id: str, *, again: bool) -> int:
    file: Path | None = given.get("file")
    with opened(journal_path(file.resolve().parent) if file is not None else None) as journal:
        run = journal.settle(run_id)
    if file is not None and run.options.get("file") not in (str(file.resolve()), None):
        raise UsageError(f"run {run.id} is of {run.options['file']}, not of {file}")
    if run.parent is not None:
        raise UsageError(f"run {run.id} is a step of run {run.parent}: go on with that one")
    if run.status == "succeeded":
        raise UsageError(f"run {run.id} has succeeded; there is nothing left to do")
    if again and run.status == "running":
        raise UsageError(f"run {run.id} is still running")
    options = replace(resumed(run, read_inputs(given["inputs"])), **bounds(given))
    return asyncio.run(_run(given, prepare(options), resume=run.id))


def _warn(prepared: Prepared) -> None:
    """Tell what is odd about the files, once."""
    for line in prepared.warnings:
        click.echo(f"warning: {line}", err=True)
    prepared.warnings.clear()


async def _run(given: dict[str, Any], prepared: Prepared, resume: str | None = None) -> int:
    quiet = given["output"] == "json"
    gc.freeze()  # the team stays to the end: the collector need not look at it
    gc.set_threshold(COLLECT_AFTER)
    masker = prepared.masker()
    view = open_view(prepared.team, masker, watch=given["watch"] and not quiet)
    stop = asyncio.Event()
    ask = _always_yes if given["yes"] else Questions(view).ask if _is_somebody_there() else None
    _warn(prepared)
    task = asyncio.ensure_future(
        launch(prepared, on_event=view.on_event, ask_approval=ask, resume=resume, stop=stop)
    )
    received = cancel_on_signals(task, stop)
    try:
        with redirect_stdout(sys.stderr), view:
            launched = await task
    except asyncio.CancelledError:
        if not received:
            raise
        return 128 + received[0]
    _report(given, prepared, launched, masker)
    if received and launched.run.status != "succeeded":
        return 128 + received[0]
    return exit_code(launched.run)


def _report(given: dict[str, Any], prepared: Prepared, launched: Launched, masker: Masker) -> None:
    output = given["output"]
    if output == "json":
        shown = outcome_json(launched.run, launched.outcome)
        click.echo(masker.mask(json.dumps(shown, indent=2, ensure_ascii=False)))
    else:
        click.echo(masker.mask(outcome_text(launched.run, launched.outcome)))
    if output not in _FORMATS:
        try:
            Path(output).write_text(masker.mask(launched.outcome.output), encoding="utf-8")
        except OSError as error:
            raise RunBroken(f"--output {output}: {error.strerror}") from None
    if given["trace"]:
        from muster.reports.runs import render_run

        with opened(journal_path(prepared.project.root)) as journal:
            tree = render_run(journal.view(launched.run.id, chunks=False))
        click.echo("\n" + tree, err=output == "json")


def _is_somebody_there() -> bool:
    """Whether questions can be answered here; the standard input may have been closed."""
    return sys.stdin is not None and sys.stdin.isatty()


async def _always_yes(step: str, message: str) -> bool:
    return True
