"""How an answer goes out: as it comes, slowly, or only in part."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web

from muster.proxy.answers import Answer, BrokenOff
from muster.proxy.chaos import Decision, End
from muster.proxy.cutting import cut_answer
from muster.proxy.tally import Passage
from muster.serving.answers import AnswerStream
from muster.serving.http import HttpServer

__all__ = ("GARBAGE", "Sender", "reset")

GARBAGE = b'{"id": "garbage", "choices": [{"message": {"content": "this is'
"""Broken JSON, as a server writes that fails amid its answer."""

PIECES_A_SECOND = 20

HEAD_SECONDS = 0.02
"""A reset overtakes what was sent before it: so long the head has to leave, and to be read."""

_NO_BODY = frozenset({204, 304})


class Sender:
    """Sends one answer to its client, with the faults that were decided."""

    def __init__(
        self,
        server: HttpServer,
        request: web.BaseRequest,
        decision: Decision,
        passage: Passage,
        *,
        max_body: int,
    ) -> None:
        self._server = server
        self._request = request
        self._rate = decision.rate
        self._slowed_by = decision.slowed_by
        # An error of ours is an answer as any other; its fault is done already.
        self._end = decision.end if decision.end and decision.end.status is None else None
        self._passage = passage
        self._max_body = max_body

    async def send(self, answer: Answer) -> web.StreamResponse:
        """Send all of it but the end of the body, which is for the server to send.

        Raises:
            ConnectionError: nobody reads any more, or that was the fault.
        """
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        response.content_length = answer.length
        stream = AnswerStream(self._server, self._request, response)
        self._passage.status = answer.status
        end = self._end
        if self._request.method == "HEAD" or answer.status in _NO_BODY:
            async for _ in answer.chunks:
                pass
        elif end is not None and end.kind == "drop after_headers":
            await self._drop(stream, end)
        elif end is not None and (end.kind != "garbage" or answer.streamed):
            await self._send_cut(stream, answer, end)
        else:
            await self._body(stream, answer.chunks)
        return response

    async def _body(self, stream: AnswerStream, chunks: AsyncIterator[bytes]) -> None:
        if self._rate is not None:
            self._passage.faults.append((self._slowed_by, "slow"))
        await stream.begin()
        try:
            async for chunk in chunks:
                if self._rate is None:
                    await stream.send(chunk)
                else:
                    await _paced(chunk, self._rate, stream.send)
        except BrokenOff:
            raise self._broken_off() from None

    async def _drop(self, stream: AnswerStream, end: End) -> None:
        await stream.begin()
        self._passage.faults.append((end.rule, end.kind))
        self._passage.ended = "cut"
        await asyncio.sleep(HEAD_SECONDS)
        raise reset(self._request)

    async def _send_cut(self, stream: AnswerStream, answer: Answer, end: End) -> None:
        assert end.cut is not None
        try:
            cut = await cut_answer(answer, end.cut, max_body=self._max_body)
        except BrokenOff:
            raise self._broken_off() from None
        whole = end.kind == "truncate"
        stream.response.content_length = cut.whole_length if whole else cut.length
        await self._body(stream, cut.chunks)
        if not cut.reached:
            self._passage.missed.append(end.rule)
            return
        self._passage.faults.append((end.rule, end.kind))
        self._passage.ended = "cut"
        if end.kind == "truncate":
            raise self._closed()
        if end.kind == "garbage":
            await stream.send(b"data: " + GARBAGE + b"\n\n")

    def _broken_off(self) -> ConnectionError:
        self._passage.ended = "broke_off"
        return self._closed()

    def _closed(self) -> ConnectionError:
        """Close the connection once everything that was sent has left; the error to raise then."""
        if self._request.transport is not None:
            self._request.transport.close()
        return ConnectionResetError("the answer is broken off")


async def _paced(data: bytes, rate: float, send: Callable[[bytes], Awaitable[None]]) -> None:
    """Send `data` at `rate` bytes a second."""
    size = max(1, int(rate / PIECES_A_SECOND))
    for start in range(0, len(data), size):
        piece = data[start : start + size]
        await asyncio.sleep(len(piece) / rate)
        await send(piece)


def reset(request: web.BaseRequest) -> ConnectionError:
    """Reset the connection, whatever is still to be sent; the error to raise then."""
    transport = request.transport
    if transport is not None:
        found = transport.get_extra_info("socket")
        if found is not None:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return ConnectionResetError("the connection is reset")
