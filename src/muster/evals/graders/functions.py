"""Functions that stand in a list of assertions themselves, as Python code may write them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from muster.evals.graders.base import GraderFactory, GraderSpec

__all__ = ("grader_of", "name_of")


def name_of(function: Callable[..., Any]) -> str:
    """What results call it."""
    name = getattr(function, "__name__", type(function).__name__)
    return "lambda" if name == "<lambda>" else str(name)


def grader_of(function: Callable[..., Any]) -> GraderFactory:
    """The factory of a `python` grader whose `value` is `function` itself."""
    from muster.evals.graders.python import PythonGrader

    def make(spec: GraderSpec) -> PythonGrader:
        config = {**spec.config, "value": name_of(function)}
        return PythonGrader(replace(spec, config=config), function)

    make.Settings = PythonGrader.Settings  # type: ignore[attr-defined]
    return make
