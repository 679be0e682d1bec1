"""What is wrong with manifests, gathered so that all of it can be told at once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from muster.config.document import Place
from muster.config.interpolation import fill_text, odd_variable, variables_in
from muster.config.secrets import is_secret_variable
from muster.config.validation import validate
from muster.errors import ConfigError, Problem, nearest
from muster.target import Secret
from muster.teams.template import Template

__all__ = ("Findings", "hint")

M = TypeVar("M", bound=BaseModel)


def hint(name: str, known: Iterable[str]) -> str:
    """What `name` may have been meant to be, in parentheses; empty if nobody can tell."""
    near = nearest(name, known)
    return f' (did you mean "{near[0]}"?)' if near else ""


class Findings:
    """Problems, which stop the load, and warnings, which do not."""

    def __init__(self, env: Mapping[str, str], *, lenient: bool = False) -> None:
        self.env = env
        self.lenient = lenient
        """True: a template may ask for what is not there; that is a warning only."""
        self.problems: list[Problem] = []
        self.warnings: list[str] = []
        self.secrets: set[str] = set()
        """Values that must not be shown."""
        self.reads: set[Path] = set()
        """Files that the manifests name, and what they hold counts; those that are missing, too."""

    def add(self, place: Place, message: str, *, of_key: bool = False) -> None:
        """A problem with the value at `place`, or with its key."""
        self.problems.append(place.problem(message, of_key=of_key))

    def warn(self, place: Place, message: str) -> None:
        """A warning about the value at `place`; the same one is told once."""
        text = str(place.problem(message))
        if text not in self.warnings:
            self.warnings.append(text)

    def add_about_template(self, place: Place, message: str) -> None:
        """A template asks for what will not be there."""
        if self.lenient:
            self.warn(place, message)
        else:
            self.add(place, message)

    def take(self, error: ConfigError) -> None:
        """The problems of an error that was raised."""
        self.problems += error.problems

    def stop(self) -> None:
        """Raise `ConfigError` if there are problems."""
        if self.problems:
            raise ConfigError(sorted(dict.fromkeys(self.problems), key=_order))

    def model(self, model: type[M], data: object, place: Place) -> M | None:
        """`data`, which stands at `place`, as a `model`; `None` after a problem."""
        try:
            return validate(model, data, place.document, place.location)
        except ConfigError as error:
            self.take(error)
            return None

    def template(self, text: str, place: Place) -> Template:
        """`text` compiled; after a problem, an empty template."""
        try:
            return Template.compile(text, place=place)
        except ConfigError as error:
            self.take(error)
            return Template.compile("")

    def schema(self, value: str | Mapping[str, Any] | None, place: Place) -> dict[str, Any] | None:
        """A JSON Schema, given as JSON text or as it is."""
        if value is None:
            return None
        schema: Any = value
        if isinstance(value, str):
            try:
                schema = json.loads(value)
            except ValueError as error:
                self.add(place, f"not JSON: {error}")
                return None
        if not isinstance(schema, dict):
            self.add(place, "expected a JSON Schema, which is an object")
            return None
        return schema if self._is_schema(schema, place) else None

    def _is_schema(self, schema: dict[str, Any], place: Place) -> bool:
        from jsonschema.exceptions import SchemaError
        from jsonschema.validators import Draft202012Validator, validator_for

        try:
            validator_for(schema, default=Draft202012Validator).check_schema(schema)
        except SchemaError as error:
            where = error.json_path.removeprefix("$").removeprefix(".")
            self.add(place, f"not a JSON Schema: {f'{where}: ' if where else ''}{error.message}")
            return False
        if (foreign := _foreign_reference(schema)) is not None:
            message = f'"{foreign}": a schema can refer to its own parts only ("#/$defs/…")'
            self.add(place, message)
            return False
        if (dangling := _dangling_reference(schema)) is not None:
            self.add(place, f'"{dangling}" refers to no part of the schema')
            return False
        return True

    def pattern(self, text: str, place: Place) -> str:
        """A pattern as RE2 reads it, for the `regex` module."""
        import regex

        ours = text.replace(r"\z", r"\Z")
        try:
            regex.compile(ours)
        except regex.error as error:
            self.add(place, f"not a pattern: {error}")
        return ours

    def filled(self, text: str, place: Place) -> str:
        """`text` with its `${{ VARIABLES }}`; with one of a secret's name in it, a secret."""
        if "${{" not in text:
            return text
        if (odd := odd_variable(text)) is not None:
            self.add(place, f"{odd} is not a variable; expected ${{{{ NAME }}}}")
            return text

        def missing(name: str) -> None:
            self.add(place, f"the environment variable {name} is not set")

        value = fill_text(text, self.env, missing)
        return self.secret(value) if any(map(is_secret_variable, variables_in(text))) else value

    def secret(self, value: str) -> Secret:
        """`value`, remembered as one that must not be shown."""
        self.secrets.add(value)
        return Secret(value)


def _foreign_reference(schema: object) -> str | None:
    """A `$ref` that leads out of the schema: a validator would fetch it."""
    return next((each for each in _references(schema) if not each.startswith("#")), None)


def _dangling_reference(schema: Mapping[str, Any]) -> str | None:
    """A `$ref` that leads nowhere; its parts all have the schema itself as their base."""
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012, specification_with

    dialect = specification_with(schema.get("$schema", ""), default=DRAFT202012)
    resource = dialect.create_resource(schema)
    resolver = Registry().with_resource("", resource).resolver()
    base = str(schema.get("$id", ""))
    for reference in _references(schema):
        try:
            resolver.lookup(base + reference if base else reference)
        except Unresolvable:
            return reference
    return None


def _references(schema: object) -> Iterator[str]:
    if isinstance(schema, Mapping):
        for key in ("$ref", "$dynamicRef"):
            if isinstance(target := schema.get(key), str):
                yield target
        parts: Iterable[object] = schema.values()
    else:
        parts = schema if isinstance(schema, list) else ()
    for part in parts:
        yield from _references(part)


def _order(problem: Problem) -> tuple[str, int, int]:
    return str(problem.path or ""), problem.line or 0, problem.column or 0
