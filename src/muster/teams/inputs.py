"""The inputs of a run: merged over the defaults, typed, none missing, none unknown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from muster.errors import UsageError, nearest
from muster.teams.definition import InputField, Team
from muster.teams.json_output import strict_json

__all__ = ("check_inputs",)


def check_inputs(team: Team, given: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs that the run has.

    Raises:
        UsageError: one is missing, is not declared, or has the wrong type; all are named.
    """
    declared = {field.name: field for field in team.inputs}
    problems: list[str] = []
    values = {name: field.default for name, field in declared.items() if field.default is not None}
    values |= team.defaults
    values |= given
    if declared:
        for name in given:
            if name not in declared and name not in team.defaults:
                near = nearest(name, declared)
                hint = f'did you mean "{near[0]}"?' if near else f"known: {', '.join(declared)}"
                problems.append(f'unknown input "{name}" ({hint})')
    for name, field in declared.items():
        if values.get(name) is None:
            if field.required:
                told = f" ({field.description})" if field.description else ""
                problems.append(f'input "{name}" is required{told}')
            continue
        try:
            values[name] = _typed(field, values[name])
        except ValueError as error:
            problems.append(f'input "{name}": {error}')
    if problems:
        raise UsageError(f'team "{team.name}": ' + "; ".join(problems))
    return values


def _typed(field: InputField, value: Any) -> Any:
    """`value` as the declared type; text is read as JSON where the type is not text."""
    kind = field.type
    if kind == "string":
        if isinstance(value, str):
            return value
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, str):
        try:
            value = strict_json(value)
        except ValueError:
            raise ValueError(f'expected {kind}, found "{value}"') from None
    good = {
        "number": isinstance(value, int | float) and not isinstance(value, bool),
        "integer": isinstance(value, int) and not isinstance(value, bool),
        "boolean": isinstance(value, bool),
        "array": isinstance(value, list),
        "object": isinstance(value, dict),
    }[kind]
    if not good:
        raise ValueError(f"expected {kind}, found {json.dumps(value)}")
    return value
