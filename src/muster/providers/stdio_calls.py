"""The talk with a child that speaks the stdio protocol: calls, and whatever it says.

Whatever a child may do wrong ends in one of three ways: a warning, when nobody is harmed; the
failure of the one call that it concerns; or, when it cannot be told which call that is, the end of
the child, so that no call waits for an answer that will not come.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from muster.broken_json import why_no_json
from muster.provider import (
    BadProviderOutput,
    ProviderError,
    ProviderFailed,
    ProviderRequest,
    ToolCall,
)
from muster.providers import stdio_messages as wire
from muster.providers.stdio_process import LineProcess
from muster.providers.stdio_tools import called, heard

__all__ = ("Call", "ChildSpec", "Conversation", "line_text")

_log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_TOOL_CALLS = 256
"""Of one call, at the same time."""

_MAX_CANCELLED = 4096
_MAX_WARNINGS = 10
_SHOWN_LINE = 200
_SHOWN_STDERR = 2000

_ANSWER_HEAD = re.compile(
    rb'\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"id"\s*:\s*(\d{1,18})\s*,\s*"(?:result|error)"'
)
_ANSWER_TAIL = re.compile(rb'"id"\s*:\s*(\d{1,18})\s*(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*\Z')

_decode = msgspec.json.Decoder(wire.Incoming).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """What children of a target have in common."""

    target: str
    shown: str
    """The command, for messages."""
    argv: list[str]
    shell_argv: list[str] | None
    """The same by way of the shell, for a script that names no interpreter."""
    env: dict[bytes, bytes]
    cwd: Path
    initialize: bytes
    """The params of `initialize`."""
    masked: Callable[[str], str]
    """Takes the secrets out of a text."""
    max_line_bytes: int
    ping_seconds: float | None
    memory_limit: int | None
    """In bytes."""


class Call:
    """An `invoke` that is under way."""

    __slots__ = ("answer", "context", "made", "number", "request", "streamed", "tasks")

    def __init__(
        self, number: int, request: ProviderRequest, answer: asyncio.Future[wire.Incoming]
    ) -> None:
        self.number = number
        self.request = request
        self.answer = answer
        self.context: contextvars.Context | None = None
        if request.on_chunk is not None or request.call_tool is not None:
            # What is called back runs among the variables of the one who asked.
            self.context = contextvars.copy_context()
        self.streamed = False
        self.made: list[ToolCall | None] = []
        """The tool calls, in order; `None` for those that are not done."""
        self.tasks: set[asyncio.Task[None]] = set()


class Conversation(LineProcess):
    """A process and the calls under way in it. What it means for the child is told by the methods
    named `on_…`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, spec: ChildSpec) -> None:
        super().__init__(loop, spec.max_line_bytes)
        self.spec = spec
        self.reserved = 0
        """Calls that will come, but have not begun."""
        self.answered = False
        """Whether it has ever answered a call."""
        self.idle_since = loop.time()
        self.silent = False
        """Whether it has said nothing since somebody has set this."""
        self._last = 0
        self._calls: dict[int, Call] = {}
        self._cancelled: dict[int, None] = {}
        self._asked: dict[int, asyncio.Future[wire.Incoming] | None] = {}
        self._reason: str | None = None
        self._why_gone = "the child is gone"
        self._warnings = 0

    # --- what the child fills in ---

    def on_over(self) -> None:
        """A call is over, or a place was given up."""
        raise NotImplementedError

    def on_cancelled(self, number: int) -> None:
        """The child was told that nobody waits for this call."""
        raise NotImplementedError

    def on_given_up(self) -> None:
        """It takes no calls any more; those under way have failed."""
        raise NotImplementedError

    def on_unreliable(self) -> None:
        """It lives, but is of no use any more."""
        raise NotImplementedError

    # --- calls ---

    @property
    def has_failed(self) -> bool:
        """Whether it crashed, or was ended for what it did."""
        return self._reason is not None

    @property
    def load(self) -> int:
        """Calls that are under way, or about to be."""
        return len(self._calls) + self.reserved

    def release(self) -> None:
        """Give up a place that was reserved."""
        self.reserved -= 1
        self._over()

    def invoke(self, request: ProviderRequest, params: bytes) -> Call:
        """Begin a call in a place that was reserved; its `answer` is the child's, or a
        `ProviderError`."""
        self.reserved -= 1
        self._last = number = self._last + 1
        call = Call(number, request, self.loop.create_future())
        if self._reason is not None:  # it was well when the place was given
            call.answer.set_exception(ProviderFailed(self._why_gone, retryable=True))
            return call
        self._calls[number] = call
        self.write(wire.request_line(number, "invoke", params))
        return call

    def cancel(self, call: Call) -> None:
        """Nobody waits for it any more."""
        if self._calls.pop(call.number, None) is None:
            return
        self._cancelled[call.number] = None
        if len(self._cancelled) > _MAX_CANCELLED:
            del self._cancelled[next(iter(self._cancelled))]
        self.write(wire.notification_line("cancel", wire.Cancel(call.number)))
        self._over()
        self.on_cancelled(call.number)

    def fail(self, call: Call, error: ProviderError) -> None:
        """End a call that the child is still at."""
        self.cancel(call)
        _set_error(call.answer, error)

    def told(self, what: str) -> str:
        """`what` it does, as a message: with the command, and what it said last."""
        self.hear_stderr()
        text = f"the child {what} ({self.spec.shown})"
        said = bytes(self.stderr[-_SHOWN_STDERR:]).decode("utf-8", "replace").strip()
        if said:
            text += f"; stderr ends:\n{said}" if "\n" in said else f"; stderr: {said}"
        return self.spec.masked(text)

    def _over(self) -> None:
        if not self._calls:
            self.idle_since = self.loop.time()
        self.on_over()

    async def ask(self, method: str, params: bytes) -> wire.Incoming:
        """Send a request that is no call, and wait for what it says."""
        answer: asyncio.Future[wire.Incoming] = self.loop.create_future()
        number = self.tell(method, params, answer)
        try:
            return await answer
        finally:
            self._asked.pop(number, None)

    def tell(
        self,
        method: str,
        params: bytes = b"{}",
        answer: asyncio.Future[wire.Incoming] | None = None,
    ) -> int:
        """Send a request that is no call; without `answer`, nobody waits for what it says."""
        self._last = number = self._last + 1
        self._asked[number] = answer
        self.write(wire.request_line(number, method, params))
        return number

    # --- what it says ---

    def on_line(self, line: bytes) -> None:
        self.silent = False
        if self._reason is not None:
            return
        try:
            message = _decode(line)
        except wire.WRONG as error:
            self._unreadable(line, error)
            return
        if message.method is None:
            self._take_answer(message, line)
        elif message.method == "chunk":
            self._take_chunk(message)
        elif message.method == "tool_call":
            self._take_tool_call(message)
        elif message.id is not None:
            self._take_request(message, message.id)

    def _take_answer(self, message: wire.Incoming, line: bytes) -> None:
        number: Any = message.id
        call = self._calls.pop(number, None)
        if call is not None:
            self.answered = True
            if not call.answer.done():
                call.answer.set_result(message)
            self._over()
        elif number in self._cancelled:
            del self._cancelled[number]
            self._over()
        elif number in self._asked:
            asked = self._asked.pop(number)
            if asked is not None and not asked.done():
                asked.set_result(message)
        else:
            self._take_stray(message, line)

    def _take_stray(self, message: wire.Incoming, line: bytes) -> None:
        number = message.id
        if not message.result and not message.error:
            self._warn_of_line(line)
        elif number is None:
            said = self.error_in(message.error, "could not read what it was sent").message
            self._break(said, is_told=True)
        elif isinstance(number, str) and number.isdecimal() and int(number) in self._calls:
            call = self._calls[int(number)]
            self.fail(
                call,
                BadProviderOutput(
                    self.told(f'answered with the id "{number}", a text, and not {number}'),
                    retryable=False,
                ),
            )
        elif isinstance(number, int) and 0 < number <= self._last:
            self._warn(f"answered the call {number} twice; the second answer is ignored")
        else:
            self._warn(f"answered a call that was never made (id {number!r}); it is ignored")

    def _take_chunk(self, message: wire.Incoming) -> None:
        chunk = self._params(wire.Chunk, message)
        call = None if chunk is None else self._calls.get(chunk.invoke_id)
        if chunk is None or call is None or call.request.on_chunk is None:
            return
        assert call.context is not None
        call.streamed = True
        try:
            call.context.run(heard, call.request, chunk.text)
        except ProviderError as error:
            self.fail(call, error)

    def _take_tool_call(self, message: wire.Incoming) -> None:
        params = self._params(wire.ToolCallParams, message)
        if params is None:
            return
        call = self._calls.get(params.invoke_id)
        if message.id is None:
            if call is not None:
                said = self.told("sent a `tool_call` without an id, which cannot be answered")
                self.fail(call, BadProviderOutput(said, retryable=False))
        elif call is None:
            over = params.invoke_id in self._cancelled
            code = wire.CANCELLED if over else wire.INVALID_PARAMS
            text = f"there is no call {params.invoke_id} under way"
            self.write(wire.error_line(message.id, wire.WireError(code, text)))
        elif len(call.tasks) >= MAX_TOOL_CALLS:
            text = f"error: more than {MAX_TOOL_CALLS} tools at the same time"
            self.write(wire.result_line(message.id, wire.ToolOutput(text, True)))
        else:
            call.made.append(None)
            task = self.loop.create_task(
                self._call_tool(call, message.id, params, len(call.made) - 1), context=call.context
            )
            call.tasks.add(task)
            task.add_done_callback(call.tasks.discard)

    async def _call_tool(
        self, call: Call, number: int | str, params: wire.ToolCallParams, place: int
    ) -> None:
        try:
            made = await called(call.request, params.name, params.arguments)
        except ProviderError as error:  # the budget is used up
            self.fail(call, error)
        except asyncio.CancelledError:
            given_up = wire.WireError(wire.CANCELLED, "the call is over")
            self.write(wire.error_line(number, given_up))
            raise
        else:
            call.made[place] = made
            said = str(made.output).encode("utf-8", "replace").decode()  # lone surrogates
            output = wire.ToolOutput(said, made.status != "ok")
            self.write(wire.result_line(number, output))

    def _take_request(self, message: wire.Incoming, number: int | str) -> None:
        if message.method == "ping":
            self.write(wire.result_line(number, {}))
        else:
            text = f"unknown method {message.method}"
            error = wire.WireError(wire.METHOD_NOT_FOUND, text[:_SHOWN_LINE])
            self.write(wire.error_line(number, error))

    def _params(self, kind: type[T], message: wire.Incoming) -> T | None:
        """The message's params; `None` if they are wrong, which is then dealt with."""
        try:
            return msgspec.json.decode(message.params or b"null", type=kind)
        except wire.WRONG as error:
            reason = f"sent a `{message.method}` that is wrong: {_reason_of(error, message.params)}"
        if message.id is not None:
            self.write(
                wire.error_line(message.id, wire.WireError(wire.INVALID_PARAMS, reason[:500]))
            )
        try:
            number = msgspec.json.decode(message.params or b"null", type=_InvokeId).invoke_id
        except wire.WRONG:
            number = 0
        call = self._calls.get(number)
        if call is not None:
            self.fail(call, BadProviderOutput(self.told(reason)))
        elif number not in self._cancelled:
            self._warn(reason)
        return None

    # --- what it says wrong ---

    def on_long_line(self, head: bytes, tail: bytes | None) -> bool:
        self.silent = False
        if self._reason is not None:
            return True
        reason = f"sent a line of more than max_line_bytes ({self.spec.max_line_bytes:,})"
        found = _ANSWER_HEAD.match(head)
        if found is None and tail is not None:
            found = _ANSWER_TAIL.search(tail)
        if found is not None:
            number = int(found[1])
            self._settle(number, BadProviderOutput(self.told(reason), retryable=False))
        elif tail is not None:
            if b'"jsonrpc"' in head or b'"jsonrpc"' in tail:
                self._break(f"{reason}, and it cannot be told for which call")
            else:
                self._warn(f"{reason}; it is left out: {line_text(head)}")
        return found is not None

    def _unreadable(self, line: bytes, error: Exception) -> None:
        if not line.strip():
            return
        found = _ANSWER_HEAD.match(line) or _ANSWER_TAIL.search(line)
        if found is not None and (number := int(found[1])) in self._calls:
            reason = f"answered with a line that cannot be read: {why_no_json(error, line)}"
            self._settle(number, BadProviderOutput(self.told(reason)))
        elif b'"jsonrpc"' in line:
            self._break(
                f"sent a message that cannot be read: {why_no_json(error, line)}: {line_text(line)}"
            )
        else:
            self._warn_of_line(line)

    def _settle(self, number: int, error: ProviderError) -> None:
        """The child has answered this call, if it is one, but with nothing of use."""
        call = self._calls.pop(number, None)
        self._cancelled.pop(number, None)
        if call is not None:
            _set_error(call.answer, error)
        elif (asked := self._asked.pop(number, None)) is not None:
            _set_error(asked, error)
        self._over()

    def _warn_of_line(self, line: bytes) -> None:
        self._warn(
            f"wrote a line to standard output that is no message: {line_text(line)} "
            "(what is not a message belongs on standard error)"
        )

    def _warn(self, text: str) -> None:
        self._warnings += 1
        if self._warnings > _MAX_WARNINGS:
            return
        if self._warnings == _MAX_WARNINGS:
            text += "; more of it is not told"
        masked = self.spec.masked(f"the child {text}")
        _log.warning('target "%s": %s', self.spec.target, masked)

    def read(self, kind: type[T], data: msgspec.Raw, what: str) -> T:
        """What it has sent as `what`. Raises `BadProviderOutput`."""
        try:
            return msgspec.json.decode(data or b"null", type=kind)
        except wire.WRONG as error:
            raise BadProviderOutput(
                self.told(f"sent what cannot be read as {what}: {_reason_of(error, data)}"),
                retryable=False,
            ) from error

    def error_in(self, data: msgspec.Raw, what: str) -> ProviderError:
        """The error of an answer, as one of ours."""
        try:
            error = msgspec.json.decode(data or b"null", type=wire.WireError)
        except wire.WRONG as failure:
            reason = f"{what}, with an error that cannot be read: {_reason_of(failure, data)}"
            return BadProviderOutput(self.told(reason), retryable=False)
        return wire.error_of(error, self.told(f"{what}: {error.message}"))

    def error_of(self, data: msgspec.Raw) -> ProviderError:
        """What a call has failed with."""
        return self.error_in(data, "reports")

    def answer_of(self, data: msgspec.Raw) -> wire.Answer:
        """What a call was answered with. Raises `BadProviderOutput`."""
        answer = self.read(wire.Answer, data, "an answer")
        if (answer.text is None) == (answer.output is None):
            which = "neither" if answer.text is None else "both"
            raise BadProviderOutput(
                self.told(f"answered with {which} of `text` and `output`"), retryable=False
            )
        return answer

    # --- its end ---

    def on_broken(self, reason: str) -> None:
        self._break(reason)

    def _break(self, reason: str, *, is_told: bool = False) -> None:
        """It cannot be relied on any more; it is ended, and its calls fail."""
        if self._reason is None:
            self.give_up(BadProviderOutput, reason, is_told=is_told)
            self.on_unreliable()

    def give_up(self, kind: type[ProviderError], reason: str, *, is_told: bool = False) -> None:
        """The child is of no use any more, for this `reason`: what is under way fails."""
        self._reason = reason
        text = self._why_gone = reason if is_told else self.told(reason)
        calls, self._calls = self._calls, {}
        for future in (*(call.answer for call in calls.values()), *self._asked.values()):
            if future is not None:
                _set_error(future, kind(text, retryable=True))
        self.on_given_up()

    def fail_all(self, what: str) -> None:
        """End all calls: the child `what`."""
        calls, self._calls = self._calls, {}
        for call in calls.values():
            _set_error(call.answer, ProviderFailed(self.told(what), retryable=True))


class _InvokeId(msgspec.Struct):
    invoke_id: int


def _set_error(future: asyncio.Future[Any], error: ProviderError) -> None:
    if not future.done():
        future.set_exception(error)


def _reason_of(error: Exception, data: msgspec.Raw | None) -> str:
    return why_no_json(error, bytes(data or b""))


def line_text(line: bytes) -> str:
    """The beginning of a line, to show."""
    text = line[:_SHOWN_LINE].decode("utf-8", "replace").strip()
    return f"{text}…" if len(line) > _SHOWN_LINE else text
