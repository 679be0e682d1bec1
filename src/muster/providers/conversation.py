"""What a chat model reads: a request as a system prompt and messages of text and images.

Files are written into the text, local images become `data:` URIs; so a chat model meets message
contents of two kinds only: a string, or a tuple of `TextPart` and `ImagePart`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import mimetypes
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from muster.provider import (
    BadRequest,
    FilePart,
    ImagePart,
    Message,
    ProviderRequest,
    TextPart,
    ToolCall,
)

__all__ = ("ChatPart", "chat_messages", "parts_of", "system_text")

ChatPart = TextPart | ImagePart


def system_text(request: ProviderRequest) -> str | None:
    """The system prompt, with the guidelines after it."""
    texts = [text for text in (request.system_prompt, request.guidelines) if text]
    return "\n\n".join(texts) or None


async def chat_messages(request: ProviderRequest) -> list[Message]:
    """The earlier messages and then the question, with the request's files before its text.

    Raises:
        BadRequest: a file cannot be read, or is neither text nor an image.
    """
    messages = [
        message
        if isinstance(message.content, str)
        else replace(message, content=await _readable(message.content, request.cwd))
        for message in request.messages
    ]
    if any(message.role == "tool" or message.tool_calls for message in messages):
        messages = _paired(messages)
    if not request.input_files:
        messages.append(Message("user", request.question))
        return messages
    parts: list[object] = [FilePart(path) for path in request.input_files]
    parts.append(TextPart(request.question))
    messages.append(Message("user", await _readable(parts, request.cwd)))
    return messages


def parts_of(message: Message) -> tuple[ChatPart, ...]:
    """The content of a message from `chat_messages` as parts; empty texts are left out."""
    content = message.content
    if isinstance(content, tuple):
        return tuple(part for part in content if not isinstance(part, TextPart) or part.text)
    text = message.text
    return (TextPart(text),) if text else ()


def _paired(history: list[Message]) -> list[Message]:
    """`history` with each tool call answered, as the APIs demand it.

    A call that no `tool` message answers gets one, with the output that the call itself records
    (agents report so); a `tool` message that answers no call becomes a note from the user.
    """
    given = {message.tool_call_id for message in history if message.role == "tool"}
    called: set[str] = set()
    messages: list[Message] = []
    for message in history:
        if message.role == "tool" and message.tool_call_id not in called:
            name = f" {message.name}" if message.name else ""
            messages.append(Message("user", f"[result of the tool{name}]\n{message.text}"))
            continue
        calls = tuple(
            call if call.id else replace(call, id=f"earlier_{len(messages)}_{number}")
            for number, call in enumerate(message.tool_calls)
        )
        called.update(call.id for call in calls if call.id)
        messages.append(replace(message, tool_calls=calls))
        messages += [
            Message("tool", _output_text(call), name=call.tool, tool_call_id=call.id)
            for call in calls
            if call.id not in given
        ]
    return messages


def _output_text(call: ToolCall) -> str:
    if call.output is None:
        return "error: the call was not answered"
    return call.output if isinstance(call.output, str) else json.dumps(call.output, default=str)


async def _readable(content: object, cwd: Path | None) -> str | tuple[ChatPart, ...]:
    if not isinstance(content, tuple | list):
        return "" if content is None else json.dumps(content, ensure_ascii=False)
    if all(isinstance(part, str | TextPart) for part in content):
        return _joined(content, cwd)
    return await asyncio.to_thread(_joined, content, cwd)


def _joined(content: Sequence[object], cwd: Path | None) -> str | tuple[ChatPart, ...]:
    """The parts with neighbouring texts put together; a string if nothing else is left."""
    parts: list[ChatPart] = []
    for item in content:
        part = _part(item, cwd)
        last = parts[-1] if parts else None
        if isinstance(part, TextPart) and isinstance(last, TextPart):
            parts[-1] = TextPart(f"{last.text}\n\n{part.text}")
        else:
            parts.append(part)
    if not parts:
        return ""
    only = parts[0]
    return only.text if len(parts) == 1 and isinstance(only, TextPart) else tuple(parts)


def _part(item: object, cwd: Path | None) -> ChatPart:
    match item:
        case str():
            return TextPart(item)
        case TextPart():
            return item
        case FilePart():
            return _file(item, cwd)
        case ImagePart():
            return _image(item, cwd)
        case Mapping():
            text = item.get("text", item.get("value"))
            if item.get("type") == "text" and isinstance(text, str):
                return TextPart(text)
    raise BadRequest(f"a message holds a part that no chat model can read: {item!r:.200}")


def _file(part: FilePart, cwd: Path | None) -> ChatPart:
    kind = part.media_type or mimetypes.guess_type(part.path.name)[0] or ""
    if kind.startswith("image/") and kind != "image/svg+xml":
        return _image(ImagePart(str(part.path), kind), cwd)
    path = _absolute(part.path, cwd)
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise BadRequest(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise BadRequest(
            f"{path}: neither text (UTF-8) nor an image, so it cannot be put into a prompt"
        ) from error
    name = _shown(path, cwd).replace("&", "&amp;").replace('"', "&quot;")
    end = "" if text.endswith("\n") else "\n"
    return TextPart(f'<file path="{name}">\n{text}{end}</file>')


def _image(part: ImagePart, cwd: Path | None) -> ImagePart:
    if part.source.startswith(("data:", "http://", "https://")):
        return part
    path = _absolute(Path(part.source), cwd)
    kind = part.media_type or mimetypes.guess_type(path.name)[0]
    if kind is None or not kind.startswith("image/"):
        raise BadRequest(f"{path}: not the name of an image (expected .png, .jpg, .gif, .webp)")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadRequest(f"{path}: {error.strerror or error}") from error
    return ImagePart(f"data:{kind};base64,{base64.b64encode(data).decode()}", kind)


def _absolute(path: Path, cwd: Path | None) -> Path:
    return path if path.is_absolute() else (cwd or Path.cwd()) / path


def _shown(path: Path, cwd: Path | None) -> str:
    """The path as the model sees it: below the working directory, else the bare name."""
    try:
        return path.relative_to(cwd or Path.cwd()).as_posix()
    except ValueError:
        return path.name
