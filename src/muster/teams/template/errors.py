"""What can go wrong in a template, inside and as users see it."""

from __future__ import annotations

from muster.errors import MusterError, Problem

__all__ = ("Failure", "FunctionError", "TemplateError")


class TemplateError(MusterError):
    """A template could not be rendered with the data it was given."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(str(problem))


class Failure(Exception):
    """Inside: what is wrong, and at which character of the template."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset


class FunctionError(Exception):
    """Inside: a function cannot work with its arguments. The caller knows the place."""
