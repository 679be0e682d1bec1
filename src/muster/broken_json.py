"""Why bytes are no JSON, in words for people."""

from __future__ import annotations

import re

__all__ = ("why_no_json",)

_ESCAPES = re.compile(
    rb"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)
"""An escaped backslash, a whole pair, or (its group) a surrogate without its other half."""


def why_no_json(error: Exception, data: bytes) -> str:
    """What is wrong with `data`, which a decoder has refused with `error`.

    msgspec calls half of a surrogate pair the end of the input, or a malformed one; programs write
    one when they cut a text in the middle of a character.
    """
    if isinstance(error, UnicodeDecodeError):
        return f"it is not UTF-8 (byte 0x{error.object[error.start]:02x})"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    said = str(error)
    if "truncated" in said or "surrogate" in said or "escape" in said:
        for found in _ESCAPES.finditer(data):
            if found[1]:
                half = found[1].decode()
                return (
                    f"the escape {half} at byte {found.start()} is half of a character (a "
                    "surrogate without its pair)"
                )
    if "truncated" in said:
        return f"it ends in the middle, after {len(data)} bytes" if data.strip() else "it is empty"
    return said
