"""Text of others, such as what a model answered, for a terminal."""

from __future__ import annotations

import re

__all__ = ("harmless",)

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def harmless(text: str) -> str:
    """Lines and spaces as they are, but nothing that drives a terminal."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
