"""What graders keep for as long as a run lasts: processes, connections, servers.

Graders are built anew for each pass over the cases, so what outlives a case cannot be theirs. It is
kept here under a key, made when it is first asked for, and closed when the run ends.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Protocol, TypeVar

from muster.errors import MusterError
from muster.importing import describe_failure

__all__ = ("Closable", "RunScope")


class Closable(Protocol):
    """What can be kept."""

    async def aclose(self) -> None:
        """Give back what it holds."""
        ...


T = TypeVar("T", bound=Closable)


class RunScope:
    """Keeps what graders share within one run, on one event loop."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, Closable] = {}

    def keep(self, key: Hashable, make: Callable[[], T]) -> T:
        """What is kept under `key`; `make` is called when there is nothing yet. Keys begin with
        the type that they are for, so that one key always gives the same type."""
        kept = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = make()
        return kept  # type: ignore[return-value]

    async def aclose(self) -> None:
        """Close everything, the latest first, though some of it may fail.

        Raises:
            MusterError: which of them failed, and why.
        """
        failures: list[str] = []
        while self._kept:
            _, kept = self._kept.popitem()
            try:
                await kept.aclose()
            except Exception as error:
                failures.append(f"{type(kept).__name__}: {describe_failure(error)}")
        if failures:
            raise MusterError("what graders kept could not be closed: " + "; ".join(failures))
