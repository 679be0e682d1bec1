"""`muster run` and `muster retry`: run a team of agents."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import click

from muster.cli.asking import Questions
from muster.cli.run_view import open_view
from muster.cli.runs import exit_code, opened
from muster.cli.signals import cancel_on_signals
from muster.config.secrets import Masker
from muster.errors import UsageError
from muster.reports.team_run import outcome_json, outcome_text
from muster.store.journal import journal_path
from muster.teams.dry_run import describe_run
from muster.teams.launch import Launched, LaunchOptions, Prepared, launch, prepare, resumed

__all__ = ("retry", "run_command")

_FORMATS = ("text", "json")

_view_options = (
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


def _with_view_options(command: Any) -> Any:
    for option in reversed(_view_options):
        command = option(command)
    return command


@click.command("run")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option(
    "-i",
    "--input",
    "inputs",
    multiple=True,
    metavar="JSON|KEY=VALUE|@FILE",
    help="Inputs, over the manifest's own; may be given several times.",
)
@click.option("--team", "--flow", "team", metavar="NAME", help="Which of the file's teams.")
@click.option(
    "--provider",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="Who answers for every agent; auto: what each says, AGENT_PROVIDER, or its model's.",
)
@click.option("--mock", is_flag=True, help="The same as --provider mock.")
@click.option(
    "--script",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="What the mock says: replies by role, attempt and content. Implies --mock.",
)
@click.option("-t", "--target", metavar="NAME", help="A target that answers for every agent.")
@click.option(
    "--targets",
    "targets_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The targets file, instead of the one found by walking up.",
)
@click.option(
    "--values",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="ConfigMaps and Secrets that the manifest refers to.",
)
@click.option("--dry-run", is_flag=True, help="Show graph, prompts and an estimate; ask nobody.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Tokens that the run may use.")
@click.option(
    "--budget-usd", type=click.FloatRange(min=0, min_open=True), help="Money that it may use."
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Bound on the whole run.",
)
@click.option("--no-mcp", is_flag=True, help="Leave all MCP servers out.")
@click.option(
    "--lenient-templates",
    "lenient",
    is_flag=True,
    help="Print <no value> for what is missing, as ark does, instead of failing.",
)
@click.option("--safe", is_flag=True, help="No commands and no Python that the files name.")
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
    if given["resume"] is not None:
        return _go_on(given, given["resume"], again=False)
    if given["file"] is None:
        raise UsageError("which team? Give its file: muster run team.yaml")
    prepared = prepare(_options(given))
    if given["dry_run"]:
        click.echo(describe_run(prepared.team, prepared.inputs))
        return 0
    return asyncio.run(_run(given, prepared))


@click.command("retry")
@click.argument("run_id", metavar="RUN")
@_with_view_options
def retry(**given: Any) -> int:
    """Run again what failed in RUN; steps that succeeded keep their results, and cost nothing."""
    return _go_on(given, given["run_id"], again=True)


def _options(given: dict[str, Any]) -> LaunchOptions:
    provider = given["provider"]
    mock: Mapping[str, Any] = {}
    if given["mock"] or given["script"] is not None:
        provider = "mock"
    if given["script"] is not None:
        from muster.teams.mock_script import read_script

        mock = read_script(given["script"]).settings
    return LaunchOptions(
        file=given["file"],
        team=given["team"],
        inputs=_inputs(given["inputs"]),
        provider=provider,
        target=given["target"],
        targets_file=given["targets_file"],
        values=given["values"],
        mock=mock,
        no_mcp=given["no_mcp"],
        lenient=given["lenient"],
        max_tokens=given["max_tokens"],
        budget_usd=given["budget_usd"],
        timeout=given["timeout"],
        safe=given["safe"],
    )


def _inputs(given: Iterable[str]) -> dict[str, Any]:
    """`--input` in its three forms, the later over the earlier."""
    merged: dict[str, Any] = {}
    for text in given:
        source = text
        if text.startswith("@"):
            path = Path(text[1:])
            try:
                source = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(f"--input {text}: cannot be read: {error}") from None
        elif not text.lstrip().startswith(("{", "[")):
            name, equals, value = text.partition("=")
            if not equals or not name:
                raise UsageError(f'--input "{text}": expected JSON, KEY=VALUE or @FILE')
            merged[name] = value
            continue
        try:
            value = json.loads(source)
        except ValueError as error:
            raise UsageError(f"--input {text[:80]}: not JSON: {error}") from None
        if not isinstance(value, dict):
            raise UsageError(f"--input must be a JSON object, found {type(value).__name__}")
        merged |= value
    return merged


def _go_on(given: dict[str, Any], run_id: str, *, again: bool) -> int:
    with opened(None) as journal:
        run = journal.settle(run_id)
    if run.parent is not None:
        raise UsageError(f"run {run.id} is a step of run {run.parent}: go on with that one")
    if run.status == "succeeded":
        raise UsageError(f"run {run.id} has succeeded; there is nothing left to do")
    if again and run.status == "running":
        raise UsageError(f"run {run.id} is still running")
    options = resumed(run, _inputs(given.get("inputs", ())))
    return asyncio.run(_run(given, prepare(options), resume=run.id))


async def _run(given: dict[str, Any], prepared: Prepared, resume: str | None = None) -> int:
    quiet = given["output"] == "json"
    masker = prepared.masker()
    view = open_view(prepared.team, masker, watch=given["watch"] and not quiet)
    stop = asyncio.Event()
    ask = _always_yes if given["yes"] else Questions(view).ask if sys.stdin.isatty() else None
    for line in prepared.warnings:
        click.echo(f"warning: {line}", err=True)
    prepared.warnings.clear()
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
            raise UsageError(f"--output {output}: {error.strerror}") from None
    if given["trace"]:
        from muster.reports.runs import render_run

        with opened(journal_path(prepared.project.root)) as journal:
            tree = render_run(journal.view(launched.run.id, chunks=False))
        click.echo("\n" + tree, err=output == "json")


async def _always_yes(step: str, message: str) -> bool:
    return True
