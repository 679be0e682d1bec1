"""Wrong in what they make of a service's failures."""

from __future__ import annotations

from dataclasses import replace

from gallery.base import Wrong
from muster.provider import (
    BadProviderOutput,
    BadRequest,
    ProviderError,
    ProviderFailed,
    ProviderRequest,
    ProviderResponse,
    ProviderUnavailable,
    QuotaExhausted,
    RateLimited,
)
from muster.providers.openai import OpenAIProvider
from muster.testing.environment import Environment


class _Errors(Wrong):
    """Overrides what becomes of an error, given the text that was streamed before it."""

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        chunks: list[str] = []
        listen = request.on_chunk

        def on_chunk(text: str) -> None:
            chunks.append(text)
            if listen is not None:
                listen(text)

        heard = request if listen is None else replace(request, on_chunk=on_chunk)
        try:
            return await self.right.invoke(heard)
        except ProviderError as error:
            return self.made_of(error, "".join(chunks))

    def made_of(self, error: ProviderError, text: str) -> ProviderResponse:
        """An answer, or another error."""
        raise NotImplementedError


class IgnoresRetryAfter(_Errors):
    breaks = "rate-limited-with-retry-after"

    def made_of(self, error: ProviderError, text: str) -> ProviderResponse:
        if isinstance(error, RateLimited):
            error.retry_after = None
        raise error


class InventsAWait(_Errors):
    breaks = "rate-limited-without-retry-after"

    def made_of(self, error: ProviderError, text: str) -> ProviderResponse:
        if isinstance(error, RateLimited) and error.retry_after is None:
            error.retry_after = 60.0
        raise error


class BlamesTheRequestFor500(_Errors):
    breaks = "server-error-500"

    def made_of(self, error: ProviderError, text: str) -> ProviderResponse:
        raise BadRequest(error.message) if "HTTP 500" in error.message else error


class ForgetsWhen503Ends(_Errors):
    breaks = "unavailable-503"

    def made_of(self, error: ProviderError, text: str) -> ProviderResponse:
        if error.status == 503:
            error.retry_after = None
        raise error


class RetriesWithAWrongKey(_Errors):
    breaks = "key-refused-401"

    def made_of(self, error: ProviderError, text: str) -> ProviderResponse:
        if error.status == 401:
            error.retryable = True
        raise error


class TakesABadRequestForAFailure(_Errors):
    breaks = "bad-request-400"

    def made_of(self, error: ProviderError, text: str) -> ProviderResponse:
        raise ProviderFailed(error.message) if error.status == 400 else error


class WaitsForAQuota(_Errors):
    breaks = "quota-spent"

    def made_of(self, error: ProviderError, text: str) -> ProviderResponse:
        raise RateLimited(error.message) if isinstance(error, QuotaExhausted) else error


class RetriesByItself(Wrong):
    breaks = "no-hidden-retries"

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        try:
            return await self.right.invoke(request)
        except ProviderError as error:
            if "HTTP 500" not in error.message:
                raise
            return await self.right.invoke(request)


class TakesARefusalForADefect(_Errors):
    breaks = "connection-refused"

    def made_of(self, error: ProviderError, text: str) -> ProviderResponse:
        raise ProviderFailed(error.message) if "no connection" in error.message else error


class TakesAResetForAnAnswer(_Errors):
    breaks = "connection-reset"

    def made_of(self, error: ProviderError, text: str) -> ProviderResponse:
        reset = "connection failed" in error.message or "unanswered" in error.message
        raise BadProviderOutput(error.message) if reset else error


class TakesSilenceForAnAnswer(_Errors):
    breaks = "service-stalls"

    def made_of(self, error: ProviderError, text: str) -> ProviderResponse:
        raise BadProviderOutput(error.message) if "sent nothing" in error.message else error


class AnswersWithWhatWasNotCut(_Errors):
    breaks = "cut-amid-answer"

    def made_of(self, error: ProviderError, text: str) -> ProviderResponse:
        if text and "broke off amid" in error.message:
            return ProviderResponse(text)
        raise error


class AnswersWithHalfAStream(_Errors):
    breaks = "stream-ends-early"

    def made_of(self, error: ProviderError, text: str) -> ProviderResponse:
        if text and "without a finish reason" in error.message:
            return ProviderResponse(text)
        raise error


class OverlooksErrorEvents(_Errors):
    breaks = "error-event-in-stream"

    def made_of(self, error: ProviderError, text: str) -> ProviderResponse:
        if text and isinstance(error, ProviderUnavailable) and "broke off with" in error.message:
            return ProviderResponse(text)
        raise error


class SkipsWhatIsNoJson(_Errors):
    breaks = "invalid-json"

    def made_of(self, error: ProviderError, text: str) -> ProviderResponse:
        if "not valid JSON" in error.message:
            return ProviderResponse(text)
        raise error


class AnswersWithNothing(_Errors):
    breaks = "empty-choices"

    def made_of(self, error: ProviderError, text: str) -> ProviderResponse:
        if not text and ("no choices" in error.message or "finish reason" in error.message):
            return ProviderResponse("")
        raise error


class AnswersWithAPage(_Errors):
    breaks = "wrong-content-type"

    def made_of(self, error: ProviderError, text: str) -> ProviderResponse:
        if "HTML page" in error.message:
            return ProviderResponse("<html>Sign in</html>")
        raise error


class ReadsWithoutEnd(Wrong):
    breaks = "huge-body"

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        assert isinstance(self.right.model, OpenAIProvider)
        self.right.model._client.max_body_bytes = 2**40
