"""Codex: `~/.codex/sessions/<year>/<month>/<day>/rollout-*.jsonl`.

The conversation is in the `response_item` lines. Prompts are messages of the user that the program
has not put in itself. Tokens are told as sums over the session: an exchange has what they grew by.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from muster.errors import UsageError
from muster.evals.sessions.base import Exchange, Session, events_in, milliseconds, text_in
from muster.provider import TokenUsage

__all__ = ("read_codex",)

_PUT_IN = (
    "<environment_context>", "<user_instructions>", "<permissions instructions>", "<INSTRUCTIONS>",
    "# AGENTS.md instructions", "<skills_instructions>", "<turn_aborted>", "<user_shell_command>",
)  # fmt: skip
"""How messages of the user begin that the program itself has written."""

_EXIT = re.compile(r"^Process exited with code (\d+)$", re.MULTILINE)


def read_codex(path: Path) -> Session:
    """The session in the file at `path`.

    Raises:
        MusterError: it cannot be read, or is no session of Codex.
    """
    reader = _Reader(path)
    for kind, payload, at in events_in(path, "payload"):
        reader.add(kind, payload, at)
    if not reader.known:
        raise UsageError(f"{path}: no session of Codex: no line has the type session_meta")
    reader.end_exchange()
    return reader.session


class _Reader:
    def __init__(self, path: Path) -> None:
        self.session = Session("codex", path.stem, path)
        self.known = False
        self._model: str | None = None
        self._calls: dict[str, dict[str, Any]] = {}
        self._total: dict[str, int] | None = None
        self._before: dict[str, int] | None = {}
        """The sums when the exchange began; `None`: not known."""

    def add(self, kind: str, payload: dict[str, Any], at: str | None) -> None:
        if kind == "session_meta":
            self.known = True
            self.session.id = str(payload.get("id") or self.session.id)
            if isinstance(payload.get("cwd"), str):
                self.session.cwd = payload["cwd"]
        elif kind == "turn_context" and isinstance(payload.get("model"), str):
            self._model = payload["model"]
        elif kind == "event_msg" and payload.get("type") == "token_count":
            info = payload.get("info")
            if isinstance(info, dict) and (sums := _counts(info.get("total_token_usage"))):
                self._total = sums
        elif kind == "response_item":
            self._add_item(payload, at)

    def _add_item(self, item: dict[str, Any], at: str | None) -> None:
        kind = item.get("type")
        if kind == "message" and item.get("role") == "user":
            text = text_in(item.get("content"), "input_text", "text")
            if text.strip() and not _is_put_in(item, text):
                self.end_exchange()
                self.session.exchanges.append(Exchange(text, asked_at=at, model=self._model))
            return
        if not self.session.exchanges:
            return
        exchange = self.session.exchanges[-1]
        if kind == "message" and item.get("role") == "assistant":
            text = text_in(item.get("content"), "output_text", "text")
            exchange.messages.append({"role": "assistant", "content": text})
        elif kind in ("function_call", "custom_tool_call", "local_shell_call"):
            self._begin_call(exchange, item, at)
        elif kind in ("function_call_output", "custom_tool_call_output"):
            self._end_call(item, at)
        else:
            return
        exchange.model = self._model
        exchange.ended_at = at or exchange.ended_at

    def _begin_call(self, exchange: Exchange, item: dict[str, Any], at: str | None) -> None:
        given = item.get("arguments", item.get("input", item.get("action", {})))
        if isinstance(given, str) and item.get("type") == "function_call":
            with suppress(ValueError):  # what is no JSON stays as the model wrote it
                given = json.loads(given)
        call: dict[str, Any] = {"tool": str(item.get("name") or "local_shell"), "input": given}
        if isinstance(item.get("call_id"), str):
            call["id"] = item["call_id"]
            self._calls[item["call_id"]] = call
        if at is not None:
            call["start_time"] = at
        last = exchange.messages[-1] if exchange.messages else None
        if last is None or any("output" in other for other in last.get("tool_calls", ())):
            last = {"role": "assistant", "content": ""}
            exchange.messages.append(last)
        last.setdefault("tool_calls", []).append(call)

    def _end_call(self, item: dict[str, Any], at: str | None) -> None:
        call = self._calls.get(str(item.get("call_id")))
        if call is None:
            return
        output = item.get("output")
        call["output"] = (
            text_in(output, "input_text", "text") if isinstance(output, list) else output
        )
        code = _EXIT.search(output) if isinstance(output, str) else None
        if code is not None:
            call["status"] = "ok" if int(code[1]) == 0 else "error"
        took = milliseconds(call.get("start_time"), at)
        if took is not None:
            call |= {"end_time": at, "duration_ms": took}

    def end_exchange(self) -> None:
        """The next prompt comes, or none."""
        if self.session.exchanges and self._total is not None and self._before is not None:
            grown = {name: count - self._before.get(name, 0) for name, count in self._total.items()}
            if all(count >= 0 for count in grown.values()) and any(grown.values()):
                self.session.exchanges[-1].usage = TokenUsage.from_mapping(grown)
        self._before = dict(self._total) if self._total is not None else {}


def _is_put_in(item: dict[str, Any], text: str) -> bool:
    """Whether the program has written a message of the user; newer versions say so."""
    about = item.get("internal_chat_message_metadata_passthrough")
    kinds = about.get("content_item_kinds") if isinstance(about, dict) else None
    if isinstance(kinds, list) and kinds:
        return not any(str(kind).startswith("user.") for kind in kinds)
    return text.lstrip().startswith(_PUT_IN)


def _counts(usage: object) -> dict[str, int] | None:
    """Sums in our words; they are inclusive there, too."""
    if not isinstance(usage, dict):
        return None
    named = {
        "input": usage.get("input_tokens"),
        "output": usage.get("output_tokens"),
        "cached": usage.get("cached_input_tokens"),
        "reasoning": usage.get("reasoning_output_tokens"),
    }
    counts = {name: count for name, count in named.items() if type(count) is int and count >= 0}
    return counts if {"input", "output"} <= counts.keys() else None
