"""Variables in files: `${{ NAME }}`, `${{ NAME:-default }}` and `{{ env.NAME }}`.

A default stands in for a variable that is unset or empty, as in a shell. What a variable holds is
not looked at again, so a value cannot bring in other variables. Anything else in braces is left as
it is written: `{{ name }}` belongs to the suites' own `vars`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from muster.config.document import Location

__all__ = ("Missing", "fill", "fill_text", "is_whole_variable", "odd_variable", "variables_in")

Missing: TypeAlias = Callable[[str, Location], None]
"""Told of each variable that is unset and has no default, and where in the value it stands."""

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_REST = r"\s*(?::-(?P<{0}>.*?))?\s*\}}\}}"
_VARIABLE = re.compile(
    rf"\$\{{\{{\s*(?:env\.)?(?P<name>{_NAME})" + _REST.format("default") + "|"
    rf"\{{\{{\s*env\.(?P<env_name>{_NAME})" + _REST.format("env_default"),
    re.DOTALL,
)
_ODD = re.compile(r"\$\{\{[^}]*(?:\}\})?")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?")


def fill(
    value: Any,
    variables: Mapping[str, str],
    missing: Missing,
    *,
    coerce: bool = False,
    location: Location = (),
) -> Any:
    """`value` with the variables in all its texts filled in; the same object if it has none.

    With `coerce`, a text that is one variable and nothing else becomes a boolean or a number if
    it reads like one. Keys of mappings are left alone.
    """
    if not _mentions(value):
        return value
    if isinstance(value, str):
        text = fill_text(value, variables, lambda name: missing(name, location))
        return _coerced(text) if coerce and is_whole_variable(value) else text
    if isinstance(value, Mapping):
        return {
            key: fill(item, variables, missing, coerce=coerce, location=(*location, key))
            for key, item in value.items()
        }
    return [
        fill(item, variables, missing, coerce=coerce, location=(*location, index))
        for index, item in enumerate(value)
    ]


def fill_text(text: str, variables: Mapping[str, str], missing: Callable[[str], None]) -> str:
    """`text` with its variables filled in; one that is missing is told of, and leaves nothing."""

    def value_of(match: re.Match[str]) -> str:
        name, default = _parts(match)
        value = variables.get(name)
        if value:
            return value
        if default is not None:
            return default
        if value is None:
            missing(name)
        return ""

    return _VARIABLE.sub(value_of, text) if "{{" in text else text


def variables_in(text: str) -> list[str]:
    """The names of the variables that `text` mentions."""
    return [_parts(match)[0] for match in _VARIABLE.finditer(text)] if "{{" in text else []


def is_whole_variable(text: str) -> bool:
    """True when `text` is one variable and nothing else."""
    return _VARIABLE.fullmatch(text.strip()) is not None


def odd_variable(text: str) -> str | None:
    """A `${{ … }}` in `text` that is not a variable: a dash in the name, no closing braces."""
    if "${{" not in text:
        return None
    found = _ODD.search(_VARIABLE.sub("", text))
    return found.group() if found else None


def _parts(match: re.Match[str]) -> tuple[str, str | None]:
    if match["name"] is not None:
        return match["name"], match["default"]
    return match["env_name"], match["env_default"]


def _mentions(value: Any) -> bool:
    if isinstance(value, str):
        return "{{" in value
    if isinstance(value, Mapping):
        return any(map(_mentions, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_mentions, value))
    return False


def _coerced(text: str) -> str | bool | int | float:
    if text in {"true", "false"}:
        return text == "true"
    if match := _NUMBER.fullmatch(text):
        return float(text) if match[2] else int(text)
    return text
