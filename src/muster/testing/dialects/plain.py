"""One JSON object, in the shape that the target under test reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qs, urlsplit

from muster.testing.dialects.base import (
    SSE,
    Shape,
    event,
    fields_of,
    finish_of,
    joined,
    number_of,
)
from muster.testing.script import Call, Reply

__all__ = ("Plain",)


class Plain:
    """One JSON object, in the shape that the target under test reads."""

    name = "plain"
    stream_type = SSE

    def __init__(self, shape: Shape | None = None) -> None:
        self.shape = shape or Shape()

    def read(self, path: str, headers: Mapping[str, str], body: Any) -> Call:
        fields = fields_of(body)
        query = parse_qs(urlsplit(path).query, keep_blank_values=True)
        accepts = headers.get("accept", "")
        return Call(
            dialect=self.name,
            path=path,
            headers=headers,
            body=body,
            stream=fields.get("stream") is True or "text/event-stream" in accepts,
            text=joined([query, body]),
            max_output_tokens=next(
                (
                    count
                    for name in ("max_output_tokens", "max_tokens")
                    if (count := number_of(fields.get(name))) is not None
                ),
                None,
            ),
            model=fields.get("model") if isinstance(fields.get("model"), str) else None,
        )

    def whole(self, call: Call, reply: Reply) -> dict[str, Any]:
        body: dict[str, Any] = {}
        _put(body, self.shape.text, reply.whole)
        return {**self._account(body, call, reply), **reply.extra}

    def opening(self, call: Call, reply: Reply) -> list[str]:
        return []

    def pieces(self, call: Call, reply: Reply) -> list[str]:
        events: list[dict[str, Any]] = []
        for piece in reply.parts:
            row: dict[str, Any] = {}
            _put(row, self.shape.delta, piece)
            events.append(row)
        if reply.ends_with_text and events:
            self._account(events[-1], call, reply)
        return [event(row) for row in events]

    def closing(self, call: Call, reply: Reply) -> list[str]:
        account = [] if reply.ends_with_text else [event(self._account({}, call, reply))]
        return [*account, f"data: {self.shape.done}\n\n"]

    def error(self, message: str, code: str | None) -> dict[str, Any]:
        body: dict[str, Any] = {}
        _put(body, self.shape.error, {"message": message, "code": code or "api_error"})
        return body

    def error_event(self, message: str) -> str:
        return event(self.error(message, "server_error"))

    def empty(self, call: Call) -> dict[str, Any]:
        return {}

    def empty_events(self, call: Call) -> list[str]:
        return [event({}), f"data: {self.shape.done}\n\n"]

    def _account(self, body: dict[str, Any], call: Call, reply: Reply) -> dict[str, Any]:
        shape, usage = self.shape, reply.usage
        values: list[tuple[str, Any]] = [(shape.finish, finish_of(reply, {}))]
        model = reply.model or call.model
        values.append((shape.model, model))
        values.append((shape.cost, reply.cost_usd))
        if usage is not None:
            values += [
                (shape.input, usage.input),
                (shape.output, usage.output),
                (shape.cached, usage.cached),
                (shape.reasoning, usage.reasoning),
            ]
        for path, value in values:
            if value is not None:
                _put(body, path, value)
        return body


def _put(body: dict[str, Any], path: str, value: Any) -> None:
    """Put `value` where `path` finds it; what is on the way is made."""
    steps: list[str | int] = [
        int(index) if index else name for name, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", path)
    ]
    here: Any = body
    for step, after in pairwise(steps):
        fresh: Any = [] if isinstance(after, int) else {}
        here = _step(here, step, fresh)
    _step(here, steps[-1], value, replace=True)


def _step(here: Any, step: str | int, value: Any, *, replace: bool = False) -> Any:
    if isinstance(step, int):
        while len(here) <= step:
            here.append(None)
        if replace or here[step] is None:
            here[step] = value
        return here[step]
    if replace or step not in here:
        here[step] = value
    return here[step]
