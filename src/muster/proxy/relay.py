"""Answers one request: from the server or from a cassette, noted, and with the faults it gets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import web

from muster.providers.transport import HttpClient
from muster.proxy.answers import Answer, from_cassette, from_server
from muster.proxy.cassette import CassetteWriter, Exchange
from muster.proxy.chaos import Chaos, Decision, End
from muster.proxy.recording import Recording
from muster.proxy.scrub import Asked, Scrubber
from muster.proxy.sending import GARBAGE, Sender, reset
from muster.proxy.shelf import NotRecorded, Shelf
from muster.proxy.tally import Passage, Tally
from muster.serving.http import HttpServer
from muster.serving.refusal import Refusal

__all__ = ("Relay", "Upstream")


@dataclass(frozen=True, slots=True)
class Upstream:
    """The server that is asked."""

    base: str
    """Its base URL, without a slash at the end."""
    client: HttpClient

    @property
    def origin(self) -> str:
        """Scheme and host."""
        scheme, _, rest = self.base.partition("://")
        return f"{scheme}://{rest.partition('/')[0]}"

    @property
    def path(self) -> str:
        """Where the API begins."""
        return self.base[len(self.origin) :]


@dataclass(slots=True, kw_only=True)
class Relay:
    """What stands between the clients and the server."""

    scrubber: Scrubber
    tally: Tally
    tell: Callable[[str], None]
    upstream: Upstream | None = None
    shelf: Shelf | None = None
    """Recorded answers; the server, if there is one, is asked for what is missing."""
    writer: CassetteWriter | None = None
    chaos: Chaos | None = None
    timing: bool = False
    """Recorded answers come as slowly as they did."""
    max_body: int = 32 * 2**20
    """Of what is kept of an answer."""
    stopping: bool = False
    _count: int = 0
    _write_failed: bool = field(default=False)

    async def answer(self, server: HttpServer, request: web.BaseRequest) -> web.StreamResponse:
        """The handler of the HTTP server."""
        self._count += 1
        passage = Passage(self._count, request.method, request.rel_url.raw_path)
        started = time.perf_counter()
        try:
            return await self._answer(server, request, passage)
        except Refusal as refusal:
            passage.status, passage.ended = refusal.status, "refused"
            refusal.headers.setdefault("x-muster-proxy", "refused")
            raise
        except asyncio.CancelledError:
            passage.ended = "stopped" if self.stopping else "client_left"
            raise
        except ConnectionError:
            if passage.ended == "whole":
                passage.ended = "client_left"
            raise
        finally:
            self.tally.add(passage, (time.perf_counter() - started) * 1000)

    async def _answer(
        self, server: HttpServer, request: web.BaseRequest, passage: Passage
    ) -> web.StreamResponse:
        self._check(request)
        body = await server.read(request)
        path = request.rel_url.raw_path
        if request.rel_url.raw_query_string:
            path += "?" + request.rel_url.raw_query_string
        asked = self.scrubber.request(request.method, path, request.headers.items(), body)
        passage.path = asked.path
        decision = self.chaos.decide(asked) if self.chaos is not None else Decision()
        if decision.delay > 0:
            passage.faults += [(rule, "latency") for rule in decision.delayed_by]
            await asyncio.sleep(decision.delay)
        answer = self._instead(request, asked, decision.end, passage)
        sender = Sender(server, request, decision, passage, max_body=self.max_body)
        if answer is not None:
            return await sender.send(answer)
        async with self._asked(request, asked, body, passage) as answer:
            return await sender.send(answer)

    def _check(self, request: web.BaseRequest) -> None:
        if request.method == "CONNECT" or not request.rel_url.raw_path.startswith("/"):
            raise Refusal(
                405,
                "this proxy stands before one server: use its address as the base URL, "
                "not as an HTTP proxy",
                code="method_not_allowed",
                close=True,
            )
        if "upgrade" in request.headers.get("Connection", "").lower():
            raise Refusal(501, "WebSockets are not passed on", code="not_supported", close=True)
        if self.upstream is None:
            return
        base, path = self.upstream.path, request.rel_url.raw_path
        if path != base and not path.startswith(f"{base}/"):
            raise Refusal(
                404,
                f"{path[:200]} is not passed on: this proxy stands before {self.upstream.base}; "
                f"the base URL here ends with {base}",
                code="not_found",
            )

    # --- where the answer comes from ---

    def _instead(
        self, request: web.BaseRequest, asked: Asked, end: End | None, passage: Passage
    ) -> Answer | None:
        """A fault's own answer, which needs nobody else's."""
        if end is None:
            return None
        if end.status is not None:
            passage.faults.append((end.rule, end.kind))
            return _error_answer(end)
        if end.kind == "drop before_headers":
            passage.faults.append((end.rule, end.kind))
            passage.ended = "cut"
            raise reset(request)
        if end.kind == "garbage" and not asked.wants_stream:
            passage.faults.append((end.rule, end.kind))
            return _made(200, GARBAGE, {"x-muster-fault": "garbage"})
        return None

    @asynccontextmanager
    async def _asked(
        self, request: web.BaseRequest, asked: Asked, body: bytes, passage: Passage
    ) -> AsyncGenerator[Answer]:
        """The recorded answer, else the server's."""
        if self.shelf is not None:
            try:
                exchange = self.shelf.take(asked)
            except NotRecorded as missing:
                if self.upstream is None:
                    raise _not_recorded(missing) from None
            else:
                passage.source = "replay"
                if self.timing:
                    await asyncio.sleep(exchange.response.after_ms / 1000)
                yield from_cassette(exchange, timing=self.timing)
                return
        assert self.upstream is not None
        recording = None
        if self.writer is not None:
            recording = Recording(asked, self.upstream.base, self._write, max_body=self.max_body)
        passage.source = "upstream"
        try:
            async with from_server(
                self.upstream.client, self.upstream.origin, request, body
            ) as answer:
                yield recording.noting(answer) if recording is not None else answer
        except (asyncio.CancelledError, ConnectionError):
            if recording is not None:
                recording.client_left()
            raise
        except Refusal:
            passage.source = "proxy"
            raise
        finally:
            if recording is not None:
                passage.recorded = recording.written
                if recording.too_large:
                    self._could_not_write(
                        f"an answer of more than {self.max_body:,} bytes was passed on, "
                        "and not recorded (--max-body)"
                    )

    def _write(self, exchange: Exchange) -> bool:
        assert self.writer is not None
        try:
            self.writer.write(exchange)
        except OSError as error:
            told = f"{self.writer.path}: cannot record: {error.strerror}; the proxy goes on"
            self._could_not_write(told)
            return False
        return True

    def _could_not_write(self, text: str) -> None:
        self.tally.unwritten += 1
        if not self._write_failed:
            self._write_failed = True
            self.tell(text)


async def _one(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _made(status: int, data: bytes, headers: dict[str, str]) -> Answer:
    told = {"Content-Type": "application/json", "x-muster-proxy": "fault", **headers}
    return Answer(status, told, _one(data), len(data))


_TYPES = {429: "rate_limit_error", 529: "overloaded_error", 401: "authentication_error"}


def _error_answer(end: End) -> Answer:
    """An error in a shape that OpenAI's clients and Anthropic's both understand."""
    fault = end.status
    assert fault is not None
    ours = "server_error" if fault.code >= 500 else "invalid_request_error"
    kind = fault.type or _TYPES.get(fault.code, ours)
    error: dict[str, Any] = {"type": kind, "message": fault.message, "param": None, "code": kind}
    headers = {"x-muster-fault": end.kind}
    if fault.retry_after is not None:
        headers["Retry-After"] = f"{fault.retry_after:.12g}"
        headers["retry-after-ms"] = f"{fault.retry_after * 1000:.12g}"
    return _made(fault.code, msgspec.json.encode({"type": "error", "error": error}), headers)


def _not_recorded(missing: NotRecorded) -> Refusal:
    return Refusal(
        404,
        str(missing),
        code="not_recorded",
        headers={"x-should-retry": "false", "x-muster-proxy": "not-recorded"},
    )
