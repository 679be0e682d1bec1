"""From a case's messages to the request a provider gets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from muster.evals.case import Case
from muster.provider import ImagePart, Message, ProviderRequest

__all__ = ("history_after", "make_request", "shown_input")


def make_request(
    case: Case, messages: Sequence[Message], repeat: int, *, cwd: Path | None = None
) -> ProviderRequest:
    """The request that asks the last user message of `messages`.

    Leading system messages become the system prompt; what lies between is the history.
    """
    first = 0
    while first < len(messages) and messages[first].role == "system":
        first += 1
    system = "\n\n".join(message.text for message in messages[:first]) if first else None
    last = len(messages)
    question = ""
    images: tuple[ImagePart, ...] = ()
    if last > first and messages[-1].role == "user":
        last -= 1
        asked = messages[last]
        question = asked.text
        if isinstance(asked.content, tuple):
            images = tuple(part for part in asked.content if isinstance(part, ImagePart))
    return ProviderRequest(
        question=question,
        system_prompt=system,
        messages=tuple(messages[first:last]),
        input_files=case.input_files,
        images=images,
        eval_case_id=case.id,
        cwd=cwd,
        response_schema=case.response_schema,
        metadata={"suite": case.suite, "repeat": str(repeat)},
    )


def history_after(history: tuple[Message, ...], window: int | None) -> tuple[Message, ...]:
    """The messages that the next turn is shown: the leading system messages and, with a window,
    the last `window` exchanges, beginning with a user message."""
    if window is None:
        return history
    first = 0
    while first < len(history) and history[first].role == "system":
        first += 1
    tail = history[first:]
    asked = [index for index, message in enumerate(tail) if message.role == "user"]
    start = asked[-window] if len(asked) > window else 0
    return history[:first] + tail[start:]


def shown_input(messages: Sequence[Message]) -> object:
    """What a result shows as its input: the question alone, or all messages."""
    if len(messages) == 1 and messages[0].role == "user":
        content = messages[0].content
        if isinstance(content, str):
            return content
    return [message.to_dict() for message in messages]
