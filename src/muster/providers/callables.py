"""Plain Python as providers: functions of every kind, and objects with an `invoke`.

Whatever a user's code raises that is not a `ProviderError` becomes `ProviderFailed` (a
`TimeoutError`: `ProviderTimeout`), with the type, the message and the line; whatever it returns
goes through `as_response`.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from muster.errors import UsageError
from muster.importing import describe_failure
from muster.provider import (
    BadProviderOutput,
    Message,
    OnChunk,
    ProviderError,
    ProviderFailed,
    ProviderRequest,
    ProviderResponse,
    ProviderTimeout,
)
from muster.providers.answers import as_response
from muster.providers.seconds import within
from muster.providers.threads import DEFAULT_THREADS, Job, Threads

__all__ = ("CallableProvider", "provider_of_callable", "provider_of_object")

Call: TypeAlias = Callable[[ProviderRequest], Any]

TEXT_NAMES = frozenset(("question", "prompt", "text", "query", "message", "input"))
"""What a parameter without annotation is called when it takes the question's text."""


class CallableProvider:
    """A provider whose `invoke` is somebody's callable, watched over."""

    __slots__ = ("_call", "_close", "inner", "name")

    def __init__(
        self,
        call: Callable[[ProviderRequest], Awaitable[object]],
        *,
        inner: object,
        name: str,
        close: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._call = call
        self._close = close
        self.inner = inner
        """What was wrapped."""
        self.name = name

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        """Answer with what the callable says. Raises only `ProviderError`s."""
        seconds = request.limits.max_seconds
        if seconds is None:
            return await self._answer(request)
        return await within(seconds, self._answer(request), who=self.name)

    async def _answer(self, request: ProviderRequest) -> ProviderResponse:
        try:
            answer = await self._call(request)
        except ProviderError:
            raise
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise self._failed(error) from error
        except (Exception, SystemExit) as error:
            raise self._failed(error) from error
        return as_response(answer, self.name)

    @property
    def capabilities(self) -> Any:
        """What the wrapped object or function says of itself."""
        return getattr(self.inner, "capabilities", None)

    async def aclose(self) -> None:
        """Close what was wrapped, and end its threads."""
        if self._close is not None:
            await self._close()

    def _failed(self, error: BaseException) -> ProviderError:
        text = f"{self.name}: {describe_failure(error, path=_users_file(self.inner, error))}"
        if isinstance(error, TimeoutError):
            return ProviderTimeout(text)
        # The network is the one trouble that passes by itself.
        return ProviderFailed(text, retryable=isinstance(error, ConnectionError))


def provider_of_callable(
    function: Callable[..., Any], *, name: str, threads: int = DEFAULT_THREADS
) -> CallableProvider:
    """A function, generator function, async function or async generator function as a provider.

    It takes the request, or the question's text: the annotation of its first parameter decides
    (`str` is the text), else the parameter's name (see `TEXT_NAMES`), else it is the request.
    Synchronous ones run on at most `threads` threads.

    Raises:
        UsageError: it cannot be called with one argument.
    """
    call: Call = function
    if _takes_text(function, name):
        call = lambda request: function(request.question)  # noqa: E731 - the fastest adapter
    return _provider(call, _routine(function), function, name, threads)


def provider_of_object(obj: Any, *, name: str, threads: int = DEFAULT_THREADS) -> CallableProvider:
    """An object with `invoke(request)`, sync or async, as a provider that raises as it should."""
    return _provider(obj.invoke, obj.invoke, obj, name, threads)


def _provider(call: Call, kind: Any, inner: Any, name: str, threads: int) -> CallableProvider:
    """`kind` is the callable that tells whether `call` is asynchronous."""
    close = getattr(inner, "aclose", None)
    if inspect.iscoroutinefunction(kind):
        return CallableProvider(call, inner=inner, name=name, close=close)
    if inspect.isasyncgenfunction(kind):
        streamed = functools.partial(_collect, call, name)
        return CallableProvider(streamed, inner=inner, name=name, close=close)
    threaded = _Threaded(call, name, threads, close)
    return CallableProvider(threaded, inner=inner, name=name, close=threaded.aclose)


class _Threaded:
    """A synchronous callable, called on a thread."""

    def __init__(self, call: Call, name: str, limit: int, close: Callable[[], Any] | None) -> None:
        self._call = call
        self._name = name
        self._limit = limit
        self._close = close
        self._threads: Threads | None = None

    async def __call__(self, request: ProviderRequest) -> object:
        if self._threads is None:
            self._threads = Threads(self._limit, name=self._name)
        answer = await self._threads.run(lambda job: self._work(request, job))
        if inspect.isasyncgen(answer):
            return await _collect(lambda _: answer, self._name, request)
        return await answer if inspect.isawaitable(answer) else answer

    async def aclose(self) -> None:
        if self._threads is not None:
            self._threads.close()
            self._threads = None
        if self._close is not None:
            closing = self._close()
            if inspect.isawaitable(closing):
                await closing

    def _work(self, request: ProviderRequest, job: Job) -> object:
        answer = self._call(request)
        if not isinstance(answer, Generator):
            return answer
        on_chunk = request.on_chunk
        post: OnChunk | None = None
        if on_chunk is not None:
            post = functools.partial(job.post, on_chunk)
        chunks = _Chunks(self._name, post)
        while not job.abandoned:
            try:
                chunks.add(next(answer))
            except StopIteration as stop:
                if stop.value is not None:
                    chunks.finish(stop.value)
                break
        answer.close()
        return chunks.answer()


async def _collect(
    call: Call,
    name: str,
    request: ProviderRequest,
) -> object:
    """What an async generator says, its text passed on as it comes."""
    chunks = _Chunks(name, request.on_chunk)
    generator: AsyncGenerator[object, None] = call(request)
    try:
        async for item in generator:
            chunks.add(item)
    finally:
        await generator.aclose()
    return chunks.answer()


class _Chunks:
    """What a generator yields: pieces of text, and at the end perhaps a response or a mapping with
    the accounting."""

    def __init__(self, name: str, on_chunk: OnChunk | None) -> None:
        self._name = name
        self._on_chunk = on_chunk
        self._texts: list[str] = []
        self._final: Any = None

    def add(self, item: object) -> None:
        if not isinstance(item, str):
            self.finish(item)
            return
        self._check_open()
        self._texts.append(item)
        if self._on_chunk is not None:
            self._on_chunk(item)

    def finish(self, value: object) -> None:
        self._check_open()
        if value is None or isinstance(value, int | float):
            raise BadProviderOutput(
                f"{self._name}: yielded {value!r}; expected pieces of text, and at the end "
                "perhaps a ProviderResponse",
                retryable=False,
            )
        self._final = value

    def answer(self) -> object:
        text, final = "".join(self._texts), self._final
        if final is None:
            return text
        if self._texts and isinstance(final, Mapping) and not final.keys() & {"output", "role"}:
            return {"text": text, **final}
        response = as_response(final, self._name)
        return (
            response if response.output else replace(response, output=(Message("assistant", text),))
        )

    def _check_open(self) -> None:
        if self._final is not None:
            raise BadProviderOutput(
                f"{self._name}: yielded more after its final answer", retryable=False
            )


def _takes_text(function: Callable[..., Any], name: str) -> bool:
    """True when the function's parameter is the question's text."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return False  # some builtins do not tell
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = [
        p
        for p in parameters
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    catches_all = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if len(needed) > 1 or not (positional or catches_all):
        takes = ", ".join(p.name for p in needed) or "nothing"
        raise UsageError(
            f"{name}: {_called(function)} takes {takes}; a provider function takes one argument, "
            "the request (or `question: str`, its text)"
        )
    if not positional:
        return False
    first = positional[0]
    if first.annotation is not first.empty:
        return first.annotation in (str, "str")
    return first.name in TEXT_NAMES


def _routine(function: Any) -> Any:
    """What is behind the call: an instance's `__call__`; functions and partials as they are."""
    if inspect.isroutine(function) or isinstance(function, functools.partial):
        return function
    return function.__call__


def _called(function: Any) -> str:
    return getattr(function, "__qualname__", None) or type(function).__qualname__


def _users_file(inner: Any, error: BaseException) -> Path | None:
    """The file of the user's code, when the error passed through it: its line says more than that
    of the library it called."""
    method = _routine(getattr(inner, "invoke", None) or inner)
    while isinstance(method, functools.partial):
        method = method.func
    code = getattr(inspect.unwrap(method), "__code__", None)
    if code is None:
        return None
    passed = any(f.filename == code.co_filename for f in traceback.extract_tb(error.__traceback__))
    return Path(code.co_filename) if passed else None
