"""OpenAI's Chat Completions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from muster.provider import TokenUsage
from muster.testing.dialects.base import (
    MODEL,
    SSE,
    event,
    fields_of,
    finish_of,
    joined,
    list_of,
    number_of,
)
from muster.testing.script import Asked, Call, Reply

__all__ = ("Chat",)


class Chat:
    """OpenAI's Chat Completions."""

    name = "chat"
    stream_type = SSE

    def read(self, path: str, headers: Mapping[str, str], body: Any) -> Call:
        fields = fields_of(body)
        messages = [m for m in list_of(fields.get("messages")) if isinstance(m, Mapping)]
        said = [m.get("content") for m in sorted(messages, key=lambda m: m.get("role") != "system")]
        bound = number_of(fields.get("max_completion_tokens")) or number_of(
            fields.get("max_tokens")
        )
        return Call(
            dialect=self.name,
            path=path,
            headers=headers,
            body=body,
            stream=fields.get("stream") is True,
            text=joined(said),
            tools=tuple(
                str(tool["function"].get("name"))
                for tool in list_of(fields.get("tools"))
                if isinstance(tool, Mapping) and isinstance(tool.get("function"), Mapping)
            ),
            tool_results=tuple(
                (str(m.get("tool_call_id")), joined(m.get("content")))
                for m in messages
                if m.get("role") == "tool"
            ),
            max_output_tokens=number_of(bound),
            model=fields.get("model"),
        )

    def whole(self, call: Call, reply: Reply) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": reply.whole or None}
        if reply.asked:
            message["tool_calls"] = [self._call(asked) for asked in reply.asked]
        choice = {"index": 0, "message": message, "finish_reason": finish_of(reply, {})}
        body = {**self._head(call, reply, "chat.completion"), "choices": [choice]}
        if reply.usage is not None:
            body["usage"] = self._usage(reply.usage)
        return {**body, **reply.extra}

    def opening(self, call: Call, reply: Reply) -> list[str]:
        return [self._chunk(call, reply, {"role": "assistant", "content": ""})]

    def pieces(self, call: Call, reply: Reply) -> list[str]:
        told = iter(reply.interim) if self._wants_usage(call) else iter(())
        parts = reply.parts
        finishes = {len(parts) - 1: finish_of(reply, {})} if reply.ends_with_text else {}
        return [
            self._chunk(
                call, reply, {"content": piece}, usage=next(told, None), finish=finishes.get(at)
            )
            for at, piece in enumerate(parts)
        ]

    def closing(self, call: Call, reply: Reply) -> list[str]:
        events = []
        for index, asked in enumerate(reply.asked):
            whole = self._call(asked)
            arguments = whole["function"]["arguments"]
            middle = len(arguments) // 2
            head = {"name": asked.tool, "arguments": ""}
            first = {"index": index, "id": asked.id, "type": "function", "function": head}
            events.append(self._chunk(call, reply, {"tool_calls": [first]}))
            for part in (arguments[:middle], arguments[middle:]):
                more = {"index": index, "function": {"arguments": part}}
                events.append(self._chunk(call, reply, {"tool_calls": [more]}))
        if not reply.ends_with_text:
            events.append(self._chunk(call, reply, {}, finish=finish_of(reply, {})))
        if reply.usage is not None and self._wants_usage(call):
            head = self._head(call, reply, "chat.completion.chunk")
            events.append(event({**head, "choices": [], "usage": self._usage(reply.usage)}))
        return [*events, "data: [DONE]\n\n"]

    def error(self, message: str, code: str | None) -> dict[str, Any]:
        return {"error": {"message": message, "type": code or "api_error", "code": code}}

    def error_event(self, message: str) -> str:
        return event({"error": {"message": message, "type": "server_error", "code": 500}})

    def empty(self, call: Call) -> dict[str, Any]:
        return {**self._head(call, Reply(), "chat.completion"), "choices": []}

    def empty_events(self, call: Call) -> list[str]:
        head = self._head(call, Reply(), "chat.completion.chunk")
        return [event({**head, "choices": []}), "data: [DONE]\n\n"]

    def _wants_usage(self, call: Call) -> bool:
        """As the service itself does it: nobody gets the counts of a stream unasked."""
        return bool(fields_of(fields_of(call.body).get("stream_options")).get("include_usage"))

    def _head(self, call: Call, reply: Reply, kind: str) -> dict[str, Any]:
        model = reply.model or call.model or MODEL
        return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": model}

    def _chunk(
        self,
        call: Call,
        reply: Reply,
        delta: dict[str, Any],
        *,
        finish: str | None = None,
        usage: TokenUsage | None = None,
    ) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        row = {**self._head(call, reply, "chat.completion.chunk"), "choices": [choice]}
        if usage is not None:
            row["usage"] = self._usage(usage)
        return event(row)

    def _call(self, asked: Asked) -> dict[str, Any]:
        function = {"name": asked.tool, "arguments": json.dumps(asked.input)}
        return {"id": asked.id, "type": "function", "function": function}

    def _usage(self, usage: TokenUsage) -> dict[str, Any]:
        row: dict[str, Any] = {
            "prompt_tokens": usage.input,
            "completion_tokens": usage.output,
            "total_tokens": usage.total,
        }
        if usage.cached is not None:
            row["prompt_tokens_details"] = {"cached_tokens": usage.cached}
        if usage.reasoning is not None:
            row["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning}
        return row
