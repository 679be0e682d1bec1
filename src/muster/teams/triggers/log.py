"""The lines of `muster up`: one for each thing that happens."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from muster.config.secrets import Masker

__all__ = ("EventLog", "rfc3339")


def rfc3339(moment: datetime) -> str:
    """UTC, to the second: `2026-05-04T10:20:30Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class EventLog:
    """Writes time, event, run, outcome, and what else is to be known; without secrets."""

    def __init__(
        self, write: Callable[[str], None], *, as_json: bool = False, masker: Masker | None = None
    ) -> None:
        self._write = write
        self._as_json = as_json
        self._masker = masker

    def line(
        self, outcome: str, *, event: str | None = None, run: str | None = None, text: str = ""
    ) -> None:
        """One line."""
        at = rfc3339(datetime.now(UTC))
        text = " ".join((self._masker.mask(text) if self._masker else text).split())
        if self._as_json:
            row: dict[str, Any] = {"at": at, "event": event, "run": run, "outcome": outcome}
            row |= {"text": text} if text else {}
            self._write(json.dumps(row, ensure_ascii=False))
            return
        words = (at, event or "-", run or "-", outcome)
        self._write("  ".join(words) + (f": {text}" if text else ""))
