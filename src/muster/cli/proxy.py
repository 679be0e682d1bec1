"""`muster proxy`: record, replay and disturb the traffic between any client and a provider."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import click

from muster.cli.options import ABOVE_ZERO, FILE, guard_options, json_option
from muster.cli.signals import on_signals
from muster.config.environment import load_environment
from muster.config.secrets import environment_secrets

__all__ = ("proxy",)

MEGABYTE = 2**20


@click.command()
@click.option("--to", metavar="URL", help="The server's base URL, as its clients are given it.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    metavar="N",
    help="Where to listen on 127.0.0.1. Default: the system chooses.",
)
@click.option("--record", type=FILE, metavar="FILE", help="Append each exchange to a cassette.")
@click.option("--replay", type=FILE, metavar="FILE", help="Answer from a cassette.")
@click.option(
    "--record-missing", is_flag=True, help="With --replay and --to: ask for what is not in FILE."
)
@click.option("--replay-timing", is_flag=True, help="Replay as slowly as it was recorded.")
@click.option(
    "--used-up",
    type=click.Choice(["error", "last", "again"]),
    default="error",
    show_default=True,
    help="What a request gets that comes more often than recorded: an error, the last answer, "
    "or all of them again.",
)
@click.option("--chaos", type=FILE, metavar="PLAN", help="Inject the faults of this YAML file.")
@click.option("--seed", type=int, metavar="N", help="Instead of the plan's seed.")
@click.option(
    "--max-body",
    type=ABOVE_ZERO,
    default=32.0,
    show_default=True,
    metavar="MB",
    help="The largest request, and the largest answer that is recorded.",
)
@guard_options
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="How long exchanges under way may take when the proxy is stopped.",
)
@json_option("One JSON event a line on standard output.")
def proxy(**given: Any) -> int:
    """Stand between any client and a provider's API: record it, replay it, make it fail.

    \b
    muster proxy --to https://api.openai.com/v1 --record calls.jsonl
    muster proxy --replay calls.jsonl
    muster proxy --to https://api.openai.com/v1 --chaos plan.yaml

    The first line on standard output is the base URL to give to the client. Keys and tokens do not
    come into a cassette. The first Ctrl-C (or SIGTERM) lets the exchanges under way end, for
    --grace seconds, and tells what was done; the second one cuts them off.

    Exit codes: 0 stopped, and nothing was cut off; 1 something could not be recorded; 2 bad usage
    or files; 130 (143 after SIGTERM) exchanges were cut off.
    """
    from muster.proxy.running import ProxySettings

    settings = ProxySettings(
        to=given["to"],
        port=given["port"],
        record=given["record"],
        replay=given["replay"],
        record_missing=given["record_missing"],
        timing=given["replay_timing"],
        used_up=given["used_up"],
        chaos=given["chaos"],
        seed=given["seed"],
        max_body=int(given["max_body"] * MEGABYTE),
        allow_hosts=given["allow_hosts"],
        max_connections=given["max_connections"],
        max_requests=given["max_requests"],
        secrets=environment_secrets(load_environment(Path.cwd())),
    )
    return asyncio.run(_serve(settings, given["grace"], as_json=given["as_json"]))


async def _serve(settings: Any, grace: float, *, as_json: bool) -> int:
    from muster.proxy.running import proxy as running_proxy

    def emit(event: dict[str, Any]) -> None:
        if as_json:
            click.echo(json.dumps(event))

    stop, hurry = asyncio.Event(), asyncio.Event()
    received = on_signals(stop.set, hurry.set)
    async with running_proxy(settings, tell=_tell, emit=emit) as running:
        _tell(_doing(settings))
        if as_json:
            emit({"event": "listening", "base_url": running.base_url})
        else:
            click.echo(running.base_url)
        await stop.wait()
        cut = await running.stop(grace, hurry)
    tally = running.tally
    if as_json:
        emit(tally.summary())
    for line in tally.lines():
        _tell(line)
    if cut:
        _tell(f"exchanges that were cut off: {cut}")
        return 128 + received[0]
    return 1 if tally.unwritten else 0


def _doing(settings: Any) -> str:
    """What is about to happen, in a line."""
    parts = [f"before {settings.to}"] if settings.to else []
    if settings.record is not None:
        parts.append(f"recording to {settings.record}")
    if settings.replay is not None:
        more = ", and recording what is missing" if settings.record_missing else ""
        parts.append(f"replaying {settings.replay}{more}")
    if settings.chaos is not None:
        parts.append(f"with the faults of {settings.chaos}")
    return f"proxy {', '.join(parts)}; Ctrl-C ends it"


def _tell(text: str) -> None:
    click.echo(text, err=True)
