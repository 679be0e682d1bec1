"""`muster up`: serve the events of a manifest."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muster.teams.launch import LaunchOptions

if TYPE_CHECKING:
    from muster.teams.triggers.server import Served

__all__ = ("up",)

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


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
@click.option("--max-tokens", type=click.IntRange(min=1), help="Tokens that each run may use.")
@click.option(
    "--budget-usd", type=click.FloatRange(min=0, min_open=True), help="Money that each run may use."
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Bound on each run.",
)
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
@click.option("--no-mcp", is_flag=True, help="Leave all MCP servers out.")
@click.option(
    "--lenient-templates",
    "lenient",
    is_flag=True,
    help="Print <no value> for what is missing, as ark does, instead of failing.",
)
@click.option("--safe", is_flag=True, help="No commands and no Python that the files name.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
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
    from muster.teams.triggers.server import UpOptions, read_events

    options = UpOptions(
        launch=_launch_options(given),
        host=given["host"],
        port=given["port"],
        allow_hosts=given["allow_hosts"],
        grace=given["grace"],
        max_runs=given["max_runs"],
        as_json=given["as_json"],
    )
    return asyncio.run(_serve(read_events(options)))


def _launch_options(given: Mapping[str, Any]) -> LaunchOptions:
    provider = given["provider"]
    mock: Mapping[str, Any] = {}
    if given["mock"] or given["script"] is not None:
        provider = "mock"
    if given["script"] is not None:
        from muster.teams.mock_script import read_script

        mock = read_script(given["script"]).settings
    return LaunchOptions(
        file=given["file"],
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


async def _serve(served: Served) -> int:
    from muster.teams.triggers.server import serve

    stop, hurry = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    received: list[int] = []

    def on_signal(number: int) -> None:
        received.append(number)
        (hurry if stop.is_set() else stop).set()

    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            loop.add_signal_handler(number, on_signal, number)
    out = sys.stdout

    def write(line: str) -> None:
        with suppress(OSError):  # who read the lines may be gone; the events are served on
            print(line, file=out, flush=True)

    with redirect_stdout(sys.stderr):  # what Python tools print is no line of ours
        left = await serve(served, write, stop=stop, hurry=hurry)
    return 128 + received[0] if left else 0
