"""The `muster` command: which subcommands there are, and how a process ends."""

from __future__ import annotations

import atexit
import gc
import io
import os
import sys
from importlib import import_module
from typing import Any

import click

from muster import __version__
from muster.errors import MusterError, nearest

__all__ = ("cli", "main")

_COMMANDS = {
    "eval": ("muster.cli.eval:eval_command", "Measure targets on suites of cases."),
    "report": ("muster.cli.report:report_command", "Report on runs: HTML, JUnit, Markdown, CSV."),
    "compare": ("muster.cli.compare:compare_command", "Compare runs, or targets, case by case."),
    "trend": ("muster.cli.trend:trend_command", "Show how a suite's last runs went, with slope."),
    "baseline": ("muster.cli.baseline:baseline", "Keep a run as what later ones must reach."),
    "grade": ("muster.cli.grade:grade", "Grade a run's recorded answers again, without a call."),
    "import": (
        "muster.cli.import_sessions:import_command",
        "Make tests of a coding agent's session logs.",
    ),
    "power": ("muster.cli.power:power_command", "Tell how many cases a difference needs."),
    "run": ("muster.cli.run:run_command", "Run a team of agents."),
    "retry": ("muster.cli.run:retry", "Run the failed steps of a run again."),
    "test": ("muster.cli.test:test_command", "Run the unit tests of teams, offline."),
    "graph": ("muster.cli.graph:graph", "Draw a team: Mermaid or SVG."),
    "judge": ("muster.cli.judge:judge", "Measure a judge, or let it compare two targets."),
    "init": ("muster.cli.init:init", "Make a project that runs at once, offline."),
    "worker": ("muster.cli.worker:worker", "Take tasks from a queue and ask a target."),
    "tasks": ("muster.cli.tasks:tasks", "Put tasks into a queue, and see what becomes of them."),
    "new": ("muster.cli.new:new", "Make a provider, grader, queue, tool, suite or team."),
    "validate": ("muster.cli.validate:validate", "Check suites and targets without a call."),
    "targets": ("muster.cli.targets:targets", "List, show and check targets."),
    "check": ("muster.cli.check:check", "Check a provider against the rules it must keep."),
    "providers": ("muster.cli.providers:providers", "List providers and where they come from."),
    "serve-provider": (
        "muster.cli.serve_provider:serve_provider",
        "Let other programs use targets: stdio, OpenAI-compatible HTTP, MCP.",
    ),
    "proxy": (
        "muster.cli.proxy:proxy",
        "Record, replay and disturb the traffic of any client with a provider.",
    ),
    "up": ("muster.cli.up:up", "Serve the events of a file: cron, webhooks, ends of runs."),
    "runs": ("muster.cli.runs:runs", "List, show, watch, cancel and export runs of teams."),
    "approve": ("muster.cli.approve:approve", "Answer a step that waits for a person."),
    "schema": ("muster.cli.schema:schema", "Print the JSON Schema of a file that users write."),
}


class _LazyGroup(click.Group):
    """Imports a subcommand when it is called; `--help` needs none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), name)
        _resume_collector()
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            near = nearest(args[0], _COMMANDS)
            hint = f' Did you mean "{near[0]}"?' if near else ""
            ctx.fail(f'no command "{args[0]}".{hint}')
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.command(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 good, 1 the run or the gate failed, 2 bad usage or bad files, "
    "3 timed out, 4 budget exceeded, 130 interrupted.",
)
@click.version_option(__version__, "-V", "--version", prog_name="muster")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """One socket for every model, agent, command and service: run it, measure it, operate it."""
    ctx.obj = {"debug": debug}


def main(args: list[str] | None = None) -> None:
    """Run the command line, and end the process with the right exit code.

    Without `args` the process is ours alone. What is imported stays to its end, so the garbage
    collector need not look at it: not while it comes, nor again when the interpreter shuts down.
    """
    if args is None:
        gc.disable()
        atexit.register(gc.freeze)
        _print_what_can_be_printed()
    arguments = sys.argv[1:] if args is None else list(args)
    debug = "--debug" in arguments
    if debug:  # wherever it stands
        arguments = ["--debug", *(argument for argument in arguments if argument != "--debug")]
    sys.exit(_run(arguments, debug))


def _print_what_can_be_printed() -> None:
    """A model's answer may hold what cannot be written: half of a character, or one that the
    terminal's encoding does not have. Then there is a `?` in its place, and no failure."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _resume_collector() -> None:
    """The command is imported: from now on there may be garbage."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def _run(arguments: list[str], debug: bool) -> int:
    try:
        code: Any = cli.main(args=arguments, prog_name="muster", standalone_mode=False)
        if sys.stdout is not None:  # it may have been closed by who called
            sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        error.show()
        return 2
    except click.exceptions.Exit as error:
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except MusterError as error:
        if debug:
            raise
        click.echo(f"error: {_masked(str(error))}", err=True)
        return error.exit_code
    except Exception as error:
        if "KeyboardInterrupt" in str(error):  # pydantic passes it on as an error of its own
            click.echo("interrupted", err=True)
            return 130
        if debug:
            raise
        if isinstance(error, OSError) and error.filename is not None:
            click.echo(f"error: {error.filename}: {error.strerror}", err=True)
            return 2
        kind = type(error).__name__
        click.echo(
            f"error: {kind}: {_masked(str(error))}\n"
            "This is a defect of Muster; --debug shows where.",
            err=True,
        )
        return 1


def _masked(text: str) -> str:
    """`text` without the secrets of the environment."""
    from muster.config.secrets import Masker, environment_secrets

    return Masker(environment_secrets(os.environ)).mask(text)
