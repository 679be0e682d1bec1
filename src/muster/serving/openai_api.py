"""Targets as an OpenAI-compatible server: `/v1/chat/completions`, `/v1/models`, `/health`.

Tools are the client's: it gives them, and it calls them. A target that is a chat model is asked
for one turn at a time, so that nothing is kept between two requests. A target with a tool loop of
its own (an agent, a team, a function) is suspended while the client makes the calls; see `calls`.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
from aiohttp import web

from muster.provider import (
    ProviderError,
    ProviderFailed,
    ProviderRequest,
    ProviderResponse,
    ToolCall,
)
from muster.providers.chat import CUT_SHORT
from muster.serving.answers import EventStream, json_response
from muster.serving.calls import RunningCall, Suspended
from muster.serving.http import Face, HttpServer
from muster.serving.openai_requests import has_files, provider_request, tool_results
from muster.serving.openai_wire import (
    DONE,
    ChatRequest,
    Chunks,
    completion,
    read_request,
    usage_of,
)
from muster.serving.refusal import Refusal, refusal_of
from muster.serving.served import Served, ServedTargets

__all__ = ("OpenAIApi", "openai_face")

FINISH_REASONS = frozenset({"stop", "length", "content_filter"})
TOOL_SECONDS = 300.0
KEEP_ALIVE_SECONDS = 15.0
"""After so long a silence amid a stream a comment is sent: proxies close what is idle for 60 s."""
KEEP_ALIVE = b": keep-alive\n\n"


class OpenAIApi:
    """Answers the requests of an `HttpServer`. `tell` hears of what should not happen."""

    def __init__(
        self,
        targets: ServedTargets,
        *,
        tell: Callable[[str], None],
        tool_seconds: float = TOOL_SECONDS,
    ) -> None:
        self._targets = targets
        self._tell = tell
        self._suspended = Suspended(tool_seconds)
        self._began = int(time.time())

    async def aclose(self) -> int:
        """End the calls that wait for tools; how many there were."""
        return await self._suspended.aclose()

    async def answer(self, server: HttpServer, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request. Raises `Refusal`."""
        path, method = request.path.rstrip("/"), request.method
        if path == "/v1/chat/completions":
            _expect(method, "POST")
            return await self._complete(server, request)
        if path == "/health":
            _expect(method, "GET", "HEAD")
            return json_response(b'{"status":"ok"}')
        if path == "/v1/models":
            _expect(method, "GET", "HEAD")
            rows = [self._model(name) for name in self._targets.names]
            return json_response(msgspec.json.encode({"object": "list", "data": rows}))
        if path.startswith("/v1/models/"):
            _expect(method, "GET", "HEAD")
            served = self._find(path.removeprefix("/v1/models/"))
            return json_response(msgspec.json.encode(self._model(served.name)))
        raise Refusal(
            404,
            f"there is nothing at {request.path[:100]}: POST /v1/chat/completions, GET /v1/models "
            "and GET /health are served",
            code="not_found",
        )

    def _model(self, name: str) -> dict[str, object]:
        return {"id": name, "object": "model", "created": self._began, "owned_by": "muster"}

    def _find(self, name: str) -> Served:
        served = self._targets.find(name)
        if served is None:
            raise Refusal(404, self._targets.unknown(name), code="model_not_found", param="model")
        return served

    # --- one chat completion ---

    async def _complete(self, server: HttpServer, request: web.BaseRequest) -> web.StreamResponse:
        given = read_request(await server.read(request))
        served = self._find(given.model)
        headers = {}
        if ignored := given.ignored():
            headers["x-muster-ignored"] = ignored
        try:
            if given.messages and given.messages[-1].role == "tool" and not served.one_turn:
                call = self._suspended.take(tool_results(given), served.name)
            elif _is_plain(given, served):
                asked = provider_request(given, None)
                response = await _invoke(served, asked)
                return json_response(_whole(given, served, response), headers=headers)
            else:
                call = await self._begin(given, served)
            if given.stream:
                return await self._stream(
                    EventStream(server, request, headers), call, given, served
                )
            return json_response(await self._collect(call, given, served), headers=headers)
        except ProviderError as error:
            raise refusal_of(error, self._targets.said(error)) from error

    async def _begin(self, given: ChatRequest, served: Served) -> RunningCall:
        """Start the target's call."""
        folder = Path(tempfile.mkdtemp(prefix="muster-serve-")) if has_files(given) else None
        remove = partial(shutil.rmtree, folder, ignore_errors=True) if folder else None
        try:
            if folder is None:
                asked = provider_request(given, None)
            else:
                asked = await asyncio.to_thread(provider_request, given, folder)
        except BaseException:
            if remove is not None:
                remove()
            raise
        return RunningCall(
            served.provider,
            asked,
            target=served.name,
            stream=bool(given.stream),
            with_tools=bool(asked.tools) and not served.one_turn,
            on_end=remove,
        )

    async def _collect(self, call: RunningCall, given: ChatRequest, served: Served) -> bytes:
        """The answer in one piece: to its end, or to the next tools."""
        kept = False
        said: list[str] = []
        try:
            while True:
                item = await call.next()
                if isinstance(item, str):
                    said.append(item)
                elif isinstance(item, list):
                    self._suspended.keep(call)
                    kept = True
                    usage = usage_of(*call.usage_so_far())
                    return completion(given.model, "".join(said) or None, item, "tool_calls", usage)
                else:
                    return _whole(given, served, item, call)
        finally:
            if not kept:
                await call.close()

    async def _stream(
        self, stream: EventStream, call: RunningCall, given: ChatRequest, served: Served
    ) -> web.StreamResponse:
        """The answer as it comes. What fails before its first piece is an error like any other."""
        try:
            await self._events(stream, call, given, served)
        except ProviderError as error:
            refusal = refusal_of(error, self._targets.said(error))
        except Refusal as error:
            refusal = error
        except ConnectionError:
            raise
        except Exception as error:
            self._tell(f"a request failed: {type(error).__name__}: {str(error)[:300]}")
            refusal = Refusal(500, "the server has failed", kind="server_error", close=True)
        else:
            return stream.response
        if not stream.begun:
            raise refusal
        await stream.send(b"data: %s\n\n" % refusal.body)
        return stream.response

    async def _events(
        self, stream: EventStream, call: RunningCall, given: ChatRequest, served: Served
    ) -> None:
        chunks = Chunks(given.model)
        said: list[str] = []
        kept = False
        head = chunks.role()
        try:
            while True:
                item = await call.next_within(KEEP_ALIVE_SECONDS if stream.begun else None)
                if item is None:
                    await stream.send(KEEP_ALIVE)
                    continue
                if isinstance(item, str):
                    said.append(item)
                    head += chunks.text(item)
                    if not call.over:  # else the rest goes out with it
                        await stream.send(head)
                        head = b""
                    continue
                if isinstance(item, list):
                    self._suspended.keep(call)
                    kept = True
                    end = chunks.calls(item) + chunks.finish("tool_calls")
                    usage = usage_of(*call.usage_so_far())
                else:
                    calls = _uncalled(given, served, item)
                    rest = _unsaid(item.text, "".join(said))
                    end = chunks.text(rest) if rest else b""
                    end += chunks.calls(calls) if calls else b""
                    end += chunks.finish(_finish(item, calls))
                    usage = usage_of(*call.usage_left(item))
                if usage is not None and given.stream_options is not None:
                    end += chunks.usage(usage) if given.stream_options.include_usage else b""
                await stream.send(head + end + DONE)
                return
        except (asyncio.CancelledError, ConnectionError):
            if kept:  # the client is gone, and does not know what it was to call
                self._suspended.drop(call)
            raise
        finally:
            if not kept:
                await call.close()


def _expect(method: str, *allowed: str) -> None:
    if method not in allowed:
        raise Refusal(
            405,
            f"{method[:20]} is not allowed here: expected {' or '.join(allowed)}",
            code="method_not_allowed",
            headers={"Allow": ", ".join(allowed)},
        )


def _is_plain(given: ChatRequest, served: Served) -> bool:
    """Nothing happens before the whole answer, so that no task is needed."""
    loops = given.tools and not served.one_turn
    return not given.stream and not loops and not has_files(given)


async def _invoke(served: Served, request: ProviderRequest) -> ProviderResponse:
    try:
        return await served.provider.invoke(request)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise ProviderFailed("the target cancelled its own call") from None


def _whole(
    given: ChatRequest,
    served: Served,
    response: ProviderResponse,
    call: RunningCall | None = None,
) -> bytes:
    calls = _uncalled(given, served, response)
    text = response.text
    if call is None:
        usage = usage_of(response.token_usage, response.cost_usd)
    else:
        usage = usage_of(*call.usage_left(response))
    reason = _finish(response, calls)
    return completion(given.model, text if text or not calls else None, calls, reason, usage)


def _uncalled(given: ChatRequest, served: Served, response: ProviderResponse) -> Sequence[ToolCall]:
    """What a chat model wants the client to call."""
    if not served.one_turn or not given.tools or response.finish_reason in CUT_SHORT:
        return ()
    last = response.output[-1] if response.output else None
    return last.tool_calls if last is not None and last.role == "assistant" else ()


def _finish(response: ProviderResponse, calls: Sequence[ToolCall]) -> str:
    if calls:
        return "tool_calls"
    reason = response.finish_reason
    return reason if reason in FINISH_REASONS else "stop"


def _unsaid(text: str, said: str) -> str:
    """What of an answer has not been streamed. Text that was streamed is not taken back."""
    if not said:
        return text
    return text[len(said) :] if text.startswith(said) else ""


@asynccontextmanager
async def openai_face(
    targets: ServedTargets, *, tell: Callable[[str], None], tool_seconds: float = TOOL_SECONDS
) -> AsyncIterator[Face]:
    """What an `HttpServer` needs to be an OpenAI-compatible one."""
    api = OpenAIApi(targets, tell=tell, tool_seconds=tool_seconds)
    try:
        yield Face(api.answer, "/v1", api.aclose)
    finally:
        await api.aclose()
