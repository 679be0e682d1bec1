"""Answers that say no, in the shape of OpenAI's errors, with the status that clients act on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from muster.provider import (
    AuthenticationFailed,
    BadProviderOutput,
    BadRequest,
    BudgetExceeded,
    LimitExceeded,
    ProviderError,
    ProviderTimeout,
    ProviderUnavailable,
    QuotaExhausted,
    RateLimited,
)

__all__ = ("Refusal", "refusal_of")


class Refusal(Exception):
    """An HTTP answer that is an error."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.code = code
        self.param = param
        self.headers = dict(headers or {})
        self.close = close
        """The connection ends with it: what follows on it cannot be trusted."""

    @property
    def error(self) -> dict[str, Any]:
        """The error's body."""
        told = {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }
        return {"error": told}

    @property
    def body(self) -> bytes:
        """The same as JSON."""
        return msgspec.json.encode(self.error)


# The words are those that OpenAI's clients, and our own, know the kinds of failure by.
_ANSWERS: tuple[tuple[type[ProviderError], int, str, str], ...] = (
    (RateLimited, 429, "rate_limit_error", "rate_limit_exceeded"),
    (QuotaExhausted, 429, "insufficient_quota", "insufficient_quota"),
    (ProviderUnavailable, 503, "server_error", "target_unavailable"),
    (ProviderTimeout, 504, "timeout_error", "target_timeout"),
    (BadRequest, 400, "invalid_request_error", "target_refused"),
    (AuthenticationFailed, 401, "authentication_error", "target_authentication_failed"),
    (BadProviderOutput, 502, "server_error", "target_bad_output"),
    (BudgetExceeded, 402, "budget_exceeded", "budget_exceeded"),
    (LimitExceeded, 422, "limit_exceeded", "limit_exceeded"),
    (ProviderError, 500, "server_error", "target_failed"),
)


def refusal_of(error: ProviderError, said: str) -> Refusal:
    """The answer that tells of a target's failure; `said` is what may be told of it.

    `x-should-retry` is what OpenAI's clients go by before they look at the status.
    """
    status, kind, code = next(row[1:] for row in _ANSWERS if isinstance(error, row[0]))
    headers = {"x-should-retry": "true" if error.retryable else "false"}
    after = error.retry_after
    if after is not None and 0 <= after < 1e7:
        headers["Retry-After"] = str(math.ceil(after))
        headers["retry-after-ms"] = str(math.ceil(after * 1000))
    return Refusal(status, said, kind=kind, code=code, headers=headers)
