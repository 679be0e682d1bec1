"""The JSON Schema of the stdio protocol: every message, made from what reads and writes them."""

from __future__ import annotations

from typing import Any

import msgspec

from muster.providers import stdio_messages as wire

__all__ = ("protocol_schema",)

_ID = {"type": ["integer", "string"]}

_PARAMS: dict[str, type] = {
    "initialize": wire.Initialize,
    "invoke": wire.Invoke,
    "cancel": wire.Cancel,
    "chunk": wire.Chunk,
    "tool_call": wire.ToolCallParams,
}
_RESULTS: dict[str, type] = {
    "initialize": wire.Initialized,
    "invoke": wire.Answer,
    "tool_call": wire.ToolOutput,
}
_FROM_MUSTER = ("initialize", "invoke", "cancel", "ping", "shutdown")
_FROM_CHILD = ("chunk", "tool_call", "ping")
_NOTIFICATIONS = ("cancel", "chunk")


def protocol_schema() -> dict[str, Any]:
    """A schema (2020-12, without its `$schema`) that a line must satisfy. `$defs` has the lines of
    each side (`from_muster`, `from_child`) and each message by itself."""
    types = (*_PARAMS.values(), *_RESULTS.values(), wire.WireError)
    _, parts = msgspec.json.schema_components(types, ref_template="#/$defs/{name}")
    # One of the two, and no more.
    parts["Answer"]["oneOf"] = [{"required": ["text"]}, {"required": ["output"]}]
    parts["ToolCallParams"]["properties"]["arguments"] = {"type": "object"}
    parts["ErrorData"]["properties"]["kind"]["enum"] = sorted(wire.ERRORS)
    definitions: dict[str, Any] = {}
    for method in dict.fromkeys((*_FROM_MUSTER, *_FROM_CHILD)):
        definitions[method] = _message(method)
    for method in ("initialize", "invoke", "tool_call", "ping", "shutdown"):
        definitions[f"{method}_result"] = _result(method)
    definitions["error"] = _object(
        {"id": {"type": ["integer", "string", "null"]}, "error": _ref("WireError")}
    )
    definitions["from_muster"] = _any((*_FROM_MUSTER, "tool_call_result", "ping_result", "error"))
    definitions["from_child"] = _any(
        (*_FROM_CHILD, "initialize_result", "invoke_result", "ping_result", "error")
    )
    return {
        "title": f"Muster stdio protocol, version {wire.PROTOCOL_VERSION}",
        **_any(("from_muster", "from_child")),
        "$defs": {**definitions, **parts},
    }


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}"}


def _any(names: tuple[str, ...]) -> dict[str, Any]:
    return {"anyOf": [_ref(name) for name in names]}


def _object(properties: dict[str, Any], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """A message: nothing else stands in it."""
    properties = {"jsonrpc": {"const": "2.0"}, **properties}
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def _message(method: str) -> dict[str, Any]:
    kind = _PARAMS.get(method)
    properties: dict[str, Any] = {} if method in _NOTIFICATIONS else {"id": _ID}
    properties["method"] = {"const": method}
    properties["params"] = {"type": "object"} if kind is None else _ref(kind.__name__)
    return _object(properties, optional=("params",) if kind is None else ())


def _result(method: str) -> dict[str, Any]:
    kind = _RESULTS.get(method)
    # `ping` and `shutdown` say nothing.
    result = {"type": "object", "maxProperties": 0} if kind is None else _ref(kind.__name__)
    return _object({"id": _ID, "result": result})
