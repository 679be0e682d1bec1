"""Claude Code: `~/.claude/projects/<folder>/<session>.jsonl`.

A line is a block of a message: one answer of the model stands in several lines with one message id,
each with the usage of the whole answer, which is counted once. Results of tools come as messages of
the user. What subagents do (`isSidechain`), and what the program itself puts in (`isMeta`,
summaries), is left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from muster.errors import UsageError
from muster.evals.sessions.base import (
    Exchange,
    Session,
    blocks_in,
    milliseconds,
    read_lines,
    text_in,
)
from muster.provider import TokenUsage

__all__ = ("read_claude",)

_COMMANDS = ("<command-name>", "<command-message>", "<local-command-", "Caveat: The messages below")
"""How lines begin that a slash command has left."""


def read_claude(path: Path) -> Session:
    """The session in the file at `path`.

    Raises:
        MusterError: it cannot be read, or is no session of Claude Code.
    """
    reader = _Reader(path)
    for _, row in read_lines(path):
        reader.add(row)
    if not reader.known:
        raise UsageError(
            f"{path}: no session of Claude Code: no line has a message and a sessionId"
        )
    reader.end_exchange()
    return reader.session


class _Reader:
    def __init__(self, path: Path) -> None:
        self.session = Session("claude", path.stem, path)
        self.known = False
        self._messages: dict[str, dict[str, Any]] = {}
        """By the model's id of the answer."""
        self._usages: dict[str, TokenUsage] = {}
        self._calls: dict[str, dict[str, Any]] = {}

    def add(self, row: dict[str, Any]) -> None:
        message = row.get("message")
        if row.get("type") not in ("user", "assistant") or not isinstance(message, dict):
            return
        if not isinstance(row.get("sessionId"), str):
            return
        self.known = True
        if row.get("isSidechain") or row.get("isMeta") or row.get("isCompactSummary"):
            return
        self.session.id = row["sessionId"]
        if self.session.cwd is None and isinstance(row.get("cwd"), str):
            self.session.cwd = row["cwd"]
        at = row.get("timestamp") if isinstance(row.get("timestamp"), str) else None
        if row["type"] == "user":
            self._add_user(message.get("content"), at)
        elif self.session.exchanges:
            self._add_assistant(row, message, at)

    def _add_user(self, content: object, at: str | None) -> None:
        for block in blocks_in(content):
            if block.get("type") == "tool_result":
                self._end_call(block, at)
        text = text_in(content, "text")
        if text.strip() and not text.lstrip().startswith(_COMMANDS):
            self.end_exchange()
            self.session.exchanges.append(Exchange(text, asked_at=at))

    def _add_assistant(self, row: dict[str, Any], message: dict[str, Any], at: str | None) -> None:
        exchange = self.session.exchanges[-1]
        text = text_in(message.get("content"), "text")
        if row.get("isApiErrorMessage"):
            exchange.error = text
            return
        key = str(message.get("id") or row.get("uuid"))
        entry = self._messages.get(key)
        if entry is None:
            entry = self._messages[key] = {"role": "assistant", "content": ""}
            exchange.messages.append(entry)
        entry["content"] = "\n".join(part for part in (entry["content"], text) if part)
        for block in blocks_in(message.get("content")):
            if block.get("type") == "tool_use":
                self._begin_call(entry, block, at)
        usage = _usage_of(message.get("usage"))
        if usage is not None:
            self._usages[key] = usage
            entry["token_usage"] = usage.to_dict()
        if isinstance(message.get("model"), str):
            exchange.model = message["model"]
        exchange.ended_at = at or exchange.ended_at

    def _begin_call(self, entry: dict[str, Any], block: dict[str, Any], at: str | None) -> None:
        call: dict[str, Any] = {"tool": str(block.get("name")), "input": block.get("input", {})}
        if isinstance(block.get("id"), str):
            call["id"] = block["id"]
            self._calls[block["id"]] = call
        if at is not None:
            call["start_time"] = at
        entry.setdefault("tool_calls", []).append(call)

    def _end_call(self, block: dict[str, Any], at: str | None) -> None:
        call = self._calls.get(str(block.get("tool_use_id")))
        if call is None:
            return
        content = block.get("content")
        call["output"] = text_in(content, "text") if isinstance(content, list) else content
        call["status"] = "error" if block.get("is_error") else "ok"
        took = milliseconds(call.get("start_time"), at)
        if took is not None:
            call |= {"end_time": at, "duration_ms": took}

    def end_exchange(self) -> None:
        """The next prompt comes, or none."""
        if self.session.exchanges and self._usages:
            total = TokenUsage()
            for usage in self._usages.values():
                total += usage
            self.session.exchanges[-1].usage = total
        self._usages = {}


def _usage_of(usage: object) -> TokenUsage | None:
    """Counts as everywhere here: what was read from a cache, or written to one, is input too."""
    if not isinstance(usage, dict):
        return None
    counts = {
        name: usage.get(name) or 0
        for name in ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens",
                     "output_tokens")
    }  # fmt: skip
    if not all(type(count) is int and count >= 0 for count in counts.values()):
        return None
    read = counts["cache_read_input_tokens"]
    given = counts["input_tokens"] + counts["cache_creation_input_tokens"] + read
    return TokenUsage(given, counts["output_tokens"], cached=read)
