"""OpenAI's Responses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from muster.provider import TokenUsage
from muster.testing.dialects.base import (
    MODEL,
    SSE,
    fields_of,
    joined,
    list_of,
    named_event,
    number_of,
)
from muster.testing.script import Asked, Call, Reply

__all__ = ("Responses",)


class Responses:
    """OpenAI's Responses."""

    name = "responses"
    stream_type = SSE

    def read(self, path: str, headers: Mapping[str, str], body: Any) -> Call:
        fields = fields_of(body)
        items = fields.get("input")
        said = [items] if isinstance(items, str) else list_of(items)
        results = [
            item
            for item in said
            if isinstance(item, Mapping) and item.get("type") == "function_call_output"
        ]
        spoken = [item.get("content") if isinstance(item, Mapping) else item for item in said]
        return Call(
            dialect=self.name,
            path=path,
            headers=headers,
            body=body,
            stream=fields.get("stream") is True,
            text=joined([fields.get("instructions"), spoken, [r.get("output") for r in results]]),
            tools=tuple(
                str(tool.get("name"))
                for tool in list_of(fields.get("tools"))
                if isinstance(tool, Mapping)
            ),
            tool_results=tuple((str(r.get("call_id")), joined(r.get("output"))) for r in results),
            max_output_tokens=number_of(fields.get("max_output_tokens")),
            model=fields.get("model"),
        )

    def whole(self, call: Call, reply: Reply) -> dict[str, Any]:
        items: list[dict[str, Any]] = []
        if reply.whole:
            items.append(self._message(reply.whole))
        items += [self._call(number, asked) for number, asked in enumerate(reply.asked)]
        cut = reply.finish == "length"
        body: dict[str, Any] = {
            "id": "resp_1",
            "object": "response",
            "status": "incomplete" if cut else "completed",
            "model": reply.model or call.model or MODEL,
            "output": items,
        }
        if cut:
            body["incomplete_details"] = {"reason": "max_output_tokens"}
        if reply.usage is not None:
            body["usage"] = self._usage(reply.usage)
        return {**body, **reply.extra}

    def opening(self, call: Call, reply: Reply) -> list[str]:
        begun: dict[str, Any] = {
            "id": "resp_1",
            "status": "in_progress",
            "output": [],
            "model": call.model,
        }
        item = {"id": "msg_1", "type": "message", "role": "assistant", "content": []}
        return [
            named_event({"type": "response.created", "response": begun}),
            named_event({"type": "response.output_item.added", "output_index": 0, "item": item}),
        ]

    def pieces(self, call: Call, reply: Reply) -> list[str]:
        return [
            named_event({"type": "response.output_text.delta", "item_id": "msg_1", "delta": piece})
            for piece in reply.parts
        ]

    def closing(self, call: Call, reply: Reply) -> list[str]:
        answer = self.whole(call, reply)
        events = [
            named_event({"type": "response.output_item.done", "output_index": index, "item": item})
            for index, item in enumerate(answer["output"])
        ]
        return [*events, named_event({"type": f"response.{answer['status']}", "response": answer})]

    def error(self, message: str, code: str | None) -> dict[str, Any]:
        return {"error": {"message": message, "type": code or "api_error", "code": code}}

    def error_event(self, message: str) -> str:
        return named_event({"type": "error", "code": "server_error", "message": message})

    def empty(self, call: Call) -> dict[str, Any]:
        return {**self.whole(call, Reply(usage=None)), "output": []}

    def empty_events(self, call: Call) -> list[str]:
        return [named_event({"type": "response.completed", "response": self.empty(call)})]

    def _message(self, text: str) -> dict[str, Any]:
        part = {"type": "output_text", "text": text, "annotations": []}
        return {"id": "msg_1", "type": "message", "role": "assistant", "content": [part]}

    def _call(self, number: int, asked: Asked) -> dict[str, Any]:
        return {
            "id": f"fc_{number}",
            "type": "function_call",
            "call_id": asked.id,
            "name": asked.tool,
            "arguments": json.dumps(asked.input),
        }

    def _usage(self, usage: TokenUsage) -> dict[str, Any]:
        row: dict[str, Any] = {
            "input_tokens": usage.input,
            "output_tokens": usage.output,
            "total_tokens": usage.total,
        }
        if usage.cached is not None:
            row["input_tokens_details"] = {"cached_tokens": usage.cached}
        if usage.reasoning is not None:
            row["output_tokens_details"] = {"reasoning_tokens": usage.reasoning}
        return row
