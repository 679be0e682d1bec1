"""The graders `is-json` (the whole answer is JSON) and `contains-json` (JSON is in it); with a JSON
Schema, JSON that satisfies it.

`jsonschema` takes 90 ms to import, so it is imported when a schema is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, AliasChoices, Field

from muster.config.document import read_yaml
from muster.config.project import resolve_inside
from muster.config.validation import FileModel
from muster.errors import MusterError
from muster.evals.graders.base import (
    Assertion,
    GradeContext,
    GraderError,
    GraderSpec,
    Score,
    SettingError,
)
from muster.evals.graders.json_values import all_json, read_json
from muster.evals.graders.text import clip

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

__all__ = ("ContainsJson", "IsJson")

_SHOWN_ERRORS = 5


def _is_schema_or_path(value: Any) -> Any:
    if value is None or isinstance(value, bool | Mapping | str):
        return value
    raise ValueError("expected a JSON Schema, a mapping, or the path of a file that holds one")


class _Settings(FileModel):
    schema_: Annotated[Any, AfterValidator(_is_schema_or_path)] = Field(
        default=None, validation_alias=AliasChoices("schema", "value")
    )
    """JSON Schema that the answer must satisfy, as a mapping or as the path of a JSON or YAML
    file; also `value`. Its draft is that of `$schema`, or else 2020-12."""


class IsJson:
    """The whole answer is one JSON value; with `schema`, one that satisfies it."""

    Settings = _Settings
    __slots__ = ("_validator",)

    def __init__(self, spec: GraderSpec) -> None:
        schema = _Settings.model_validate(spec.config).schema_
        try:
            if isinstance(schema, str):
                schema = _read_schema(schema, spec)
            self._validator = None if schema is None else _compile(schema)
        except (MusterError, ValueError) as error:
            written = "schema" if "schema" in spec.config else "value"
            raise SettingError(written, str(error)) from None

    def __call__(self, context: GradeContext) -> Score:
        try:
            value = read_json(context.output)
        except ValueError as error:
            return Score(0.0, (Assertion("Output is not valid JSON", False, str(error)),))
        valid = Assertion("Output is valid JSON", True)
        if self._validator is None:
            return Score(1.0, (valid,))
        try:
            errors = [_told(error) for error in self._validator.iter_errors(value)]
        except RecursionError:
            raise GraderError("the schema refers to itself without end") from None
        if not errors:
            return Score(1.0, (valid, Assertion("Output satisfies the schema", True)))
        evidence = _listed(errors)
        return Score(0.0, (valid, Assertion("Output does not satisfy the schema", False, evidence)))


class ContainsJson(IsJson):
    """Somewhere in the answer is JSON; with `schema`, JSON that satisfies it."""

    __slots__ = ()

    def __call__(self, context: GradeContext) -> Score:
        values = all_json(context.output)
        if not values:
            return Score(0.0, (Assertion("Output contains no JSON", False),))
        has = Assertion("Output contains JSON", True)
        if self._validator is None:
            return Score(1.0, (has,))
        errors: list[str] = []
        for value in values:
            try:
                errors = [_told(error) for error in self._validator.iter_errors(value)]
            except RecursionError:
                raise GraderError("the schema refers to itself without end") from None
            if not errors:
                return Score(1.0, (has, Assertion("JSON in it satisfies the schema", True)))
        text = "No JSON in it satisfies the schema"
        return Score(0.0, (has, Assertion(text, False, _listed(errors))))


def _listed(errors: list[str]) -> str:
    evidence = "; ".join(errors[:_SHOWN_ERRORS])
    if len(errors) > _SHOWN_ERRORS:
        evidence += f"; and {len(errors) - _SHOWN_ERRORS} more"
    return evidence


def _told(error: Any) -> str:
    return f"{error.json_path}: {clip(error.message)}"


def _read_schema(name: str, spec: GraderSpec) -> Any:
    root = spec.project_root or spec.base_dir
    path = resolve_inside(spec.base_dir, name.removeprefix("file://"), root)
    schema = read_yaml(path).data
    if not isinstance(schema, bool | Mapping):
        raise ValueError(f"{path}: a JSON Schema is a mapping")
    return schema


def _compile(schema: Any) -> Validator:
    """A validator that never loads anything: references must stay within the schema.

    Raises:
        ValueError: it is no JSON Schema, or a reference leads nowhere.
    """
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import Draft202012Validator, validator_for
    from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]
    from referencing.jsonschema import specification_with

    kind = validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        raise ValueError(f"not a JSON Schema: {_told(error)}") from None
    draft = specification_with(kind.META_SCHEMA.get("$id") or kind.META_SCHEMA["id"])
    resource = draft.create_resource(schema)
    _check_references(resource, REGISTRY.resolver_with_root(resource))
    return kind(schema, registry=REGISTRY)


def _check_references(resource: Any, resolver: Any) -> None:
    contents = resource.contents
    if isinstance(contents, Mapping):
        for keyword in ("$ref", "$dynamicRef"):
            reference = contents.get(keyword)
            if isinstance(reference, str):
                _look_up(reference, resolver)
    for inner in resource.subresources():
        _check_references(inner, resolver.in_subresource(inner))


def _look_up(reference: str, resolver: Any) -> None:
    from referencing.exceptions import Unresolvable

    try:
        resolver.lookup(reference)
    except Unresolvable:
        raise ValueError(f'$ref "{reference}" leads to nothing in the schema') from None
