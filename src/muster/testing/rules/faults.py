"""Rules of what a service may do wrong: each becomes the right error, none half an answer."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate

from muster.provider import (
    AuthenticationFailed,
    BadProviderOutput,
    BadRequest,
    ProviderError,
    ProviderRequest,
    ProviderTimeout,
    ProviderUnavailable,
    QuotaExhausted,
    RateLimited,
)
from muster.testing.outcome import Broken, Rule
from muster.testing.script import (
    Answer,
    Body,
    Cut,
    Empty,
    EndEarly,
    Endless,
    ErrorEvent,
    Reset,
    Stall,
    Status,
    always,
)
from muster.testing.trial import Trial, quoted, shown
from muster.wrappers.timeout import Timeout

__all__ = ("FAULTS",)

Kinds = tuple[type[ProviderError], ...]

HTML = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>Sign in</body></html>"
HUGE = 96 * 2**20
LONGEST = 3.0
WAIT = 7


async def _error(
    trial: Trial, answer: Answer, kinds: Kinds, *, streamed: bool = False
) -> ProviderError:
    """What the provider raises when the service answers with `answer`."""
    trial.environment.script = lambda call: answer
    chunks: list[str] = []
    request = ProviderRequest(
        question="Are you ready?", on_chunk=chunks.append if streamed else None
    )
    where = " in a stream" if streamed else ""
    try:
        response = await trial.answer_to(request)
    except ProviderError as error:
        if trial.way == "itself" and not isinstance(error, kinds):
            names = " or ".join(kind.__name__ for kind in kinds)
            raise Broken(f"expected {names}{where}, got {shown(error)}") from None
        return error
    raise Broken(f"answered{where} as if nothing were wrong: {quoted(response.text)}")


async def _both(trial: Trial, answer: Answer, kinds: Kinds) -> list[ProviderError]:
    """The errors without and with a stream, if the provider asks for streams."""
    trial.need_calls()
    errors = [await _error(trial, answer, kinds)]
    if await trial.streams():
        errors.append(await _error(trial, answer, kinds, streamed=True))
    return errors


def _must_be_retryable(trial: Trial, errors: list[ProviderError], can: bool) -> None:
    for error in errors:
        if trial.way == "itself" and error.retryable is not can:
            says = "can" if error.retryable else "cannot"
            raise Broken(f"{shown(error)} says that a retry {says} help")


async def _rate_limited_until(trial: Trial) -> str | None:
    date = formatdate(time.time() + 60, usegmt=True)
    for value, low, high in ((str(WAIT), WAIT, WAIT), (date, 50.0, 61.0)):
        answer = Status(429, "slow down", "rate_limit_error", {"Retry-After": value})
        errors = await _both(trial, answer, (RateLimited,))
        _must_be_retryable(trial, errors, True)
        for error in errors:
            after = error.retry_after
            if trial.way == "itself" and (after is None or not low <= after <= high):
                raise Broken(f"Retry-After was {value!r}; `retry_after` is {after}")
    return None


async def _rate_limited(trial: Trial) -> str | None:
    errors = await _both(trial, Status(429, "slow down", "rate_limit_error"), (RateLimited,))
    _must_be_retryable(trial, errors, True)
    for error in errors:
        if error.retry_after is not None:
            raise Broken(f"nobody said when; `retry_after` is {error.retry_after}")
    return None


async def _status_500(trial: Trial) -> str | None:
    await _unavailable(trial, Status(500, "internal error", "server_error"))
    return None


async def _status_503(trial: Trial) -> str | None:
    headers = {"Retry-After": str(WAIT)}
    errors = await _unavailable(trial, Status(503, "overloaded", "overloaded_error", headers))
    for error in errors:
        if trial.way == "itself" and error.retry_after != WAIT:
            raise Broken(f"Retry-After was {WAIT}; `retry_after` is {error.retry_after}")
    return None


async def _unavailable(trial: Trial, answer: Answer) -> list[ProviderError]:
    errors = await _both(trial, answer, (ProviderUnavailable,))
    _must_be_retryable(trial, errors, True)
    return errors


async def _refused(trial: Trial) -> str | None:
    trial.need_calls()
    _ = trial.provider
    trial.environment.refuse()
    errors = [await _error(trial, Reset(), (ProviderUnavailable,))]
    _must_be_retryable(trial, errors, True)
    return None


async def _reset(trial: Trial) -> str | None:
    await _unavailable(trial, Reset())
    return None


async def _stalled(trial: Trial) -> str | None:
    trial.need_calls()
    trial.environment.read_timeout = 0.3
    await trial.ask()
    streams = await trial.streams()
    for amid in (False, True) if streams else (False,):
        trial.environment.script = always(Stall(amid=amid))
        request = ProviderRequest(
            question="Are you ready?", on_chunk=(lambda text: None) if amid else None
        )
        # One that has no bound of its own must end by the one around it.
        error = await trial.failure_of(request, Timeout(trial.provider, LONGEST))
        if trial.way == "itself" and not isinstance(error, ProviderTimeout):
            where = " amid a stream" if amid else ""
            raise Broken(
                f"the service fell silent{where}: expected ProviderTimeout, got {shown(error)}"
            )
    return None


async def _cut(trial: Trial) -> str | None:
    await _both(trial, Cut(), (ProviderUnavailable, BadProviderOutput))
    return None


async def _invalid_json(trial: Trial) -> str | None:
    await _both(
        trial,
        Body(b'{"choices": [{"message": {"content": "On', as_event=True),
        (BadProviderOutput,),
    )
    return None


async def _empty_choices(trial: Trial) -> str | None:
    await _both(trial, Empty(), (BadProviderOutput,))
    return None


async def _content_type(trial: Trial) -> str | None:
    await _both(trial, Body(HTML, "text/html; charset=utf-8"), (BadProviderOutput,))
    return None


async def _huge(trial: Trial) -> str | None:
    trial.need_calls()
    streams = await trial.streams()
    most = 0
    for streamed in (False, True) if streams else (False,):
        before = trial.environment.sent
        await _error(trial, Endless(HUGE), (BadProviderOutput,), streamed=streamed)
        taken = trial.environment.sent - before
        if taken >= HUGE:
            raise Broken(f"it read all of an answer of {HUGE:,} bytes before it gave up")
        most = max(most, taken)
    return f"gave up after {most / 2**20:.0f} MiB at most"


async def _ends_early(trial: Trial) -> str | None:
    await trial.need_streams()
    kinds = (BadProviderOutput, ProviderUnavailable)
    await _error(trial, EndEarly(), kinds, streamed=True)
    return None


async def _error_event(trial: Trial) -> str | None:
    await trial.need_streams()
    kinds = (ProviderUnavailable, BadProviderOutput)
    await _error(trial, ErrorEvent(), kinds, streamed=True)
    return None


async def _quota(trial: Trial) -> str | None:
    trial.need_calls()
    await trial.ask()
    answer = Status(429, "You have insufficient quota.", "insufficient_quota")
    if trial.last.dialect == "messages":
        answer = Status(400, "Your credit balance is too low.", "invalid_request_error")
    errors = await _both(trial, answer, (QuotaExhausted,))
    _must_be_retryable(trial, errors, False)
    return None


async def _key_refused(trial: Trial) -> str | None:
    answer = Status(401, "wrong key", "authentication_error")
    errors = await _both(trial, answer, (AuthenticationFailed,))
    _must_be_retryable(trial, errors, False)
    return None


async def _bad_request(trial: Trial) -> str | None:
    answer = Status(400, "no such parameter", "invalid_request_error")
    errors = await _both(trial, answer, (BadRequest,))
    _must_be_retryable(trial, errors, False)
    return None


async def _no_hidden_retries(trial: Trial) -> str | None:
    trial.need_own_calls()
    await trial.ask()
    before = len(trial.calls)
    await _error(trial, Status(500, "internal error"), (ProviderError,))
    calls = len(trial.calls) - before
    if calls != 1:
        raise Broken(f"the service failed once, and was called {calls} times")
    return None


def _rule(
    id: str,
    title: str,
    why: str,
    mend: str,
    run: Callable[[Trial], Awaitable[str | None]],
    *,
    alone: bool = False,
    after: tuple[str, ...] = (),
) -> Rule:
    return Rule(id=id, title=title, why=why, mend=mend, run=run, alone=alone, after=after)


_RETRIES = "Whether a call is tried again, and when, is decided by the error's type."
_HALF = "Half an answer that passes for a whole one is graded, stored and acted on."

FAULTS = (
    _rule(
        "rate-limited-with-retry-after",
        "429 with Retry-After is `RateLimited` with `retry_after` in seconds",
        _RETRIES,
        "Read the header, a number of seconds or an HTTP date; `error_for_status` does.",
        _rate_limited_until,
    ),
    _rule(
        "rate-limited-without-retry-after",
        "429 without Retry-After is `RateLimited`, `retry_after` unknown",
        "An invented wait is too long or too short.",
        "Leave `retry_after` at `None` when the service does not say.",
        _rate_limited,
    ),
    _rule(
        "server-error-500",
        "500 is `ProviderUnavailable`",
        _RETRIES,
        "Map statuses by `error_for_status`.",
        _status_500,
    ),
    _rule(
        "unavailable-503",
        "503 is `ProviderUnavailable`, with the `retry_after` that it names",
        _RETRIES,
        "Map statuses by `error_for_status`, which reads Retry-After there too.",
        _status_503,
    ),
    _rule(
        "key-refused-401",
        "401 is `AuthenticationFailed`, which no retry helps",
        _RETRIES,
        "Map statuses by `error_for_status`.",
        _key_refused,
    ),
    _rule(
        "bad-request-400",
        "400 is `BadRequest`, which no retry helps",
        _RETRIES,
        "Map statuses by `error_for_status`.",
        _bad_request,
    ),
    _rule(
        "quota-spent",
        "A spent quota is `QuotaExhausted`, which no retry helps",
        "It comes as 429 or 400, and waiting for it is waiting for ever.",
        "Look at the error's code and words before its status; `error_for_status` does.",
        _quota,
    ),
    _rule(
        "no-hidden-retries",
        "A call that fails is made once",
        "Retries are the caller's: hidden ones multiply with his, and escape his budget.",
        "Set the client's own retries to 0.",
        _no_hidden_retries,
    ),
    _rule(
        "connection-refused",
        "A refused connection is `ProviderUnavailable`",
        _RETRIES,
        "Catch the client's connection errors and raise `ProviderUnavailable`.",
        _refused,
    ),
    _rule(
        "connection-reset",
        "A connection that is reset is `ProviderUnavailable`",
        _RETRIES,
        "Catch the client's connection errors and raise `ProviderUnavailable`.",
        _reset,
    ),
    _rule(
        "service-stalls",
        "A service that falls silent, at once or amid a stream, is `ProviderTimeout`",
        "A hang at 0 % is the worst of answers.",
        "Bound the time without a byte, and raise `ProviderTimeout`; pass cancellation on.",
        _stalled,
        after=("does-not-block", "cancelled-within-1-s", "timeouts-are-typed"),
    ),
    _rule(
        "cut-amid-answer",
        "A connection that is cut amid an answer or a stream is an error",
        _HALF,
        "Read to the end that HTTP promises, and let an incomplete read fail.",
        _cut,
    ),
    _rule(
        "stream-ends-early",
        "A stream that closes cleanly, but before the answer's end, is an error",
        _HALF + " HTTP sees nothing wrong here: only the format's own last word tells.",
        "Demand a finish reason, `[DONE]`, or whatever ends a stream of this service.",
        _ends_early,
    ),
    _rule(
        "error-event-in-stream",
        "An error event within a stream is an error",
        _HALF,
        "Look at every event for an error object before its text.",
        _error_event,
    ),
    _rule(
        "invalid-json",
        "An answer or an event that is no JSON is `BadProviderOutput`",
        "A proxy in between answers with whatever it likes.",
        "Catch the decoder's error; skip no event that cannot be read.",
        _invalid_json,
    ),
    _rule(
        "empty-choices",
        "An answer without choices, output or content is `BadProviderOutput`",
        "An empty text would be graded as the model's answer.",
        "Check that the answer is there before reading it.",
        _empty_choices,
    ),
    _rule(
        "wrong-content-type",
        "An HTML page with status 200 is `BadProviderOutput`",
        "It is what a sign-in page or a wrong base URL gives.",
        "Take nothing for an answer that is not of the service's format.",
        _content_type,
    ),
    _rule(
        "huge-body",
        "A body that does not end is given up before 96 MiB: `BadProviderOutput`",
        "One broken service must not take the memory of the whole run.",
        "Count the bytes while reading, and stop; `HttpClient` does.",
        _huge,
        alone=True,
    ),
)
