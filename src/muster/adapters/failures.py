"""Other libraries' exceptions as `ProviderError`s, so that retries know what to do.

Most of them wrap an HTTP client of their own, and raise what they met inside their own errors; so
the whole chain of causes is looked at, and the first that tells something decides. Classes are
known by their names: their libraries need not be imported to ask.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from muster.importing import describe_failure
from muster.provider import (
    AuthenticationFailed,
    BadProviderOutput,
    BadRequest,
    LimitExceeded,
    ProviderError,
    ProviderFailed,
    ProviderTimeout,
    ProviderUnavailable,
)
from muster.providers.http_errors import error_for_payload, error_for_status

__all__ = ("as_provider_error", "cut_short", "masked", "missing", "translated")

# Timeouts come first: some are connection errors too.
_KINDS: tuple[tuple[frozenset[str], type[ProviderError]], ...] = (
    (frozenset({"APITimeoutError", "TimeoutError", "TimeoutException"}), ProviderTimeout),
    (
        frozenset({"APIResponseValidationError", "DecodingError", "JSONDecodeError"})
        | {"ModelBehaviorError", "OutputParserException", "UnexpectedModelBehavior"}
        | {"UnicodeDecodeError", "ValidationError"},
        BadProviderOutput,
    ),
    (
        frozenset({"ClientConnectionError", "ClientPayloadError", "ConnectionError"})
        | {"NetworkError", "ProtocolError", "TransportError"},
        ProviderUnavailable,
    ),
    (frozenset({"MaxTurnsExceeded", "UsageLimitExceeded"}), LimitExceeded),
    (frozenset({"UnknownModelError", "UserError"}), BadRequest),
    (frozenset({"NeedsKeyException", "NoKeyError"}), AuthenticationFailed),
)

_OTHER_LOOP = ("Event loop is closed", "a different loop", "a different event loop")
_TRIPS = (AssertionError, AttributeError, LookupError, TypeError, ValueError)


@asynccontextmanager
async def translated(
    who: str, secrets: Iterable[str] = (), *, invented: type[ProviderError] | None = None
) -> AsyncIterator[None]:
    """Whatever a library raises in the block leaves it as a `ProviderError`; the arguments are
    those of `as_provider_error`."""
    try:
        yield
    except ProviderError:
        raise
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        text = f"{who}: the library cancelled its own call"
        raise ProviderFailed(text, retryable=True) from error
    except Exception as error:
        # What it came from may hold the key, and a traceback would print it.
        raise as_provider_error(error, who, secrets, invented=invented) from None


def as_provider_error(
    error: BaseException,
    who: str,
    secrets: Iterable[str] = (),
    *,
    invented: type[ProviderError] | None = None,
) -> ProviderError:
    """What `error` means; `who` begins the message, `secrets` are masked in it.

    `invented` is what it means when the library trips over an answer: an error of its own with a
    status from 500 up that no service has sent, or a `LookupError` and the like from within it.
    """
    secrets = tuple(secrets)
    chain = list(_chain(error))
    for one in chain:
        if isinstance(one, ProviderError):
            return one
    for one in chain:
        if isinstance(one, RuntimeError) and any(words in str(one) for words in _OTHER_LOOP):
            return ProviderFailed(
                f"{who}: its connections belong to another event loop, as that of an earlier run: "
                f"name a function that makes the object anew ({one})"
            )
    text = masked(f"{who}: {str(error) or type(error).__name__}", secrets)
    for one in reversed(chain):  # the innermost is what has happened, the others tell of it
        found = _answered(one, who, secrets)
        kind = _by_name(one)
        if found is not None or kind is not None:
            return found or kind(text)  # type: ignore[misc]
    for one in chain:
        found = _claimed(one, who, secrets)
        if found is not None:
            # A 4xx that no service has sent is the library's own: a setting, a key, a model's name.
            tripped = invented is not None and (_status(one) or 0) >= 500
            return invented(text) if invented and tripped else found
    if invented is not None and isinstance(error, _TRIPS):
        return invented(masked(f"{who}: {describe_failure(error)}", secrets))
    return ProviderFailed(masked(f"{who}: {describe_failure(error)}", secrets))


def cut_short(who: str, characters: int) -> BadProviderOutput:
    """The error for a stream that has ended without saying why."""
    return BadProviderOutput(
        f"{who}: the stream ended without a finish reason, so the answer is not whole "
        f"(it broke off after {characters:,} characters)"
    )


def missing(who: str, what: str) -> BadProviderOutput:
    """The error for an answer that lacks what an answer is made of."""
    return BadProviderOutput(f"{who}: the answer has no {what}")


def masked(text: str, secrets: Iterable[str]) -> str:
    """`text` without the secrets."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "**********")
    return text


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from, outermost first."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        given = getattr(one, "original_exception", None)  # LiteLLM's word for a cause
        inner = given if isinstance(given, BaseException) else None
        one = one.__cause__ or inner or one.__context__


def _answered(error: BaseException, who: str, secrets: tuple[str, ...]) -> ProviderError | None:
    """The error that a service's answer means, when the exception carries it."""
    response = getattr(error, "response", None)
    status = _status(response)
    headers = getattr(response, "headers", None)
    if status is None or not headers:
        return None
    body = getattr(error, "body", None)
    said = body if isinstance(body, Mapping) else _body(response) or {"message": str(error)}
    return error_for_status(status, headers, _as_json(said), who=who, secrets=secrets)


def _claimed(error: BaseException, who: str, secrets: tuple[str, ...]) -> ProviderError | None:
    """The same, when it has nothing but a status, or the error object of a stream."""
    status = _status(error)
    body = getattr(error, "body", None)
    said = body if isinstance(body, Mapping) else {"message": str(error)}
    if status is not None:
        headers = getattr(error, "headers", None) or {}
        return error_for_status(status, headers, _as_json(said), who=who, secrets=secrets)
    if "APIError" in _names(error):
        return error_for_payload(said, who=who, secrets=secrets)
    return None


def _as_json(said: Mapping[str, Any]) -> bytes:
    return json.dumps(said if "error" in said else {"error": said}, default=str).encode()


def _status(holder: Any) -> int | None:
    for name in ("status_code", "status", "code"):
        value = getattr(holder, name, None)
        if isinstance(value, int) and 400 <= value < 600:
            return value
    return None


def _body(response: Any) -> Mapping[str, Any] | None:
    """The JSON of a response that has been read; some raise when they are asked before."""
    try:
        found = json.loads(response.content)
    except Exception:
        return None
    return found if isinstance(found, Mapping) else None


def _by_name(error: BaseException) -> type[ProviderError] | None:
    names = _names(error)
    return next((kind for known, kind in _KINDS if names & known), None)


def _names(error: BaseException) -> frozenset[str]:
    return frozenset(kind.__name__ for kind in type(error).__mro__)
