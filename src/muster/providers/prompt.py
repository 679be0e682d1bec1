"""A request as one text, for providers that take nothing else: commands and simple services."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, TypeAlias

from muster.provider import (
    BadRequest,
    FilePart,
    ImagePart,
    Message,
    ProviderRequest,
    TextPart,
)

__all__ = ("FileStyle", "message_text", "question_text", "render_prompt")

FileStyle: TypeAlias = Literal["reference", "inline", "none"]


def render_prompt(request: ProviderRequest, *, files: FileStyle = "reference") -> str:
    """All that `request` says, as text.

    One message alone is its plain text. As soon as there is a system prompt, guidelines or earlier
    turns, each message stands under its role's marker, oldest first:

        @[System]:
        Answer in one word.

        @[User]:
        What is the capital of France?

    Files stand before the text they belong to: as `<file: path="/abs/path">` lines (`reference`),
    with their content between `<file path="…">` and `</file>` (`inline`), or not at all (`none`).

    Raises:
        BadRequest: with `inline`, a file cannot be read or is not text.
    """
    if not (request.messages or request.system_prompt or request.guidelines):
        if not (request.input_files or request.images) or files == "none":
            return request.question
        return question_text(request, files)
    blocks: list[tuple[str, str]] = []
    system = "\n\n".join(text for text in (request.system_prompt, request.guidelines) if text)
    if system:
        blocks.append(("system", system))
    blocks += (
        (message.role, message_text(message, request, files)) for message in request.messages
    )
    question = question_text(request, files)
    if question:
        blocks.append(("user", question))
    return "\n\n".join(f"@[{role.capitalize()}]:\n{text}" for role, text in blocks)


def question_text(request: ProviderRequest, files: FileStyle) -> str:
    """The question with its files, without what was said before. Raises as `render_prompt`."""
    if files == "none":
        return request.question
    attached = [_file(path, request, files) for path in request.input_files]
    attached += [_image(image) for image in request.images]
    return _joined((*_together(attached, files), request.question))


def message_text(message: Message, request: ProviderRequest, files: FileStyle) -> str:
    """A message's text, its files where they stand, and the tool calls it makes. Raises as
    `render_prompt`."""
    content = message.content
    if isinstance(content, tuple):
        pieces = []
        for part in content:
            if isinstance(part, TextPart):
                pieces.append(part.text)
            elif isinstance(part, FilePart) and files != "none":
                pieces.append(_file(part.path, request, files))
            elif isinstance(part, ImagePart) and files != "none":
                pieces.append(_image(part))
        text = _joined(pieces)
    else:
        text = message.text
    calls = [
        json.dumps({"tool": call.tool, "input": call.input}, ensure_ascii=False, default=str)
        for call in message.tool_calls
    ]
    return _joined((text, *calls))


def _together(attached: list[str], files: FileStyle) -> Iterable[str]:
    """References are one line each, and stand as one block."""
    return attached if files == "inline" else ["\n".join(attached)]


def _joined(pieces: Iterable[str]) -> str:
    return "\n\n".join(piece for piece in pieces if piece)


def _file(path: Path, request: ProviderRequest, files: FileStyle) -> str:
    absolute = path if path.is_absolute() else (request.cwd or Path.cwd()) / path
    if files == "reference":
        return f'<file: path="{absolute}">'
    try:
        text = absolute.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise BadRequest(f"{absolute}: not UTF-8 text, so it cannot be part of a prompt") from None
    except OSError as error:
        raise BadRequest(f"{absolute}: cannot be read: {error.strerror}") from error
    end = "" if text.endswith("\n") else "\n"
    return f'<file path="{_shown(absolute, request)}">\n{text}{end}</file>'


def _shown(path: Path, request: ProviderRequest) -> str:
    """The path as the model sees it: relative to the working folder, or the bare name."""
    folder = request.cwd or Path.cwd()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name


def _image(image: ImagePart) -> str:
    if image.source.startswith("data:"):
        return f'<image: type="{image.media_type or image.source[5:].partition(";")[0]}">'
    return f'<image: path="{image.source}">'
