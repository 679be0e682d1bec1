"""The one-line assertions of promptfoo's `__expected` columns, as entries of `assert`.

contains: Paris            not-icontains: sorry        contains-any: red, "dark blue"
regex: ^\\d+$               is-json: {"type": "object"}  latency(500)      cost(0.01)
numeric(0.5): 42           llm-rubric: is polite       Paris   (no kind: equals)
"""

from __future__ import annotations

import csv
import json
import re
from typing import Any

from muster.errors import nearest
from muster.evals.graders import graders
from muster.evals.graders.foreign import is_foreign

__all__ = ("parse_expected", "threshold_field")

_TEXT = ("contains", "icontains", "starts-with", "ends-with", "regex", "equals")
_LISTS = ("contains-any", "contains-all", "icontains-any", "icontains-all")
_LIMITS = {"latency": "threshold", "cost": "budget"}
"""Kinds that take a number alone: `latency(500)`, and what the entry calls it."""

_EXAMPLES = {"latency": "latency(500)", "cost": "cost(0.01)"}

_JSON = ("is-json", "contains-json")
_ALONE = (*_JSON, "is-xml", "contains-xml")
"""Kinds that need nothing beside their name."""
_OTHERS = ("word-count", "finish-reason")

_ALIASES = {"grade": "llm-rubric", "fn": "javascript", "eval": "javascript"}
_PLAIN = (*_TEXT, *_LISTS, *_ALONE, *_OTHERS, "numeric")
"""Kinds that pass or fail: promptfoo's `threshold` is the score from which they pass."""
_KINDS = frozenset((*_PLAIN, *_LIMITS, *_ALIASES, "llm-rubric"))

_ENTRY = re.compile(
    r"(?P<negated>not-)?(?P<kind>[a-z][a-z-]*(?::(?:cosine|dot|euclidean))?)"
    r"(?:\((?P<number>[^()\n]*)\))?(?P<colon>:)?(?P<value>.*)\Z",
    re.DOTALL,
)


def parse_expected(text: str) -> dict[str, Any]:
    """The assertion that a cell stands for; text of no known kind must be equalled.

    Raises:
        ValueError: the kind lacks its value or number, or looks like a known kind misspelt.
    """
    text = text.strip()
    if script := re.match(r"file://(.+\.(?:py|js|cjs|mjs|ts)(?::\w+)?)\Z", text):
        return {"type": "python" if ".py" in script[1] else "javascript", "value": text}
    entry = _ENTRY.match(text)
    if entry is None or not (entry["colon"] or not entry["value"]):
        return {"type": "equals", "value": text}
    kind = entry["kind"]
    # A kind that is not graded here is passed on by its name: where graders are looked up it is
    # reported, with its place.
    if kind not in _KINDS and not graders.is_builtin(kind) and not is_foreign(kind):
        _check_spelling(text, entry)
        return {"type": "equals", "value": text}
    limit = kind in _LIMITS and entry["number"] is not None
    if not entry["colon"] and not limit and kind not in _ALONE:
        return {"type": "equals", "value": text}  # one word that happens to name a kind
    assertion: dict[str, Any] = {"type": _ALIASES.get(kind, kind)}
    assertion |= _settings(kind, entry["value"].strip(), entry["number"])
    if entry["negated"]:
        assertion["negate"] = True
    return assertion


def threshold_field(kind: str) -> str:
    """What promptfoo's `threshold` is called in an entry of that kind: the limit of latency and
    cost, the score from which a deterministic grader passes, or the grader's own threshold."""
    if kind in _LIMITS:
        return _LIMITS[kind]
    return "min_score" if kind in _PLAIN else "threshold"


def _settings(kind: str, value: str, number: str | None) -> dict[str, Any]:
    if kind in _LIMITS:
        limit = number if number is not None else value
        return {_LIMITS[kind]: _number(kind, limit, _EXAMPLES[kind])}
    if kind in _JSON:
        return {"schema": _schema(value)} if value else {}
    if kind in _ALONE:
        return {"value": value} if value else {}
    if not value:
        raise ValueError(f'"{kind}:" lacks the text to compare with')
    if kind == "numeric":
        settings = {"value": _number_or_text(value)}
        if number is not None:
            settings["tolerance"] = _number_or_text(number)
        return settings
    if kind in _LISTS:
        return {"value": _comma_separated(value)}
    if number is None:
        return {"value": _number_or_text(value) if kind == "word-count" else value}
    if kind in (*_TEXT, *_OTHERS):
        raise ValueError(f'"{kind}" takes no number in parentheses')
    return {"value": value, "threshold": _number(kind, number, f"{kind}(0.8): …")}


def _number(kind: str, text: str, example: str) -> float:
    number = _number_or_text(text)
    if isinstance(number, str):
        found = f', not "{text}"' if text else ""
        raise ValueError(f'"{kind}" takes a number{found}; for example {example}')
    return number


def _number_or_text(text: str) -> float | str:
    """Text is left to the grader, which understands `1,319` and `1%`."""
    try:
        return int(text) if text.isdecimal() else float(text)
    except ValueError:
        return text


def _schema(text: str) -> Any:
    if text.startswith("file://"):
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"the schema is not valid JSON: {error}") from None


def _comma_separated(text: str) -> list[str]:
    """`a, "b, c"` as its two items."""
    items = next(csv.reader([text.replace("\n", " ")], skipinitialspace=True))
    return [item.strip() for item in items if item.strip()]


def _check_spelling(text: str, entry: re.Match[str]) -> None:
    """Taking `contians: x` for the text to equal would fail every answer and never say why."""
    if not entry["colon"] or "://" in text[: len(entry["kind"]) + 3]:
        return
    near = nearest(entry["kind"], _KINDS)
    if near and _close(entry["kind"], near[0]):
        raise ValueError(
            f'"{entry["kind"]}" is not a kind of assertion (did you mean "{near[0]}"?); '
            f'to compare with this text as it stands, write "equals: {text}"'
        )


def _close(word: str, kind: str) -> bool:
    import difflib

    return difflib.SequenceMatcher(None, word, kind).ratio() > 0.85
