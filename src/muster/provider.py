"""The seam: what a provider is asked, what it answers, and how it says that it cannot.

Everything else in Muster stands on this file; it imports nothing of ours. A provider is any
object with `async invoke(request) -> response`; `aclose()` is optional. Plain functions become
providers through `muster.providers`.

Token counts are *inclusive* everywhere: `input` contains the cached tokens, `output` contains the
reasoning tokens (as in OpenTelemetry's GenAI conventions). What an API did not report is `None`.

The errors a provider may raise; nothing else leaves a provider:

    ProviderError
    ├── RateLimited            429; retried, after `retry_after` seconds if the server said so
    ├── QuotaExhausted         the account's quota is spent; not retried
    ├── ProviderUnavailable    refused, reset, 5xx; retried
    ├── ProviderTimeout        no answer in time
    ├── BadRequest             the request itself is wrong; not retried
    ├── AuthenticationFailed   401, 403; not retried
    ├── BadProviderOutput      an answer that is broken, cut short or not understood
    ├── ProviderFailed         the provider ran and failed: a crash, a non-zero exit
    └── LimitExceeded          a limit of the request was reached before the next call
        └── BudgetExceeded     … and it was a budget of tokens or money
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

__all__ = (
    "AuthenticationFailed",
    "BadProviderOutput",
    "BadRequest",
    "BudgetExceeded",
    "CallTool",
    "FilePart",
    "ImagePart",
    "LimitExceeded",
    "Limits",
    "Message",
    "OnChunk",
    "Part",
    "Provider",
    "ProviderError",
    "ProviderFailed",
    "ProviderRequest",
    "ProviderResponse",
    "ProviderTimeout",
    "ProviderUnavailable",
    "QuotaExhausted",
    "RateLimited",
    "TextPart",
    "TokenUsage",
    "Tool",
    "ToolCall",
)

_EMPTY: Mapping[str, Any] = MappingProxyType({})


# --- what is said -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TextPart:
    """A piece of text within a message."""

    text: str


@dataclass(frozen=True, slots=True)
class FilePart:
    """A file within a message: models get its text, agents its path."""

    path: Path
    media_type: str | None = None


@dataclass(frozen=True, slots=True)
class ImagePart:
    """An image within a message; `source` is a `data:` URI, an http(s) URL or a local path."""

    source: str
    media_type: str | None = None


Part: TypeAlias = TextPart | FilePart | ImagePart


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens of one call or a sum of calls. Inclusive: `cached` is part of `input`, `reasoning`
    part of `output`; `None` means that the API did not say."""

    input: int = 0
    output: int = 0
    _: KW_ONLY
    cached: int | None = None
    reasoning: int | None = None

    @property
    def total(self) -> int:
        """`input + output`; cached and reasoning tokens are inside these already."""
        return self.input + self.output

    def __add__(self, other: TokenUsage | None) -> TokenUsage:
        if other is None:
            return self
        return TokenUsage(
            self.input + other.input,
            self.output + other.output,
            cached=_add_known(self.cached, other.cached),
            reasoning=_add_known(self.reasoning, other.reasoning),
        )

    __radd__ = __add__

    def to_dict(self) -> dict[str, int]:
        """The wire form; what is unknown is left out."""
        row = {"input": self.input, "output": self.output}
        if self.cached is not None:
            row["cached"] = self.cached
        if self.reasoning is not None:
            row["reasoning"] = self.reasoning
        return row

    @classmethod
    def from_mapping(cls, value: Mapping[str, Any]) -> TokenUsage:
        """Read `{input, output, cached?, reasoning?}`.

        Raises:
            ValueError: a count is negative, or is not a whole number.
        """
        counts = {
            name: _token_count(name, value[name])
            for name in ("input", "output", "cached", "reasoning")
            if value.get(name) is not None
        }
        return cls(
            counts.get("input", 0),
            counts.get("output", 0),
            cached=counts.get("cached"),
            reasoning=counts.get("reasoning"),
        )


def _add_known(left: int | None, right: int | None) -> int | None:
    if left is None:
        return right
    return left if right is None else left + right


def _token_count(name: str, value: object) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"token usage: {name} must be a whole number from 0 up, not {value!r}")
    return value


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model's wish to call a tool, and, once it was called, what came of it."""

    tool: str
    input: object = field(default_factory=dict)
    """The arguments, already parsed: normally a mapping."""
    _: KW_ONLY
    id: str | None = None
    output: object = None
    status: str | None = None
    """`ok`, `error`, `timeout`, `cancelled` or `unknown`; `None` before the call."""
    start_time: str | None = None
    end_time: str | None = None
    duration_ms: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The wire form; what is unset is left out."""
        return _set_fields(self)

    @classmethod
    def from_mapping(cls, value: Mapping[str, Any]) -> ToolCall:
        """Read `{tool, input?, output?, id?, status?, …}`; snake_case and camelCase.

        Raises:
            ValueError: there is no `tool`, or a field has the wrong type.
        """
        row = _snake_keys(value)
        tool = row.get("tool", row.get("name"))
        if not isinstance(tool, str) or not tool:
            raise ValueError("a tool call needs `tool`, the name of the tool")
        return cls(
            tool,
            row.get("input", {}),
            id=_optional_text(row, "id"),
            output=row.get("output"),
            status=_optional_text(row, "status"),
            start_time=_optional_text(row, "start_time"),
            end_time=_optional_text(row, "end_time"),
            duration_ms=_optional_number(row, "duration_ms"),
        )


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: str
    """`system`, `user`, `assistant` or `tool`."""
    content: object = ""
    """Usually a string; a tuple of parts for mixed content; any JSON value from some agents."""
    _: KW_ONLY
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    """On a `tool` message: the id of the call that it answers."""
    start_time: str | None = None
    end_time: str | None = None
    duration_ms: float | None = None
    token_usage: TokenUsage | None = None
    metadata: Mapping[str, Any] | None = None

    @property
    def text(self) -> str:
        """The content as text: parts joined by line breaks, other values as JSON."""
        content = self.content
        if isinstance(content, str):
            return content
        if content is None:
            return ""
        if isinstance(content, tuple | list):
            texts = [_part_text(part) for part in content]
            if all(text is not None for text in texts):
                return "\n".join(text for text in texts if text)
        return json.dumps(_plain(content), ensure_ascii=False)

    def to_dict(self) -> dict[str, Any]:
        """The wire form; what is unset is left out."""
        row: dict[str, Any] = {"role": self.role, "content": _plain(self.content)}
        if self.tool_calls:
            row["tool_calls"] = [call.to_dict() for call in self.tool_calls]
        for name in ("name", "tool_call_id", "start_time", "end_time", "duration_ms"):
            value = getattr(self, name)
            if value is not None:
                row[name] = value
        if self.token_usage is not None:
            row["token_usage"] = self.token_usage.to_dict()
        if self.metadata is not None:
            row["metadata"] = dict(self.metadata)
        return row

    @classmethod
    def from_mapping(cls, value: Mapping[str, Any]) -> Message:
        """Read `{role, content?, tool_calls?, …}`; snake_case and camelCase.

        Raises:
            ValueError: there is no `role`, or a field has the wrong type.
        """
        row = _snake_keys(value)
        role = row.get("role")
        if not isinstance(role, str) or not role:
            raise ValueError("a message needs `role`, e.g. assistant")
        calls = row.get("tool_calls") or ()
        if not isinstance(calls, Sequence) or isinstance(calls, str | bytes):
            raise ValueError("`tool_calls` must be a list")
        usage, metadata = row.get("token_usage"), row.get("metadata")
        if metadata is not None and not isinstance(metadata, Mapping):
            raise ValueError("`metadata` must be a mapping")
        return cls(
            role,
            row.get("content", ""),
            name=_optional_text(row, "name"),
            tool_calls=tuple(
                call if isinstance(call, ToolCall) else ToolCall.from_mapping(_mapping(call))
                for call in calls
            ),
            tool_call_id=_optional_text(row, "tool_call_id"),
            start_time=_optional_text(row, "start_time"),
            end_time=_optional_text(row, "end_time"),
            duration_ms=_optional_number(row, "duration_ms"),
            token_usage=_as_usage(usage),
            metadata=metadata,
        )


# --- what a provider is asked -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that an agent may call; `parameters` is the JSON Schema of its arguments."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object"})


CallTool: TypeAlias = Callable[[str, Mapping[str, Any]], Awaitable[str]]
"""`await call_tool(name, arguments)` answers with text; what it raises is the tool's failure."""

OnChunk: TypeAlias = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one request may use. Checked *before* each call to the model; `None` is no limit."""

    max_output_tokens: int | None = None
    """Tokens that a single call may answer with."""
    max_turns: int | None = 50
    """Calls to the model within one request (tool loop)."""
    max_seconds: float | None = None
    """Wall time of the whole request."""
    max_total_tokens: int | None = None
    """Token budget: input and output, summed over the turns."""
    max_cost_usd: float | None = None
    """Money budget, summed over the turns."""


_NO_LIMITS = Limits()


class TurnWatch(Protocol):
    """Who counts the turns of a request while they are made: is asked before each, and told after
    it. The tool loop of chat models knows of it; other providers need not."""

    def output_allowed(self) -> int | None:
        """Tokens that the next turn may answer with; `None` is no limit."""
        ...

    def turn_ended(self, usage: TokenUsage | None, cost_usd: float | None, /) -> None:
        """A turn has been answered; `None` is not known."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderRequest:
    """One question, with all that may be needed to answer it.

    Cancellation is asyncio's: a cancelled `invoke` leaves no process, socket or task behind.
    """

    question: str
    """The task's prompt, or the case's input: the last user message. Empty when `messages` end with
    the results of tools that whoever asks has called: a chat model goes on from these."""
    system_prompt: str | None = None
    guidelines: str | None = None
    """Evaluation guidelines, shown to the model after the system prompt."""
    messages: tuple[Message, ...] = ()
    """Earlier turns, oldest first; `question` is not among them."""
    input_files: tuple[Path, ...] = ()
    images: tuple[ImagePart, ...] = ()
    """Images that belong to `question`, for models that see."""
    eval_case_id: str | None = None
    attempt: int = 0
    """0-based; grows with each retry."""
    cwd: Path | None = None
    tools: tuple[Tool, ...] = ()
    call_tool: CallTool | None = None
    on_chunk: OnChunk | None = None
    """Called with each piece of text as it comes; `None`: do not stream."""
    limits: Limits = _NO_LIMITS
    watch: TurnWatch | None = None
    """With it, `call_tool` gets every call as the model made it: also one of a tool that is not
    there, or with arguments that are no object; it refuses them itself."""
    response_schema: Mapping[str, Any] | None = None
    """JSON Schema that the answer must satisfy, for providers with structured output."""
    metadata: Mapping[str, str] = field(default_factory=lambda: _EMPTY)


# --- what it answers ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, init=False)
class ProviderResponse:
    """An answer and its accounting.

    `output` may be given as a string, a message, or a sequence of messages or mappings;
    `token_usage` as a mapping. Attributes always have the types below.
    """

    output: tuple[Message, ...]
    token_usage: TokenUsage | None
    """Summed over all turns; `None` when the provider does not know."""
    cost_usd: float | None
    duration_ms: float | None
    raw: object
    """The provider's own data, for debugging."""
    finish_reason: str | None
    """`stop`, `length`, `content_filter`, `tool_calls` or the provider's own word."""
    model: str | None
    """The model that answered, as the provider names it."""
    target_used: str | None
    """Set by wrappers: the target that answered, when a fallback stepped in."""
    attempts: int
    """Set by wrappers: how many tries the answer took."""
    cached: bool
    """Set by wrappers: nobody was asked, the answer was there; tokens, money and milliseconds are
    what it took then."""

    def __init__(
        self,
        output: str | Message | Sequence[Message | Mapping[str, Any]] = (),
        *,
        token_usage: TokenUsage | Mapping[str, Any] | None = None,
        cost_usd: float | None = None,
        duration_ms: float | None = None,
        raw: object = None,
        finish_reason: str | None = None,
        model: str | None = None,
        target_used: str | None = None,
        attempts: int = 1,
        cached: bool = False,
    ) -> None:
        put = object.__setattr__
        put(self, "output", output if type(output) is tuple else _as_messages(output))
        put(self, "token_usage", _as_usage(token_usage))
        put(self, "cost_usd", cost_usd)
        put(self, "duration_ms", duration_ms)
        put(self, "raw", raw)
        put(self, "finish_reason", finish_reason)
        put(self, "model", model)
        put(self, "target_used", target_used)
        put(self, "attempts", attempts)
        put(self, "cached", cached)
        if type(output) is tuple and not all(type(message) is Message for message in output):
            put(self, "output", _as_messages(output))

    @property
    def text(self) -> str:
        """The text of the last assistant message; empty if there is none."""
        for message in reversed(self.output):
            if message.role == "assistant":
                return message.text
        return ""

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """All tool calls of all messages, in order."""
        return tuple(call for message in self.output for call in message.tool_calls)


@runtime_checkable
class Provider(Protocol):
    """Answers requests. One instance serves many concurrent requests on one event loop.

    It may have `async aclose(self) -> None`, called once when nobody needs it any more.
    """

    async def invoke(self, request: ProviderRequest, /) -> ProviderResponse:
        """Answer, or raise a `ProviderError`."""
        ...


# --- how it says that it cannot -----------------------------------------------------------------


class ProviderError(Exception):
    """A provider could not answer. `retryable` says whether a retry can help.

    `token_usage` and `cost_usd` are what was spent all the same. `attempts` and `target` are set
    by the wrappers that saw the error pass.
    """

    kind: ClassVar[str] = "provider_error"
    retries_help: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        retryable: bool | None = None,
        retry_after: float | None = None,
        status: int | None = None,
        token_usage: TokenUsage | None = None,
        cost_usd: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.retryable = self.retries_help if retryable is None else retryable
        self.retry_after = retry_after
        self.status = status
        self.token_usage = token_usage
        self.cost_usd = cost_usd
        self.attempts = 1
        self.target: str | None = None


class RateLimited(ProviderError):
    """Too many requests; `retry_after` in seconds if the server said."""

    kind = "rate_limited"
    retries_help = True


class QuotaExhausted(ProviderError):
    """The account's quota or credit is spent: waiting does not help."""

    kind = "quota_exhausted"


class ProviderUnavailable(ProviderError):
    """Nobody answered, or the server is in trouble."""

    kind = "provider_unavailable"
    retries_help = True


class ProviderTimeout(ProviderError):
    """No answer within the time allowed."""

    kind = "timeout"
    retries_help = True


class BadRequest(ProviderError):
    """The provider refuses the request as it stands."""

    kind = "bad_request"


class AuthenticationFailed(ProviderError):
    """The key is missing, wrong, or not allowed to do this."""

    kind = "authentication_failed"


class BadProviderOutput(ProviderError):
    """The answer is broken, cut short, or not understood."""

    kind = "bad_output"
    retries_help = True


class ProviderFailed(ProviderError):
    """The provider ran and failed: an exception, a non-zero exit."""

    kind = "provider_failed"


class LimitExceeded(ProviderError):
    """A limit of the request (turns, seconds) was reached."""

    kind = "limit_exceeded"


class BudgetExceeded(LimitExceeded):
    """A budget of tokens or money does not allow another call."""

    kind = "budget_exceeded"


# --- small helpers ------------------------------------------------------------------------------


def _as_messages(
    output: str | Message | Sequence[Message | Mapping[str, Any]],
) -> tuple[Message, ...]:
    if isinstance(output, str):
        return (Message("assistant", output),)
    if isinstance(output, Message):
        return (output,)
    return tuple(
        item if isinstance(item, Message) else Message.from_mapping(_mapping(item))
        for item in output
    )


def _as_usage(usage: TokenUsage | Mapping[str, Any] | None) -> TokenUsage | None:
    if usage is None or isinstance(usage, TokenUsage):
        return usage
    return TokenUsage.from_mapping(usage)


def _mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"expected a mapping, found {type(value).__name__}")
    return value


def _snake_keys(value: Mapping[str, Any]) -> dict[str, Any]:
    """`toolCalls` as `tool_calls`: agents written for other harnesses answer in camelCase."""
    return {
        key
        if not isinstance(key, str) or key.islower()
        else "".join("_" + c.lower() if c.isupper() else c for c in key): item
        for key, item in value.items()
    }


def _optional_text(row: Mapping[str, Any], name: str) -> str | None:
    value = row.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"`{name}` must be text, not {type(value).__name__}")
    return value


def _optional_number(row: Mapping[str, Any], name: str) -> float | None:
    value = row.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise ValueError(f"`{name}` must be a number, not {type(value).__name__}")
    return value


def _part_text(part: object) -> str | None:
    """The text of a content part; empty for files and images; `None` if it is no part."""
    if isinstance(part, TextPart):
        return part.text
    if isinstance(part, FilePart | ImagePart):
        return ""
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and isinstance(part.get("type"), str):
        text = part.get("text", part.get("value", ""))
        return text if part["type"] == "text" and isinstance(text, str) else ""
    return None


def _plain(value: object) -> Any:
    """Content as JSON-ready data."""
    if isinstance(value, TextPart):
        return {"type": "text", "text": value.text}
    if isinstance(value, FilePart):
        return {"type": "file", "path": str(value.path)}
    if isinstance(value, ImagePart):
        return {"type": "image", "source": value.source}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def _set_fields(value: ToolCall) -> dict[str, Any]:
    return {
        item.name: getattr(value, item.name)
        for item in fields(value)
        if getattr(value, item.name) is not None
    }
