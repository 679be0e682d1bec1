"""What happens in a run, told as it happens: to a terminal, to a log, to a test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from msgspec import Struct, field

__all__ = ("OnEvent", "RunEvent")


class RunEvent(Struct, frozen=True, kw_only=True):
    """One thing that happened.

    `kind` is `run_started`, `step_started`, `step_done`, `step_failed`, `step_skipped`, `retry`,
    `invalid`, `chunk`, `tool_call`, `tool_result`, `delegated`, `routed`, `approval`, `warning` or
    `run_done`.
    """

    kind: str
    step: str | None = None
    item: int | None = None
    iteration: int = 0
    text: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


OnEvent: TypeAlias = Callable[[RunEvent], None]
