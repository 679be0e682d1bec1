"""Answers on their way to the client, wherever they come from: the server, or a cassette."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from muster.config.secrets import MASK
from muster.provider import BadRequest, ProviderError, ProviderTimeout
from muster.providers.transport import HttpClient
from muster.proxy.cassette import Exchange, data_of
from muster.serving.refusal import Refusal

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ("Answer", "BrokenOff", "end_to_end", "from_cassette", "from_server", "request_headers")

UNLIMITED = 2**62
"""What passes through is bounded by whoever reads it."""

_OWN = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection"}
    | {"te", "trailer", "transfer-encoding", "upgrade", "content-length"}
)
"""Headers that are about one connection, and none of the other's business."""
_NOT_FORWARDED = frozenset({"host", "accept-encoding", "expect"})
_NOT_RETURNED = frozenset({"content-encoding", "alt-svc"})

_STREAMS = ("text/event-stream", "application/x-ndjson", "application/jsonl", "eventstream")


class BrokenOff(Exception):
    """The server's connection ended before its answer did."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer: its head, and a body that is read as it comes."""

    status: int
    headers: dict[str, str]
    """Without those that are about one connection."""
    chunks: AsyncIterator[bytes]
    """Raises `BrokenOff`."""
    length: int | None = None
    """Of the body, where it is known beforehand."""

    @property
    def streamed(self) -> bool:
        """The body is a series of events."""
        kind = next((v for name, v in self.headers.items() if name.lower() == "content-type"), "")
        return any(stream in kind.lower() for stream in _STREAMS)


def end_to_end(headers: Iterable[tuple[str, str]], more: frozenset[str]) -> dict[str, str]:
    """Headers without those about the connection, those that it names, and `more`."""
    pairs = [(name, _readable(value)) for name, value in headers]
    left_out = _OWN | more
    for name, value in pairs:
        if name.lower() == "connection":
            left_out |= {word.strip().lower() for word in value.split(",")}
    found: dict[str, str] = {}
    for name, value in pairs:
        if name.lower() not in left_out:
            found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def request_headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The headers of a request that are the server's business."""
    return end_to_end(headers, _NOT_FORWARDED)


def _readable(value: str) -> str:
    """Header values may be any bytes; here they are UTF-8."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


# --- from the server ------------------------------------------------------------------------------


@asynccontextmanager
async def from_server(
    client: HttpClient, origin: str, request: web.BaseRequest, body: bytes
) -> AsyncGenerator[Answer]:
    """Ask the server. Its answer is passed on as it comes; leaving the block ends the call.

    Raises:
        Refusal: the server cannot be reached, or does not answer.
    """
    headers = request_headers(request.headers.items())
    # A compressed answer could be neither read nor scrubbed.
    headers["Accept-Encoding"] = "identity"
    url = origin + request.rel_url.raw_path
    if request.rel_url.raw_query_string:
        url += "?" + request.rel_url.raw_query_string
    stream = client.stream(request.method, url, headers=headers, body=body or None)
    try:
        await stream.__aenter__()
    except ProviderError as error:
        raise _unreached(error) from None
    try:
        encoded = "content-encoding" in stream.headers
        length = stream.headers.get("Content-Length", "")
        yield Answer(
            stream.status,
            end_to_end(stream.headers.items(), _NOT_RETURNED),
            _passed(stream.chunks()),
            int(length) if length.isdecimal() and not encoded else None,
        )
    finally:
        await stream.__aexit__(None, None, None)


async def _passed(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        async for chunk in chunks:
            yield chunk
    except ProviderError as error:
        raise BrokenOff(str(error)) from None


def _unreached(error: ProviderError) -> Refusal:
    if isinstance(error, BadRequest):
        return Refusal(400, str(error), code="not_forwarded")
    if isinstance(error, ProviderTimeout):
        return Refusal(504, str(error), kind="timeout_error", code="upstream_timeout")
    return Refusal(502, str(error), kind="server_error", code="upstream_unavailable")


# --- from a cassette ------------------------------------------------------------------------------


def from_cassette(exchange: Exchange, *, timing: bool) -> Answer:
    """A recorded answer; with `timing` as slow as it was."""
    response = exchange.response
    headers = {name: value for name, value in response.headers.items() if value != MASK}
    headers["x-muster-proxy"] = "replayed"
    length = None
    if response.chunks is None and not response.broke_off:
        length = len(data_of(response.body))
    return Answer(response.status, headers, _replayed(exchange, timing=timing), length)


async def _replayed(exchange: Exchange, *, timing: bool) -> AsyncIterator[bytes]:
    response = exchange.response
    pieces = response.chunks
    if pieces is None:
        pieces = [(response.after_ms, response.body)] if response.body else []
    before = response.after_ms  # the wait for the head is over
    for at, text in pieces:
        if timing and at > before:
            await asyncio.sleep((at - before) / 1000)
            before = at
        yield data_of(text)
    if response.broke_off:
        raise BrokenOff("the recorded connection broke off here")
