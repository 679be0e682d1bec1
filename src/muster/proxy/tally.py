"""What a proxy has done: an event for each exchange, and the counts at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ("Passage", "Tally")

Ended = Literal["whole", "cut", "broke_off", "client_left", "stopped", "refused"]


@dataclass(slots=True)
class Passage:
    """One exchange, as it goes."""

    number: int
    method: str
    path: str
    source: Literal["upstream", "replay", "proxy"] = "proxy"
    """Who answered."""
    status: int | None = None
    ended: Ended = "whole"
    recorded: bool = False
    faults: list[tuple[str, str]] = field(default_factory=list)
    """Rules and what they did."""
    missed: list[str] = field(default_factory=list)
    """Rules whose fault had no occasion: the answer was over before."""

    def event(self, ms: float) -> dict[str, Any]:
        """For programs that watch."""
        return {
            "event": "exchange",
            "n": self.number,
            "method": self.method,
            "path": self.path,
            "status": self.status,
            "source": self.source,
            "ended": self.ended,
            "recorded": self.recorded,
            "faults": [{"rule": rule, "fault": fault} for rule, fault in self.faults],
            "ms": round(ms, 1),
        }


class Tally:
    """Counts passages; each is told to `emit` as an event."""

    def __init__(self, emit: Callable[[dict[str, Any]], None] = lambda event: None) -> None:
        self._emit = emit
        self.exchanges = 0
        self.recorded = 0
        self.sources: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.faults: Counter[tuple[str, str]] = Counter()
        self.missed: Counter[str] = Counter()
        self.unwritten = 0
        """Exchanges that should have been recorded, and could not be."""

    def add(self, passage: Passage, ms: float) -> None:
        """It is over."""
        self.exchanges += 1
        self.recorded += passage.recorded
        self.sources[passage.source] += 1
        self.ended[passage.ended] += 1
        self.faults.update(passage.faults)
        self.missed.update(passage.missed)
        self._emit(passage.event(ms))

    def summary(self) -> dict[str, Any]:
        """The last event."""
        return {
            "event": "summary",
            "exchanges": self.exchanges,
            "sources": dict(self.sources),
            "ended": dict(self.ended),
            "recorded": self.recorded,
            "not_written": self.unwritten,
            "injected": [
                {"rule": rule, "fault": fault, "count": count}
                for (rule, fault), count in sorted(self.faults.items())
            ],
            "no_occasion": dict(sorted(self.missed.items())),
        }

    def lines(self) -> list[str]:
        """The same for people."""
        parts = [f"{name} {count}" for name, count in sorted(self.sources.items())]
        parts += [f"recorded {self.recorded}"] * bool(self.recorded)
        parts += [f"could not be recorded {self.unwritten}"] * bool(self.unwritten)
        ends = [
            f"{_ENDS[name]} {count}" for name, count in sorted(self.ended.items()) if name in _ENDS
        ]
        told = [f"exchanges: {self.exchanges}" + _list(parts + ends)]
        for (rule, fault), count in sorted(self.faults.items()):
            told.append(f"injected: {count} × {fault} ({rule})")
        for rule, count in sorted(self.missed.items()):
            told.append(f"no occasion: {count} × ({rule}): the answer was over before")
        return told


_ENDS = {
    "cut": "cut",
    "broke_off": "broken off by the server",
    "client_left": "left by the client",
    "stopped": "stopped",
    "refused": "refused",
}


def _list(parts: list[str]) -> str:
    return f" ({', '.join(parts)})" if parts else ""
