"""The shapes of Chat Completions' answers and stream chunks, as far as they are read."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ("COMPLETION", "Call", "Choice", "Completion", "Function", "Said", "Usage")


class Details(msgspec.Struct, gc=False):
    """Tokens that are part of a count."""

    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class Usage(msgspec.Struct):
    """Inclusive counts."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: Details | None = None
    completion_tokens_details: Details | None = None
    prompt_cache_hit_tokens: int | None = None  # DeepSeek's name
    cost: Any = None  # OpenRouter's, in USD


class Function(msgspec.Struct):
    """What a call calls; a stream sends the arguments in pieces."""

    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class Call(msgspec.Struct):
    """A tool call, or a piece of one."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None
    extra_content: Any = None  # Gemini's signed thoughts


class Said(msgspec.Struct):
    """A whole message, or a stream's delta of one."""

    content: str | list[Any] | None = None
    tool_calls: list[Call] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None


class Choice(msgspec.Struct):
    """One of the alternatives; only the first is used."""

    message: Said | None = None
    delta: Said | None = None
    finish_reason: str | None = None
    index: int | None = 0
    error: Any = None


class Completion(msgspec.Struct):
    """A whole answer, or a stream's chunk of one."""

    choices: list[Choice] | None = None
    usage: Usage | None = None
    model: str | None = None
    id: Any = None
    error: Any = None


COMPLETION = msgspec.json.Decoder(Completion)
