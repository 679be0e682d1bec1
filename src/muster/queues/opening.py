"""From a URL to a queue."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from muster.config.project import find_project
from muster.errors import MusterError
from muster.importing import CodeError, describe_failure
from muster.queues import queues
from muster.queues.base import TaskQueue
from muster.queues.url import QueueURL
from muster.registry import Registry

__all__ = ("default_url", "open_queue", "queue_folders")

_METHODS = tuple(name for name in vars(TaskQueue) if not name.startswith("_"))


def default_url(start: Path) -> str:
    """The queue of the project that the folder `start` belongs to."""
    return f"sqlite:{find_project(start).root / '.muster' / 'queue.db'}"


def queue_folders(start: Path) -> list[Path]:
    """The `.muster/queues` folders of the project, nearest first."""
    return find_project(start).find_all(".muster/queues")


def open_queue(
    url: str | QueueURL,
    *,
    start: Path | None = None,
    safe: bool = False,
    registry: Registry[Callable[..., Any]] = queues,
) -> TaskQueue:
    """The queue at `url`, to be closed with `aclose()`. Project files and relative paths are looked
    up from the folder `start`; `safe` runs none of the project's code.

    Raises:
        UnknownName: no kind of queue has the URL's scheme.
        UsageError: the URL is wrong.
        MusterError: what the queue itself says, or that it is none.
    """
    start = start or Path.cwd()
    if isinstance(url, str):
        url = QueueURL.parse(url, start)
    if not registry.is_builtin(url.scheme):
        registry = registry.for_project(queue_folders(start), safe=safe)
    factory = registry.get(url.scheme, search=start)
    try:
        made = factory(url)
    except MusterError:
        raise
    except Exception as error:
        raise CodeError(f"queue {url}: it cannot be made: {describe_failure(error)}") from error
    missing = [name for name in _METHODS if not callable(getattr(made, name, None))]
    if missing or isinstance(made, type):
        if inspect.iscoroutine(made):
            made.close()
        found = made.__name__ if isinstance(made, type) else type(made).__name__
        raise CodeError(
            f'queue {url}: the factory of "{url.scheme}" returned {found}, which is no queue: it '
            f"lacks {', '.join(missing) or 'an instance'}"
        )
    return cast(TaskQueue, made)
