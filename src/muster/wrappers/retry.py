"""Trying again, patiently."""

from __future__ import annotations

import asyncio
import random as _random
from collections.abc import Awaitable, Callable

from muster.provider import (
    Provider,
    ProviderError,
    ProviderRequest,
    ProviderResponse,
    QuotaExhausted,
)
from muster.target import RetryPolicy
from muster.wrappers.attempts import Attempts
from muster.wrappers.base import Wrapper

__all__ = ("DEFAULT_MAX_RETRIES", "LONGEST_WAIT", "Retry", "backoff_ceiling", "longest_wait_of")

DEFAULT_MAX_RETRIES = 2
"""Where the policy does not say."""

LONGEST_WAIT = 120.0
"""Seconds. A server that asks for a longer pause than this (and than the policy's `max_delay`) is
not waited for."""


class Retry(Wrapper):
    """Tries again what failed and may go better the next time.

    The pause before a retry is random, between nothing and a ceiling that grows with each failure
    ("full jitter": https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/), so
    that many calls that failed together do not return together. A `retry_after` of the server is
    waited for in full, and the random pause comes on top.

    Not tried again: errors that no retry can help; answers of which a part was streamed already;
    requests whose limits (`max_seconds`, tokens, money) are used up. What failed tries spent is
    part of the answer's or the final error's `token_usage` and `cost_usd`.
    """

    __slots__ = ("_random", "_sleep", "longest_wait", "max_retries", "policy")

    def __init__(
        self,
        provider: Provider,
        policy: RetryPolicy,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        random: Callable[[], float] = _random.random,
    ) -> None:
        super().__init__(provider)
        self.policy = policy
        given = policy.max_retries
        self.max_retries = DEFAULT_MAX_RETRIES if given is None else given
        self.longest_wait = longest_wait_of(policy)
        """Seconds that a server may ask to be waited for."""
        self._sleep = sleep
        self._random = random

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        """Answer, or raise the last try's error with the account of all of them."""
        attempts = Attempts(request)
        asked = attempts.request
        retries = 0
        while True:
            try:
                return attempts.answered(await self.provider.invoke(asked))
            except ProviderError as error:
                attempts.add(error)
                following = None
                if not attempts.streamed and self._may_help(error, retries):
                    delay = self._delay(error, retries)
                    following = attempts.next_request(
                        attempt=request.attempt + retries + 1, delay=delay
                    )
                if following is None:
                    if not retries and not self._too_long(error):
                        raise
                    raise attempts.given_up(error, self._farewell(error)) from error
            await self._sleep(delay)
            asked = following
            retries += 1

    def _may_help(self, error: ProviderError, retries: int) -> bool:
        if retries >= self.max_retries or self._too_long(error):
            return False
        codes = self.policy.status_codes
        if codes is None or error.status is None or error.status < 400:
            return error.retryable
        # A spent quota often has the status of a rate limit, 429; it does not refill.
        return error.status in codes and not isinstance(error, QuotaExhausted)

    def _delay(self, error: ProviderError, retries: int) -> float:
        pause = self._random() * backoff_ceiling(self.policy, retries)
        return pause + max(error.retry_after or 0.0, 0.0)

    def _too_long(self, error: ProviderError) -> bool:
        return error.retry_after is not None and error.retry_after > self.longest_wait

    def _farewell(self, error: ProviderError) -> str:
        if not self._too_long(error):
            return error.message
        return (
            f"{error.message} (not tried again: the server asks to wait {error.retry_after:g} s, "
            f"longer than {self.longest_wait:g} s)"
        )


def backoff_ceiling(policy: RetryPolicy, retries: int) -> float:
    """Seconds, at most, before the next retry when `retries` were made already:
    `min(max_delay, initial_delay * backoff_factor ** retries)`."""
    try:
        return min(policy.max_delay, policy.initial_delay * policy.backoff_factor**retries)
    except OverflowError:
        return policy.max_delay


def longest_wait_of(policy: RetryPolicy) -> float:
    """Seconds that a server may ask to be waited for."""
    return max(LONGEST_WAIT, policy.max_delay)
