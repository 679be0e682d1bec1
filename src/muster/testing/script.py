"""What the environment's server says to a call: an answer, or a fault.

A script is a function of the call, run for each one that comes:

    environment.script = lambda call: Reply(f"You said {call.text}")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, TypeAlias

from muster.provider import TokenUsage

__all__ = (
    "Answer",
    "Asked",
    "Body",
    "Call",
    "Cut",
    "Empty",
    "EndEarly",
    "Endless",
    "ErrorEvent",
    "Reply",
    "Reset",
    "Script",
    "Stall",
    "Status",
    "always",
)


SOME = TokenUsage(20, 5)
"""What an answer costs when nothing else is said."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call that reached the server, as it came and as it is understood."""

    dialect: str
    """`chat`, `responses`, `messages`, `plain` for any other path; or an author's own."""
    path: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: Any
    """The decoded JSON; the text itself when it is none."""
    stream: bool
    """The answer is wanted as server-sent events."""
    text: str
    """Every piece of text in the conversation, in its order, the system prompt first."""
    tools: tuple[str, ...] = ()
    """Names of the tools that the model is offered."""
    tool_results: tuple[tuple[str, str], ...] = ()
    """Id and text of each result of a tool, in the order in which they came."""
    max_output_tokens: int | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A tool call that the model makes."""

    tool: str
    input: Mapping[str, Any]
    id: str


@dataclass(frozen=True, slots=True)
class Reply:
    """A good answer."""

    text: str = ""
    _: KW_ONLY
    pieces: tuple[str, ...] = ()
    """The text as a stream brings it; without, one piece for each word."""
    asked: tuple[Asked, ...] = ()
    usage: TokenUsage | None = SOME
    interim: tuple[TokenUsage, ...] = ()
    """Counts that a stream reports on its way, growing."""
    finish: str | None = None
    model: str | None = None
    cost_usd: float | None = None
    """For plain services, which may say what they charge."""
    delay: float = 0.0
    """Seconds before the answer."""
    ends_with_text: bool = False
    """A stream's last piece of text and its finish reason come in one event, where the dialect's
    services do so."""
    torn: bool = False
    """A stream's bytes are cut amid characters and lines."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the answer's JSON that nobody asked for."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The pieces of the text."""
        if self.pieces or not self.text:
            return self.pieces
        words = self.text.split(" ")
        return (*(f"{word} " for word in words[:-1]), words[-1])

    @property
    def whole(self) -> str:
        """The text in one piece."""
        return self.text or "".join(self.pieces)


@dataclass(frozen=True, slots=True)
class Status:
    """A refusal; `code` and `message` stand in its body as the dialect writes them."""

    status: int
    message: str = "the environment refuses"
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Body:
    """Status 200 with a body that is no answer."""

    data: bytes
    content_type: str = "application/json"
    as_event: bool = False
    """In a stream: it is the data of one event, after the first half of the answer."""


@dataclass(frozen=True, slots=True)
class Reset:
    """The connection is reset as soon as the request was read."""


@dataclass(frozen=True, slots=True)
class Stall:
    """Nothing comes any more: at once, or in a stream after its first half."""

    amid: bool = False


@dataclass(frozen=True, slots=True)
class Cut:
    """The connection closes after half of the answer, which HTTP can see."""


@dataclass(frozen=True, slots=True)
class EndEarly:
    """A stream's body ends well as HTTP, but after half of the answer. Whole answers: the half of
    a JSON, with the length that it has."""


@dataclass(frozen=True, slots=True)
class ErrorEvent:
    """Half of a stream, and then an event which says that the server has failed. In one piece:
    status 200, and an error object for a body."""

    message: str = "the environment is overloaded"


@dataclass(frozen=True, slots=True)
class Endless:
    """An answer that grows to `size` bytes."""

    size: int


@dataclass(frozen=True, slots=True)
class Empty:
    """An answer in the right form which holds no choice, no output, no content."""


Answer: TypeAlias = (
    Reply | Status | Body | Reset | Stall | Cut | EndEarly | ErrorEvent | Endless | Empty
)
Script: TypeAlias = Callable[[Call], Answer]


def always(answer: Answer) -> Script:
    """The script that gives every call the same answer."""
    return lambda call: answer
