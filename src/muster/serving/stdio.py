"""A target as a child that speaks the stdio protocol; see docs/providers/stdio-protocol.md.

The other side, which starts such children, is `muster.providers.stdio`; the messages are theirs
both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec

import muster
from muster.broken_json import why_no_json
from muster.capabilities import Capabilities
from muster.provider import (
    FilePart,
    ImagePart,
    Limits,
    Message,
    ProviderError,
    ProviderRequest,
    ProviderResponse,
    TextPart,
    TokenUsage,
    Tool,
)
from muster.providers.stdio_messages import (
    CANCELLED,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    PROTOCOL_VERSION,
    PROVIDER_ERROR,
    Answer,
    Cancel,
    Chunk,
    ErrorData,
    Incoming,
    Initialize,
    Invoke,
    ToolCallParams,
    ToolOutput,
    Usage,
    WireError,
    encode,
    error_line,
    notification_line,
    request_line,
    result_line,
)
from muster.serving.pipes import LineTooLong, Pipes
from muster.serving.served import Served, ServedTargets
from muster.store.rows import whole, whole_values
from muster.tasks import stop_tasks

__all__ = ("StdioSession", "first_of", "serve_stdio")

T = TypeVar("T")

_MESSAGE = msgspec.json.Decoder(Incoming)
_INVOKE = msgspec.json.Decoder(Invoke)
_INITIALIZE = msgspec.json.Decoder(Initialize)
_CANCEL = msgspec.json.Decoder(Cancel)
_TOOL_OUTPUT = msgspec.json.Decoder(ToolOutput)
_WIRE_ERROR = msgspec.json.Decoder(WireError)

_CAPABILITIES = (
    "streaming",
    "tools",
    "history",
    "files",
    "images",
    "structured_output",
    "max_context_tokens",
    "input_usd_per_million",
    "output_usd_per_million",
)


class ToolError(Exception):
    """The client says that a tool has failed."""


class StdioSession:
    """The conversation with one client. `take` gets its lines; what it is told goes to `write`."""

    def __init__(
        self,
        served: Served,
        targets: ServedTargets,
        write: Callable[[bytes], None],
        *,
        tell: Callable[[str], None],
    ) -> None:
        self._served = served
        self._targets = targets
        self._write = write
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._initialized = False
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._tools: dict[int, asyncio.Future[str]] = {}
        self._number = 0
        self._out: list[bytes] = []
        self._done = asyncio.Event()
        self._done.set()
        self.is_over = False
        """The client has asked for the end."""

    @property
    def under_way(self) -> int:
        """Calls without an answer."""
        return len(self._calls)

    async def take(self, line: bytes | LineTooLong) -> None:
        """Do what one line says."""
        if isinstance(line, LineTooLong):
            self._send(error_line(None, WireError(PARSE_ERROR, "the line is too long")))
            return
        if not line.strip():
            return
        try:
            message = _MESSAGE.decode(line)
        except msgspec.ValidationError as error:
            told = f"not a JSON-RPC message: {error}"
            self._send(error_line(None, WireError(INVALID_REQUEST, told)))
            return
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            told = f"not JSON: {why_no_json(error, line)}"[:300]
            self._send(error_line(None, WireError(PARSE_ERROR, told)))
            return
        if message.method is None:
            self._take_answer(message)
        elif message.method == "invoke":
            self._begin(message)
        else:
            await self._other(message)

    async def idle(self) -> None:
        """Wait until no call is under way."""
        await self._done.wait()

    def client_gone(self) -> None:
        """Nobody will answer what was asked."""
        for waiting in self._tools.values():
            if not waiting.done():
                waiting.set_exception(ToolError("the client is gone"))

    async def close(self) -> int:
        """Give up what is under way; how much that was."""
        calls = list(self._calls.values())
        await stop_tasks(calls)
        self.flush()
        return len(calls)

    def flush(self) -> None:
        """Write what is to be sent."""
        if self._out:
            data, self._out = b"".join(self._out), []
            self._write(data)

    # --- messages that come ---

    async def _other(self, message: Incoming) -> None:
        method, number = message.method, message.id
        if method == "cancel":
            try:
                cancelled = _CANCEL.decode(message.params)
            except msgspec.DecodeError:
                return  # a notification is not answered
            task = self._calls.get(cancelled.invoke_id)
            if task is not None:
                task.cancel()
        elif number is None:
            return
        elif method == "initialize":
            self._initialize(message)
        elif method == "ping":
            self._send(result_line(number, {}))
        elif method == "shutdown":
            self.is_over = True
            await self.close()
            self._send(result_line(number, {}))
            self.flush()
        else:
            told = f'no method "{str(method)[:100]}": expected initialize, invoke, ping or shutdown'
            self._send(error_line(number, WireError(METHOD_NOT_FOUND, told)))

    def _initialize(self, message: Incoming) -> None:
        given = self._read(_INITIALIZE, message)
        if given is None:
            return
        if given.settings:
            names = ", ".join(given.settings)[:200]
            self._tell(f"settings are left alone ({names}): those of targets.yaml hold")
        self._initialized = True
        result = {
            "protocol_version": PROTOCOL_VERSION,
            "name": f"muster {self._served.name}",
            "version": muster.__version__,
            "capabilities": _told(self._served.capabilities),
        }
        self._send(result_line(message.id, result))

    def _begin(self, message: Incoming) -> None:
        number = message.id
        if not isinstance(number, int):
            if number is not None:
                told = "the id of an invoke must be a whole number"
                self._send(error_line(number, WireError(INVALID_REQUEST, told)))
            return
        trouble = None
        if not self._initialized:
            trouble = "initialize comes first"
        elif number in self._calls:
            trouble = f"the id {number} is under way already"
        if trouble is not None:
            self._send(error_line(number, WireError(INVALID_REQUEST, trouble)))
            return
        given = self._read(_INVOKE, message)
        if given is None:
            return
        try:
            request = _request(given)
        except ValueError as error:
            self._send(error_line(number, WireError(INVALID_PARAMS, f"invoke: {error}")))
            return
        if given.on_chunk:
            request = replace(request, on_chunk=lambda text: self._chunk(number, text))
        if given.call_tool:
            request = replace(request, call_tool=self._tool_of(number))
        self._done.clear()
        task = self._loop.create_task(self._invoke(number, request))
        self._calls[number] = task
        task.add_done_callback(lambda _: self._ended(number))

    def _take_answer(self, message: Incoming) -> None:
        """The answer to a `tool_call` of ours."""
        waiting = self._tools.get(message.id) if isinstance(message.id, int) else None
        if waiting is None:
            if message.id is None:
                told = WireError(INVALID_REQUEST, "neither a method nor an id")
                self._send(error_line(None, told))
            return  # a call that is over has no use for it
        if waiting.done():
            return
        try:
            if bytes(message.error):
                waiting.set_exception(ToolError(_WIRE_ERROR.decode(message.error).message))
                return
            output = _TOOL_OUTPUT.decode(message.result)
        except msgspec.DecodeError as error:
            waiting.set_exception(ToolError(f"the client's answer is not good: {error}"))
            return
        if output.is_error:
            waiting.set_exception(ToolError(output.output.removeprefix("error: ")))
        else:
            waiting.set_result(output.output)

    def _read(self, decoder: msgspec.json.Decoder[T], message: Incoming) -> T | None:
        """The params; `None` when they are wrong, which is told."""
        try:
            return decoder.decode(message.params)
        except msgspec.DecodeError as error:
            told = f"{message.method}: {why_no_json(error, bytes(message.params))}"
            self._send(error_line(message.id, WireError(INVALID_PARAMS, told)))
            return None

    # --- a call ---

    async def _invoke(self, number: int, request: ProviderRequest) -> None:
        try:
            response = await self._served.provider.invoke(request)
            line = result_line(number, _answer(response))
        except asyncio.CancelledError:
            self._send(error_line(number, WireError(CANCELLED, "cancelled")))
            return
        except ProviderError as error:
            line = error_line(number, self._error(error))
        except Exception as error:
            self._tell(f"a call failed: {type(error).__name__}: {str(error)[:300]}")
            told = self._targets.shown(f"{type(error).__name__}: {error}")
            line = error_line(number, WireError(INTERNAL_ERROR, told))
        self._send(line)

    def _error(self, error: ProviderError) -> WireError:
        after = error.retry_after
        data = ErrorData(
            kind=error.kind,
            retryable=error.retryable,
            retry_after=after if after is None or after >= 0 else None,
            status=error.status,
            token_usage=_usage(error.token_usage),
            cost_usd=error.cost_usd,
        )
        return WireError(PROVIDER_ERROR, self._targets.said(error), data)

    def _ended(self, number: int) -> None:
        del self._calls[number]
        if not self._calls:
            self._done.set()

    def _chunk(self, number: int, text: str) -> None:
        if number in self._calls:
            self._send(notification_line("chunk", Chunk(number, whole(text))))

    def _tool_of(self, number: int) -> Callable[[str, Mapping[str, Any]], Awaitable[str]]:
        async def call_tool(name: str, arguments: Mapping[str, Any]) -> str:
            self._number += 1
            own = self._number
            params = encode(ToolCallParams(number, name, arguments))
            waiting: asyncio.Future[str] = self._loop.create_future()
            self._tools[own] = waiting
            self._send(request_line(own, "tool_call", params))
            try:
                return await waiting
            finally:
                del self._tools[own]

        return call_tool

    def _send(self, line: bytes) -> None:
        """With the next bunch: lines of one turn of the loop go out together."""
        if not self._out:
            self._loop.call_soon(self.flush)
        self._out.append(line)


async def serve_stdio(
    targets: ServedTargets,
    *,
    tell: Callable[[str], None],
    stop: asyncio.Event,
    hurry: asyncio.Event,
    grace: float,
) -> int:
    """Serve the one target over standard input and output until the client goes, or `stop` is set;
    then the calls under way have `grace` seconds, or until `hurry` is set.

    Returns:
        How many calls were cut off.
    """
    (served,) = targets
    pipes = await Pipes().open()
    session = StdioSession(served, targets, pipes.write, tell=tell)
    loop = asyncio.get_running_loop()
    reading = loop.create_task(_read_all(pipes, session))
    try:
        await first_of(stop.wait(), asyncio.shield(reading), pipes.broken())
        if not session.is_over and not pipes.is_broken:
            await first_of(session.idle(), hurry.wait(), pipes.broken(), timeout=grace)
        return await session.close()
    finally:
        await stop_tasks((reading,))
        await pipes.close()


async def _read_all(pipes: Pipes, session: StdioSession) -> None:
    async for lines in pipes.batches():
        for line in lines:
            await session.take(line)
            if session.is_over:
                return
        await pipes.drain()
        if pipes.is_broken:
            return
    session.client_gone()


async def first_of(*waits: Awaitable[Any], timeout: float | None = None) -> None:
    """Wait until one of them is over; the others are ended."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


# --- requests and answers -----------------------------------------------------------------------


def _request(given: Invoke) -> ProviderRequest:
    """Raises `ValueError`."""
    limits = given.limits
    return ProviderRequest(
        question=given.question,
        system_prompt=given.system_prompt,
        guidelines=given.guidelines,
        messages=tuple(_message(row) for row in given.messages),
        input_files=tuple(Path(path) for path in given.input_files),
        images=tuple(ImagePart(image.source, image.media_type) for image in given.images),
        eval_case_id=given.eval_case_id,
        attempt=given.attempt,
        cwd=None if given.cwd is None else Path(given.cwd),
        tools=tuple(Tool(tool.name, tool.description, tool.parameters) for tool in given.tools),
        limits=Limits(
            max_output_tokens=limits.max_output_tokens,
            max_turns=limits.max_turns,
            max_seconds=limits.max_seconds,
            max_total_tokens=limits.max_total_tokens,
            max_cost_usd=limits.max_cost_usd,
        ),
        response_schema=given.response_schema,
        metadata=given.metadata,
    )


def _message(row: dict[str, Any]) -> Message:
    message = Message.from_mapping(row)
    content = message.content
    if not isinstance(content, list):
        return message
    return replace(message, content=tuple(_part(part) for part in content))


def _part(part: Any) -> Any:
    """A part of a message as the seam has it; what is none of ours stays as it is."""
    if isinstance(part, dict):
        kind = part.get("type")
        text, path, source = part.get("text"), part.get("path"), part.get("source")
        if kind == "text" and isinstance(text, str):
            return TextPart(text)
        if kind == "file" and isinstance(path, str):
            return FilePart(Path(path))
        if kind == "image" and isinstance(source, str):
            return ImagePart(source)
    return part


def _answer(response: ProviderResponse) -> Answer:
    output = response.output
    plain = len(output) == 1 and _is_plain(output[0])
    return Answer(
        text=whole(response.text) if plain else None,
        output=None if plain else [whole_values(message.to_dict()) for message in output],
        token_usage=_usage(response.token_usage),
        cost_usd=response.cost_usd,
        duration_ms=response.duration_ms,
        finish_reason=response.finish_reason,
        model=response.model,
    )


def _is_plain(message: Message) -> bool:
    """Text says all of it."""
    return (
        message.role == "assistant"
        and isinstance(message.content, str)
        and not message.tool_calls
        and message.token_usage is None
        and message.metadata is None
    )


def _usage(usage: TokenUsage | None) -> Usage | None:
    if usage is None:
        return None
    return Usage(usage.input, usage.output, usage.cached, usage.reasoning)


def _told(capabilities: Capabilities) -> dict[str, Any]:
    known = {name: getattr(capabilities, name) for name in _CAPABILITIES}
    return {name: value for name, value in known.items() if value is not None}
