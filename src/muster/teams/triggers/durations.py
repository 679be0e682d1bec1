"""Durations as Go writes them: `1h30m`, `250ms`, `1.5h`."""

from __future__ import annotations

import re

__all__ = ("parse_duration", "shown_duration")

_UNITS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_LONGEST = 100 * 365 * 86_400.0


def parse_duration(text: str) -> float:
    """Seconds. Raises `ValueError`, with a text for people, when it is no duration above 0."""
    whole = text.strip()
    if re.fullmatch(f"(?:{_PART.pattern})+", whole, re.ASCII) is None:
        raise ValueError(f'"{text}" is not a duration such as 30s, 5m or 1h30m')
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(whole))
    if not 0 < seconds <= _LONGEST:
        raise ValueError(f'"{text}" must be more than 0 and at most 100 years')
    return seconds


def shown_duration(seconds: float) -> str:
    """As Go prints it: `1m0s`, `1.5s`, `2h0m0s`, `250ms`."""
    if seconds < 1:
        return f"{seconds * 1000:g}ms"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    text = f"{round(rest, 3):g}s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    return f"{hours}h{text}" if hours else text
