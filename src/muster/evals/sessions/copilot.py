"""GitHub Copilot CLI: `~/.copilot/session-state/<session>/events.jsonl`.

Each line is an event with its `data`. Events of subagents name the call that started them, and are
left out. Tokens are told of each request; older versions tell those of the input once, at the end
of a session: then only one of a single prompt has usage.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from muster.errors import UsageError
from muster.evals.sessions.base import Exchange, Session, blocks_in, events_in, milliseconds
from muster.provider import TokenUsage

__all__ = ("read_copilot",)


def read_copilot(path: Path) -> Session:
    """The session in the file at `path`.

    Raises:
        MusterError: it cannot be read, or is no session of Copilot.
    """
    reader = _Reader(path)
    for kind, data, at in events_in(path, "data"):
        reader.add(kind, data, at)
    if not reader.known:
        raise UsageError(f"{path}: no session of Copilot: no event is a user.message")
    return reader.session


class _Reader:
    def __init__(self, path: Path) -> None:
        name = path.parent.name if path.name == "events.jsonl" else path.stem
        self.session = Session("copilot", name, path)
        self.known = False
        self._model: str | None = None
        self._calls: dict[str, dict[str, Any]] = {}
        self._told = False
        """Each request says what it took."""

    def add(self, kind: str, data: dict[str, Any], at: str | None) -> None:
        if data.get("parentToolCallId"):
            return
        exchange = self.session.exchanges[-1] if self.session.exchanges else None
        if kind == "session.start":
            self.session.id = str(data.get("sessionId") or self.session.id)
            context = data.get("context")
            if isinstance(context, dict) and isinstance(context.get("cwd"), str):
                self.session.cwd = context["cwd"]
        elif kind == "session.model_change" and isinstance(data.get("newModel"), str):
            self._model = data["newModel"]
        elif kind == "user.message" and isinstance(data.get("content"), str):
            self.known = True
            asked = Exchange(data["content"], asked_at=at, model=self._model)
            self.session.exchanges.append(asked)
        elif exchange is None:
            return
        elif kind == "assistant.message":
            self._add_message(exchange, data, at)
        elif kind == "tool.execution_start":
            self._call(exchange, data, at)
        elif kind == "tool.execution_complete":
            self._end_call(data, at)
            exchange.ended_at = at or exchange.ended_at
        elif kind == "session.usage_record":
            self._told = True
            used = _counts_of(data.get("usage"))
            exchange.usage = None if used is None else used + exchange.usage
        elif kind == "session.shutdown" and len(self.session.exchanges) == 1 and not self._told:
            exchange.usage = _usage_of(data.get("modelMetrics"))

    def _add_message(self, exchange: Exchange, data: dict[str, Any], at: str | None) -> None:
        content = data.get("content")
        message = {"role": "assistant", "content": content if isinstance(content, str) else ""}
        exchange.messages.append(message)
        exchange.ended_at = at or exchange.ended_at
        exchange.model = data["model"] if isinstance(data.get("model"), str) else self._model
        for request in blocks_in(data.get("toolRequests")):
            named = {"toolCallId": request.get("toolCallId"), "toolName": request.get("name")}
            self._call(exchange, {**named, "arguments": request.get("arguments")}, None)

    def _call(self, exchange: Exchange, data: dict[str, Any], at: str | None) -> None:
        """A call that was asked for, or has begun: told twice, it is one call."""
        key = str(data.get("toolCallId"))
        call = self._calls.get(key)
        if call is None:
            call = {"tool": str(data.get("toolName")), "input": data.get("arguments") or {}}
            self._calls[key] = call | {"id": key}
            call = self._calls[key]
            if not exchange.messages:
                exchange.messages.append({"role": "assistant", "content": ""})
            exchange.messages[-1].setdefault("tool_calls", []).append(call)
        if at is not None:
            call["start_time"] = at

    def _end_call(self, data: dict[str, Any], at: str | None) -> None:
        call = self._calls.get(str(data.get("toolCallId")))
        if call is None:
            return
        result, error = data.get("result"), data.get("error")
        if isinstance(result, dict):
            call["output"] = result.get("content")
        elif isinstance(error, dict):
            call["output"] = error.get("message")
        if isinstance(data.get("success"), bool):
            call["status"] = "ok" if data["success"] else "error"
        took = milliseconds(call.get("start_time"), at)
        if took is not None:
            call |= {"end_time": at, "duration_ms": took}


def _usage_of(metrics: object) -> TokenUsage | None:
    """The sum over the models of a session; `None` unless each says it."""
    total: TokenUsage | None = None
    for metric in metrics.values() if isinstance(metrics, dict) else ():
        used = _counts_of(metric.get("usage") if isinstance(metric, dict) else None)
        if used is None:
            return None
        total = used + total
    return total


def _counts_of(usage: object) -> TokenUsage | None:
    if not isinstance(usage, dict):
        return None
    try:
        return TokenUsage.from_mapping(
            {
                "input": usage["inputTokens"],
                "output": usage["outputTokens"],
                "cached": usage.get("cacheReadTokens"),
            }
        )
    except (KeyError, ValueError):
        return None
