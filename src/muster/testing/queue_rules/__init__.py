"""The rules of queues, in the order in which they are told."""

from __future__ import annotations

from muster.testing.queue_bench import QueueRule, rules_of
from muster.testing.queue_rules import leases, passing, waiting

__all__ = ("QUEUE_RULES",)

QUEUE_RULES: tuple[QueueRule, ...] = rules_of(passing, leases, waiting)
