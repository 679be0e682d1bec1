"""The smallest instance of a JSON Schema: what a mock answers when structured output is asked for.

Draft 2020-12 with the older spellings `definitions` and `items: [...]`. "Smallest" is the shortest
JSON among the alternatives looked at; only required properties and items are there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from muster.providers.patterns import shortest_match

__all__ = ("smallest_instance",)

_FORMATS = {
    "date-time": "1970-01-01T00:00:00Z",
    "date": "1970-01-01",
    "time": "00:00:00Z",
    "duration": "P0D",
    "email": "a@b.c",
    "idn-email": "a@b.c",
    "hostname": "a",
    "idn-hostname": "a",
    "ipv4": "0.0.0.0",  # noqa: S104 - a value, not an address to bind
    "ipv6": "::",
    "uri": "a:b",
    "iri": "a:b",
    "uuid": "00000000-0000-0000-0000-000000000000",
}
# A schema without `type` means the type that its keywords are about.
_IMPLIED = {
    "object": ("properties", "required", "minProperties", "patternProperties"),
    "array": ("items", "prefixItems", "minItems", "contains"),
    "string": ("minLength", "maxLength", "pattern", "format"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}
_MOST = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties", "minContains")
_LEAST = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties", "maxContains")


class _Impossible(Exception):
    """No finite value was found that satisfies a schema."""


def smallest_instance(schema: Mapping[str, Any] | bool) -> Any:
    """A small value that satisfies `schema`.

    Raises:
        ValueError: none was found, or the schema is not one.
    """
    from jsonschema.exceptions import SchemaError, UnknownType
    from jsonschema.validators import Draft202012Validator, validator_for

    dialect: Any = validator_for(schema, default=Draft202012Validator)
    try:
        dialect.check_schema(schema)
        value = _Maker(schema, dialect(schema)).make(schema)
    except SchemaError as error:
        raise ValueError(f"not a JSON Schema: {error.message}") from error
    except (_Impossible, UnknownType, RecursionError):
        raise ValueError("no value was found that satisfies the schema") from None
    return value


class _Maker:
    def __init__(self, root: Any, validator: Any) -> None:
        self._root = root
        self._validator = validator
        self._open: list[str] = []
        """References being followed. A smallest value never needs one within itself: the inner
        one would be smaller."""

    def make(self, schema: Any) -> Any:
        """The smallest of the candidates that are valid."""
        best: Any = None
        best_size = math.inf
        for value in self._candidates(schema):
            size = len(json.dumps(value, ensure_ascii=False))
            if size < best_size and self._valid(schema, value):
                best, best_size = value, size
        if best_size == math.inf:
            raise _Impossible
        return best

    def _valid(self, schema: Any, value: Any) -> bool:
        return bool(self._validator.evolve(schema=schema).is_valid(value))

    def _candidates(self, schema: Any) -> Iterator[Any]:
        if schema is False:
            return
        if schema is True:
            schema = {}
        if "$ref" in schema or "$dynamicRef" in schema:
            yield from self._referred(schema)
        elif "allOf" in schema:
            merged = _without(schema, "allOf")
            for part in schema["allOf"]:
                merged = self._merged(merged, part)
            yield from self._candidates(merged)
        elif "anyOf" in schema or "oneOf" in schema:
            keyword = "anyOf" if "anyOf" in schema else "oneOf"
            base = _without(schema, keyword)
            for branch in schema[keyword]:
                yield from self._attempt(self._merged(base, branch))
        elif "if" in schema:
            base = _without(schema, "if", "then", "else")
            yield from self._attempt(base)
            yield from self._attempt(self._merged(base, schema.get("else", True)))
            chosen = self._merged(base, schema["if"])
            yield from self._attempt(self._merged(chosen, schema.get("then", True)))
        else:
            yield from self._plain(schema)

    def _attempt(self, schema: Any) -> Iterator[Any]:
        """The candidates of one alternative; none when it turns out to be impossible."""
        try:
            yield from list(self._candidates(schema))
        except _Impossible:
            return

    def _referred(self, schema: Mapping[str, Any]) -> Iterator[Any]:
        keyword = "$ref" if "$ref" in schema else "$dynamicRef"
        reference = schema[keyword]
        if reference in self._open:
            raise _Impossible
        self._open.append(reference)
        try:
            found = self._merged(_without(schema, keyword), self._resolve(reference))
            yield from list(self._candidates(found))
        finally:
            self._open.pop()

    def _resolve(self, reference: str) -> Any:
        target = self._root
        if not reference.startswith("#"):
            raise _Impossible
        pointer = reference[1:]
        if pointer and not pointer.startswith("/"):
            return _anchored(self._root, pointer)
        for step in pointer.split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            try:
                target = target[int(name)] if isinstance(target, list) else target[name]
            except (KeyError, IndexError, ValueError, TypeError):
                raise _Impossible from None
        return target

    def _plain(self, schema: Mapping[str, Any]) -> Iterator[Any]:
        if "const" in schema:
            yield schema["const"]
            return
        if "enum" in schema:
            yield from schema["enum"]
            return
        types = schema.get("type")
        if types is None:
            types = next(
                (kind for kind, words in _IMPLIED.items() if any(w in schema for w in words)),
                ["string", "number", "boolean", "null", "array", "object"]
                if "not" in schema
                else "string",
            )
        for kind in [types] if isinstance(types, str) else types:
            try:
                yield from self._of_type(kind, schema)
            except _Impossible:
                continue

    def _of_type(self, kind: str, schema: Mapping[str, Any]) -> Iterator[Any]:
        match kind:
            case "null":
                yield None
            case "boolean":
                yield True
                yield False
            case "integer" | "number":
                yield from _numbers(schema, whole=kind == "integer")
            case "string":
                yield from _texts(schema)
            case "array":
                yield self._array(schema)
            case "object":
                yield self._object(schema)

    def _object(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        properties = schema.get("properties", {})
        needed = list(dict.fromkeys(schema.get("required", ())))
        wanted = max(len(needed), schema.get("minProperties", 0))
        for name in needed:  # grows while it is walked
            needed += [
                n for n in schema.get("dependentRequired", {}).get(name, ()) if n not in needed
            ]
        spare = (name for name in (*properties, *_names(schema)) if name not in needed)
        while len(needed) < wanted:
            name = next(spare, None)
            if name is None:
                raise _Impossible
            if self._can_be(properties.get(name, True)):
                needed.append(name)
        return {name: self.make(self._schema_of(name, schema)) for name in needed}

    def _can_be(self, schema: Any) -> bool:
        try:
            self.make(schema)
        except _Impossible:
            return False
        return True

    def _schema_of(self, name: str, schema: Mapping[str, Any]) -> Any:
        import re

        found: Any = schema.get("properties", {}).get(name)
        for pattern, part in schema.get("patternProperties", {}).items():
            if re.search(pattern, name):
                found = part if found is None else self._merged(found, part)
        return schema.get("additionalProperties", True) if found is None else found

    def _array(self, schema: Mapping[str, Any]) -> list[Any]:
        first = schema.get("prefixItems", ())
        rest = schema.get("items", True)
        if isinstance(rest, list):
            first, rest = rest, schema.get("additionalItems", True)
        contained = schema.get("minContains", 1) if "contains" in schema else 0
        length = max(schema.get("minItems", 0), contained)
        items: list[Any] = []
        for index in range(length):
            part = first[index] if index < len(first) else rest
            if index >= length - contained:
                part = self._merged(part, schema["contains"])
            item = self.make(part)
            if schema.get("uniqueItems") and item in items:
                item = self._another(part, items)
            items.append(item)
        return items

    def _another(self, schema: Any, taken: list[Any]) -> Any:
        """A value of `schema` that is not among `taken`."""
        different = {"not": {"enum": taken}}
        try:
            return self.make(self._merged(schema, different))
        except _Impossible:
            pass
        first = taken[0]
        for number in range(1, len(taken) + 2):
            for value in _variations(first, number):
                if value not in taken and self._valid(schema, value):
                    return value
        raise _Impossible

    def _merged(self, left: Any, right: Any) -> Any:
        """One schema that asks for what both ask."""
        if left is False or right is False:
            return False
        if left is True or left == {}:
            return right
        if right is True or right == {}:
            return left
        merged = dict(left)
        for key, value in right.items():
            merged[key] = value if key not in merged else self._both(key, merged[key], value)
        return merged

    def _both(self, key: str, left: Any, right: Any) -> Any:
        if left == right:
            return left
        if key in _MOST:
            return max(left, right)
        if key in _LEAST:
            return min(left, right)
        if key == "required":
            return [*left, *(name for name in right if name not in left)]
        if key in ("properties", "patternProperties"):
            return {
                name: self._merged(left.get(name, True), right.get(name, True))
                for name in (*left, *right)
            }
        if key in ("items", "additionalProperties", "contains"):
            return self._merged(left, right)
        if key == "enum":
            return [value for value in left if value in right]
        if key == "type":
            return _common_types(left, right)
        if key in ("anyOf", "oneOf"):
            return [self._merged(one, other) for one in left for other in right]
        if key == "allOf":
            return [*left, *right]
        if key == "not":
            return {"anyOf": [left, right]}
        return right


def _without(schema: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key not in keys}


def _anchored(schema: Any, anchor: str) -> Any:
    """The part of `schema` that is called `anchor`."""
    stack = [schema]
    while stack:
        part = stack.pop()
        if isinstance(part, Mapping):
            if anchor in (part.get("$anchor"), part.get("$dynamicAnchor")):
                return part
            stack.extend(part.values())
        elif isinstance(part, list):
            stack.extend(part)
    raise _Impossible


def _common_types(left: Any, right: Any) -> list[str]:
    ones = [left] if isinstance(left, str) else left
    others = [right] if isinstance(right, str) else right
    common = [kind for kind in ones if kind in others]
    if "integer" not in common and {"integer", "number"} <= {*ones, *others}:
        common.append("integer")
    if not common:
        raise _Impossible
    return common


def _names(schema: Mapping[str, Any]) -> Iterator[str]:
    """Names for properties that `minProperties` asks for and nobody named."""
    for pattern in schema.get("patternProperties", {}):
        for length in range(32):
            name = shortest_match(pattern, min_length=length)
            if name is not None:
                yield name
    rule = schema.get("propertyNames", {})
    if schema.get("additionalProperties", True) is not False and isinstance(rule, Mapping):
        yield from rule.get("enum", ())
        shortest = rule.get("minLength", 1)
        pattern = rule.get("pattern", "")
        for length in range(shortest, shortest + schema.get("minProperties", 0) + 1):
            name = shortest_match(pattern, min_length=length)
            if name is not None:
                yield name


def _numbers(schema: Mapping[str, Any], *, whole: bool) -> Iterator[int | float]:
    """Numbers of the range, those near 0 first."""
    low, high = _bound(schema, "minimum"), _bound(schema, "maximum")
    above, below = _bound(schema, "exclusiveMinimum"), _bound(schema, "exclusiveMaximum")
    step = _bound(schema, "multipleOf") or Fraction(1)
    start = Fraction(0)
    bottom = max((b for b in (low, above) if b is not None), default=None)
    top = min((b for b in (high, below) if b is not None), default=None)
    if bottom is not None and bottom > 0:
        start = bottom
    elif top is not None and top < 0:
        start = top
    nearest = Fraction(math.floor(start / step)) * step
    tried = [nearest + step * count for count in (0, 1, -1, 2, -2)]
    if bottom is not None and top is not None and not whole and "multipleOf" not in schema:
        tried.append((bottom + top) / 2)
    tried.append(nearest + Fraction(1, 2))
    for number in (*tried, start):
        if number.denominator == 1:
            yield int(number)
        elif not whole:
            yield float(number)


def _bound(schema: Mapping[str, Any], name: str) -> Fraction | None:
    value = schema.get(name)
    return None if value is None else Fraction(str(value))


def _texts(schema: Mapping[str, Any]) -> Iterator[str]:
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    if "pattern" in schema:
        found = shortest_match(schema["pattern"], min_length=least, max_length=most)
        if found is not None:
            yield found
    elif schema.get("format") in _FORMATS:
        text = _FORMATS[schema["format"]]
        yield (
            text if schema["format"] not in ("email", "hostname", "uri") else text.rjust(least, "a")
        )
    else:
        yield "a" * least
    if "not" in schema:
        yield "a" * (least + 1)


def _variations(value: Any, number: int) -> Iterator[Any]:
    """Values like `value`, but different."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int | float):
        yield value + number
        yield value - number
    elif isinstance(value, str):
        yield value + "a" * number
        yield chr(ord("a") + number % 26) * max(1, len(value))
    elif isinstance(value, list):
        yield [*value, "a" * number]
        yield value + value[-1:] * number
    elif isinstance(value, dict):
        for name, inner in value.items():
            for other in _variations(inner, number):
                yield {**value, name: other}
        yield {**value, "a" * number: ""}
