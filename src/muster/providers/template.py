"""Templates in settings: Jinja2 in its sandbox, compiled once, in any JSON value.

A string that is one placeholder and nothing else, `"{{ messages }}"`, becomes the value itself,
with its type; any other string with placeholders becomes text. Templates see only the names they
are given; unknown ones are errors when the settings are read.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeAlias
from urllib.parse import quote

from muster.errors import nearest

__all__ = ("Rendered", "TemplateError", "check_template", "compile_template", "names_in")

Rendered: TypeAlias = Callable[[Mapping[str, Any]], Any]
"""Takes the names' values, gives the filled template. Raises `TemplateError`."""

_WHOLE = re.compile(r"\s*\{\{((?:(?!\}\}|\{\{).)*)\}\}\s*\Z", re.DOTALL)


class TemplateError(ValueError):
    """A template is wrong, or cannot be filled with these values."""


def is_template(value: object) -> bool:
    """True for strings that have placeholders, blocks or comments."""
    return isinstance(value, str) and any(mark in value for mark in ("{{", "{%", "{#"))


def names_in(value: Any) -> set[str]:
    """The names that the templates anywhere in `value` use.

    Raises:
        TemplateError: one of them has a syntax error.
    """
    if is_template(value):
        from jinja2 import TemplateSyntaxError, meta

        try:
            return meta.find_undeclared_variables(_environment().parse(value))
        except TemplateSyntaxError as error:
            raise TemplateError(f"{_shown(value)}: {error.message}") from None
    if isinstance(value, Mapping):
        return set().union(*map(names_in, value.values()))
    if isinstance(value, list | tuple):
        return set().union(*map(names_in, value))
    return set()


def check_template(value: Any, known: Collection[str]) -> None:
    """Raise `TemplateError` for a syntax error or a name that is not among `known`."""
    for name in sorted(names_in(value)):
        if name not in known:
            near = nearest(name, known)
            hint = f'did you mean "{near[0]}"?' if near else f"known: {', '.join(sorted(known))}"
            raise TemplateError(f'the template uses the unknown name "{name}" ({hint})')


def compile_template(value: Any, *, quoted: bool = False) -> Rendered:
    """The templates in `value` (text, or JSON with text in it) as one function.

    In mappings, a key whose whole value is a placeholder without a value (`None`) is left out.
    With `quoted`, filled-in values are percent-encoded, as they must be within a URL.

    Raises:
        TemplateError: a template has a syntax error.
    """
    if is_template(value):
        return _text(value, quoted)
    if isinstance(value, Mapping) and _holds_template(value):
        parts = [(name, compile_template(item), is_template(item)) for name, item in value.items()]
        return lambda names: _mapping(parts, names)
    if isinstance(value, list | tuple) and _holds_template(value):
        items = [compile_template(item) for item in value]
        return lambda names: [item(names) for item in items]
    return lambda names: value


def _holds_template(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_template, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_holds_template, value))
    return is_template(value)


def _mapping(parts: list[tuple[str, Rendered, bool]], names: Mapping[str, Any]) -> dict[str, Any]:
    filled = ((name, part(names), optional) for name, part, optional in parts)
    return {name: item for name, item, optional in filled if not (optional and item is None)}


def _text(source: str, quoted: bool) -> Rendered:
    from jinja2 import TemplateError as JinjaError
    from jinja2 import Undefined

    environment = _environment(quoted)
    whole = None if quoted else _WHOLE.match(source)
    try:
        if whole is not None:
            fill: Callable[..., Any] = environment.compile_expression(
                whole[1], undefined_to_none=False
            )
        else:
            fill = environment.from_string(source).render
    except JinjaError as error:
        raise TemplateError(f"{_shown(source)}: {error.message}") from None

    def render(names: Mapping[str, Any]) -> Any:
        try:
            value = fill(names)
            if isinstance(value, Undefined):
                str(value)  # raises, and says what is not there
        except Exception as error:
            raise TemplateError(f"{_shown(source)}: {error}") from error
        return value

    return render


@functools.cache
def _environment(quoted: bool = False) -> Any:
    """One environment for plain text, one for URLs."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def finish(value: Any) -> Any:
        if value is None:
            return ""
        return quote(str(value), safe="") if quoted else value

    # Nothing here is HTML: what is filled in must stay as it is.
    return ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True, finalize=finish
    )


def _shown(source: str) -> str:
    line = " ".join(source.split())
    return f"template {line!r}" if len(line) <= 60 else f"template {line[:57]!r}…"
