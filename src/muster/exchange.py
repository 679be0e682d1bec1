"""An exchange with a provider as plain data: what was asked, what came of it, and for which case.

Recording, caching and tracing wrappers stand around any provider and do not know of cases; whoever
runs a case says in `OCCASION` which one the calls of its task are made for.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from muster.provider import (
    FilePart,
    ImagePart,
    Limits,
    ProviderError,
    ProviderRequest,
    ProviderResponse,
)

__all__ = (
    "OCCASION",
    "Occasion",
    "canonical",
    "file_hash",
    "files_of",
    "plain_error",
    "plain_request",
    "plain_response",
    "request_hash",
    "response_of",
)

MAX_RAW = 1 << 20
"""Bytes of a provider's own data that are kept; more of it is left out."""

LONG_SOURCE = 1024
"""Characters of an image's address that are kept; a longer one, which holds the image itself, is
told by its digest."""

_NO_LIMITS = Limits()
_NOT_ASKED = ("case_id", "attempt", "metadata")
"""What a request is known by, beside what is asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Occasion:
    """Which case of a run a call is made for."""

    suite: str
    eval_path: str | None
    test_id: str
    prompt: str | None
    target: str
    """The target that is measured; a judge, or a fallback, may be the one that is asked."""
    repeat: int
    turn: int = 0
    """Of a conversation, from 0."""
    judging: bool = False
    """It is a grader that asks."""
    call: str = field(default_factory=lambda: f"{time.time_ns():x}")
    """The same for all tries of one question to the target, and for those who judge its answer."""
    seen: dict[bytes, int] = field(default_factory=dict, compare=False)
    """How often the case has asked the very same; kept by the cache."""

    def to_dict(self) -> dict[str, Any]:
        """The part of a record that says what it was made for."""
        row: dict[str, Any] = {"suite": self.suite, "test_id": self.test_id, "target": self.target}
        row |= {"repeat": self.repeat, "turn": self.turn, "call": self.call}
        if self.eval_path is not None:
            row["eval_path"] = self.eval_path
        if self.prompt is not None:
            row["prompt"] = self.prompt
        return row


OCCASION: ContextVar[Occasion | None] = ContextVar("muster_occasion", default=None)
"""What the calls of the current task are made for; `None`: for no case."""


def plain_request(request: ProviderRequest) -> dict[str, Any]:
    """What is asked, as JSON-ready data; what is unset is left out. Files are told by path and
    SHA-256 of their content (`null` when it cannot be read)."""
    row: dict[str, Any] = {"question": request.question}
    given = {
        "system_prompt": request.system_prompt,
        "guidelines": request.guidelines,
        "messages": [message.to_dict() for message in request.messages],
        "images": [_plain_image(image) for image in request.images],
        "input_files": [str(path) for path in request.input_files],
        "files": {str(path): file_hash(path) for path in files_of(request)},
        "tools": [
            {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
            for tool in request.tools
        ],
        "response_schema": request.response_schema,
        "limits": _set_limits(request.limits),
        "cwd": None if request.cwd is None else str(request.cwd),
        "case_id": request.eval_case_id,
        "attempt": request.attempt or None,
        "metadata": dict(request.metadata),
    }
    return row | {name: value for name, value in given.items() if value not in (None, [], {})}


def request_hash(plain: Mapping[str, Any]) -> str:
    """SHA-256 of what is asked: the same for every try and every repeat of one question."""
    asked = {name: value for name, value in plain.items() if name not in _NOT_ASKED}
    return hashlib.sha256(canonical(asked)).hexdigest()


def canonical(data: object) -> bytes:
    """Plain data as bytes that are the same for the same data."""
    text = json.dumps(data, sort_keys=True, ensure_ascii=True, separators=(",", ":"), default=repr)
    return text.encode()


def files_of(request: ProviderRequest) -> Iterator[Path]:
    """The files on this machine whose content the request is about."""
    yield from request.input_files
    for image in request.images:
        yield from _local(image)
    for message in request.messages:
        for part in message.content if isinstance(message.content, tuple) else ():
            if isinstance(part, FilePart):
                yield part.path
            elif isinstance(part, ImagePart):
                yield from _local(part)


def _local(image: ImagePart) -> Iterator[Path]:
    if not image.source.startswith(("data:", "http:", "https:")):
        yield Path(image.source)


def file_hash(path: Path) -> str | None:
    """SHA-256 of a file's content; `None` when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _plain_image(image: ImagePart) -> dict[str, Any]:
    source = image.source
    if len(source) > LONG_SOURCE:
        digest = hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()
        source = f"{source[:32]}… sha256:{digest}"
    return {"source": source, "media_type": image.media_type}


def _set_limits(limits: Limits) -> dict[str, Any]:
    return {
        name: value for name, value in asdict(limits).items() if value != getattr(_NO_LIMITS, name)
    }


def plain_response(response: ProviderResponse) -> dict[str, Any]:
    """The answer as JSON-ready data; what is unset is left out. The provider's own data are kept
    when they are plain and not larger than `MAX_RAW`."""
    row: dict[str, Any] = {"output": [message.to_dict() for message in response.output]}
    usage = response.token_usage
    given = {
        "token_usage": None if usage is None else usage.to_dict(),
        "cost_usd": response.cost_usd,
        "duration_ms": response.duration_ms,
        "finish_reason": response.finish_reason,
        "model": response.model,
        "target_used": response.target_used,
        "attempts": response.attempts if response.attempts != 1 else None,
        "raw": _plain_raw(response.raw),
    }
    return row | {name: value for name, value in given.items() if value is not None}


def _plain_raw(raw: object) -> object:
    if not isinstance(raw, Mapping | list):
        return None
    try:
        data = msgspec.json.encode(raw)
    except (TypeError, ValueError, RecursionError):
        return None
    return msgspec.json.decode(data) if len(data) <= MAX_RAW else None


_OF_RESPONSE = (
    "token_usage",
    "cost_usd",
    "duration_ms",
    "finish_reason",
    "model",
    "target_used",
    "attempts",
    "raw",
)


def response_of(plain: Mapping[str, Any]) -> ProviderResponse:
    """The answer that `plain_response` has made plain.

    Raises:
        ValueError: it is not one.
    """
    return ProviderResponse(
        plain.get("output", ()),
        **{name: plain[name] for name in _OF_RESPONSE if plain.get(name) is not None},
    )


def plain_error(error: ProviderError) -> dict[str, Any]:
    """The failure as JSON-ready data; what is unset is left out."""
    usage = error.token_usage
    given = {
        "kind": error.kind,
        "message": error.message,
        "retryable": error.retryable,
        "retry_after": error.retry_after,
        "status": error.status,
        "token_usage": None if usage is None else usage.to_dict(),
        "cost_usd": error.cost_usd,
    }
    return {name: value for name, value in given.items() if value is not None}
