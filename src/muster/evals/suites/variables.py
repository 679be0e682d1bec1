"""`{{ name }}`: a test's variables in its texts.

`{{ x }}`, `{{ vars.x }}` and, for what lies within, `{{ x.y.0 }}`. A text that is one variable and
nothing else becomes the variable's value, with its type; within a longer text, what is not text is
written as JSON. An unknown name stays as it is written. Values are not looked at again: a variable
cannot bring in another.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ("as_text", "fill_vars", "has_braces", "is_plain_template")

ENVIRONMENT_BRACES = re.compile(r"\$\{\{.*?\}\}", re.DOTALL)
"""`${{ … }}` belongs to the environment; what is not a variable's name in it stays as it is."""

_NAME = r"[A-Za-z_][\w-]*(?:\.[\w-]+)*"
_PLACEHOLDER = re.compile(rf"(?<!\$)\{{\{{-?\s*({_NAME})\s*-?\}}\}}")
_MISSING = object()


def fill_vars(value: Any, variables: Mapping[str, Any], unknown: Callable[[str], None]) -> Any:
    """`value` with the variables in all its texts, at any depth; `unknown` is told of each name
    that there is no variable for."""
    if isinstance(value, str):
        return _fill_text(value, variables, unknown) if "{{" in value else value
    if isinstance(value, dict):
        return {key: fill_vars(item, variables, unknown) for key, item in value.items()}
    if isinstance(value, list):
        return [fill_vars(item, variables, unknown) for item in value]
    return value


def has_braces(value: Any) -> bool:
    """True when some text in `value` has `{{`."""
    if isinstance(value, str):
        return "{{" in value
    if isinstance(value, dict):
        return any(map(has_braces, value.values()))
    if isinstance(value, list):
        return any(map(has_braces, value))
    return False


def is_plain_template(text: str) -> bool:
    """True when `text` has no template syntax but placeholders of names."""
    rest = ENVIRONMENT_BRACES.sub("", _PLACEHOLDER.sub("", text))
    return not any(mark in rest for mark in ("{{", "{%", "{#"))


def as_text(value: Any) -> str:
    """A variable's value within a text."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def _fill_text(text: str, variables: Mapping[str, Any], unknown: Callable[[str], None]) -> Any:
    whole = _PLACEHOLDER.fullmatch(text.strip())
    if whole is not None:
        value = _look_up(whole[1], variables)
        if value is not _MISSING:
            return value
        unknown(whole[1])
        return text

    def replaced(match: re.Match[str]) -> str:
        value = _look_up(match[1], variables)
        if value is _MISSING:
            unknown(match[1])
            return match[0]
        return as_text(value)

    return _PLACEHOLDER.sub(replaced, text)


def _look_up(path: str, variables: Mapping[str, Any]) -> Any:
    if path in variables:
        return variables[path]
    first, *steps = path.split(".")
    if first == "vars" and "vars" not in variables and steps:
        return _look_up(".".join(steps), variables)
    value: Any = variables.get(first, _MISSING)
    for step in steps:
        if isinstance(value, Mapping):
            value = value.get(step, _MISSING)
        elif isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        else:
            return _MISSING
    return value
