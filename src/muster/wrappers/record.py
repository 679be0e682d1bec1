"""Every exchange with a provider, told to whoever keeps them."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from muster.exchange import OCCASION, plain_error, plain_request, plain_response, request_hash
from muster.provider import Provider, ProviderError, ProviderRequest, ProviderResponse
from muster.wrappers.base import Wrapper

__all__ = ("Record", "record_row")


class Record(Wrapper):
    """Tells `note` of each call after it has ended: the answer, the failure, or that it was
    cancelled. Innermost, so that each try is a row of its own."""

    __slots__ = ("_kind", "_note", "_target")

    def __init__(
        self, provider: Provider, target: str, kind: str, note: Callable[[dict[str, Any]], None]
    ) -> None:
        super().__init__(provider)
        self._target = target
        self._kind = kind
        self._note = note

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        """Answer as the provider inside does."""
        row = record_row(self._target, self._kind, request)
        begun = time.perf_counter()
        try:
            response = await self.provider.invoke(request)
        except ProviderError as error:
            self._tell(row, begun, {"error": plain_error(error)})
            raise
        except BaseException as error:  # cancelled, by a time-out or the end of the run
            told = {"kind": "cancelled", "message": type(error).__name__}
            self._tell(row, begun, {"error": told})
            raise
        self._tell(row, begun, {"response": plain_response(response)})
        return response

    def _tell(self, row: dict[str, Any], begun: float, came: dict[str, Any]) -> None:
        row["duration_ms"] = round((time.perf_counter() - begun) * 1000, 3)
        self._note(row | came)


def record_row(target: str, kind: str, request: ProviderRequest) -> dict[str, Any]:
    """What is known of an exchange before it ends."""
    occasion = OCCASION.get()
    plain = plain_request(request)
    return {
        "target": target,
        "provider": kind,
        "role": "judge" if occasion is not None and occasion.judging else "target",
        "case": None if occasion is None else occasion.to_dict(),
        "attempt": request.attempt,
        "started_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "request_hash": request_hash(plain),
        "request": plain,
    }
