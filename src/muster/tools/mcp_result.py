"""What a model sees of an MCP tool's result."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from muster.tools.base import ToolFailed
from muster.tools.output import describe_binary

__all__ = ("result_text",)


def result_text(content: Sequence[Mapping[str, Any]], structured: object, *, is_error: bool) -> str:
    """The blocks as text, one below the other; structured content where there is no text.

    Raises:
        ToolFailed: the result is an error.
    """
    texts = [_block_text(block) for block in content]
    has_text = any(block.get("type") == "text" and block.get("text") for block in content)
    if structured is not None and not has_text:
        texts.append(json.dumps(structured, ensure_ascii=False))
    text = "\n".join(filter(None, texts))
    if is_error:
        raise ToolFailed(text or "the tool failed without saying why")
    return text


def _block_text(block: Mapping[str, Any]) -> str:
    kind = block.get("type")
    if kind == "text":
        return str(block.get("text") or "")
    if kind in ("image", "audio"):
        return describe_binary(block.get("mimeType") or kind, _decoded_size(block.get("data")))
    if kind == "resource":
        resource = block.get("resource") or {}
        if "blob" in resource:
            return describe_binary(resource.get("mimeType"), _decoded_size(resource["blob"]))
        return str(resource.get("text") or "")
    if kind == "resource_link":
        return f"[{block.get('name') or 'resource'}: {block.get('uri')}]"
    return f"[content of the unknown type {kind!r}]"


def _decoded_size(data: object) -> int:
    """How many bytes the base64 text stands for."""
    text = data.rstrip("=") if isinstance(data, str) else ""
    return len(text) * 3 // 4
