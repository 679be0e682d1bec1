"""What every agent's log comes down to, and what is made of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from muster.errors import MusterError, UsageError
from muster.provider import TokenUsage

__all__ = (
    "Exchange",
    "Session",
    "answer_rows",
    "blocks_in",
    "case_rows",
    "events_in",
    "milliseconds",
    "read_lines",
    "text_in",
)


class Exchange(msgspec.Struct):
    """One prompt of a session and all that the agent did about it."""

    question: str
    asked_at: str | None = None
    ended_at: str | None = None
    messages: list[dict[str, Any]] = msgspec.field(default_factory=list)
    """The assistant's, with their tool calls and what came of these."""
    usage: TokenUsage | None = None
    model: str | None = None
    error: str | None = None

    @property
    def answer(self) -> str:
        """The text of the last message."""
        return str(self.messages[-1].get("content") or "") if self.messages else ""

    @property
    def is_answered(self) -> bool:
        """Whether the agent said or did anything."""
        return any(entry.get("content") or entry.get("tool_calls") for entry in self.messages)


class Session(msgspec.Struct):
    """A session: its prompts in order."""

    agent: str
    id: str
    path: Path
    cwd: str | None = None
    exchanges: list[Exchange] = msgspec.field(default_factory=list)

    def name(self, number: int) -> str:
        """The id of exchange `number`, from 0, as a test."""
        # The beginnings of some ids are the time: sessions of one minute would share them.
        return f"{self.agent}-{self.id[-8:].strip('-')}-{number + 1}"


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSONL file with the numbers of their lines; a torn last line is left out.

    Raises:
        MusterError: the file cannot be read, or a line in the middle is broken.
    """
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.isspace():
                    continue
                try:
                    row = msgspec.json.decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    if not line.endswith(b"\n"):
                        return
                    raise MusterError(f"{path}:{number}: not valid JSON: {error}") from None
                if isinstance(row, dict):
                    yield number, row
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None


def events_in(path: Path, holder: str) -> Iterator[tuple[str, dict[str, Any], str | None]]:
    """Type, data and time of each line of a log of events that have their data in `holder`.

    Raises:
        MusterError: as `read_lines`.
    """
    for _, row in read_lines(path):
        data, at = row.get(holder), row.get("timestamp")
        if isinstance(data, dict):
            yield str(row.get("type")), data, at if isinstance(at, str) else None


def text_in(content: object, *kinds: str) -> str:
    """The text of a message's content: a string, or the blocks of these kinds joined."""
    if isinstance(content, str):
        return content
    blocks = [block for block in blocks_in(content) if block.get("type") in kinds]
    return "\n".join(block["text"] for block in blocks if isinstance(block.get("text"), str))


def blocks_in(content: object) -> list[dict[str, Any]]:
    """The blocks of a message's content, whatever else stands there."""
    if not isinstance(content, list):
        return []
    return [block for block in content if isinstance(block, dict)]


def milliseconds(begin: str | None, end: str | None) -> float | None:
    """Between two times as logs write them; `None` when that cannot be told."""
    try:
        if begin is None or end is None:
            return None
        passed = (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()
    except (ValueError, TypeError):
        return None
    return round(passed * 1000, 3) if passed >= 0 else None


def case_rows(session: Session) -> Iterator[dict[str, Any]]:
    """A test for each prompt that was answered, after the conversation before it."""
    before: list[dict[str, str]] = []
    for number, exchange in enumerate(session.exchanges):
        asked = [*before, {"role": "user", "content": exchange.question}]
        if exchange.is_answered:
            yield {
                "id": session.name(number),
                "input": asked if before else exchange.question,
                "cluster": session.id,
                "conversation_id": session.id,
                "metadata": _about(session, exchange),
            }
        before = asked
        if exchange.answer:
            before = [*asked, {"role": "assistant", "content": exchange.answer}]


def answer_rows(session: Session) -> Iterator[dict[str, Any]]:
    """What `provider: replay` answers to these tests."""
    for number, exchange in enumerate(session.exchanges):
        if not exchange.is_answered:
            continue
        row: dict[str, Any] = {"id": session.name(number), "output": exchange.messages}
        known: Mapping[str, Any] = {
            "token_usage": exchange.usage and exchange.usage.to_dict(),
            "duration_ms": milliseconds(exchange.asked_at, exchange.ended_at),
            "model": exchange.model,
        }
        yield row | {name: value for name, value in known.items() if value is not None}


def _about(session: Session, exchange: Exchange) -> dict[str, Any]:
    about = {
        "agent": session.agent,
        "session": session.id,
        "cwd": session.cwd,
        "model": exchange.model,
        "asked_at": exchange.asked_at,
    }
    return {name: value for name, value in about.items() if value is not None}
