"""`muster tasks`: put tasks into a queue, and see what becomes of them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from muster.cli.options import FILE, json_option, timeout_option
from muster.cli.queue_options import opened_queue, queue_option
from muster.config.environment import load_environment
from muster.config.secrets import Masker, environment_secrets
from muster.errors import UsageError
from muster.queues.base import DEFAULT_MAX_ATTEMPTS, STATUSES, TaskQueue, TaskState
from muster.queues.jsonl import NewTask, read_jsonl
from muster.reports.terminal import format_money, format_table

__all__ = ("tasks",)

T = TypeVar("T")

SHOWN = 60
"""Characters of a prompt that a list shows."""


@click.group()
def tasks() -> None:
    """Put tasks into a queue, and see what becomes of them.

    `muster worker TARGET` works on them.
    """


def _on(url: str | None, work: Callable[[TaskQueue], Awaitable[T]], *, make: bool = False) -> T:
    """What comes of `work` on the queue."""

    async def run() -> T:
        queue = opened_queue(url, make=make)
        try:
            return await work(queue)
        finally:
            await queue.aclose()

    return asyncio.run(run())


# --- submit ---------------------------------------------------------------------------------------


@tasks.command("submit")
@click.argument("prompts", nargs=-1, metavar="[PROMPT]...")
@queue_option
@click.option("--jsonl", type=FILE, metavar="FILE", help="Many tasks: one JSON object a line.")
@click.option("--id", "id", metavar="ID", help="The id; if it is there already, nothing is put in.")
@click.option("--meta", multiple=True, metavar="NAME=VALUE", help="Goes with the task.")
@click.option(
    "--max-attempts",
    type=click.IntRange(min=1),
    default=DEFAULT_MAX_ATTEMPTS,
    show_default=True,
    help="How often a task is tried.",
)
@click.option(
    "--delay",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Not before this time has passed.",
)
@json_option()
def submit(prompts: tuple[str, ...], **given: Any) -> int:
    """Put tasks in, one for each PROMPT, and print their ids.

    \b
    muster tasks submit "What is 6 * 7?"
    muster tasks submit @question.txt
    muster tasks submit - < question.txt
    muster tasks submit --jsonl many.jsonl

    PROMPT is the text itself, @FILE for the text of a file, or - for standard input. A line of
    --jsonl has `prompt`, and perhaps `id`, `meta`, `max_attempts` and `delay`.
    """
    id, jsonl, as_json = given["id"], given["jsonl"], given["as_json"]
    if not prompts and jsonl is None:
        raise UsageError("nothing to submit: expected a PROMPT, @FILE, -, or --jsonl FILE")
    if id is not None and (len(prompts) != 1 or jsonl is not None):
        raise UsageError("--id is for one task; in a --jsonl file each line has its own")
    meta = _meta(given["meta"])
    new = [NewTask(_prompt(prompt), id) for prompt in prompts]
    if jsonl is not None:
        new += read_jsonl(jsonl)

    async def put(queue: TaskQueue) -> list[str]:
        found = []
        for task in new:
            made = await queue.submit(
                task.prompt,
                id=task.id,
                meta={**meta, **task.meta},
                max_attempts=task.max_attempts or given["max_attempts"],
                delay=given["delay"] if task.delay is None else task.delay,
            )
            found.append(made)
            if not as_json:
                click.echo(made)
        return found

    found = _on(given["queue_url"], put, make=True)
    if as_json:
        click.echo(_json({"version": 1, "ids": found}))
    return 0


def _prompt(given: str) -> str:
    if given == "-":
        return _checked(sys.stdin.buffer.read(), "standard input")
    if given.startswith("@"):
        return _checked(Path(given[1:]).read_bytes(), given[1:])
    return _checked(os.fsencode(given), "PROMPT")


def _checked(data: bytes, place: str) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{place}: byte {error.start + 1} is not UTF-8") from None
    if not text.strip():
        raise UsageError(f"{place}: the prompt is empty")
    return text


def _meta(given: Iterable[str]) -> dict[str, str]:
    found = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UsageError(f'--meta: expected NAME=VALUE, found "{pair}"')
        found[name] = value
    return found


# --- looking --------------------------------------------------------------------------------------


@tasks.command("list")
@queue_option
@click.option("--status", type=click.Choice(STATUSES), help="Only those of this status.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="The newest N."
)
@json_option()
def list_tasks(queue_url: str | None, status: Any, limit: int, as_json: bool) -> None:
    """List tasks, the newest first, and how many there are of each status."""
    _list(queue_url, status, limit, as_json)


@tasks.command("dead")
@queue_option
@click.option(
    "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="The newest N."
)
@json_option()
def dead(queue_url: str | None, limit: int, as_json: bool) -> None:
    """List the dead letters: tasks that failed for good, and why."""
    _list(queue_url, "dead", limit, as_json)


def _list(url: str | None, status: Any, limit: int, as_json: bool) -> None:
    async def look(queue: TaskQueue) -> tuple[dict[Any, int], list[TaskState]]:
        return await queue.counts(), await queue.states(status, limit)

    counts, states = _on(url, look)
    mask = _masker()
    if as_json:
        data = [_data(state, mask) for state in states]
        click.echo(_json({"version": 1, "counts": counts, "tasks": data}))
        return
    if states:
        rows = [
            [state.id, state.status, str(state.attempts), mask(_short(state.prompt)), _note(state)]
            for state in states
        ]
        click.echo(format_table(("task", "status", "attempts", "prompt", "note"), rows) + "\n")
    click.echo(", ".join(f"{count} {name}" for name, count in counts.items()))


def _note(state: TaskState) -> str:
    if state.status == "running":
        over = state.due_at is not None and state.due_at < time.time()
        return f"{state.worker or ''}{', whose lease has run out' if over else ''}"
    error = state.result.error if state.result is not None else state.error
    return _masker()(_short(error or ""))


@tasks.command("show")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@queue_option
@json_option()
def show(ids: tuple[str, ...], queue_url: str | None, as_json: bool) -> None:
    """Show tasks: how each stands, with its prompt, and its answer or error."""
    states = _on(queue_url, lambda queue: _known(queue, ids))
    _show(states, as_json)


@tasks.command("wait")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@queue_option
@timeout_option("the wait for all of them")
@json_option()
def wait(ids: tuple[str, ...], queue_url: str | None, timeout: float | None, as_json: bool) -> int:
    """Wait until tasks have ended, and print their answers.

    Exit codes: 0 all are done; 1 one is dead or cancelled; 3 the time was up.
    """

    async def ended(queue: TaskQueue) -> list[TaskState]:
        await _known(queue, ids)
        await asyncio.gather(*(queue.wait(id, timeout) for id in ids))
        return await _known(queue, ids)

    states = _on(queue_url, ended)
    if as_json:
        _show(states, as_json)
    open_ = [state.id for state in states if state.result is None]
    for state in states:
        result, mask = state.result, _masker()
        if result is not None and result.output is not None and not as_json:
            click.echo(mask(result.output))
        elif result is not None and result.output is None:
            click.echo(f"{state.id}: {state.status}: {mask(result.error or '')}", err=True)
    if open_:
        click.echo(f"the time is up; still open: {', '.join(open_)}", err=True)
        return 3
    return 0 if all(state.status == "done" for state in states) else 1


# --- changing -------------------------------------------------------------------------------------


@tasks.command("cancel")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@queue_option
@click.option("--reason", default="cancelled", show_default=True, help="Kept with the task.")
def cancel(ids: tuple[str, ...], queue_url: str | None, reason: str) -> int:
    """End tasks that are open; a worker that has one stops its call.

    Exit code 1 when one had ended already.
    """
    return _change(queue_url, ids, lambda queue, id: queue.cancel(id, reason), "cancelled")


@tasks.command("requeue")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@queue_option
@click.option("--all", "all_", is_flag=True, help="All dead letters.")
def requeue(ids: tuple[str, ...], queue_url: str | None, all_: bool) -> int:
    """Put dead letters back, with all their attempts.

    Exit code 1 when one was not dead.
    """
    if bool(ids) == all_:
        raise UsageError("which? expected ids of dead tasks, or --all")
    if all_:
        everything = sys.maxsize
        dead = _on(queue_url, lambda queue: queue.states("dead", everything))
        ids = tuple(state.id for state in dead[::-1])
    return _change(queue_url, ids, lambda queue, id: queue.requeue(id), "waiting again")


def _change(
    url: str | None,
    ids: tuple[str, ...],
    change: Callable[[TaskQueue, str], Awaitable[bool]],
    done: str,
) -> int:
    async def all_of(queue: TaskQueue) -> int:
        await _known(queue, ids)
        failed = 0
        for id in ids:
            if await change(queue, id):
                click.echo(f"{id}: {done}")
            else:
                (state,) = await _known(queue, (id,))
                click.echo(f"{id}: nothing was changed: it is {state.status}", err=True)
                failed = 1
        return failed

    return _on(url, all_of)


# --- together -------------------------------------------------------------------------------------


async def _known(queue: TaskQueue, ids: tuple[str, ...]) -> list[TaskState]:
    found = await queue.look(ids)
    missing = [id for id in ids if id not in found]
    if missing:
        raise UsageError(f"no such task in the queue: {', '.join(missing)}")
    return [found[id] for id in ids]


def _show(states: list[TaskState], as_json: bool) -> None:
    mask = _masker()
    rows = [_data(state, mask) for state in states]
    if as_json:
        click.echo(_json({"version": 1, "tasks": rows}))
        return
    for number, row in enumerate(rows):
        if number:
            click.echo()
        for name, value in row.items():
            if name in ("prompt", "output", "error"):
                continue
            said = format_money(value) if name == "cost_usd" else value
            click.echo(f"{name}: {said if isinstance(said, str | int) else json.dumps(said)}")
        for name in ("prompt", "output", "error"):
            if name in row:
                click.echo(f"\n{name}:\n{row[name]}")


def _data(state: TaskState, mask: Callable[[str], str]) -> dict[str, Any]:
    """A task as it is printed; what is not known is left out."""
    result = state.result
    usage = result.token_usage if result is not None else None
    error = result.error if result is not None else state.error
    row = {
        "id": state.id,
        "status": state.status,
        "attempts": state.attempts,
        "max_attempts": state.max_attempts,
        "submitted_at": _time(state.submitted_at),
        "due_at": _time(state.due_at),
        "worker": state.worker or None,
        "meta": dict(state.meta) or None,
        "ended_at": _time(result.ended_at) if result is not None else None,
        "token_usage": None if usage is None else usage.to_dict(),
        "cost_usd": result.cost_usd if result is not None else None,
        "prompt": mask(state.prompt),
        "output": mask(result.output) if result is not None and result.output is not None else None,
        "error": None if error is None else mask(error),
    }
    return {name: value for name, value in row.items() if value is not None}


def _masker() -> Callable[[str], str]:
    return Masker(environment_secrets(load_environment(Path.cwd()))).mask


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[: SHOWN - 1]}…"


def _json(data: Any) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False)
