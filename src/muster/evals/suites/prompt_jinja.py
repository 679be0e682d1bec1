"""Jinja's sandbox, set up so that templates written for promptfoo's Nunjucks mean the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import ChainableUndefined, DebugUndefined, Undefined
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from muster.evals.suites.variables import ENVIRONMENT_BRACES, as_text

__all__ = ("compile_template",)

Unknown = Callable[[str], None]


def compile_template(text: str) -> Callable[[Mapping[str, Any], Unknown], str]:
    """A function that renders `text` with variables; it tells of names that there are not, which
    stay as they are written.

    Raises:
        jinja2.TemplateSyntaxError: the template is not valid.
    """
    told: list[Unknown] = []

    class Noted(ChainableUndefined, DebugUndefined):
        """Stays as it is written, and is told of."""

        def __str__(self) -> str:
            if issubclass(self._undefined_exception, SecurityError):
                raise SecurityError(self._undefined_hint or "this is not allowed here")
            if told and self._undefined_name is not None:
                told[-1](self._undefined_name)
            return DebugUndefined.__str__(self)

    environment = _Environment(undefined=Noted, finalize=_shown, keep_trailing_newline=True)
    environment.filters["dump"] = lambda value: json.dumps(value, ensure_ascii=False)
    template = environment.from_string(
        ENVIRONMENT_BRACES.sub(lambda match: f"{{% raw %}}{match[0]}{{% endraw %}}", text)
    )

    def render(variables: Mapping[str, Any], unknown: Unknown) -> str:
        told.append(unknown)
        try:
            return template.render({**variables, "vars": variables})
        finally:
            told.pop()

    return render


class _Environment(ImmutableSandboxedEnvironment):
    """`{{ vars.items }}` is the variable, not the method of that name."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)


def _shown(value: Any) -> Any:
    return value if isinstance(value, Undefined) else as_text(value)
