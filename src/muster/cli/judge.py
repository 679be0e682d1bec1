"""`muster judge`: measure a judge, and let one compare two targets' answers."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from muster.cli.options import (
    FILE,
    FOLDER,
    budget_option,
    json_option,
    safe_option,
    targets_option,
    together,
)
from muster.errors import UsageError
from muster.evals.judge_check import Check, JudgeOptions, check_judge
from muster.evals.judge_desk import Desk
from muster.evals.judge_examples import read_examples
from muster.evals.judge_meter import BUDGET_EXIT
from muster.evals.pairwise_runs import compare_answers, sides_of
from muster.reports.judges import render_check, render_pairs

__all__ = ("judge",)

T = TypeVar("T")

_CRITERIA = click.option("--criteria", metavar="TEXT", help="What to judge by, in words.")
_WORKERS = click.option(
    "-w", "--workers", type=click.IntRange(min=1), default=8, help="Questions at a time."
)
_BOUNDS = together(
    budget_option("Ask nothing more when judges have cost this much."),
    click.option(
        "--max-calls", type=click.IntRange(min=1), metavar="N", help="Ask no more often than this."
    ),
)


@click.group("judge")
def judge() -> None:
    """Measure judges, and let them compare."""


@judge.command("check")
@click.argument("file", type=FILE)
@together(
    click.option("--judge", metavar="TARGET", help="The judge, in place of the file's."),
    _CRITERIA,
    click.option(
        "--prompt", type=FILE, metavar="FILE", help="The template of what the judge is asked."
    ),
    click.option(
        "--threshold", type=click.FloatRange(0, 1), help="The score from which an answer passes."
    ),
    targets_option,
    _WORKERS,
    _BOUNDS,
    click.option("--no-store", is_flag=True, help="Do not keep what is found for later runs."),
    click.option(
        "-o",
        "--output",
        type=FILE,
        metavar="FILE",
        help="Write what it said of each example there, as JSONL, as it comes.",
    ),
    json_option(),
    safe_option,
)
def check(file: Path, **given: Any) -> int:
    """Run a judge over labelled examples: agreement, kappa, confusion, bias.

    FILE is YAML, JSON, JSONL or CSV: examples with input, output and label (pass, fail) or score,
    or pairs with a, b and label (a, b, tie). A YAML file may say the judge's settings beside them.

    Exit codes: 0 measured; 1 some examples had no verdict; 2 bad usage or files; 4 stopped by
    --budget-usd or --max-calls.
    """
    examples = read_examples(file)
    options = JudgeOptions(
        judge=given["judge"],
        criteria=given["criteria"],
        prompt=given["prompt"],
        threshold=given["threshold"],
    )
    desk = _desk(file.resolve().parent, given)

    with ExitStack() as stack:
        note = None if given["output"] is None else stack.enter_context(_rows(given["output"]))

        async def work() -> Check:
            return await check_judge(
                examples, options, desk, store=not given["no_store"], note=note
            )

        found = _run(work, desk)
    if given["as_json"]:
        click.echo(
            _json({"records": found.records, "stored": found.stored, "stopped": found.stopped})
        )
    else:
        for record in found.records:
            click.echo(render_check(record) + "\n")
        for path in found.stored:
            click.echo(f"kept: {path}")
    return _ended(desk, any(record["errors"] for record in found.records))


@judge.command("pairs")
@click.argument("runs", nargs=-1, type=FOLDER, required=True, metavar="RUN [RUN]")
@together(
    click.option(
        "-t", "--target", "targets", multiple=True, metavar="NAME", help="The targets compared."
    ),
    click.option("--judge", required=True, metavar="TARGET", help="Who judges."),
    _CRITERIA,
    targets_option,
    _WORKERS,
    _BOUNDS,
    click.option(
        "-o", "--output", type=FILE, metavar="FILE", help="Keep every pair there, as JSONL."
    ),
    json_option(),
    safe_option,
)
def pairs(runs: tuple[Path, ...], **given: Any) -> int:
    """Let a judge compare two targets' answers, each pair in both orders.

    RUN is the folder of a run with two targets, or two runs. Who wins in both orders wins; all
    else is a tie.

    Exit codes: 0 compared; 1 some pairs had no verdict; 2 bad usage or files; 4 stopped by
    --budget-usd or --max-calls.
    """
    if len(runs) > 2:
        raise UsageError("one run or two, not more")
    sides = sides_of(runs, given["targets"])
    desk = _desk(Path.cwd(), given)

    async def work() -> tuple[dict[str, Any], list[dict[str, Any]]]:
        return await compare_answers(sides, desk, judge=given["judge"], criteria=given["criteria"])

    report, rows = _run(work, desk)
    if given["output"] is not None:
        encoded = (msgspec.json.encode(row, enc_hook=str) + b"\n" for row in rows)
        given["output"].write_bytes(b"".join(encoded))
    click.echo(_json(report) if given["as_json"] else render_pairs(report))
    return _ended(desk, report["errors"])


@contextmanager
def _rows(path: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """What writes a line to the file, which is new; each is there when it is written."""
    try:
        file = path.open("wb")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from None
    with file:

        def write(row: dict[str, Any]) -> None:
            file.write(msgspec.json.encode(row, enc_hook=str) + b"\n")
            file.flush()

        yield write


def _ended(desk: Desk, errors: object) -> int:
    """The exit code, after saying on stderr what stopped it."""
    meter = desk.meter
    if meter.bounded_money and meter.without_cost:
        told = "warning: calls whose cost is not known, and the budget does not count"
        click.echo(f"{told}: {meter.without_cost}", err=True)
    if meter.stopped is not None:
        click.echo(f"stopped: {meter.stopped}; the rest was not asked", err=True)
        return BUDGET_EXIT
    return 1 if errors else 0


def _desk(start: Path, given: dict[str, Any]) -> Desk:
    return Desk(
        start,
        targets_file=given["targets_file"],
        safe=given["safe"],
        workers=given["workers"],
        budget_usd=given["budget_usd"],
        max_calls=given["max_calls"],
    )


def _run(work: Callable[[], Coroutine[Any, Any, T]], desk: Desk) -> T:
    async def whole() -> T:
        try:
            return await work()
        finally:
            await desk.aclose()

    with redirect_stdout(sys.stderr):  # what users' code prints is no part of our answer
        return asyncio.run(whole())


def _json(data: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(data, enc_hook=str), indent=2).decode()
