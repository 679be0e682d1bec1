"""Checks of functions' arguments. Each returns the value, or says what it should have been."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from muster.teams.template.errors import FunctionError
from muster.teams.template.values import MAX_ITEMS, MAX_TEXT, is_number, kind

__all__ = ("check_items", "check_text", "mapping", "number", "sequence", "text", "whole")


def text(value: Any, name: str = "the text") -> str:
    """A text; nothing else is turned into one unasked."""
    if isinstance(value, str):
        return value
    hint = "; write toString or toJson first" if value is not None else ""
    raise FunctionError(f"{name} must be text, not {kind(value)}{hint}")


def number(value: Any, name: str = "the number") -> int | float:
    """A number."""
    if isinstance(value, int | float) and is_number(value):
        return value
    hint = "; write int or float64 first" if isinstance(value, str) else ""
    raise FunctionError(f"{name} must be a number, not {kind(value)}{hint}")


def whole(value: Any, name: str) -> int:
    """A number without a fraction."""
    found = number(value, name)
    if isinstance(found, float) and not found.is_integer():
        raise FunctionError(f"{name} must be a whole number, not {found}")
    return int(found)


def sequence(value: Any, name: str = "the list") -> Sequence[Any]:
    """A list."""
    if isinstance(value, list | tuple):
        return value
    raise FunctionError(f"{name} must be a list, not {kind(value)}")


def mapping(value: Any, name: str = "the mapping") -> Mapping[str, Any]:
    """A mapping."""
    if isinstance(value, Mapping):
        return value
    raise FunctionError(f"{name} must be a mapping, not {kind(value)}")


def check_text(size: int) -> None:
    """Refuse to make a text of `size` characters, if that is too long."""
    if size > MAX_TEXT:
        raise FunctionError(f"the text would be longer than {MAX_TEXT:,} characters")


def check_items(size: int) -> None:
    """Refuse to make a list of `size` items, if that is too long."""
    if size > MAX_ITEMS:
        raise FunctionError(f"the list would be longer than {MAX_ITEMS:,} items")
