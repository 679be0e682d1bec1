"""Python functions as tools: the schema from type hints and docstring, the arguments checked."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from muster.errors import field_path
from muster.importing import CodeError, load_object
from muster.provider import Tool
from muster.providers.threads import Threads
from muster.tools.base import BoundTool, ToolFailed
from muster.tools.definitions import PythonTool

__all__ = ("bind_python",)

_threads = Threads(name="muster-tool")
"""Synchronous functions of all tools; its threads start when they are needed."""

_SECTION = re.compile(r"^(Args|Arguments|Parameters):\s*$")
_ARGUMENT = re.compile(r"^\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)$")
_SPHINX = re.compile(r"^:param\s+(?:[^:\s]+\s+)?(\w+):\s*(.*)$")


def bind_python(source: PythonTool) -> BoundTool:
    """The function as a tool.

    Raises:
        CodeError: it cannot be imported, cannot be called, or its hints make no JSON Schema.
    """
    function = load_object(source.path, search=source.search)
    if not callable(function):
        raise CodeError(f'"{source.path}" is a {type(function).__name__}, not a function')
    name = source.name or source.path.rpartition(":")[2].rpartition(".")[2]
    summary, descriptions = _documentation(inspect.getdoc(function) or "")
    validate, schema = _signature(source.path, function, descriptions)

    async def call(arguments: Mapping[str, Any]) -> str:
        return await _call(name, function, validate, arguments, source.timeout_seconds)

    tool = Tool(name, source.description or summary, schema)
    return BoundTool(tool, call, f'Python tool "{source.path}"', source.max_bytes)


def _signature(
    path: str, function: Callable[..., Any], descriptions: Mapping[str, str]
) -> tuple[Callable[[Mapping[str, Any]], dict[str, Any]], dict[str, Any]]:
    """What turns a model's arguments into the function's, and the schema of the former."""
    from pydantic import ConfigDict, Field, ValidationError, create_model
    from pydantic.errors import PydanticUserError

    takes_more = False
    fields: dict[str, Any] = {}
    for parameter in _parameters(path, function):
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            takes_more = True
            continue
        is_bare = parameter.annotation is inspect.Parameter.empty
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        # The field's own name is free: a parameter may be called `schema` or `_x`.
        info = Field(default, alias=parameter.name, description=descriptions.get(parameter.name))
        fields[f"p{len(fields)}"] = (Any if is_bare else parameter.annotation, info)
    config = ConfigDict(extra="allow" if takes_more else "forbid", arbitrary_types_allowed=False)
    try:
        model = create_model("Arguments", __config__=config, **fields)
        schema = model.model_json_schema()
    except (PydanticUserError, NameError, TypeError) as error:
        text = str(error).splitlines()[0]
        raise CodeError(f'"{path}": the type hints make no JSON Schema: {text}') from error

    def validate(arguments: Mapping[str, Any]) -> dict[str, Any]:
        try:
            checked = model.model_validate(dict(arguments))
        except ValidationError as error:
            raise ToolFailed(_mistakes(error.errors(include_url=False))) from None
        aliases = {key: str(item.alias) for key, item in model.model_fields.items()}
        given = {
            aliases[key]: getattr(checked, key) for key in checked.model_fields_set & {*aliases}
        }
        return {**given, **(checked.model_extra or {})}

    return validate, _without_titles(schema)


def _parameters(path: str, function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        parameters = inspect.signature(function, eval_str=True).parameters.values()
    except (NameError, TypeError, ValueError, AttributeError) as error:
        raise CodeError(f'"{path}": its parameters cannot be told: {error}') from error
    for parameter in parameters:
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
            raise CodeError(
                f'"{path}": the parameter "{parameter.name}" cannot be given by name, '
                "as a tool's arguments are"
            )
    return list(parameters)


async def _call(
    name: str,
    function: Callable[..., Any],
    validate: Callable[[Mapping[str, Any]], dict[str, Any]],
    arguments: Mapping[str, Any],
    timeout: float | None,
) -> str:
    given = validate(arguments)
    try:
        async with asyncio.timeout(timeout) as limit:
            if inspect.iscoroutinefunction(inspect.unwrap(function)):
                value = await function(**given)
            else:
                value = await _threads.run(lambda _: function(**given))
                if inspect.isawaitable(value):
                    value = await value
    except ToolFailed:
        raise
    except TimeoutError as error:
        if limit.expired():
            raise ToolFailed(f'the tool "{name}" took more than {timeout:g} s') from None
        raise ToolFailed(_told(error, function)) from error
    except (Exception, SystemExit) as error:
        raise ToolFailed(_told(error, function)) from error
    return _as_text(value)


def _told(error: BaseException, function: Callable[..., Any]) -> str:
    """What failed, with the line of the function's own file. A model reads it: where this machine
    keeps that file, or a library, is not its business."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    own = getattr(getattr(inspect.unwrap(function), "__code__", None), "co_filename", None)
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == own]
    return f"{Path(own).name}:{lines[-1]}: {text}" if own and lines else text


def _as_text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        from muster.tools.output import describe_binary

        return describe_binary(None, len(bytes(value)))
    if value is None:
        return ""
    from pydantic_core import PydanticSerializationError, to_jsonable_python

    try:
        return json.dumps(to_jsonable_python(value), ensure_ascii=False)
    except (PydanticSerializationError, TypeError, ValueError):
        return str(value)


def _mistakes(errors: list[Any]) -> str:
    """All that is wrong with the arguments, in one line that a model can act on."""
    told = []
    for error in errors:
        where = field_path(error["loc"])
        if error["type"] == "missing":
            told.append(f"{where} is missing")
        elif error["type"] == "extra_forbidden":
            told.append(f"there is no argument {where}")
        else:
            told.append(f"{where}: {error['msg']}, found {error['input']!r}"[:300])
    return "wrong arguments: " + "; ".join(told)


def _without_titles(schema: Any) -> Any:
    """Pydantic names every field after itself; a model needs no such help."""
    if isinstance(schema, list):
        return [_without_titles(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: (
            {name: _without_titles(item) for name, item in value.items()}
            if key in ("properties", "$defs") and isinstance(value, dict)
            else _without_titles(value)
        )
        for key, value in schema.items()
        if not (key == "title" and isinstance(value, str))
    }


def _documentation(text: str) -> tuple[str, dict[str, str]]:
    """The text before any list of parameters, and what it says of each of them."""
    summary: list[str] = []
    described: dict[str, str] = {}
    in_section, current = False, ""
    for line in text.splitlines():
        stripped = line.strip()
        if found := _SPHINX.match(stripped):
            described[found[1]] = found[2]
        elif _SECTION.match(line):
            in_section = True
        elif in_section and line.startswith((" ", "\t")):
            found = _ARGUMENT.match(stripped)
            if found:
                current = found[1]
                described[current] = found[2]
            elif current and stripped:
                described[current] = f"{described[current]} {stripped}".strip()
        elif in_section and stripped:
            break  # Returns:, Raises:, …
        elif not in_section and not stripped.startswith(":"):
            if re.match(r"^(Returns|Raises|Yields|Examples?|Notes?):\s*$", line):
                break
            summary.append(line)
    return "\n".join(summary).strip(), described
