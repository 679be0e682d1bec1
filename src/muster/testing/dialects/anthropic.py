"""Anthropic's Messages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from muster.provider import TokenUsage
from muster.testing.dialects.base import (
    MODEL,
    SSE,
    fields_of,
    finish_of,
    joined,
    list_of,
    named_event,
    number_of,
)
from muster.testing.script import Asked, Call, Reply

__all__ = ("Messages",)


class Messages:
    """Anthropic's Messages."""

    name = "messages"
    stream_type = SSE
    finishes: Mapping[str, str] = {
        "stop": "end_turn",
        "length": "max_tokens",
        "tool_calls": "tool_use",
    }

    def read(self, path: str, headers: Mapping[str, str], body: Any) -> Call:
        fields = fields_of(body)
        messages = [m for m in list_of(fields.get("messages")) if isinstance(m, Mapping)]
        results = [
            block
            for message in messages
            for block in list_of(message.get("content"))
            if isinstance(block, Mapping) and block.get("type") == "tool_result"
        ]
        said = [_texts_of_blocks(message.get("content")) for message in messages]
        return Call(
            dialect=self.name,
            path=path,
            headers=headers,
            body=body,
            stream=fields.get("stream") is True,
            text=joined([_texts_of_blocks(fields.get("system")), said]),
            tools=tuple(
                str(tool.get("name"))
                for tool in list_of(fields.get("tools"))
                if isinstance(tool, Mapping)
            ),
            tool_results=tuple(
                (str(block.get("tool_use_id")), joined(_texts_of_blocks(block.get("content"))))
                for block in results
            ),
            max_output_tokens=number_of(fields.get("max_tokens")),
            model=fields.get("model"),
        )

    def whole(self, call: Call, reply: Reply) -> dict[str, Any]:
        blocks: list[dict[str, Any]] = []
        if reply.whole:
            blocks.append({"type": "text", "text": reply.whole})
        for asked in reply.asked:
            given = dict(asked.input)
            blocks.append({"type": "tool_use", "id": asked.id, "name": asked.tool, "input": given})
        finish = finish_of(reply, self.finishes)
        body = {**self._head(call, reply), "content": blocks, "stop_reason": finish}
        if reply.usage is not None:
            body["usage"] = self._usage(reply.usage)
        return {**body, **reply.extra}

    def opening(self, call: Call, reply: Reply) -> list[str]:
        message: dict[str, Any] = {**self._head(call, reply), "content": [], "stop_reason": None}
        if reply.usage is not None:
            message["usage"] = {**self._usage(reply.usage), "output_tokens": 1}
        events = [
            named_event({"type": "message_start", "message": message}),
            named_event({"type": "ping"}),
        ]
        if reply.whole:
            text = {"type": "text", "text": ""}
            start = {"type": "content_block_start", "index": 0, "content_block": text}
            events.append(named_event(start))
        return events

    def pieces(self, call: Call, reply: Reply) -> list[str]:
        return [
            named_event(
                {
                    "type": "content_block_delta",
                    "index": 0,
                    "delta": {"type": "text_delta", "text": piece},
                }
            )
            for piece in reply.parts
        ]

    def closing(self, call: Call, reply: Reply) -> list[str]:
        events = []
        if reply.whole:
            events.append(named_event({"type": "content_block_stop", "index": 0}))
        for index, asked in enumerate(reply.asked, 1 if reply.whole else 0):
            events += self._call_events(index, asked)
        end: dict[str, Any] = {
            "type": "message_delta",
            "delta": {"stop_reason": finish_of(reply, self.finishes), "stop_sequence": None},
        }
        if reply.usage is not None:
            end["usage"] = {"output_tokens": reply.usage.output}
        return [*events, named_event(end), named_event({"type": "message_stop"})]

    def error(self, message: str, code: str | None) -> dict[str, Any]:
        return {"type": "error", "error": {"type": code or "api_error", "message": message}}

    def error_event(self, message: str) -> str:
        error = {"type": "overloaded_error", "message": message}
        return named_event({"type": "error", "error": error})

    def empty(self, call: Call) -> dict[str, Any]:
        return {**self._head(call, Reply()), "content": None, "stop_reason": None}

    def empty_events(self, call: Call) -> list[str]:
        message = {**self._head(call, Reply()), "content": [], "stop_reason": None}
        begun = named_event({"type": "message_start", "message": message})
        return [begun, named_event({"type": "message_stop"})]

    def _call_events(self, index: int, asked: Asked) -> list[str]:
        arguments = json.dumps(asked.input)
        middle = len(arguments) // 2
        block = {"type": "tool_use", "id": asked.id, "name": asked.tool, "input": {}}
        start = {"type": "content_block_start", "index": index, "content_block": block}
        parts = [
            {
                "type": "content_block_delta",
                "index": index,
                "delta": {"type": "input_json_delta", "partial_json": part},
            }
            for part in (arguments[:middle], arguments[middle:])
        ]
        stop = {"type": "content_block_stop", "index": index}
        return [named_event(event) for event in (start, *parts, stop)]

    def _head(self, call: Call, reply: Reply) -> dict[str, Any]:
        model = reply.model or call.model or MODEL
        return {"id": "msg_1", "type": "message", "role": "assistant", "model": model}

    def _usage(self, usage: TokenUsage) -> dict[str, Any]:
        # This service counts what was read from its cache apart from the input.
        row = {
            "input_tokens": usage.input - (usage.cached or 0),
            "output_tokens": usage.output,
        }
        if usage.cached is not None:
            row["cache_read_input_tokens"] = usage.cached
        return row


def _texts_of_blocks(content: Any) -> list[str]:
    """The words of Anthropic's content: a text, or blocks, those of tools by what they hold."""
    if isinstance(content, str):
        return [content]
    texts: list[str] = []
    for block in list_of(content):
        if isinstance(block, Mapping):
            if block.get("type") == "text":
                texts.append(str(block.get("text")))
            elif block.get("type") == "tool_result":
                texts += _texts_of_blocks(block.get("content"))
    return texts
