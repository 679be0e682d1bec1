"""Other libraries' exceptions as ours, told apart by what is innermost; no library is needed."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from muster.adapters.failures import as_provider_error, translated
from muster.provider import (
    BadProviderOutput,
    BadRequest,
    LimitExceeded,
    ProviderError,
    ProviderFailed,
    ProviderTimeout,
    ProviderUnavailable,
    QuotaExhausted,
    RateLimited,
)


class APIError(Exception):
    """As the OpenAI SDK's, of which LiteLLM's are kinds too."""

    def __init__(self, text: str, **fields: Any) -> None:
        super().__init__(text)
        for name, value in fields.items():
            setattr(self, name, value)


class TransportError(Exception):
    """As httpx's."""


class TimeoutException(TransportError):
    """As httpx's, where a timeout is a kind of transport error."""


class UsageLimitExceeded(Exception):
    """As PydanticAI's."""


def answered(status: int, body: dict[str, Any], **headers: str) -> APIError:
    response = SimpleNamespace(status_code=status, headers={"Date": "x", **headers})
    return APIError(f"Error code: {status}", response=response, body=body)


def raised_from(outer: Exception, inner: Exception) -> Exception:
    outer.__cause__ = inner
    return outer


def test_the_answer_within_decides_with_its_headers() -> None:
    answer = answered(429, {"message": "slow down"}, **{"Retry-After": "7"})
    outer = raised_from(APIError("wrapped", status_code=500), answer)
    error = as_provider_error(outer, "me")
    assert (type(error), error.retry_after, error.status) == (RateLimited, 7.0, 429)
    assert str(error) == "me: HTTP 429: slow down"


def test_a_spent_quota_is_known_by_its_code() -> None:
    body = {"message": "no", "code": "insufficient_quota"}
    assert type(as_provider_error(answered(429, body), "me")) is QuotaExhausted


@pytest.mark.parametrize(
    ("inner", "kind"),
    [
        (TimeoutException("late"), ProviderTimeout),
        (TransportError("reset"), ProviderUnavailable),
        (ConnectionResetError("reset"), ProviderUnavailable),
        (TimeoutError(), ProviderTimeout),
        (UnicodeDecodeError("utf-8", b"", 0, 1, "no"), BadProviderOutput),
        (UsageLimitExceeded("turns"), LimitExceeded),
        (APIError("over", body={"type": "server_error", "message": "x"}), ProviderUnavailable),
        (APIError("no", status_code=400), BadRequest),
        (KeyError("x"), ProviderFailed),
    ],
)
def test_what_is_innermost_decides(inner: Exception, kind: type[ProviderError]) -> None:
    assert type(as_provider_error(raised_from(Exception("wrapped"), inner), "me")) is kind


def test_a_status_that_no_service_sent() -> None:
    invented = APIError("Received: <html>", status_code=500)
    assert type(as_provider_error(invented, "me")) is ProviderUnavailable
    error = as_provider_error(invented, "me", invented=BadProviderOutput)
    assert (type(error), str(error)) == (BadProviderOutput, "me: Received: <html>")
    assert type(as_provider_error(IndexError("0"), "me", invented=BadProviderOutput)) is (
        BadProviderOutput
    )


def test_a_4xx_that_no_service_sent_is_a_setting() -> None:
    unknown = APIError("no such vendor", status_code=400)
    error = as_provider_error(unknown, "me", invented=BadProviderOutput)
    assert (type(error), error.retryable) == (BadRequest, False)


def test_an_object_of_another_event_loop_is_told() -> None:
    error = as_provider_error(
        raised_from(ConnectionError("Connection error."), RuntimeError("Event loop is closed")),
        "me",
    )
    assert (type(error), error.retryable) == (ProviderFailed, False)
    assert "name a function that makes the object anew (Event loop is closed)" in str(error)


def test_our_own_errors_pass() -> None:
    own = RateLimited("slow")
    assert as_provider_error(raised_from(Exception("x"), own), "me") is own


def test_secrets_are_masked() -> None:
    for inner in (TransportError("key abc"), answered(401, {"message": "abc"}), OSError("abc")):
        error = as_provider_error(inner, "me", ["abc"])
        assert "abc" not in str(error)


async def test_nothing_else_leaves_the_block() -> None:
    with pytest.raises(ProviderUnavailable) as caught:
        async with translated("me", ["abc"]):
            raise TransportError("abc")
    assert caught.value.__suppress_context__
    with pytest.raises(ProviderFailed, match="cancelled its own call"):
        async with translated("me"):
            raise asyncio.CancelledError


async def test_cancellation_passes() -> None:
    begun = asyncio.Event()

    async def work() -> None:
        async with translated("me"):
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.ensure_future(work())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
