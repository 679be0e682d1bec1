"""Vectors for tests: made of the words of a text by hashing, the same on every machine.

Texts that share words point nearly the same way, and others do not; that is all that is in them.
"""

from __future__ import annotations

import hashlib
import math
import re

__all__ = ("DIMENSIONS", "hashed_vector")

DIMENSIONS = 64

_WORD = re.compile(r"\w+")


def hashed_vector(text: str, dimensions: int = DIMENSIONS) -> tuple[float, ...]:
    """A unit vector: each word, in lower case, adds a direction of its own."""
    total = [0.0] * dimensions
    for word in _WORD.findall(text.lower()) or [text]:
        data = b""
        block = 0
        while len(data) < dimensions:
            data += hashlib.sha256(f"{block}:{word}".encode("utf-8", "replace")).digest()
            block += 1
        for place, byte in enumerate(data[:dimensions]):
            total[place] += byte - 127.5  # never 0, so that no word is without a direction
    length = math.hypot(*total)
    return tuple(value / length for value in total) if length else (1.0, *total[1:])
