"""What an agent's memory is, in the form that everything else reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ("Memory",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What an agent remembers between tasks."""

    backend: Literal["in-context", "sqlite", "redis", "vector-store"] = "in-context"
    url: str | None = None
    path: Path | None = None
    collection: str = "agent-memories"
    provider: str | None = None
    """Of a vector store: `sqlite`, a registered name, or `package.module:Factory`."""
    embed: str | None = None
    """Of a vector store: what makes vectors of texts, a target's name or
    `package.module:function`."""
    api_key: str | None = None
    ttl_seconds: float | None = None
    """What is older is forgotten; `None` or 0: never."""
    max_entries: int | None = None
    """Of one agent, the oldest go first; `None` or 0: no limit."""
