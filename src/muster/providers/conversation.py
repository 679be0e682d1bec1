"""What a chat model reads: a request as a system prompt and messages of text and images.

Files are written into the text, local images become `data:` URIs; so a chat model meets message
contents of two kinds only: a string, or a tuple of `TextPart` and `ImagePart`; and if it says that
it takes documents, `DocumentPart`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
from muster.providers.attachments import (
    MAX_FILE_BYTES,
    DocumentPart,
    read_attachment,
    read_image,
)

__all__ = ("Attaching", "ChatPart", "chat_messages", "parts_of", "system_text")

ChatPart = TextPart | ImagePart | DocumentPart


@dataclass(frozen=True, slots=True)
class Attaching:
    """What of files and images a chat model takes."""

    documents: bool = False
    """PDFs too, as `DocumentPart`s."""
    max_bytes: int = MAX_FILE_BYTES
    """Of one file."""

    @classmethod
    def of(cls, model: object) -> Attaching:
        """As the model says: `takes_documents` and `max_file_bytes`, both optional."""
        return cls(
            getattr(model, "takes_documents", False) is True,
            getattr(model, "max_file_bytes", None) or MAX_FILE_BYTES,
        )


_TEXT_AND_IMAGES = Attaching()


def system_text(request: ProviderRequest) -> str | None:
    """The system prompt, with the guidelines after it."""
    texts = [text for text in (request.system_prompt, request.guidelines) if text]
    return "\n\n".join(texts) or None


async def chat_messages(
    request: ProviderRequest, attaching: Attaching = _TEXT_AND_IMAGES
) -> list[Message]:
    """The earlier messages and then the question, with the request's files and images before its
    text.

    Raises:
        BadRequest: a file cannot be read, is too large, or is nothing that the model takes.
    """
    messages = [
        message
        if isinstance(message.content, str)
        else replace(message, content=await _readable(message.content, request.cwd, attaching))
        for message in request.messages
    ]
    if any(message.role == "tool" or message.tool_calls for message in messages):
        messages = _paired(messages)
    if not request.question and messages and messages[-1].role == "tool":
        return messages  # whoever asks has called the tools, and wants the answer to go on
    if not (request.input_files or request.images):
        messages.append(Message("user", request.question))
        return messages
    parts: list[object] = [FilePart(path) for path in request.input_files]
    parts += request.images
    parts.append(TextPart(request.question))
    messages.append(Message("user", await _readable(parts, request.cwd, attaching)))
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


async def _readable(
    content: object, cwd: Path | None, attaching: Attaching
) -> str | tuple[ChatPart, ...]:
    if not isinstance(content, tuple | list):
        return "" if content is None else json.dumps(content, ensure_ascii=False)
    if all(isinstance(part, str | TextPart) for part in content):
        return _joined(content, cwd, attaching)
    return await asyncio.to_thread(_joined, content, cwd, attaching)


def _joined(
    content: Sequence[object], cwd: Path | None, attaching: Attaching
) -> str | tuple[ChatPart, ...]:
    """The parts with neighbouring texts put together; a string if nothing else is left."""
    parts: list[ChatPart] = []
    for item in content:
        part = _part(item, cwd, attaching)
        last = parts[-1] if parts else None
        if isinstance(part, TextPart) and isinstance(last, TextPart):
            parts[-1] = TextPart(f"{last.text}\n\n{part.text}")
        else:
            parts.append(part)
    if not parts:
        return ""
    only = parts[0]
    return only.text if len(parts) == 1 and isinstance(only, TextPart) else tuple(parts)


def _part(item: object, cwd: Path | None, attaching: Attaching) -> ChatPart:
    match item:
        case str():
            return TextPart(item)
        case TextPart():
            return item
        case FilePart():
            return read_attachment(item, cwd, attaching.max_bytes, documents=attaching.documents)
        case ImagePart():
            return read_image(item, cwd, attaching.max_bytes)
        case Mapping():
            text = item.get("text", item.get("value"))
            if item.get("type") == "text" and isinstance(text, str):
                return TextPart(text)
    raise BadRequest(f"a message holds a part that no chat model can read: {item!r:.200}")
