"""Warnings of a suite, each said once."""

from __future__ import annotations

from muster.config.document import Place

__all__ = ("Notes",)

MAX_WARNINGS = 50


class Notes:
    """Warnings, each said once."""

    def __init__(self) -> None:
        self._lines: dict[object, str] = {}
        self._more = 0

    def __call__(self, message: str, *, key: object = None) -> None:
        """Keep `message`, unless one with the same `key` (or the same text) is there."""
        key = message if key is None else key
        if key not in self._lines:
            if len(self._lines) < MAX_WARNINGS:
                self._lines[key] = message
            else:
                self._more += 1

    def at(self, place: Place, message: str, *, key: object = None) -> None:
        """`message` about the value at `place`."""
        self(str(place.problem(message)), key=message if key is None else key)

    def old_name(self, written: str, name: str, place: Place) -> None:
        """`written` is an old name."""
        text = f'"{written}" is an old name; write "{name}"'
        self(str(place.problem(text, of_key=True)), key=("old", written, name))

    def unknown_variable(self, name: str, place: Place) -> None:
        """`{{ name }}` has no value."""
        key = ("variable", name)
        if key not in self._lines:
            self.at(place, f"there is no variable {{{{ {name} }}}}; left as written", key=key)

    @property
    def lines(self) -> tuple[str, ...]:
        """All of them, in order."""
        more = (f"… and {self._more} more warnings",) if self._more else ()
        return (*self._lines.values(), *more)
