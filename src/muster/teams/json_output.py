"""The JSON in an answer: models put it in fences, after a sentence, or after their thoughts."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from muster.store.records import NO_DATA

__all__ = ("NO_JSON", "extract_json", "strict_json")

NO_JSON = NO_DATA
"""What `extract_json` gives when there is none; `None` is JSON's `null`."""

_BEGINS_AS_JSON = re.compile(r'\s*[{["0-9tfn-]').match

_FENCE = re.compile(r"```[\w-]*[ \t]*\r?\n(.*?)```", re.DOTALL)
_BEGINNING = re.compile(r"^[ \t]*[{\[]", re.MULTILINE)


def extract_json(text: str) -> Any:
    """The value that `text` holds: as a whole, in its first fenced block, or from the first line
    on that begins with a brace or bracket. `NO_JSON` when that is not JSON."""
    for candidate in _candidates(text):
        if not _BEGINS_AS_JSON(candidate):
            continue  # most answers: an error of the parser takes longer
        try:
            return strict_json(candidate)
        except ValueError:
            continue
    return NO_JSON


def strict_json(text: str) -> Any:
    """The value that `text` is: of JSON alone, without Python's `NaN` and infinities.

    Raises:
        ValueError: it is none.
    """
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


def _number(text: str) -> float:
    """A number that can be written again; Python makes infinity of one that is too large."""
    value = float(text)
    return value if math.isfinite(value) else _no_number(text)


_DECODER = json.JSONDecoder(parse_constant=_no_number, parse_float=_number)


def _candidates(text: str) -> list[str]:
    found = [text]
    if (fenced := _FENCE.search(text)) is not None:
        found.append(fenced[1])
    if (start := _BEGINNING.search(text)) is not None:
        found.append(text[start.start() :])
    return found
