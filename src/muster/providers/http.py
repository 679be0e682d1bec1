"""`http`: any service that takes a request over HTTP, described in `targets.yaml`."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any
from urllib.parse import urlencode

import msgspec

from muster.capabilities import Capabilities
from muster.provider import BadRequest, ProviderError, ProviderRequest, ProviderResponse
from muster.providers.http_answer import AnswerReader, StreamReader
from muster.providers.http_settings import VALUES, HttpSettings
from muster.providers.seconds import within
from muster.providers.settings import ProviderSettings, secrets_in
from muster.providers.sse import sse_events
from muster.providers.template import TemplateError, compile_template
from muster.providers.transport import HttpClient, HttpStream, error_for_status
from muster.target import ResolvedTarget

__all__ = ("HttpProvider",)

DEFAULT_BODY = {"prompt": "{{ prompt }}"}
GRACE_SECONDS = 1.0
"""How long a server may take to close a stream that has said that it is done."""


class HttpProvider:
    """Sends one HTTP request for each question. One pool of connections serves all calls."""

    Settings: type[ProviderSettings] = HttpSettings
    capabilities = Capabilities(images=False, embeddings=False, batch=False)
    """The rest depends on what the templates use."""

    def __init__(self, target: ResolvedTarget) -> None:
        settings = HttpSettings.model_validate(target.config)
        self._settings = settings
        self._who = target.name
        self._secrets = tuple(secrets_in(target.config))
        body = settings.body
        if "body" not in settings.model_fields_set and settings.method not in ("GET", "DELETE"):
            body = DEFAULT_BODY
        self._url = compile_template(settings.url, quoted=True)
        self._headers = compile_template(settings.headers)
        self._query = compile_template(settings.query)
        self._body = compile_template(body)
        self._has_body = body is not None
        self._content_type = _content_type_of_text(settings, body)
        self._fixed_headers = _fixed_headers(settings)
        self._names = settings.names | ({"prompt"} if body is DEFAULT_BODY else set())
        self.capabilities = _capabilities(self._names, streams=settings.stream is not None)
        self._client = HttpClient(
            connect_timeout=settings.connect_timeout_seconds,
            read_timeout=settings.read_timeout_seconds,
            max_body_bytes=settings.max_body_bytes,
        )
        self._reader = AnswerReader(settings.response, who=target.name, secrets=self._secrets)

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        """Send the request and read the answer.

        Raises:
            BadRequest: a template cannot be filled from this request, or the server says 4xx.
            LimitExceeded: it took longer than `max_seconds` allows.
            ProviderError: the server refuses, fails, or its answer is not understood.
        """
        seconds = request.limits.max_seconds
        if seconds is None:
            return await self._asked(request)
        return await within(seconds, self._asked(request), who=self._who)

    async def _asked(self, request: ProviderRequest) -> ProviderResponse:
        url, headers, body = await self._filled(request)
        method = self._settings.method
        try:
            if self._settings.stream is not None:
                async with self._client.stream(method, url, headers=headers, body=body) as answer:
                    return await self._streamed(answer, request)
            reply = await self._client.send(method, url, headers=headers, body=body)
        except ProviderError as error:
            raise self._named(error) from error.__cause__
        self._check_status(reply.status, reply.headers, reply.body)
        response = self._reader.whole(reply.body, reply.headers.get("Content-Type", ""))
        if request.on_chunk is not None and response.text:
            request.on_chunk(response.text)
        return response

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _filled(self, request: ProviderRequest) -> tuple[str, dict[str, str], bytes | None]:
        """URL, headers and body for this request."""
        if request.input_files:
            names = await asyncio.to_thread(self._values, request)
        else:
            names = self._values(request)
        try:
            url = self._url(names)
            query = {name: value for name, value in self._query(names).items() if value is not None}
            headers = {**self._fixed_headers}
            headers.update(_header(*item) for item in self._headers(names).items())
            body = self._encoded(self._body(names), headers) if self._has_body else None
        except (TemplateError, TypeError, ValueError) as error:
            raise BadRequest(f"{self._who}: {error}") from error
        if query:
            url += ("&" if "?" in url else "?") + urlencode(query, doseq=True)
        return url, headers, body

    def _encoded(self, body: Any, headers: dict[str, str]) -> bytes:
        """A text as it is, anything else as JSON; `Content-Type` accordingly if nobody said it."""
        is_text = isinstance(body, str)
        if self._content_type is not None:
            headers["Content-Type"] = self._content_type if is_text else "application/json"
        return body.encode() if is_text else msgspec.json.encode(body)

    def _values(self, request: ProviderRequest) -> dict[str, Any]:
        names = {name: VALUES[name](request) for name in self._names if name in VALUES}
        names["model"] = self._settings.model
        return names

    async def _streamed(self, answer: HttpStream, request: ProviderRequest) -> ProviderResponse:
        if not 200 <= answer.status < 300:
            self._check_status(answer.status, answer.headers, await answer.read())
        content_type = answer.headers.get("Content-Type", "")
        if "event-stream" not in content_type.lower():
            # Some servers answer at once, whole, though they were asked to stream.
            response = self._reader.whole(await answer.read(), content_type)
            if request.on_chunk is not None and response.text:
                request.on_chunk(response.text)
            return response
        stream = StreamReader(self._reader, request.on_chunk)
        events = sse_events(answer.chunks())
        async for event in events:
            if stream.take(event):
                # Read to its end, the connection can be used again; errors no longer matter.
                with suppress(ProviderError, TimeoutError):
                    async with asyncio.timeout(GRACE_SECONDS):
                        async for _ in events:
                            pass
                break
        return stream.response()

    def _check_status(self, status: int, headers: Any, body: bytes) -> None:
        if not 200 <= status < 300:
            raise error_for_status(status, headers, body, who=self._who, secrets=self._secrets)

    def _named(self, error: ProviderError) -> ProviderError:
        """The transport's errors name the server; say also which target it is."""
        if not error.message.startswith(f"{self._who}: "):
            error.message = f"{self._who}: {error.message}"
            error.args = (error.message,)
        return error


def _capabilities(names: set[str], *, streams: bool) -> Capabilities:
    """What a service can do that is told of a request what its templates name."""
    return Capabilities(
        streaming=streams,
        tools="tools" in names,
        history=bool(names & {"prompt", "messages", "history"}),
        files=bool(names & {"prompt", "messages", "files"}),
        images=False,
        structured_output="response_schema" in names,
        embeddings=False,
        batch=False,
    )


def _header(name: str, value: Any) -> tuple[str, str]:
    text = str(value)
    if any(mark in text for mark in "\r\n\0"):
        raise TemplateError(f"the header {name} would hold a line break")
    return name, text


def _fixed_headers(settings: HttpSettings) -> dict[str, str]:
    if any(name.lower() == "accept" for name in settings.headers):
        return {}
    streamed = "text/event-stream, " if settings.stream else ""
    return {"Accept": f"{streamed}application/json, text/plain;q=0.9, */*;q=0.8"}


def _content_type_of_text(settings: HttpSettings, body: Any) -> str | None:
    """The `Content-Type` of a body that is a text; `None` when the settings say it themselves."""
    if any(name.lower() == "content-type" for name in settings.headers):
        return None
    source = body.lstrip() if isinstance(body, str) else ""
    is_json = source.startswith(("{", "[")) and not source.startswith(("{{", "{%", "{#"))
    return "application/json" if is_json else "text/plain; charset=utf-8"
