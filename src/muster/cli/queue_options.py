"""What the commands that work on a queue have in common."""

from __future__ import annotations

from pathlib import Path

import click

from muster.errors import UsageError
from muster.queues.base import TaskQueue
from muster.queues.opening import default_url, open_queue
from muster.queues.url import QueueURL

__all__ = ("QUEUE_VARIABLE", "opened_queue", "queue_option")

QUEUE_VARIABLE = "TASK_QUEUE_URL"

queue_option = click.option(
    "--queue",
    "queue_url",
    metavar="URL",
    help=f"The queue: sqlite:PATH, or NAME:… of one's own. Default: ${QUEUE_VARIABLE}, else "
    "sqlite:.muster/queue.db of the project.",
)


def opened_queue(url: str | None, *, make: bool, safe: bool = False) -> TaskQueue:
    """The queue that is meant; without `make`, a file must be there already."""
    from muster.config.environment import load_environment

    here = Path.cwd()
    chosen = url or load_environment(here).get(QUEUE_VARIABLE) or default_url(here)
    parsed = QueueURL.parse(chosen, here)
    if parsed.scheme == "memory":
        raise UsageError(
            "a queue in memory is seen by no other process; expected one that is shared, such as "
            "sqlite:PATH"
        )
    if parsed.scheme == "sqlite" and not make and not parsed.path.exists():
        raise UsageError(f"no queue yet: there is no file {parsed.path}; `muster tasks submit`")
    return open_queue(parsed, start=here, safe=safe)
