"""Chat Completions as a server sees it: the requests that clients send, the answers they expect.

https://platform.openai.com/docs/api-reference/chat

Fields that no request of ours has a place for are not in these shapes; `UNUSED` names those that
clients are told of, `refused_field` those without which the answer would be a wrong one.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from muster.broken_json import why_no_json
from muster.provider import TokenUsage, ToolCall
from muster.serving.refusal import Refusal
from muster.store.rows import whole

__all__ = (
    "ChatRequest",
    "Chunks",
    "File",
    "GivenMessage",
    "GivenPart",
    "completion",
    "new_id",
    "read_request",
    "usage_of",
)


# --- what clients send --------------------------------------------------------------------------


class ImageUrl(Struct):
    """Where an image is."""

    url: str


class File(Struct):
    """A file's content, or its id at OpenAI."""

    filename: str | None = None
    file_data: str | None = None
    file_id: str | None = None


class GivenPart(Struct):
    """A part of a message's content."""

    type: str
    text: str | None = None
    image_url: ImageUrl | str | None = None
    file: File | None = None
    refusal: str | None = None


class CalledFunction(Struct):
    """What a call calls."""

    name: str
    arguments: str = "{}"


class GivenCall(Struct):
    """A tool call of an earlier answer."""

    id: str
    function: CalledFunction


class GivenMessage(Struct):
    """One message of the conversation."""

    role: str
    content: str | list[GivenPart] | None = None
    name: str | None = None
    tool_calls: list[GivenCall] | None = None
    tool_call_id: str | None = None


class Function(Struct):
    """A function that the client has."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class GivenTool(Struct):
    """A tool; only functions are known."""

    type: str = "function"
    function: Function | None = None


class JsonSchema(Struct):
    """The schema of a structured answer."""

    schema: dict[str, Any] | None = None


class ResponseFormat(Struct):
    """How the answer is to look."""

    type: str
    json_schema: JsonSchema | None = None


class StreamOptions(Struct):
    """What a stream is to hold."""

    include_usage: bool | None = None


class ChatRequest(Struct):
    """The body of a request."""

    model: str
    messages: list[GivenMessage]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tools: list[GivenTool] | None = None
    tool_choice: Any = None
    response_format: ResponseFormat | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    metadata: dict[str, str] | None = None
    n: int | None = None
    stop: Any = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    functions: Any = None
    modalities: list[str] | None = None
    # Taken note of, and told as ignored:
    temperature: Any = None
    top_p: Any = None
    seed: Any = None
    frequency_penalty: Any = None
    presence_penalty: Any = None
    logit_bias: Any = None
    parallel_tool_calls: Any = None
    reasoning_effort: Any = None
    verbosity: Any = None
    prediction: Any = None

    def ignored(self) -> str:
        """The fields that were given and change nothing, as a header lists them."""
        return ", ".join(name for name in UNUSED if getattr(self, name) is not None)


UNUSED = (
    "temperature",
    "top_p",
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
    "parallel_tool_calls",
    "reasoning_effort",
    "verbosity",
    "prediction",
)
"""How a target samples is said in targets.yaml."""

_DECODE = msgspec.json.Decoder(ChatRequest).decode


def read_request(body: bytes) -> ChatRequest:
    """The request in `body`.

    Raises:
        Refusal: it is no JSON, has a wrong type, or asks for what cannot be had.
    """
    try:
        request = _DECODE(body)
    except msgspec.ValidationError as error:
        raise Refusal(400, f"the body is not a chat completion request: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(400, f"the body is not JSON: {why_no_json(error, body)}"[:300]) from None
    _check(request)
    return request


def _check(request: ChatRequest) -> None:
    """Refuse what would change the answer and cannot be done."""
    choice = request.tool_choice
    if request.n not in (None, 1):
        raise _unsupported("n", "one answer is given: leave `n` out")
    if request.logprobs or request.top_logprobs:
        raise _unsupported("logprobs", "no log probabilities are known")
    if request.stop:
        raise _unsupported("stop", "stop sequences cannot be passed on to a target")
    if request.functions:
        raise _unsupported("functions", "functions are given as `tools`")
    if request.modalities is not None and request.modalities != ["text"]:
        raise _unsupported("modalities", "answers are text")
    if choice not in (None, "auto", "none"):
        raise _unsupported(
            "tool_choice", 'a target chooses its tools itself: expected "auto" or "none"'
        )
    for bound in ("max_tokens", "max_completion_tokens"):
        value = getattr(request, bound)
        if value is not None and value < 1:
            raise Refusal(400, f"{bound} must be 1 or more, not {value}", param=bound)


def _unsupported(field: str, why: str) -> Refusal:
    return Refusal(400, f"`{field}` is not supported: {why}", code="unsupported", param=field)


# --- what they get ------------------------------------------------------------------------------


class PromptDetails(Struct):
    """Part of the prompt's tokens."""

    cached_tokens: int


class CompletionDetails(Struct):
    """Part of the answer's tokens."""

    reasoning_tokens: int


class Usage(Struct, omit_defaults=True):
    """Inclusive counts; `cost` in US dollars, as OpenRouter has it."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails | UnsetType = UNSET
    completion_tokens_details: CompletionDetails | UnsetType = UNSET
    cost: float | UnsetType = UNSET


class Asked(Struct):
    """A call that the client is to make."""

    id: str
    function: CalledFunction
    type: str = "function"


class Said(Struct):
    """The answer's message."""

    content: str | None
    tool_calls: list[Asked] | UnsetType = UNSET
    role: str = "assistant"
    refusal: None = None


class Choice(Struct):
    """The only one of its kind."""

    message: Said
    finish_reason: str
    index: int = 0
    logprobs: None = None


class Completion(Struct):
    """A whole answer."""

    id: str
    created: int
    model: str
    choices: list[Choice]
    usage: Usage | None
    object: str = "chat.completion"


def new_id() -> str:
    """The id of an answer."""
    return f"chatcmpl-{secrets.token_hex(12)}"


def usage_of(usage: TokenUsage | None, cost_usd: float | None) -> Usage | None:
    """Tokens in OpenAI's words; `None` when they are not known."""
    if usage is None:
        return None
    return Usage(
        usage.input,
        usage.output,
        usage.total,
        UNSET if usage.cached is None else PromptDetails(usage.cached),
        UNSET if usage.reasoning is None else CompletionDetails(usage.reasoning),
        UNSET if cost_usd is None else cost_usd,
    )


def completion(
    model: str,
    text: str | None,
    calls: Sequence[ToolCall],
    finish_reason: str,
    usage: Usage | None,
) -> bytes:
    """The JSON of a whole answer."""
    said = Said(whole(text) if text else text, [_asked(call) for call in calls] if calls else UNSET)
    return _encode(
        Completion(new_id(), int(time.time()), model, [Choice(said, finish_reason)], usage)
    )


class Chunks:
    """The events of one streamed answer, as bytes."""

    def __init__(self, model: str) -> None:
        head = {
            "id": new_id(),
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
        }
        self._head = b"data: " + _encode(head)[:-1]

    def role(self) -> bytes:
        """The first event."""
        return self._delta(b'{"role":"assistant","content":""}')

    def text(self, text: str) -> bytes:
        """A piece of text."""
        return self._delta(b'{"content":%s}' % _encode(whole(text)))

    def calls(self, calls: Sequence[ToolCall]) -> bytes:
        """Calls that the client is to make, each whole."""
        rows = [
            {"index": number, **msgspec.to_builtins(_asked(call))}
            for number, call in enumerate(calls)
        ]
        return self._delta(_encode({"tool_calls": rows}))

    def finish(self, reason: str) -> bytes:
        """Why the answer ends here."""
        return self._delta(b"{}", _encode(reason))

    def usage(self, usage: Usage) -> bytes:
        """The event that follows the last one when the client wants it."""
        return self._head + b',"choices":[],"usage":%s}\n\n' % _encode(usage)

    def _delta(self, delta: bytes, reason: bytes = b"null") -> bytes:
        return self._head + (
            b',"choices":[{"index":0,"delta":%s,"logprobs":null,"finish_reason":%s}]}\n\n'
            % (delta, reason)
        )


DONE = b"data: [DONE]\n\n"


def _asked(call: ToolCall) -> Asked:
    arguments = call.input
    if not isinstance(arguments, str):
        arguments = _encode(arguments).decode()
    return Asked(call.id or f"call_{secrets.token_hex(12)}", CalledFunction(call.tool, arguments))


_encode = msgspec.json.Encoder(enc_hook=str).encode
