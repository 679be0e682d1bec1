"""`muster approve`: say yes or no to a step that waits for a person."""

from __future__ import annotations

from pathlib import Path

import click

from muster.cli.runs import journal_option, opened
from muster.config.environment import user_name
from muster.errors import UsageError
from muster.store.journal import Journal
from muster.store.records import ENDED, INTERRUPTED, WAITING, RunRecord

__all__ = ("approve",)


@click.command()
@click.argument("run_id", metavar="RUN")
@click.argument("step")
@click.option("--reject", is_flag=True, help="Say no: the step fails.")
@click.option("--comment", metavar="TEXT", help="Kept with the answer.")
@click.option(
    "--item", type=click.IntRange(min=0), metavar="N", help="Which item of a step with `forEach`."
)
@journal_option
def approve(
    *,
    run_id: str,
    step: str,
    reject: bool,
    comment: str | None,
    item: int | None,
    journal: Path | None,
) -> None:
    """Answer the approval that a run waits for at STEP.

    RUN is an id, the beginning of one, or `latest`. A run whose process has ended can be answered
    too: it goes on from there with `muster run --resume`.
    """
    with opened(journal) as book:
        run = book.settle(run_id)
        if run.status in ENDED and run.status != INTERRUPTED:
            raise UsageError(f"run {run.id} has ended ({run.status}); nothing waits there")
        chosen = _item(book, run, step) if item is None else item
        decided = book.decide(
            run.id, step, approved=not reject, by=user_name(), comment=comment, item=chosen
        )
    name = step if chosen is None else f"{step} item {chosen}"
    click.echo(f"{run.id}: {name} {decided.status}")
    if run.status == INTERRUPTED:
        click.echo(f"its process is gone; to go on: muster run --resume {run.id}", err=True)


def _item(book: Journal, run: RunRecord, step: str) -> int | None:
    """The item that is meant when none is named."""
    waiting = [
        each.item
        for each in book.approvals(run.id)
        if each.step == step and each.status == WAITING and each.item is not None
    ]
    if len(waiting) > 1:
        told = ", ".join(map(str, waiting))
        raise UsageError(f'several items of step "{step}" wait: say --item, one of {told}')
    return waiting[0] if waiting else None
