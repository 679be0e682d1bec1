"""From a chat completion request to the `ProviderRequest` that a target is asked.

Leading system messages are the system prompt, the last user message is the question, what lies
between is the history. A conversation that ends with results of tools has no question: it is to
be gone on with. Files come as base64 and are written to a folder that lives as long as the call;
a path on this machine is never taken from a client.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from muster.provider import (
    FilePart,
    ImagePart,
    Limits,
    Message,
    Part,
    ProviderRequest,
    TextPart,
    Tool,
    ToolCall,
)
from muster.serving.openai_wire import ChatRequest, File, GivenMessage, GivenPart, GivenTool
from muster.serving.refusal import Refusal

__all__ = ("has_files", "provider_request", "tool_results")

SYSTEM = frozenset({"system", "developer"})
MAX_FILES = 100
_DATA = re.compile(r"data:(?P<type>[\w.+/-]*)[^,]{0,200},")


def has_files(given: ChatRequest) -> bool:
    """Whether a folder is needed for it."""
    return any(
        part.file is not None
        for message in given.messages
        if isinstance(message.content, list)
        for part in message.content
    )


def provider_request(given: ChatRequest, folder: Path | None) -> ProviderRequest:
    """What the target is asked; `folder` is where files go, if there are any.

    Raises:
        Refusal: the messages make no question.
    """
    reader = _Reader(folder)
    system, rest = _split(given.messages)
    if not rest:
        raise Refusal(400, "there is no user message among `messages`", param="messages")
    last = rest[-1]
    asks = last.role == "user"
    if not asks and last.role != "tool":
        raise Refusal(
            400,
            f'the last message must be from "user", or the result of a "tool", not "{last.role}"',
            param="messages",
        )
    question = reader.message(last) if asks else Message("user", "")
    parts = question.content if isinstance(question.content, tuple) else ()
    images = tuple(part for part in parts if isinstance(part, ImagePart))
    files = tuple(part.path for part in parts if isinstance(part, FilePart))
    tools = _tools(given)
    schema = _schema(given)
    bound = given.max_completion_tokens or given.max_tokens
    return ProviderRequest(
        question=question.text,
        system_prompt="\n\n".join(system) or None,
        messages=tuple(reader.message(message) for message in (rest[:-1] if asks else rest)),
        input_files=files,
        images=images,
        tools=tools,
        limits=Limits(max_output_tokens=bound) if bound is not None else Limits(),
        response_schema=schema,
        metadata=given.metadata or {},
    )


def tool_results(given: ChatRequest) -> dict[str, str]:
    """The results that the conversation ends with, by the ids of their calls."""
    found: dict[str, str] = {}
    reader = _Reader(None)
    for message in reversed(given.messages):
        if message.role != "tool":
            break
        read = reader.message(message)
        assert read.tool_call_id is not None
        found[read.tool_call_id] = read.text
    return found


def _split(messages: Sequence[GivenMessage]) -> tuple[list[str], Sequence[GivenMessage]]:
    """The leading system messages, and the rest."""
    system: list[str] = []
    for number, message in enumerate(messages):
        if message.role not in SYSTEM:
            return system, messages[number:]
        system.append(_text(message))
    return system, ()


def _text(message: GivenMessage) -> str:
    content = message.content
    if not isinstance(content, list):
        return content or ""
    return "\n".join(part.text or "" for part in content)


class _Reader:
    """Reads messages; files go to `folder`."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._count = 0

    def message(self, given: GivenMessage) -> Message:
        """A message as the seam has it."""
        role = given.role
        content: Any = given.content or ""
        if isinstance(content, list):
            content = self._content(content)
        if role == "user":
            if given.content is None:
                raise Refusal(400, "a user message needs `content`", param="messages")
            return Message(role, content, name=given.name)
        if role == "assistant":
            return Message(role, content, name=given.name, tool_calls=_calls(given))
        if role == "tool":
            if not given.tool_call_id:
                raise Refusal(400, "a tool message needs `tool_call_id`", param="messages")
            return Message(role, content, name=given.name, tool_call_id=given.tool_call_id)
        if role in SYSTEM:
            return Message("system", content)
        raise Refusal(
            400,
            f'no role "{role[:40]}": expected system, developer, user, assistant or tool',
            param="messages",
        )

    def _content(self, given: list[GivenPart]) -> str | tuple[Part, ...]:
        parts = tuple(self._part(part) for part in given)
        if len(parts) == 1 and isinstance(parts[0], TextPart):
            return parts[0].text
        return parts

    def _part(self, part: GivenPart) -> Part:
        if part.type == "text":
            return TextPart(part.text or "")
        if part.type == "refusal":
            return TextPart(part.refusal or "")
        if part.type == "image_url" and part.image_url is not None:
            return _image(part.image_url if isinstance(part.image_url, str) else part.image_url.url)
        if part.type == "file" and part.file is not None:
            return self._file(part.file)
        raise Refusal(
            400,
            f'a part of type "{part.type[:40]}" is not supported, or not complete: expected text, '
            "image_url or file",
            code="unsupported",
            param="messages",
        )

    def _file(self, file: File) -> FilePart:
        if file.file_data is None:
            raise Refusal(
                400,
                "a file comes as `file_data` (base64): this server keeps none under a `file_id`",
                code="unsupported",
                param="messages",
            )
        media_type, data = _data(file.file_data)
        self._count += 1
        if self._folder is None or self._count > MAX_FILES:
            raise Refusal(400, f"more than {MAX_FILES} files, or one in a result", param="messages")
        name = Path(re.sub(r"[^\w. -]", "_", file.filename or "file")[-100:]).name
        path = _unused(self._folder, name.lstrip(".") or "file")
        path.write_bytes(data)
        return FilePart(path, media_type)


def _image(url: str) -> ImagePart:
    if url.startswith("data:"):
        found = _DATA.match(url)
        return ImagePart(url, (found["type"] or None) if found else None)
    if url.startswith(("http://", "https://")):
        return ImagePart(url)
    raise Refusal(
        400,
        f"an image is a data: or http(s) URL, not {url[:40]!r}",
        param="messages",
    )


def _data(text: str) -> tuple[str | None, bytes]:
    """The type and the bytes of a `data:` URI, or of plain base64."""
    found = _DATA.match(text)
    encoded = text[found.end() :] if found else text
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal(400, f"`file_data` is not base64: {error}", param="messages") from None
    return (found["type"] or None) if found else None, data


def _unused(folder: Path, name: str) -> Path:
    """A file of its own for each, under its own name as far as that is free."""
    path, number = folder / name, 1
    while path.exists():
        number += 1
        path = folder / str(number) / name
        path.parent.mkdir(exist_ok=True)
    return path


def _calls(given: GivenMessage) -> tuple[ToolCall, ...]:
    return tuple(
        ToolCall(call.function.name, _arguments(call.function.arguments), id=call.id)
        for call in given.tool_calls or ()
    )


def _arguments(text: str) -> object:
    """Parsed; as they stand when they cannot be."""
    try:
        return msgspec.json.decode(text or "{}")
    except (msgspec.DecodeError, RecursionError):
        return text


def _tools(given: ChatRequest) -> tuple[Tool, ...]:
    if not given.tools or given.tool_choice == "none":
        return ()
    tools = tuple(_tool(tool) for tool in given.tools)
    names: set[str] = set()
    for tool in tools:
        if tool.name in names:
            raise Refusal(400, f'two tools have the name "{tool.name[:100]}"', param="tools")
        names.add(tool.name)
    return tools


def _tool(given: GivenTool) -> Tool:
    function = given.function
    if given.type != "function" or function is None:
        raise Refusal(
            400,
            f'a tool of type "{given.type[:40]}" is not supported: expected function',
            code="unsupported",
            param="tools",
        )
    if not function.name:
        raise Refusal(400, "a tool needs a name", param="tools")
    schema = function.parameters or {"type": "object", "properties": {}}
    return Tool(function.name, function.description or "", schema)


def _schema(given: ChatRequest) -> dict[str, Any] | None:
    wanted = given.response_format
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return {"type": "object"}
    if wanted.type == "json_schema" and wanted.json_schema and wanted.json_schema.schema:
        return wanted.json_schema.schema
    raise Refusal(
        400,
        f'response_format "{wanted.type[:40]}" is not supported, or has no schema: expected text, '
        "json_object or json_schema",
        param="response_format",
    )
