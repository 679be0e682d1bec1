"""The settings of `provider: stdio`, as they stand in `targets.yaml`."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from pydantic import Field, field_validator

from muster.providers.cli_command import Command
from muster.providers.cli_settings import CommandSettings
from muster.providers.stdio_memory import can_watch

__all__ = ("StdioSettings",)

Seconds: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class StdioSettings(CommandSettings):
    """Settings of `provider: stdio`."""

    command: str | list[str]
    """What to start: text for `/bin/sh -c`, or a list of arguments that no shell sees."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """What the child is told when it starts: anything."""
    pool_size: Annotated[int, Field(ge=1, le=1024)] = 1
    """How many children there may be; they are started when they are needed."""
    idle_seconds: Seconds | None = 300.0
    """A child that has had nothing to do for so long is ended; null: never."""
    start_timeout_seconds: Seconds = 10.0
    """How long a child may take to answer `initialize`."""
    ping_seconds: Seconds | None = None
    """A child with work that says nothing for so long is asked whether it is alive, and ended when
    it is silent for as long again; null: never. Not for children that do one thing at a time."""
    memory_limit_mb: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """A child that holds more resident memory, with all that it has started, is ended."""
    max_line_bytes: Annotated[int, Field(ge=1024)] = 16 * 1024 * 1024
    """The longest message that a child may send."""

    @field_validator("command")
    @classmethod
    def _compiles(cls, command: str | list[str]) -> str | list[str]:
        Command(command, allowed=())
        return command

    @field_validator("memory_limit_mb")
    @classmethod
    def _can_be_watched(cls, limit: float | None) -> float | None:
        if limit is not None and not can_watch():
            raise ValueError("this system does not tell how much memory a process holds (no /proc)")
        return limit
