"""Answers that cost more than is known: those of a team of which some agents tell no cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from muster.provider import Message

__all__ = ("CALLS_WITHOUT_COST", "lacks_cost")

CALLS_WITHOUT_COST = "calls_without_cost"
"""In the metadata of a message: how many calls are not in the cost of the answer."""


def lacks_cost(messages: Iterable[Message | Mapping[str, Any]]) -> bool:
    """Whether the cost beside these messages is that of a part of the calls only."""
    return any(
        CALLS_WITHOUT_COST in (metadata or ())
        for message in messages
        for metadata in (
            message.metadata if isinstance(message, Message) else message.get("metadata"),
        )
    )
