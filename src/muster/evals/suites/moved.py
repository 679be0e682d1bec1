"""Places of data that was made from what a file holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from muster.config.document import Document, Location, Mark
from muster.errors import Problem

__all__ = ("MovedDocument",)


class MovedDocument(Document):
    """Data that was made from another document's; places are looked up in that one."""

    def __init__(self, data: Any, origin: Document, moved: Mapping[Location, Location]) -> None:
        super().__init__(data, origin.path)
        self._origin = origin
        self._moved = moved

    def mark(self, location: Sequence[str | int], *, of_key: bool = False) -> Mark | None:
        """Where the value stands in the file."""
        return self._origin.mark(self._written(location), of_key=of_key)

    def problem(
        self, location: Sequence[str | int], message: str, *, of_key: bool = False
    ) -> Problem:
        """`message` about the value, under the name that the file gives it."""
        return self._origin.problem(self._written(location), message, of_key=of_key)

    def _written(self, location: Sequence[str | int]) -> Location:
        now = tuple(location)
        for length in range(len(now), 0, -1):
            before = self._moved.get(now[:length])
            if before is not None:
                return (*before, *now[length:])
        return now
