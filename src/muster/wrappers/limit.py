"""Not more calls at a time than allowed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from muster.provider import Provider, ProviderRequest, ProviderResponse
from muster.wrappers.base import Wrapper
from muster.wrappers.places import Pauses, Places

__all__ = ("ConcurrencyLimit", "in_place")


class ConcurrencyLimit(Wrapper):
    """Lets at most `maximum` calls in at a time; the others wait in the order they came.

    While the tools of a call run, its place is free for others, and for the calls that the tools
    make; it is let in again, before those who wait for their first turn, when they have ended.
    """

    __slots__ = ("_places", "maximum")

    def __init__(self, provider: Provider, maximum: int) -> None:
        super().__init__(provider)
        self.maximum = maximum
        self._places = Places(maximum)

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        """Answer as the provider inside does, when it is this call's turn."""
        await self._places.enter()
        with in_place(self._places, request) as asked:
            return await self.provider.invoke(asked)


@contextmanager
def in_place(places: Places, request: ProviderRequest) -> Iterator[ProviderRequest]:
    """The request as it is to be asked from a place that was entered: it is free while tools run,
    and left in the end."""
    if request.call_tool is None:
        try:
            yield request
        finally:
            places.leave()
        return
    pauses = Pauses(request.call_tool, places.leave, places.enter_again)
    try:
        yield replace(request, call_tool=pauses)
    finally:
        if pauses.close():
            places.leave()
