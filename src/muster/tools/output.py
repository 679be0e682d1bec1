"""What a model gets to see of a tool's result: text of bounded size, and never bytes as text."""

from __future__ import annotations

__all__ = ("MAX_BYTES", "bounded_text", "cut", "describe_binary", "is_binary")

MAX_BYTES = 1_000_000
"""The most that one result may hold, unless its tool says otherwise."""


def bounded_text(text: str, max_bytes: int = MAX_BYTES) -> str:
    """`text` if it is text and fits; else its beginning and a note, or what it is.

    Halves of surrogate pairs, which cannot be sent to anybody, become question marks.
    """
    if "\x00" in text:
        return describe_binary(None, len(text.encode("utf-8", "surrogatepass")))
    # A character has at most four bytes: most texts need not be encoded to know that they fit.
    if len(text) * 4 <= max_bytes and text.isascii():
        return text
    data = text.encode("utf-8", "replace")
    if len(data) <= max_bytes:
        return data.decode()
    return cut(data, max_bytes, f"{len(data):,} bytes")


def cut(data: bytes, max_bytes: int, size: str) -> str:
    """The first `max_bytes` of UTF-8 `data`, whole characters only, and a note that says so."""
    start = data[:max_bytes].decode("utf-8", "ignore")
    return f"{start}\n[error: the result is too large: cut to {max_bytes:,} bytes of {size}]"


def describe_binary(media_type: str | None, size: int) -> str:
    """What stands for bytes that a model could not read: `[image/png, 12,345 bytes]`."""
    return f"[{media_type or 'binary data'}, {size:,} bytes]"


def is_binary(data: bytes, media_type: str | None) -> bool:
    """Whether a body is no text, by what it says it is, or else by what it holds."""
    kind = (media_type or "").partition(";")[0].strip().lower()
    if kind.startswith("text/") or kind.endswith(("json", "xml", "yaml", "javascript")):
        return b"\x00" in data
    if kind.startswith(("image/", "audio/", "video/", "font/")):
        return True
    try:
        data.decode()
    except UnicodeDecodeError as error:
        # Only the last character may be broken: the body may have been cut there.
        return "charset" not in (media_type or "") and error.end < len(data) - 3
    return b"\x00" in data
