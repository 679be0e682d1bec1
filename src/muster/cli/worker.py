"""`muster worker`: takes tasks from a queue and asks a target."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import click

from muster.cli.options import ABOVE_ZERO, json_option, safe_option, targets_option
from muster.cli.queue_options import opened_queue, queue_option
from muster.cli.signals import on_signals
from muster.config.environment import load_environment
from muster.config.project import find_project
from muster.config.secrets import Masker, environment_secrets, secret_values
from muster.config.targets import load_catalog
from muster.errors import MusterError, RunBroken, UsageError
from muster.plain import one_line
from muster.providers import providers
from muster.queues.base import DEFAULT_LEASE
from muster.target import RetryPolicy
from muster.targets import TargetPool
from muster.worker.worker import Happening, Tally, Until, Worker, WorkerSettings

__all__ = ("worker",)

SHOWN = 100
"""Characters of an answer that a line shows."""


@click.command("worker")
@click.argument("target")
@queue_option
@targets_option
@safe_option
@click.option(
    "-c",
    "--concurrency",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="Tasks at a time.",
)
@click.option("--once", is_flag=True, help="One attempt at one task, if there is one; then end.")
@click.option("--until-empty", is_flag=True, help="End when no task is open any more.")
@click.option(
    "--lease",
    type=ABOVE_ZERO,
    default=DEFAULT_LEASE,
    show_default=True,
    metavar="SECONDS",
    help="After which time another worker gets the task of one that died.",
)
@click.option(
    "--retry-delay",
    type=ABOVE_ZERO,
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="The longest pause before a task's second attempt; it doubles with each, up to 60.",
)
@click.option("--name", help="What `muster tasks` calls this worker. Default: HOST-PID.")
@json_option("One JSON object a line.")
@click.option("-q", "--quiet", is_flag=True, help="No line for each attempt.")
def worker(**given: Any) -> int:
    """Take tasks from a queue and ask TARGET, of targets.yaml, for each.

    \b
    muster tasks submit "What is 6 * 7?"
    muster worker fast                       # until Ctrl-C
    muster worker fast --until-empty -c 16

    An answer is the task's result. An error that a retry can help is tried again later; other
    errors, and those of the last attempt, go to the dead letters (`muster tasks dead`).

    The first Ctrl-C (or SIGTERM) lets what is under way end, and nothing new is taken; the second
    one cuts it off, and other workers get it at once. After `kill -9` they get it when the lease
    has run out.

    Exit codes: 0 stopped, and nothing was cut off; 1 the queue failed, or, with --once and
    --until-empty, a task was not done; 2 bad usage or files; 130 (143 after SIGTERM) something was
    cut off.
    """
    if given["once"] and given["until_empty"]:
        raise UsageError("--once and --until-empty do not go together: choose one")
    return asyncio.run(_work(given))


async def _work(given: dict[str, Any]) -> int:
    here = Path.cwd()
    env, safe = load_environment(here), given["safe"]
    catalog = load_catalog(here, explicit=given["targets_file"], env=env, safe=safe)
    registry = providers.for_project(find_project(here).provider_folders, safe=safe)
    pool = TargetPool(catalog, registry)
    stop, hurry = asyncio.Event(), asyncio.Event()
    until: Until = "once" if given["once"] else "empty" if given["until_empty"] else "stopped"
    # What Python code of the project prints is no line of ours.
    out, written = sys.stdout, redirect_stdout(sys.stderr)
    try:
        target = pool.open(given["target"])
        for line in dict.fromkeys([*registry.failures, *catalog.warnings]):
            _warn(f"warning: {line}")
        queue = opened_queue(given["queue_url"], make=True, safe=safe)
        try:
            secrets = environment_secrets(env)
            for resolved in pool.resolved:
                secrets |= secret_values(resolved.config)
            working = Worker(
                queue,
                target.provider,
                WorkerSettings(
                    name=given["name"] or f"{socket.gethostname()}-{os.getpid()}",
                    concurrency=given["concurrency"],
                    lease=given["lease"],
                    retry=RetryPolicy(initial_delay=given["retry_delay"], max_delay=60.0),
                ),
                tell=_teller(given, partial(_write, out)),
                warn=lambda text: _warn(f"warning: {text}"),
                mask=Masker(secrets).mask,
            )
            received = on_signals(partial(_end, stop), hurry.set)
            with written:
                cut = await _until_the_end(working, stop, hurry, until)
        finally:
            await queue.aclose()
    finally:
        await pool.aclose()
    if not given["quiet"] and not given["as_json"]:
        _warn(_summary(working.tally))
    if cut:
        return 128 + received[0]
    return _code(working.tally, until) if not received else 0


async def _until_the_end(
    working: Worker, stop: asyncio.Event, hurry: asyncio.Event, until: Until
) -> int:
    """How many attempts were cut off. Raises `RunBroken` when the queue has failed for good."""
    try:
        return await working.run(stop, hurry, until)
    except MusterError as error:
        raise RunBroken(str(error)) from error


def _write(out: TextIO, line: str) -> None:
    with suppress(OSError):  # who read the lines may be gone; the tasks are worked on
        print(line, file=out, flush=True)


def _end(stop: asyncio.Event) -> None:
    _warn("ending: what is under way is finished, nothing new is taken …")
    stop.set()


def _teller(given: dict[str, Any], write: Callable[[str], None]) -> Callable[[Happening], None]:
    """Shows what comes of each attempt."""
    if given["quiet"]:
        return lambda happening: None
    return lambda happening: write(_json(happening) if given["as_json"] else _line(happening))


def _line(happening: Happening) -> str:
    said = one_line(happening.text)
    said = said if len(said) <= SHOWN else f"{said[: SHOWN - 1]}…"
    again = "" if happening.retry_in is None else f" (again in {happening.retry_in:.1f} s)"
    return f"{happening.word:<8}  {happening.task.id}  {happening.seconds:.1f} s  {said}{again}"


def _json(happening: Happening) -> str:
    row = {
        "id": happening.task.id,
        "attempt": happening.task.attempt,
        "happened": happening.word,
        "seconds": round(happening.seconds, 6),
        "text": happening.text,
    }
    if happening.retry_in is not None:
        row["retry_in"] = round(happening.retry_in, 6)
    return json.dumps(row, ensure_ascii=False)


def _summary(tally: Tally) -> str:
    said = f"{tally.done} done, {tally.dead} dead"
    for count, what in (
        (tally.retry, "to be tried again"),
        (tally.lost, "lost"),
        (tally.returned, "given back"),
    ):
        said += f", {count} {what}" if count else ""
    return said


def _code(tally: Tally, until: Until) -> int:
    bad = tally.dead + (tally.retry + tally.lost if until == "once" else 0)
    return 1 if until != "stopped" and bad else 0


def _warn(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
