"""What the fields of manifests are made of: references, headers, bounds, shapes of text."""

# ruff: noqa: N815 - the names are those of the files; pydantic copies defaults

from __future__ import annotations

import re
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from muster.config.validation import FileModel

__all__ = (
    "Count",
    "EnvFromSource",
    "Header",
    "HeaderValue",
    "Headers",
    "KeyRef",
    "Name",
    "NameRef",
    "NameRefOrText",
    "NotNegative",
    "Positive",
    "Quantity",
    "SchemaText",
    "SecretRef",
    "Spec",
    "Text",
    "ValueFrom",
    "Whole",
    "one_of",
)


class Spec(FileModel):
    """Base of the parts of a manifest. Values are taken as they are: `"5"` is no number."""

    model_config = ConfigDict(strict=True)


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


def _on_a_line(name: str) -> str:
    if (found := _CONTROL.search(name)) is not None:
        raise ValueError(f"a name holds no control characters, found {found.group()!r}")
    return name


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_QUANTITY = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+|[KMGTPE]i|[numkMGTPE])?\Z", re.ASCII)


def _quantity(value: str | int | float) -> str | int | float:
    if not _QUANTITY.match(str(value)):
        raise ValueError(f'expected a quantity such as "500m" or "1Gi", found "{value}"')
    return value


Text: TypeAlias = Annotated[
    str, AfterValidator(_not_blank), Field(json_schema_extra={"minLength": 1})
]
Name: TypeAlias = Annotated[Text, AfterValidator(_on_a_line)]
"""What people see in lines, trees and drawings."""
Count: TypeAlias = Annotated[int, Field(ge=1)]
Whole: TypeAlias = Annotated[int, Field(ge=0)]
Positive: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Quantity: TypeAlias = Annotated[str | int | float, AfterValidator(_quantity)]
SchemaText: TypeAlias = Annotated[
    Annotated[str, Tag("text")] | Annotated[dict[str, Any], Tag("schema")],
    Discriminator(lambda value: "schema" if isinstance(value, dict) else "text"),
]
"""A JSON Schema: JSON in a text, as the CRDs have it, or the schema itself."""


class NameRef(Spec):
    """A document by its name."""

    name: Text
    """The document's `metadata.name`."""


class SecretRef(Spec):
    """A Secret by its name."""

    name: Text
    """The Secret's name."""
    key: str | None = None
    """The key, where it is not the usual one."""


class KeyRef(Spec):
    """A key of a ConfigMap or a Secret."""

    name: Text
    """The document's name."""
    key: Text
    """The key in its data."""
    optional: bool = False
    """True: when it is not there, the value is left out."""


NameRefOrText: TypeAlias = Annotated[
    Annotated[Text, Tag("text")] | Annotated[NameRef, Tag("reference")],
    Discriminator(lambda value: "text" if isinstance(value, str) else "reference"),
]


class ValueFrom(Spec):
    """Where a value stands: exactly one of the two."""

    configMapKeyRef: KeyRef | None = None
    """In a ConfigMap."""
    secretKeyRef: KeyRef | None = None
    """In a Secret."""

    @model_validator(mode="after")
    def _one(self) -> ValueFrom:
        one_of(self, "configMapKeyRef", "secretKeyRef")
        return self


class HeaderValue(Spec):
    """A header's value in the form of a map."""

    value: str | None = None
    """The value itself."""
    valueFrom: ValueFrom | None = None
    """Where the value stands."""
    configMapKeyRef: KeyRef | None = None
    """As `valueFrom.configMapKeyRef`."""
    secretKeyRef: KeyRef | None = None
    """As `valueFrom.secretKeyRef`."""

    @model_validator(mode="after")
    def _one(self) -> HeaderValue:
        one_of(self, "value", "valueFrom", "configMapKeyRef", "secretKeyRef")
        return self


class Header(Spec):
    """A header, or a variable, in the form of a list."""

    name: Text
    """Its name."""
    value: str | None = None
    """The value itself."""
    valueFrom: ValueFrom | None = None
    """Where the value stands."""

    @model_validator(mode="after")
    def _one(self) -> Header:
        one_of(self, "value", "valueFrom")
        return self


_TextOrValue: TypeAlias = Annotated[
    Annotated[str, Tag("text")] | Annotated[HeaderValue, Tag("value")],
    Discriminator(lambda value: "text" if isinstance(value, str) else "value"),
]
Headers: TypeAlias = Annotated[
    Annotated[list[Header], Tag("list")] | Annotated[dict[str, _TextOrValue], Tag("map")],
    Discriminator(lambda value: "list" if isinstance(value, list) else "map"),
]
"""`[{name, value | valueFrom}]`, or `{name: text | {secretKeyRef}}`."""


class _SourceRef(Spec):
    name: Text
    """The document's name."""
    optional: bool = False
    """True: nothing is said when it is not there."""


class EnvFromSource(Spec):
    """Variables from all keys of a ConfigMap or a Secret."""

    prefix: str = ""
    """Put before every name."""
    configMapRef: _SourceRef | None = None
    """The ConfigMap."""
    secretRef: _SourceRef | None = None
    """The Secret."""

    @model_validator(mode="after")
    def _one(self) -> EnvFromSource:
        one_of(self, "configMapRef", "secretRef")
        return self


def one_of(model: FileModel, *names: str, optional: bool = False) -> None:
    """Raise `ValueError` unless exactly one of the fields is given (or none, if `optional`)."""
    given = [name for name in names if getattr(model, name) is not None]
    if len(given) > 1:
        raise ValueError(f"give only one of {', '.join(given)}")
    if not given and not optional:
        raise ValueError(f"give one of {', '.join(names)}")
