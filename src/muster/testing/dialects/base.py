"""What the dialects have in common, and how JSON is taken apart for them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from muster.testing.script import Call, Reply

__all__ = (
    "MODEL",
    "MODEL_APIS",
    "SSE",
    "Dialect",
    "Shape",
    "event",
    "fields_of",
    "finish_of",
    "joined",
    "list_of",
    "named_event",
    "number_of",
    "texts_in",
)

MODEL = "environment-1"
SSE = "text/event-stream"
MODEL_APIS = frozenset({"chat", "responses", "messages"})
"""The names of the dialects whose services are known: what they take and what they charge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Where a plain answer holds what: paths of names and indexes, `result.items[0].text`."""

    text: str = "text"
    input: str = "token_usage.input"
    output: str = "token_usage.output"
    cached: str = "token_usage.cached"
    reasoning: str = "token_usage.reasoning"
    cost: str = "cost_usd"
    model: str = "model"
    finish: str = "finish_reason"
    error: str = "error"
    delta: str = "text"
    """In the events of a stream."""
    done: str = "[DONE]"
    """The data of a stream's last event."""


class Dialect(Protocol):
    """One language. An event is text as it goes over the wire, its end included, so that it need
    not be a server-sent one."""

    name: str
    stream_type: str
    """The content type of streams."""

    def read(self, path: str, headers: Mapping[str, str], body: Any) -> Call:
        """The call, understood."""
        ...

    def whole(self, call: Call, reply: Reply) -> dict[str, Any]:
        """The answer in one piece."""
        ...

    def opening(self, call: Call, reply: Reply) -> list[str]:
        """The events before the first text."""
        ...

    def pieces(self, call: Call, reply: Reply) -> list[str]:
        """One event for each piece of text."""
        ...

    def closing(self, call: Call, reply: Reply) -> list[str]:
        """The events after the last text."""
        ...

    def error(self, message: str, code: str | None) -> dict[str, Any]:
        """The body of a refusal."""
        ...

    def error_event(self, message: str) -> str:
        """The event of a failure amid a stream."""
        ...

    def empty(self, call: Call) -> dict[str, Any]:
        """An answer that holds nothing."""
        ...

    def empty_events(self, call: Call) -> list[str]:
        """A stream that holds nothing, and ends as it should."""
        ...


def texts_in(value: Any) -> Iterator[str]:
    """Every string within a JSON value, in its order; not the names of fields."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from texts_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts_in(item)


def event(value: Any) -> str:
    """`value` as a server-sent event."""
    return "data: " + json.dumps(value, ensure_ascii=False) + "\n\n"


def named_event(value: dict[str, Any]) -> str:
    return f"event: {value['type']}\n{event(value)}"


def fields_of(body: Any) -> Mapping[str, Any]:
    return body if isinstance(body, Mapping) else {}


def list_of(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def number_of(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def joined(value: Any) -> str:
    return "\n".join(texts_in(value))


def finish_of(reply: Reply, words: Mapping[str, str]) -> str:
    """Why the answer ended, in the service's own `words` for `stop`, `length`, `tool_calls`."""
    finish = reply.finish or ("tool_calls" if reply.asked else "stop")
    return words.get(finish, finish)
