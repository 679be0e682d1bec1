"""What an `http` target's server says, as a response: one JSON, a text, or a stream of events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from muster.provider import BadProviderOutput, OnChunk, ProviderResponse
from muster.providers.answers import as_response, is_amount
from muster.providers.http_errors import error_for_payload, excerpt
from muster.providers.http_settings import HttpAnswer, HttpUsage
from muster.providers.paths import PathError, Search, compile_path
from muster.providers.sse import SseEvent

__all__ = ("AnswerReader", "StreamReader")

MIN_SECRET = 8
"""Shorter secrets are not masked in whole answers: they may be ordinary words."""

USUAL_TEXT = (
    "choices[0].message.content",
    "output_text",
    "text",
    "output",
    "answer",
    "response",
    "content[?type=='text'].text | [0]",
    "content",
    "message.content",
    "message",
    "result",
    "generated_text",
)
USUAL_DELTA = ("choices[0].delta.content", "delta.text", "delta", "text", "content", "token")
# Looked at before the usual places are searched: most events of a stream have none of these.
USAGE_KEYS = frozenset({"usage", "token_usage"})
FINISH_KEYS = frozenset({"finish_reason", "choices", "stop_reason"})
USUAL_USAGE = HttpUsage(
    input="usage.input_tokens || usage.prompt_tokens || usage.input || token_usage.input",
    output="usage.output_tokens || usage.completion_tokens || usage.output || token_usage.output",
    cached="usage.prompt_tokens_details.cached_tokens || usage.input_tokens_details.cached_tokens"
    " || token_usage.cached",
    reasoning="usage.completion_tokens_details.reasoning_tokens"
    " || usage.output_tokens_details.reasoning_tokens || token_usage.reasoning",
)


class AnswerReader:
    """Reads answers as the settings say; `who` begins messages, `secrets` are masked in them."""

    def __init__(self, settings: HttpAnswer, *, who: str, secrets: Iterable[str]) -> None:
        self.settings = settings
        self.who = who
        self.secrets = tuple(secrets)
        self._secret_bytes = [s.encode() for s in self.secrets if len(s) >= MIN_SECRET]
        texts = (settings.text,) if settings.text else USUAL_TEXT
        self.texts = [compile_path(path) for path in texts]
        deltas = (settings.delta,) if settings.delta else USUAL_DELTA
        self.deltas = [compile_path(path) for path in deltas]
        usage = settings.usage or USUAL_USAGE
        self.usage: dict[str, Search] = {
            name: compile_path(path)
            for name in ("input", "output", "cached", "reasoning")
            if (path := getattr(usage, name)) is not None
        }
        self.messages = _optional(settings.messages)
        self.cost = compile_path(settings.cost or "cost_usd")
        self.model = compile_path(settings.model or "model")
        self.error = compile_path(settings.error or "error")
        self.finish = compile_path(
            settings.finish_reason or "finish_reason || choices[0].finish_reason || stop_reason"
        )

    def whole(self, body: bytes, content_type: str) -> ProviderResponse:
        """A whole body as a response. Raises a `ProviderError` for any that is no answer."""
        for secret in self._secret_bytes:  # kept as `raw`, and some servers repeat what they get
            if secret in body:
                body = body.replace(secret, b"**********")
        if self.settings.format == "text":
            return ProviderResponse(self._decoded(body))
        try:
            data = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return self._plain(body, content_type, error)
        try:
            return self._answer(data)
        except (PathError, TypeError, ValueError) as error:
            raise self.bad(str(error)) from error

    def check_error(self, data: Any) -> None:
        """Raise what the answer, or an event of it, calls an error."""
        found = self.error(data)
        if found:
            raise error_for_payload(found, who=self.who, secrets=self.secrets)

    def accounting(self, data: Any) -> dict[str, Any]:
        """What `data` says of tokens, cost, model and the reason of its end; the rest is absent."""
        counts: dict[str, Any] = {}
        if self.settings.usage or _has(data, USAGE_KEYS):
            counts = {name: search(data) for name, search in self.usage.items()}
        counts = {name: count for name, count in counts.items() if count is not None}
        found: dict[str, Any] = {}
        if "input" in counts or "output" in counts:
            found["token_usage"] = counts
        cost, model, finish = self.cost(data), self.model(data), None
        if self.settings.finish_reason or _has(data, FINISH_KEYS):
            finish = self.finish(data)
        if cost is not None:
            if not is_amount(cost):
                raise PathError(f"the cost is no number from 0 up: {cost!r:.60}")
            found["cost_usd"] = cost
        if isinstance(model, str):
            found["model"] = model
        if isinstance(finish, str):
            found["finish_reason"] = finish
        return found

    def bad(self, message: str) -> BadProviderOutput:
        """The error that the answer is not understood, naming who answered."""
        for secret in self.secrets:
            message = message.replace(secret, "**********")
        return BadProviderOutput(f"{self.who}: {message}")

    def _answer(self, data: Any) -> ProviderResponse:
        self.check_error(data)
        found = self.accounting(data)
        if self.messages is not None:
            messages = self.messages(data)
            if not isinstance(messages, list) or not messages:
                raise PathError(f"no messages at `{self.settings.messages}` in {_shape(data)}")
            return ProviderResponse(messages, raw=data, **found)
        if isinstance(data, str) and self.settings.text is None:
            return ProviderResponse(data, raw=data)
        text = next((value for s in self.texts if (value := s(data)) is not None), None)
        if text is None:
            where = f"`{self.settings.text}`" if self.settings.text else "any of the usual places"
            hint = "" if self.settings.text else "; say where it is with `response.text`"
            raise PathError(f"no text at {where} in {_shape(data)}{hint}")
        if isinstance(text, bool | int | float):
            text = msgspec.json.encode(text).decode()
        answer = ProviderResponse(text) if isinstance(text, str) else as_response(text, self.who)
        return ProviderResponse(answer.output, raw=data, **found)

    def _plain(self, body: bytes, content_type: str, error: Exception) -> ProviderResponse:
        """A body that is not JSON: the answer's text, unless something else was to be expected."""
        text = self._decoded(body)
        start = text[:15].lstrip().lower()
        if "html" in content_type.lower() or start.startswith(("<!doctype", "<html")):
            raise self.bad("answered with an HTML page, not with JSON or text")
        settings = self.settings
        expected = settings.format == "json" or settings.text or settings.messages
        if expected or "json" in content_type.lower():
            if not text.strip():
                raise self.bad("the answer is empty; expected JSON")
            raise self.bad(f"the answer is not JSON ({error}): {excerpt(text)}")
        if not text.strip():
            raise self.bad("the answer is empty")
        return ProviderResponse(text)

    def _decoded(self, body: bytes) -> str:
        try:
            return body.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise self.bad("the answer is neither JSON nor UTF-8 text") from None


class StreamReader:
    """Puts one streamed answer together, event by event."""

    def __init__(self, reader: AnswerReader, on_chunk: OnChunk | None) -> None:
        self._reader = reader
        self._on_chunk = on_chunk
        self._pieces: list[str] = []
        self._found: dict[str, Any] = {}
        self._done = False

    def take(self, event: SseEvent) -> bool:
        """Read one event; True when it was the last.

        Raises:
            ProviderError: it is an error, or not JSON.
        """
        reader, done = self._reader, self._reader.settings.done
        data = event.data.decode("utf-8", "replace").strip()
        if done is not None and data == done:
            self._done = True
            return True
        if done is not None and event.event == done and event.event != "message":
            self._done = True
        if not data or data == "[DONE]":
            return self._done
        try:
            value = msgspec.json.decode(event.data)
        except msgspec.DecodeError as error:
            message = f"an event of the stream is not JSON ({error}): {excerpt(data)}"
            raise reader.bad(message) from None
        if event.event == "error" and not reader.error(value):
            value = {"error": value}
        reader.check_error(value)
        try:
            self._read(value)
        except (PathError, TypeError, ValueError) as error:
            raise reader.bad(str(error)) from error
        return self._done

    def response(self) -> ProviderResponse:
        """The answer, when the stream has ended.

        Raises:
            BadProviderOutput: it ended before the answer was whole.
        """
        reader = self._reader
        if reader.settings.done is not None and not self._done:
            raise reader.bad(f"the stream ended without `{reader.settings.done}`")
        if reader.settings.finish_reason is not None and "finish_reason" not in self._found:
            raise reader.bad("the stream ended without a finish reason")
        if not self._pieces and not self._found:
            raise reader.bad("the stream held no text")
        try:
            return ProviderResponse("".join(self._pieces), **self._found)
        except ValueError as error:
            raise reader.bad(str(error)) from error

    def _read(self, value: Any) -> None:
        reader = self._reader
        text = next((found for s in reader.deltas if isinstance(found := s(value), str)), None)
        if text:
            self._pieces.append(text)
            if self._on_chunk is not None:
                self._on_chunk(text)
        # The last word counts: usage grows, and comes whole at the end.
        self._found |= reader.accounting(value)


def _has(data: Any, keys: frozenset[str]) -> bool:
    return isinstance(data, dict) and not keys.isdisjoint(data)


def _optional(path: str | None) -> Search | None:
    return None if path is None else compile_path(path)


def _shape(data: Any) -> str:
    """What a JSON value looks like, without its content."""
    if isinstance(data, Mapping):
        names = ", ".join(list(data)[:12]) or "nothing"
        return f"an answer with {names}"
    return f"an answer that is {'a list' if isinstance(data, list) else f'{data!r:.40}'}"
