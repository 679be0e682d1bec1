"""What a field expected, in words for people: pydantic speaks of classes and its own workings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from muster.target import Secret

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = ("expected", "found")

_MAPPING = "a mapping"
_LIST = "a list"
_TRUTH = "true or false"

_WORDS = {
    "arguments_type": _MAPPING,
    "bool_parsing": _TRUTH,
    "bool_type": _TRUTH,
    "dataclass_exact_type": _MAPPING,
    "dataclass_type": _MAPPING,
    "dict_type": _MAPPING,
    "float_parsing": "number",
    "float_type": "number",
    "frozen_set_type": _LIST,
    "int_from_float": "integer",
    "int_parsing": "integer",
    "int_parsing_size": "integer of less than 4300 digits",
    "int_type": "integer",
    "is_instance_of": "another kind of value",
    "iterable_type": _LIST,
    "list_type": _LIST,
    "mapping_type": _MAPPING,
    "model_attributes_type": _MAPPING,
    "model_type": _MAPPING,
    "none_required": "nothing",
    "path_type": "path",
    "set_type": _LIST,
    "string_sub_type": "string",
    "string_type": "string",
    "string_unicode": "string of valid Unicode",
    "tuple_type": _LIST,
    "url_parsing": "URL",
    "url_syntax_violation": "URL",
    "url_type": "URL",
}

_FROM_BOUNDS = {
    "enum": "{expected}",
    "literal_error": "{expected}",
    "multiple_of": "a multiple of {multiple_of}",
    "string_pattern_mismatch": "a text that matches {pattern}",
    "string_too_long": "at most {max_length} characters",
    "string_too_short": "at least {min_length} characters",
    "too_long": "at most {max_length} items",
    "too_short": "at least {min_length} items",
    "union_tag_invalid": "{expected_tags}",
    "url_scheme": "a URL that begins with {expected_schemes}",
    "url_too_long": "a URL of at most {max_length} characters",
}


def expected(detail: ErrorDetails) -> str | None:
    """What would have been right; `None`: pydantic's message has to do."""
    kind = detail["type"]
    words = _WORDS.get(kind)
    if words is None and kind in _FROM_BOUNDS:
        words = _FROM_BOUNDS[kind].format_map(detail.get("ctx", {}))
        words = words.replace("at least 1 items", "at least 1 item")
        words = words.replace("at least 1 characters", "at least 1 character")
    if words is None:
        text = detail["msg"].removeprefix("Input should be ")
        words = text.removeprefix("a valid ") if text != detail["msg"] else None
    return words


def found(detail: ErrorDetails) -> str:
    """What is there instead."""
    context: Mapping[str, Any] = detail.get("ctx", {})
    if detail["type"] in ("too_long", "too_short") and "actual_length" in context:
        return str(context["actual_length"])
    if detail["type"] == "union_tag_invalid":
        return _shown(context.get("tag"))
    return _shown(detail["input"])


def _shown(value: object) -> str:
    if isinstance(value, Secret):
        return "a secret"
    if isinstance(value, Mapping):
        return _MAPPING
    if isinstance(value, list | tuple):
        return _LIST
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return f'"{value}"' if len(value) <= 60 else f'"{value[:57]}…"'
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
