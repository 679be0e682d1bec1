"""The built-in queues keep the rules."""

from __future__ import annotations

from muster.queues.memory import MemoryQueue
from muster.queues.sqlite import SqliteQueue
from muster.testing.queue_contract import queue_contract

test_memory = queue_contract(
    lambda folder: MemoryQueue(), shared=False, small=lambda folder: MemoryQueue(depth=3)
)
test_sqlite = queue_contract(
    lambda folder: SqliteQueue(folder / "queue.db"),
    small=lambda folder: SqliteQueue(folder / "queue.db", depth=3),
)
