"""Another target when the first cannot answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from muster.provider import (
    LimitExceeded,
    Provider,
    ProviderError,
    ProviderRequest,
    ProviderResponse,
)
from muster.wrappers.attempts import Attempts
from muster.wrappers.base import close_provider

__all__ = ("Fallback",)


class Fallback:
    """Asks named targets in order until one answers.

    Every `ProviderError` leads on to the next: a key that is refused, a spent quota, a context too
    long for one model are no obstacle to another. Three things do not: cancellation; a limit of the
    request itself (`LimitExceeded`, `BudgetExceeded`), which holds for every target; and a failure
    after part of the answer was streamed, since the reader would get a second beginning.

    The answer of a target that stepped in has its name as `target_used`; what the others spent and
    how often they tried is added to its account. When nobody answers, the last target's error is
    raised, with every target's in its message.
    """

    __slots__ = ("targets",)

    def __init__(self, targets: Sequence[tuple[str, Provider]]) -> None:
        self.targets = tuple(targets)

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        """Answer, or raise an error that tells of every target."""
        attempts = Attempts(request)
        asked: ProviderRequest | None = attempts.request
        failures: list[tuple[str, ProviderError]] = []
        for name, provider in self.targets:
            if asked is None:
                break
            try:
                response = attempts.answered(await provider.invoke(asked))
            except ProviderError as error:
                attempts.add(error)
                failures.append((name, error))
                if attempts.streamed or isinstance(error, LimitExceeded):
                    break
                asked = attempts.next_request(attempt=request.attempt)
            else:
                if not failures or response.target_used is not None:
                    return response
                return replace(response, target_used=name)
        raise _nobody_answered(attempts, failures)

    async def aclose(self) -> None:
        """Close the providers of all targets."""
        for _, provider in self.targets:
            await close_provider(provider)


def _nobody_answered(
    attempts: Attempts, failures: Sequence[tuple[str, ProviderError]]
) -> ProviderError:
    name, error = failures[-1]
    message = error.message
    if len(failures) > 1:
        told = "; ".join(f"{target}: {failure.message}" for target, failure in failures)
        message = f"no target answered: {told}"
    failure = attempts.given_up(error, message)
    failure.target = error.target or name
    failure.__cause__ = error
    return failure
