"""The public face: a template, compiled once and rendered often."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from muster.config.document import Place
from muster.errors import ConfigError
from muster.teams.template.compiler import compile_template
from muster.teams.template.errors import Failure, FunctionError, TemplateError
from muster.teams.template.nodes import Action, Field, Parsed, Text
from muster.teams.template.parser import parse
from muster.teams.template.places import problem_at
from muster.teams.template.references import int_comparisons_of, references_of
from muster.teams.template.runtime import Frame, Run
from muster.teams.template.values import Int, plain

__all__ = ("Template",)


class Template:
    """A Go text/template. It sees the data and nothing else, and every rendering is bounded.

    ```python
    Template.compile("Write about {{ .input.topic }}.").render({"input": {"topic": "bees"}})
    ```
    """

    def __init__(self, source: str, parsed: Parsed, place: Place | None = None) -> None:
        self.source = source
        self.place = place
        self._parsed = parsed
        self._slots = parsed.slots[""]
        self._execute, self._evaluate = compile_template(parsed, source)

    def __repr__(self) -> str:
        return f"Template({self.source!r})"

    @classmethod
    def compile(cls, source: str, *, place: Place | None = None) -> Template:
        """A template from its source.

        Raises:
            ConfigError: the source is not a template; with file, line and column if `place`, where
                the source was written, is given.
        """
        try:
            return cls(source, parse(source), place)
        except Failure as failure:
            problem = problem_at(place, source, failure.offset, failure.message)
            raise ConfigError(problem) from None

    @cached_property
    def references(self) -> frozenset[tuple[str, ...]]:
        """The paths that the source names from the top of the data: `("steps", "a", "output")`."""
        return references_of(self._parsed)

    @cached_property
    def int_comparisons(self) -> frozenset[tuple[str, tuple[str, ...], int]]:
        """The comparisons of a path with an int: `("gt", ("steps", "a", "data", "n"), 2)`."""
        return int_comparisons_of(self._parsed)

    def render(self, data: Mapping[str, Any], *, lenient: bool = False) -> str:
        """The text for `data`, which holds only mappings, lists and scalars.

        With `lenient`, a last name that is missing, and null, are printed as `<no value>`.

        Raises:
            TemplateError: a path is not there, a function cannot work with its arguments, or a
                bound is reached.
        """
        run = Run(data, lenient)
        try:
            self._execute(Frame(run, data, self._slots), data)
        except Failure as failure:
            raise self._error(failure.message, failure.offset) from None
        except RecursionError:
            raise self._error("the template or its data nest too deeply", 0) from None
        return "".join(run.out)

    def evaluate(self, data: Mapping[str, Any], *, lenient: bool = False) -> Any:
        """The value itself if the source is one action, `{{ … }}`; else as `render`.

        Raises:
            TemplateError: as `render`.
        """
        if self._evaluate is None:
            return self.render(data, lenient=lenient)
        frame = Frame(Run(data, lenient), data, self._slots)
        try:
            value = self._evaluate(frame, data)
            return value if self._is_path else _detached(value)
        except Failure as failure:
            raise self._error(failure.message, failure.offset) from None
        except FunctionError as error:
            raise self._error(str(error), 0) from None
        except RecursionError:
            raise self._error("the template or its data nest too deeply", 0) from None

    @cached_property
    def _is_path(self) -> bool:
        """Whether the only action is a path, whose value is the data's own."""
        actions = [node for node in self._parsed.main if not isinstance(node, Text)]
        return isinstance(actions[0], Action) and isinstance(actions[0].pipeline.expression, Field)

    def _error(self, message: str, offset: int) -> TemplateError:
        return TemplateError(problem_at(self.place, self.source, offset, message))


def _detached(value: Any) -> Any:
    """A value that no later template can change, of Python's own types."""
    if isinstance(value, Int):
        return int(value)
    return plain(value) if isinstance(value, Mapping | list | tuple) else value
