"""The shapes of Anthropic's answers and stream events, as far as they are read."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ("ANSWER", "EVENT", "Answer", "Delta", "Event", "Usage")


class Usage(msgspec.Struct):
    """Counts that exclude each other: read from a cache, written to one, and the rest."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class Answer(msgspec.Struct):
    """A message of the model's."""

    content: list[dict[str, Any]] | None = None
    stop_reason: str | None = None
    usage: Usage | None = None
    model: str | None = None
    id: str | None = None
    error: Any = None


class Delta(msgspec.Struct):
    """What a `content_block_delta` or a `message_delta` adds."""

    type: str | None = None
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    signature: str | None = None
    citation: Any = None
    stop_reason: str | None = None


class Event(msgspec.Struct):
    """An event of a stream."""

    type: str = ""
    index: int = 0
    delta: Delta | None = None
    content_block: dict[str, Any] | None = None
    message: Answer | None = None
    usage: Usage | None = None
    error: Any = None


ANSWER = msgspec.json.Decoder(Answer)
EVENT = msgspec.json.Decoder(Event)
