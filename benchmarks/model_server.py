"""The server of the clients' benchmarks: Chat Completions and Anthropic's Messages on loopback.

    with running(deltas=100) as url:
        ...  # {url}/v1/chat/completions, {url}/v1/messages

A process of its own, which needs the standard library only. It reads just enough of a request to
know its end and which answer it wants, and every answer was built before the first request. The
first part of the path says how it behaves:

| path | answers |
| --- | --- |
| `/v1/…` | at once; a stream's deltas in one write each, as models send them |
| `/cut/v1/…` | streams end cleanly after `CUT_AFTER` deltas: no finish reason, no last event |
| `/brief/v1/…` | after `PAUSE` seconds; a stream of `BRIEF_DELTAS` deltas, `PAUSE` between them |
| `/endless/v1/…` | never; a stream goes on, a delta each `PAUSE`, until the client has gone |
| `/busy` | how many answers of the last two kinds are not finished, and clients still there |
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

__all__ = ("ANSWER", "MODEL", "TOOL_NAME", "delta_text", "running")

MODEL = {"openai": "gpt-4o-mini", "anthropic": "claude-sonnet-4-5"}
ANSWER = "Hello! How can I help you today?"
TOOL_NAME = "get_weather"
ARGUMENTS = {"city": "Oslo"}
CUT_AFTER = 5
BRIEF_DELTAS = 5
PAUSE = 0.002


def delta_text(number: int) -> str:
    """The text of a stream's delta."""
    return f" word{number}"


# --- the answers --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wire:
    """One API's answers, as bytes of HTTP."""

    plain: bytes
    asks: bytes
    """Calls the tool."""
    begin: bytes
    deltas: list[bytes]
    end: bytes


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)
LAST_CHUNK = b"0\r\n\r\n"


def _whole(answer: dict[str, Any]) -> bytes:
    body = json.dumps(answer).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def _completion(content: str | None, calls: list[Any] | None, finish: str) -> bytes:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": content,
        "refusal": None,
        "annotations": [],
    }
    if calls:
        message["tool_calls"] = calls
    return _whole(
        {
            "id": "chatcmpl-CW2mkXbEfdSGMiv9EVQPyl0ZSYTaz",
            "object": "chat.completion",
            "created": 1730000000,
            "model": MODEL["openai"],
            "choices": [
                {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
            ],
            "usage": {
                "prompt_tokens": 9,
                "completion_tokens": 12,
                "total_tokens": 21,
                "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
            },
            "service_tier": "default",
            "system_fingerprint": "fp_0000000000",
        }
    )


def _completion_delta(delta: dict[str, Any], finish: str | None = None) -> bytes:
    event = {
        "id": "chatcmpl-CW2mkXbEfdSGMiv9EVQPyl0ZSYTaz",
        "object": "chat.completion.chunk",
        "created": 1730000000,
        "model": MODEL["openai"],
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
    }
    return _chunk(b"data: " + json.dumps(event).encode() + b"\n\n")


def openai_wire(deltas: int) -> Wire:
    """Chat Completions."""
    function = {"name": TOOL_NAME, "arguments": json.dumps(ARGUMENTS)}
    call = {"id": "call_1", "type": "function", "function": function}
    return Wire(
        plain=_completion(ANSWER, None, "stop"),
        asks=_completion(None, [call], "tool_calls"),
        begin=STREAM_HEAD,
        deltas=[_completion_delta({"content": delta_text(number)}) for number in range(deltas)],
        end=_completion_delta({}, "stop") + _chunk(b"data: [DONE]\n\n") + LAST_CHUNK,
    )


def _message(content: list[Any], stop: str | None, output_tokens: int) -> dict[str, Any]:
    return {
        "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
        "type": "message",
        "role": "assistant",
        "model": MODEL["anthropic"],
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": {
            "input_tokens": 9,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": output_tokens,
            "service_tier": "standard",
        },
    }


def _event(kind: str, **fields: Any) -> bytes:
    data = json.dumps({"type": kind, **fields})
    return _chunk(f"event: {kind}\ndata: {data}\n\n".encode())


def anthropic_wire(deltas: int) -> Wire:
    """Messages."""
    call = {"type": "tool_use", "id": "toolu_1", "name": TOOL_NAME, "input": ARGUMENTS}
    block = {"type": "text", "text": ""}
    return Wire(
        plain=_whole(_message([{"type": "text", "text": ANSWER}], "end_turn", 12)),
        asks=_whole(_message([call], "tool_use", 12)),
        begin=STREAM_HEAD
        + _event("message_start", message=_message([], None, 1))
        + _event("content_block_start", index=0, content_block=block),
        deltas=[
            _event(
                "content_block_delta",
                index=0,
                delta={"type": "text_delta", "text": delta_text(number)},
            )
            for number in range(deltas)
        ],
        end=_event("content_block_stop", index=0)
        + _event(
            "message_delta",
            delta={"stop_reason": "end_turn", "stop_sequence": None},
            usage={"output_tokens": 12},
        )
        + _event("message_stop")
        + LAST_CHUNK,
    )


# --- the server ---------------------------------------------------------------------------------


class _Server(asyncio.Protocol):
    """One connection."""

    def __init__(self, wires: dict[str, Wire], busy: set[_Server]) -> None:
        self.wires = wires
        self.busy = busy

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.loop = asyncio.get_running_loop()
        self.buffer = bytearray()

    def connection_lost(self, error: Exception | None) -> None:
        self.busy.discard(self)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while True:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self.buffer[:end])
            _, found, rest = head.lower().partition(b"content-length:")
            length = int(rest.split(b"\r\n", 1)[0]) if found else 0
            if len(self.buffer) < end + 4 + length:
                return
            body = bytes(self.buffer[end + 4 : end + 4 + length])
            del self.buffer[: end + 4 + length]
            self.answer(head.split(b" ", 2)[1].decode(), body)

    def answer(self, path: str, body: bytes) -> None:
        if path == "/busy":
            self.transport.write(_whole({"busy": len(self.busy)}))
            return
        wire = self.wires["anthropic" if path.endswith("/messages") else "openai"]
        streamed = b'"stream":true' in body.replace(b" ", b"")
        answered = b'"tool_call_id"' in body or b'"tool_result"' in body
        whole = wire.asks if b'"tools"' in body and not answered else wire.plain
        match path.split("/")[1]:
            case "endless":
                self.busy.add(self)
                if streamed:
                    self.transport.write(wire.begin)
                    self.slowly(wire.deltas, 0, None)
            case "brief":
                self.busy.add(self)
                if streamed:
                    self.transport.write(wire.begin)
                    self.slowly(wire.deltas[:BRIEF_DELTAS], 0, wire.end)
                else:
                    self.loop.call_later(PAUSE, self.slowly, [], 0, whole)
            case "cut" if streamed:
                self.transport.write(wire.begin)
                self.next_delta(wire.deltas[:CUT_AFTER], 0, LAST_CHUNK)
            case _ if streamed:
                self.transport.write(wire.begin)
                self.loop.call_soon(self.next_delta, wire.deltas, 0, wire.end)
            case _:
                self.transport.write(whole)

    def next_delta(self, deltas: list[bytes], number: int, end: bytes) -> None:
        """One write a delta, each in a turn of the loop of its own."""
        if self.transport.is_closing():
            return
        if number == len(deltas):
            self.transport.write(end)
            return
        self.transport.write(deltas[number])
        self.loop.call_soon(self.next_delta, deltas, number + 1, end)

    def slowly(self, deltas: list[bytes], number: int, end: bytes | None) -> None:
        """One write a delta, `PAUSE` after each; without an end, forever."""
        if self.transport.is_closing():
            return
        if number >= len(deltas) and end is not None:
            self.busy.discard(self)
            self.transport.write(end)
            return
        self.transport.write(deltas[number % len(deltas)])
        self.loop.call_later(PAUSE, self.slowly, deltas, number + 1, end)


def serve(pipe: Connection, deltas: int) -> None:
    """Run the server until the process is ended; its port goes to the pipe."""
    wires = {"openai": openai_wire(deltas), "anthropic": anthropic_wire(deltas)}
    busy: set[_Server] = set()

    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Server(wires, busy), "127.0.0.1", 0, backlog=512)
        pipe.send(server.sockets[0].getsockname()[1])
        await asyncio.Event().wait()

    asyncio.run(run())


@contextmanager
def running(deltas: int) -> Iterator[str]:
    """A server's URL; its streams have so many deltas."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=serve, args=(there, deltas), daemon=True
    )
    process.start()
    try:
        if not here.poll(30):
            raise SystemExit("the server did not start within 30 s")
        yield f"http://127.0.0.1:{here.recv()}"
    finally:
        process.terminate()
        process.join()
