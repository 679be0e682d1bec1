"""Queues of tasks, and the table that holds the kinds of queue by the scheme of their URL.

from muster.queues import queues
from muster.queues.opening import open_queue
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from muster.registry import Registry

__all__ = ("queues",)

queues: Registry[Callable[..., Any]] = Registry(
    "queue",
    builtins={
        "memory": "muster.queues.memory:MemoryQueue.of",
        "sqlite": "muster.queues.sqlite:SqliteQueue.of",
    },
)
"""Factories by scheme: they take a `muster.queues.url.QueueURL` and return a `TaskQueue`."""
