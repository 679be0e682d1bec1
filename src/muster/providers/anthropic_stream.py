"""Anthropic's streams: an answer put together from its events.

https://docs.anthropic.com/en/docs/build-with-claude/streaming
"""

from __future__ import annotations

from typing import Any

import msgspec

from muster.provider import OnChunk, TokenUsage
from muster.providers.anthropic_types import EVENT, Answer, Delta, Event, Usage
from muster.providers.sse import SseEvent
from muster.providers.wire import JsonApi, parsed_arguments

__all__ = ("AnthropicStream",)


class AnthropicStream:
    """Takes the events of one answer; the text goes to `on_chunk` as it comes.

    The input of the tool called `form_tool` counts as text: it is the answer.
    """

    def __init__(self, api: JsonApi, on_chunk: OnChunk, *, form_tool: str | None) -> None:
        self.api = api
        self.on_chunk = on_chunk
        self.form_tool = form_tool
        self.passed_on = False
        """True once `on_chunk` was called."""
        self.message = Answer()
        self.blocks: dict[int, dict[str, Any]] = {}
        self.pieces: dict[int, list[str]] = {}
        self.open: set[int] = set()

    def take(self, event: SseEvent) -> bool:
        """Use one event; True when it says that the answer is finished."""
        try:
            news = EVENT.decode(event.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            news = self.api.decode(EVENT, event.data, what="stream")
        if news.type == "content_block_delta" and news.delta is not None:
            self._add(news.index, news.delta)
            return False
        if news.type == "error" or news.error is not None:
            raise self.api.broke_off(news.error or "no reason given")
        match news.type:
            case "message_start":
                self.message = news.message or self.message
            case "content_block_start":
                self.blocks[news.index] = dict(news.content_block or {})
                self.open.add(news.index)
                self._start(self.blocks[news.index])
            case "content_block_stop":
                self._finish_block(news.index)
            case "message_delta":
                self._end(news)
        return news.type == "message_stop"

    def answer(self) -> Answer:
        """The whole answer.

        Raises:
            BadProviderOutput: the stream ended before the answer did.
        """
        if self.message.stop_reason is None:
            characters = self.characters()
            error = self.api.bad(
                "the stream ended without a stop reason, so the answer is not whole "
                f"(it broke off after {characters:,} characters)"
            )
            usage = self.message.usage
            if usage is not None and usage.input_tokens is not None:
                error.token_usage = TokenUsage(usage.input_tokens, usage.output_tokens or 0)
            raise error
        for index in sorted(self.open):
            self._finish_block(index)
        self.message.content = [self.blocks[index] for index in sorted(self.blocks)]
        return self.message

    def raw(self) -> dict[str, Any]:
        """The provider's own words, for debugging."""
        message = self.message
        return {"id": message.id, "model": message.model, "stop_reason": message.stop_reason}

    def characters(self) -> int:
        """Of the text and thoughts that have come, and of arguments that are not whole yet."""
        came = sum(len(piece) for pieces in self.pieces.values() for piece in pieces)
        for index in self.blocks.keys() - self.open:
            block = self.blocks[index]
            came += len(block.get("text") or block.get("thinking") or "")
        return came

    def _start(self, block: dict[str, Any]) -> None:
        text = block.get("text")
        if block.get("type") == "text" and text:
            self._pass_on(text)

    def _add(self, index: int, delta: Delta) -> None:
        pieces = self.pieces.get(index)
        if pieces is None:  # the first since the block was begun
            pieces = self.pieces[index] = []
            self.blocks.setdefault(index, {"type": "text", "text": ""})
            self.open.add(index)
        block = self.blocks[index]
        piece = delta.text
        if piece is not None:
            self._pass_on(piece)
        elif delta.partial_json is not None:
            piece = delta.partial_json
            if self.form_tool is not None and block.get("name") == self.form_tool:
                self._pass_on(piece)
        elif delta.thinking is not None:
            piece = delta.thinking
        elif delta.signature is not None:
            block["signature"] = block.get("signature", "") + delta.signature
        elif delta.citation is not None:
            block["citations"] = [*(block.get("citations") or ()), delta.citation]
        if piece:
            pieces.append(piece)

    def _pass_on(self, text: str) -> None:
        if text:
            self.passed_on = True
            self.on_chunk(text)

    def _finish_block(self, index: int) -> None:
        """Put the pieces of a block where they belong."""
        self.open.discard(index)
        block = self.blocks.get(index)
        text = "".join(self.pieces.pop(index, ()))
        if block is None or not text:
            return
        kind = block.get("type")
        if kind in ("text", "thinking"):
            block[kind] = (block.get(kind) or "") + text
        else:
            block["input"] = parsed_arguments(text)

    def _end(self, news: Event) -> None:
        """The last delta: the stop reason, and counts that replace those at the start."""
        if news.delta is not None and news.delta.stop_reason is not None:
            self.message.stop_reason = news.delta.stop_reason
        if news.usage is None:
            return
        known = self.message.usage or Usage()
        for name in known.__struct_fields__:
            count = getattr(news.usage, name)
            # Some servers repeat the input's counts as zeros here.
            if count is not None and (count or getattr(known, name) is None):
                setattr(known, name, count)
        self.message.usage = known
