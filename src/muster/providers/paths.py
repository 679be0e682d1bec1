"""JMESPath expressions into answers and rows, compiled once (https://jmespath.org)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator

__all__ = ("JmesPath", "PathError", "Search", "compile_path")

Search: TypeAlias = Callable[[Any], Any]
"""Takes decoded JSON, gives what the path points at, or `None`. Raises `PathError`."""

_NAMES = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*\Z")


class PathError(ValueError):
    """An expression is not JMESPath, or cannot be applied to the value it met."""


def compile_path(expression: str) -> Search:
    """`expression` as a function. Plain dotted names do without the library.

    Raises:
        PathError: it is not a JMESPath expression; the message says where it breaks.
    """
    if _NAMES.match(expression):
        return _names(expression.split("."))
    import jmespath
    from jmespath.exceptions import JMESPathError

    try:
        compiled = jmespath.compile(expression)
    except JMESPathError as error:
        raise PathError(_not_a_path(expression, error)) from None

    def search(value: Any) -> Any:
        try:
            return compiled.search(value)
        except JMESPathError as error:
            raise PathError(f"{expression}: {error}") from None

    return search


def _names(names: list[str]) -> Search:
    if len(names) == 1:
        (name,) = names
        return lambda value: value.get(name) if isinstance(value, dict) else None

    def search(value: Any) -> Any:
        for name in names:
            if not isinstance(value, dict):
                return None
            value = value.get(name)
        return value

    return search


def _not_a_path(expression: str, error: Exception) -> str:
    position = getattr(error, "lex_position", None)
    where = f" at character {position + 1}" if isinstance(position, int) else ""
    hint = ""
    if re.search(r"(^|\.)[0-9]", expression) or "-" in expression:
        hint = " (a name that is not a plain word is quoted: '\"6b-model\".text')"
    return f"{expression!r} is not a JMESPath expression{where}{hint}"


def _check(expression: str) -> str:
    compile_path(expression)
    return expression


JmesPath = Annotated[str, AfterValidator(_check)]
"""The type of a settings field that holds an expression: a wrong one is an error of the file."""
