"""`muster up`: serve the events of a manifest."""

from __future__ import annotations

import asyncio
import sys
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muster.cli.options import json_option
from muster.cli.signals import on_signals
from muster.cli.team_options import launch_options, with_launch_options

if TYPE_CHECKING:
    from muster.teams.triggers.served import Served

__all__ = ("up",)


@click.command("up")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Where webhooks are answered.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8092,
    show_default=True,
    help="0: the system chooses one.",
)
@click.option(
    "--allow-host",
    "allow_hosts",
    multiple=True,
    metavar="NAME",
    help="A name under which requests may come, beside localhost and addresses: a tunnel's.",
)
@with_launch_options("each run")
@click.option(
    "--max-runs",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Runs under way at a time; more are not started.",
)
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long runs under way may take when the server is stopped.",
)
@json_option("One JSON object a line.")
def up(**given: Any) -> int:
    """Serve the events of FILE until Ctrl-C: cron, webhooks, and the ends of other runs.

    \b
    muster up team.yaml
    muster up team.yaml --port 9000 --json

    The first Ctrl-C (or SIGTERM) lets the runs under way end, for --grace seconds; the second one
    interrupts them. An interrupted run goes on when the server starts again.

    Exit codes: 0 stopped, and nothing was cut off; 2 bad usage or files; 130 (143 after SIGTERM)
    runs were interrupted.
    """
    from muster.teams.triggers.served import UpOptions, read_events

    options = UpOptions(
        launch=launch_options(given),
        script=given["script"],
        host=given["host"],
        port=given["port"],
        allow_hosts=given["allow_hosts"],
        grace=given["grace"],
        max_runs=given["max_runs"],
        as_json=given["as_json"],
    )
    return asyncio.run(_serve(read_events(options)))


async def _serve(served: Served) -> int:
    from muster.teams.triggers.server import serve

    stop, hurry = asyncio.Event(), asyncio.Event()
    received = on_signals(stop.set, hurry.set)
    out = sys.stdout

    def write(line: str) -> None:
        with suppress(OSError):  # who read the lines may be gone; the events are served on
            print(line, file=out, flush=True)

    with redirect_stdout(sys.stderr):  # what Python tools print is no line of ours
        left = await serve(served, write, stop=stop, hurry=hurry)
    return 128 + received[0] if left else 0
