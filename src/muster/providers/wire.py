"""One URL that takes JSON and answers with JSON or, asked to stream, with server-sent events.

Everything that is not the answer asked for becomes a `ProviderError` here: statuses, HTML pages,
bodies that are not JSON, streams that are cut off.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import msgspec

from muster.provider import BadProviderOutput, ProviderError
from muster.providers.http_errors import error_for_payload, error_for_status, excerpt
from muster.providers.sse import SseEvent, SseParser
from muster.providers.transport import HttpClient

__all__ = ("JsonApi", "parsed_arguments")

T = TypeVar("T")

MIN_SECRET = 8
"""Shorter keys are not masked in whole answers: `none` and the like are words."""

GRACE_SECONDS = 1.0
"""How long a server may take to close a stream whose last event has come."""


class JsonApi:
    """Posts JSON to one URL. `who` begins all messages; `secrets` are masked in them."""

    def __init__(
        self,
        client: HttpClient,
        url: str,
        headers: Mapping[str, str],
        *,
        who: str,
        secrets: Sequence[str] = (),
    ) -> None:
        self._client = client
        self._url = url
        self._who = who
        self._secrets = tuple(secrets)
        self._secret_bytes = [s.encode() for s in self._secrets if len(s) >= MIN_SECRET]
        self._headers = {
            **headers,
            "Content-Type": "application/json",
            "Accept": "application/json",
        }
        self._stream_headers = {**self._headers, "Accept": "text/event-stream, application/json"}

    async def post(self, body: bytes) -> bytes:
        """The answer's JSON, unparsed. Raises a `ProviderError` for any other answer."""
        try:
            reply = await self._client.send("POST", self._url, headers=self._headers, body=body)
        except ProviderError as error:
            raise self._named(error) from None
        if not 200 <= reply.status < 300:
            raise self._refused(reply.status, reply.headers, reply.body)
        return self._without_secrets(reply.body)

    async def stream(self, body: bytes, take: Callable[[SseEvent], bool]) -> bytes | None:
        """Hand each event of the answer to `take` until it says, by True, that the answer is whole.

        A server that does not stream answers with JSON all the same: that is returned, unparsed.
        """
        try:
            async with self._client.stream(
                "POST", self._url, headers=self._stream_headers, body=body
            ) as answer:
                if not 200 <= answer.status < 300:
                    refusal = await answer.read()
                    raise self._refused(answer.status, answer.headers, refusal)
                if "text/event-stream" not in answer.headers.get("Content-Type", "").lower():
                    return self._without_secrets(await answer.read())
                await _hand_over(answer.chunks(), take)
        except ProviderError as error:
            raise self._named(error) from None
        return None

    def decode(self, decoder: msgspec.json.Decoder[T], data: bytes, *, what: str = "answer") -> T:
        """`data` by `decoder`.

        Raises:
            BadProviderOutput: it is not JSON, or not of the shape expected.
        """
        try:
            return decoder.decode(data)
        except msgspec.ValidationError as error:
            raise self.bad(f"the {what} is not of the expected shape: {error}") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        start = data[:400].decode("utf-8", "replace").strip()
        if not start:
            raise self.bad(f"the {what} is empty")
        if start[:15].lower().startswith(("<!doctype", "<html")):
            raise self.bad(f"the {what} is an HTML page, not JSON; is base_url right?")
        raise self.bad(f"the {what} is not valid JSON: {excerpt(start)}")

    def bad(self, message: str) -> BadProviderOutput:
        """The error for an answer that cannot be used."""
        return BadProviderOutput(f"{self._who}: {self._masked(message)}")

    def broke_off(self, error: Any) -> ProviderError:
        """The error that an error object within an answer means."""
        return error_for_payload(error, who=self._who, secrets=self._secrets)

    def _refused(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        return error_for_status(status, headers, body, who=self._who, secrets=self._secrets)

    def _named(self, error: ProviderError) -> ProviderError:
        if not error.message.startswith(self._who):
            error.message = f"{self._who}: {error.message}"
            error.args = (error.message,)
        return error

    def _without_secrets(self, data: bytes) -> bytes:
        """An answer is kept as `raw`, and some servers repeat what they were sent."""
        for secret in self._secret_bytes:
            if secret in data:
                data = data.replace(secret, b"**********")
        return data

    def _masked(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "**********")
        return text


async def _hand_over(chunks: AsyncIterator[bytes], take: Callable[[SseEvent], bool]) -> None:
    parser = SseParser()
    feed = parser.feed
    whole = False
    async for chunk in chunks:
        for event in feed(chunk):
            whole = take(event) or whole
        if whole:
            break
    else:
        for event in parser.close():
            take(event)
        return
    # The end of the body gives the connection back; what goes wrong from here on harms nobody.
    with suppress(ProviderError, TimeoutError):
        async with asyncio.timeout(GRACE_SECONDS):
            async for _ in chunks:
                pass


def parsed_arguments(text: str | bytes) -> object:
    """A tool call's arguments: a mapping; nothing counts as none; the text itself if it is no JSON.

    The tool loop tells the model about arguments that are not a mapping.
    """
    if not text.strip():
        return {}
    try:
        value: object = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return text if isinstance(text, str) else text.decode("utf-8", "replace")
    return {} if value is None else value
