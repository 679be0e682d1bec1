"""Text of others, such as what a model answered, for a terminal."""

from __future__ import annotations

import re

__all__ = ("harmless", "one_line")

_DRIVES = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_DRIVES_OR_TURNS = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def harmless(text: str) -> str:
    """Lines and spaces as they are, but nothing that drives a terminal."""
    return _DRIVES.sub(_escaped, text)


def one_line(text: str) -> str:
    """`text` with white space folded, and characters escaped that drive a terminal or turn text
    round: what a target says must do neither."""
    return _DRIVES_OR_TURNS.sub(_escaped, " ".join(text.split()))


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
