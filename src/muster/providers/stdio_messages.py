"""The messages of the stdio protocol, as they stand on the line.

Both sides are here: what Muster sends to a child, and what a child may send. Messages are JSON-RPC
2.0, one JSON object a line. The specification is `docs/providers/stdio-protocol.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from muster.capabilities import Capabilities
from muster.provider import (
    AuthenticationFailed,
    BadProviderOutput,
    BadRequest,
    BudgetExceeded,
    ImagePart,
    LimitExceeded,
    Limits,
    ProviderError,
    ProviderFailed,
    ProviderRequest,
    ProviderTimeout,
    ProviderUnavailable,
    QuotaExhausted,
    RateLimited,
    TokenUsage,
    Tool,
)

__all__ = (
    "CANCELLED",
    "ERRORS",
    "INTERNAL_ERROR",
    "INVALID_PARAMS",
    "INVALID_REQUEST",
    "METHOD_NOT_FOUND",
    "PARSE_ERROR",
    "PROTOCOL_VERSION",
    "PROVIDER_ERROR",
    "WRONG",
    "Answer",
    "Cancel",
    "Chunk",
    "Client",
    "ErrorData",
    "Incoming",
    "Initialize",
    "Initialized",
    "Invoke",
    "Name",
    "ToolCallParams",
    "ToolOutput",
    "Usage",
    "WireError",
    "encode",
    "error_line",
    "error_of",
    "invoke_params",
    "notification_line",
    "request_line",
    "result_line",
)

PROTOCOL_VERSION = 1

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
PROVIDER_ERROR = -32000
"""The provider could not answer; `data.kind` says why."""
CANCELLED = -32800
"""The answer to an `invoke` that was cancelled."""

ERRORS: dict[str, type[ProviderError]] = {
    error.kind: error
    for error in (
        ProviderError,
        RateLimited,
        QuotaExhausted,
        ProviderUnavailable,
        ProviderTimeout,
        BadRequest,
        AuthenticationFailed,
        BadProviderOutput,
        ProviderFailed,
        LimitExceeded,
        BudgetExceeded,
    )
}
"""What `data.kind` of an error may be."""

WRONG = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What reading a message may raise; `RecursionError` when it is nested too deeply."""

Count = Annotated[int, Meta(ge=0)]
Amount = Annotated[float, Meta(ge=0)]


# --- Muster to the child --------------------------------------------------------------------------


class Client(Struct, frozen=True):
    """Who asks."""

    name: str
    version: str


class Initialize(Struct, frozen=True, omit_defaults=True):
    """Params of `initialize`, the first message."""

    protocol_version: int
    client: Client
    target: str
    """The target's name."""
    settings: dict[str, Any] = {}
    """What the target's `settings` say."""


class Named(Struct, frozen=True, omit_defaults=True):
    """A tool, as the model is told of it."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}


class Image(Struct, frozen=True, omit_defaults=True):
    """An image that belongs to the question."""

    source: str
    media_type: str | None = None


class WireLimits(Struct, frozen=True, omit_defaults=True):
    """What one request may use; what is absent is no limit."""

    max_output_tokens: int | None = None
    max_turns: int | None = None
    max_seconds: float | None = None
    max_total_tokens: int | None = None
    max_cost_usd: float | None = None


class Invoke(Struct, frozen=True, omit_defaults=True):
    """Params of `invoke`: the fields of a `ProviderRequest`. What is absent is empty or null."""

    question: str
    system_prompt: str | None = None
    guidelines: str | None = None
    messages: list[dict[str, Any]] = []
    input_files: list[str] = []
    images: list[Image] = []
    eval_case_id: str | None = None
    attempt: int = 0
    cwd: str | None = None
    tools: list[Named] = []
    call_tool: bool = False
    """True: there is somebody to answer `tool_call`."""
    on_chunk: bool = False
    """True: there is somebody to hear `chunk`."""
    limits: WireLimits = WireLimits()
    response_schema: dict[str, Any] | None = None
    metadata: dict[str, str] = {}


class Cancel(Struct, frozen=True):
    """Params of `cancel`: nobody waits for the answer to this `invoke` any more."""

    invoke_id: int


class ToolOutput(Struct, frozen=True):
    """The result of `tool_call`, for the model."""

    output: str
    """What the tool said; `error: …` when it failed."""
    is_error: bool = False


# --- the child to Muster --------------------------------------------------------------------------


class Incoming(Struct):
    """Any message. What is absent is an empty `Raw`."""

    jsonrpc: str = ""
    id: int | str | None = None
    method: str | None = None
    params: Raw = Raw()
    result: Raw = Raw()
    error: Raw = Raw()


class Initialized(Struct, frozen=True):
    """The result of `initialize`."""

    protocol_version: int
    name: str | None = None
    version: str | None = None
    capabilities: Capabilities = Capabilities()
    max_in_flight: Annotated[int, Meta(ge=1)] | None = None
    """How many calls the child takes at once; null: any number."""


class Usage(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Tokens; `cached` is part of `input`, `reasoning` part of `output`."""

    input: Count
    output: Count
    cached: Count | None = None
    reasoning: Count | None = None


class Answer(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The result of `invoke`: `text` or `output`, and what is known of the cost."""

    text: str | None = None
    output: list[dict[str, Any]] | None = None
    """The messages; the last one of the assistant is the answer."""
    token_usage: Usage | None = None
    cost_usd: Amount | None = None
    duration_ms: Amount | None = None
    finish_reason: str | None = None
    model: str | None = None
    raw: Any = None


class ErrorData(Struct, frozen=True, omit_defaults=True):
    """`data` of an error that is the provider's."""

    kind: str = ProviderFailed.kind
    retryable: bool | None = None
    """Null: as the kind says."""
    retry_after: Amount | None = None
    """Seconds."""
    status: int | None = None
    token_usage: Usage | None = None
    cost_usd: Amount | None = None


class WireError(Struct, frozen=True, omit_defaults=True):
    """JSON-RPC's error."""

    code: int
    message: str
    data: ErrorData | None = None


class Chunk(Struct, frozen=True):
    """Params of `chunk`: a piece of the answer's text."""

    invoke_id: int
    text: str


class ToolCallParams(Struct, frozen=True):
    """Params of `tool_call`: a tool of the `invoke` is to be called."""

    invoke_id: int
    name: str
    arguments: Any = msgspec.field(default_factory=dict)


class Name(Struct):
    """Only the method of a message whose params are wrong."""

    method: str | None = None


# --- lines ----------------------------------------------------------------------------------------


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, str | Path):
        return str(value)  # a secret goes to the child, which needs it
    raise NotImplementedError(f"{type(value).__name__} has no form in JSON")


encode = msgspec.json.Encoder(enc_hook=_plain).encode
"""JSON of messages, with what users' requests may hold."""


def request_line(number: int, method: str, params: bytes) -> bytes:
    """A request; `params` is JSON."""
    return b'{"jsonrpc":"2.0","id":%d,"method":"%s","params":%s}\n' % (
        number,
        method.encode(),
        params,
    )


def notification_line(method: str, params: Struct) -> bytes:
    """A message that is not answered."""
    return b'{"jsonrpc":"2.0","method":"%s","params":%s}\n' % (method.encode(), encode(params))


def result_line(number: int | str | None, result: object) -> bytes:
    """The answer to a request."""
    return b'{"jsonrpc":"2.0","id":%s,"result":%s}\n' % (encode(number), encode(result))


def error_line(number: int | str | None, error: WireError) -> bytes:
    """The answer to a request that has failed."""
    return b'{"jsonrpc":"2.0","id":%s,"error":%s}\n' % (encode(number), encode(error))


# --- requests and errors --------------------------------------------------------------------------

_NO_LIMITS = Limits()
_NO_LIMITS_WIRE = WireLimits(max_turns=_NO_LIMITS.max_turns)


def invoke_params(request: ProviderRequest, base_dir: Path) -> Invoke:
    """`request` as it is sent; paths are absolute, those of `cwd` start at `base_dir`."""
    limits = request.limits
    cwd = None if request.cwd is None else str((base_dir / request.cwd).absolute())
    return Invoke(
        question=request.question,
        system_prompt=request.system_prompt,
        guidelines=request.guidelines,
        messages=[message.to_dict() for message in request.messages],
        input_files=[str(path.absolute()) for path in request.input_files],
        images=[_image(image, cwd) for image in request.images],
        eval_case_id=request.eval_case_id,
        attempt=request.attempt,
        cwd=cwd,
        tools=[_tool(tool) for tool in request.tools],
        call_tool=request.call_tool is not None,
        on_chunk=request.on_chunk is not None,
        limits=_NO_LIMITS_WIRE if limits == _NO_LIMITS else _limits(limits),
        response_schema=None if request.response_schema is None else dict(request.response_schema),
        metadata=dict(request.metadata),
    )


def _tool(tool: Tool) -> Named:
    return Named(tool.name, tool.description, dict(tool.parameters))


def _image(image: ImagePart, cwd: str | None) -> Image:
    source = image.source
    if not source.startswith(("data:", "http://", "https://")):
        source = str((Path(cwd or ".") / source).absolute())
    return Image(source, image.media_type)


def _limits(limits: Limits) -> WireLimits:
    return WireLimits(
        limits.max_output_tokens,
        limits.max_turns,
        limits.max_seconds,
        limits.max_total_tokens,
        limits.max_cost_usd,
    )


def usage_of(usage: Usage | None) -> TokenUsage | None:
    """Tokens as the seam has them."""
    if usage is None:
        return None
    return TokenUsage(usage.input, usage.output, cached=usage.cached, reasoning=usage.reasoning)


def error_of(error: WireError, message: str) -> ProviderError:
    """The `ProviderError` that a child's error stands for; `message` is what to say."""
    data = error.data
    if data is None:
        kind = BadRequest if error.code == INVALID_PARAMS else ProviderFailed
        return kind(message)
    made = ERRORS.get(data.kind)
    if made is None:
        made, message = ProviderFailed, f'{message} (its kind "{data.kind}" is not known)'
    return made(
        message,
        retryable=data.retryable,
        retry_after=data.retry_after,
        status=data.status,
        token_usage=usage_of(data.token_usage),
        cost_usd=data.cost_usd,
    )
