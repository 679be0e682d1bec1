"""Models whose fields are described by the docstrings beneath them.

pydantic's own `use_attribute_docstrings` does the same, but reads and parses the source of every
model whenever its class is made, which was a fifth of the time until the command begins to work.
Here the source is only read when somebody asks for the JSON Schema.
"""

from __future__ import annotations

import ast
import inspect
from itertools import pairwise
from textwrap import dedent
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic.fields import FieldInfo
    from pydantic_core import CoreSchema

__all__ = ("DescribedModel",)


class DescribedModel(BaseModel):
    """Base of what users write: unknown fields are errors, and the fields' docstrings are their
    descriptions in the JSON Schema."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for name, text in _docstrings(cls).items():
            field = cls.model_fields.get(name)
            if field is not None and (shown := properties.get(_key(name, field))) is not None:
                shown.setdefault("description", text)
        return schema


def _key(name: str, field: FieldInfo) -> str:
    """How the field is called in a file."""
    alias = field.validation_alias or field.alias
    first = getattr(alias, "choices", [alias])[0]
    return first if isinstance(first, str) else name


def _docstrings(model: type[BaseModel]) -> dict[str, str]:
    """By field, that of the class that declares it last."""
    found: dict[str, str] = {}
    for declaring in reversed(model.__mro__):
        if declaring in DescribedModel.__mro__ or not issubclass(declaring, DescribedModel):
            continue
        for name in inspect.get_annotations(declaring):
            found.pop(name, None)
        found |= _own_docstrings(declaring)
    return found


def _own_docstrings(model: type) -> dict[str, str]:
    try:
        body = ast.parse(dedent(inspect.getsource(model))).body[0]
    except (OSError, SyntaxError):  # made without a file
        return {}
    assert isinstance(body, ast.ClassDef)
    return {
        field.target.id: inspect.cleandoc(text.value.value)
        for field, text in pairwise(body.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }
