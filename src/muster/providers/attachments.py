"""Files and images of a request, read and told apart by what they hold, for chat models.

What is text stands in the text; png, jpeg, gif and webp become `data:` URIs, PDFs documents. Names
and media types that say otherwise are not believed: services refuse what is not what it says.
"""

from __future__ import annotations

import base64
import mimetypes
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from muster.provider import BadRequest, FilePart, ImagePart, TextPart

__all__ = ("MAX_FILE_BYTES", "DocumentPart", "read_attachment", "read_image")

MAX_FILE_BYTES = 20 * 1024 * 1024
"""The largest file that is sent, unless the target says otherwise (`max_file_bytes`)."""

PDF = "application/pdf"

_IMAGES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)


@dataclass(frozen=True, slots=True)
class DocumentPart(FilePart):
    """A document that is no text, with what it holds as a `data:` URI."""

    source: str = ""


def read_attachment(
    part: FilePart, cwd: Path | None, max_bytes: int, *, documents: bool
) -> TextPart | ImagePart | DocumentPart:
    """The file as what a chat model takes. `documents`: it takes PDFs.

    Raises:
        BadRequest: it cannot be read, is too large, or is nothing that the model takes.
    """
    path = _absolute(part.path, cwd)
    data = _read(path, max_bytes)
    kind = _kind(data)
    if kind is not None and kind != PDF:
        return ImagePart(_uri(kind, data), kind)
    if kind == PDF and documents:
        return DocumentPart(Path(path.name), PDF, _uri(PDF, data))
    if _claims_image(part.media_type, path):
        raise BadRequest(_not_an_image(path, data))
    try:
        if kind is None:
            return _text(path, data.decode("utf-8-sig"), cwd)
    except UnicodeDecodeError:
        pass
    taken = "text (UTF-8), png, jpeg, gif, webp" + (" or PDF" if documents else "")
    raise BadRequest(
        f"{path} is neither text (UTF-8) nor an image, so it cannot be put into a prompt "
        f"(this target takes {taken})"
    )


def read_image(part: ImagePart, cwd: Path | None, max_bytes: int) -> ImagePart:
    """The image as a `data:` URI, or as it is if it is one, or an address.

    Raises:
        BadRequest: it cannot be read, is too large, or is no png, jpeg, gif or webp.
    """
    if part.source.startswith(("http://", "https://")):
        return part
    if part.source.startswith("data:"):
        size = (len(part.source) - part.source.find(",") - 1) * 3 // 4
        if size > max_bytes:
            raise BadRequest(_too_large("an image given as a data: URI", size, max_bytes))
        return part
    path = _absolute(Path(part.source), cwd)
    data = _read(path, max_bytes)
    kind = _kind(data)
    if kind is None or kind == PDF:
        raise BadRequest(_not_an_image(path, data))
    return ImagePart(_uri(kind, data), kind)


def _read(path: Path, max_bytes: int) -> bytes:
    """What a regular file holds; its size is looked at first, and nothing else is waited for."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise BadRequest(f"{path}: {error.strerror or error}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise BadRequest(f"{path} is not a file that can be attached")
        if status.st_size > max_bytes:
            raise BadRequest(_too_large(str(path), status.st_size, max_bytes))
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(max_bytes)
    except OSError as error:
        raise BadRequest(f"{path}: {error.strerror or error}") from error
    finally:
        os.close(descriptor)


def _kind(data: bytes) -> str | None:
    """The media type that the first bytes tell."""
    if data.startswith(b"%PDF-"):
        return PDF
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for head, kind in _IMAGES if data.startswith(head)), None)


def _claims_image(media_type: str | None, path: Path) -> bool:
    kind = media_type or mimetypes.guess_type(path.name)[0] or ""
    return kind.startswith("image/") and kind != "image/svg+xml"


def _not_an_image(path: Path, data: bytes) -> str:
    held = "is empty" if not data else "is not an image that models take"
    return f"{path} {held} (expected png, jpeg, gif or webp)"


def _too_large(what: str, size: int, max_bytes: int) -> str:
    return f"{what} holds {size:,} bytes, more than the target's max_file_bytes ({max_bytes:,})"


def _text(path: Path, text: str, cwd: Path | None) -> TextPart:
    name = _shown(path, cwd).replace("&", "&amp;").replace('"', "&quot;")
    end = "" if text.endswith("\n") else "\n"
    return TextPart(f'<file path="{name}">\n{text}{end}</file>')


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _absolute(path: Path, cwd: Path | None) -> Path:
    return path if path.is_absolute() else (cwd or Path.cwd()) / path


def _shown(path: Path, cwd: Path | None) -> str:
    """The path as the model sees it: below the working directory, else the bare name."""
    try:
        return path.relative_to(cwd or Path.cwd()).as_posix()
    except ValueError:
        return path.name
