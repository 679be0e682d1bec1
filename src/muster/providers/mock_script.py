"""What may stand in the script of a `mock` target."""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import Field, field_validator, model_validator

from muster.errors import nearest
from muster.provider import ProviderError, TokenUsage
from muster.providers.settings import ProviderSettings

__all__ = ("MockReply", "MockRule", "MockSettings")


def _error_kinds() -> dict[str, type[ProviderError]]:
    found: dict[str, type[ProviderError]] = {}
    waiting: list[type[ProviderError]] = [ProviderError]
    while waiting:
        kind = waiting.pop()
        found[kind.kind] = kind
        waiting += kind.__subclasses__()
    return found


class MockError(ProviderSettings):
    """An error to raise instead of answering."""

    kind: str = "provider_failed"
    """E.g. `rate_limited`, `provider_unavailable`, `timeout`, `bad_request`, `bad_output`."""
    message: str | None = None
    retry_after: float | None = Field(default=None, ge=0)
    """Seconds that the server asks to wait."""
    status: int | None = None
    """The HTTP status that it pretends to come from."""
    retryable: bool | None = None
    """Whether a retry can help; by default what is usual for the kind."""

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        kinds = _error_kinds()
        if kind not in kinds:
            near = nearest(kind, kinds)
            hint = f'did you mean "{near[0]}"? ' if near else ""
            raise ValueError(
                f'unknown kind of error "{kind}" ({hint}known: {", ".join(sorted(kinds))})'
            )
        return kind

    def made(self, usage: TokenUsage | None, cost_usd: float | None) -> ProviderError:
        """A fresh exception."""
        return _error_kinds()[self.kind](
            self.message or f"mock: {self.kind}",
            retryable=self.retryable,
            retry_after=self.retry_after,
            status=self.status,
            token_usage=usage,
            cost_usd=cost_usd,
        )


class MockToolCall(ProviderSettings):
    """A tool call that the model makes."""

    tool: str
    input: dict[str, Any] = Field(default_factory=dict)
    """The arguments."""
    id: str | None = None


class MockUsage(ProviderSettings):
    """Tokens that the answer says it used."""

    input: int = Field(default=0, ge=0)
    output: int = Field(default=0, ge=0)
    cached: int | None = Field(default=None, ge=0)
    """Part of `input`."""
    reasoning: int | None = Field(default=None, ge=0)
    """Part of `output`."""


class MockReply(ProviderSettings):
    """What to answer."""

    text: str | None = None
    json_value: Any = Field(default=None, alias="json")
    """A value whose JSON is the answer's text."""
    chunks: tuple[str, ...] = ()
    """The pieces of a streamed answer; together they are its text."""
    tool_calls: tuple[MockToolCall, ...] = ()
    error: MockError | None = None
    delay: float | None = Field(default=None, ge=0)
    """Seconds before the answer; over the target's own `delay`."""
    usage: MockUsage | None = None
    cost_usd: float | None = Field(default=None, ge=0)
    finish_reason: str | None = None
    """By default `stop`, or `tool_calls`."""

    @field_validator("error", mode="before", json_schema_input_type=str | MockError | None)
    @classmethod
    def _kind_alone(cls, value: object) -> object:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_answer(self) -> MockReply:
        given = [
            name
            for name, field in (("text", "text"), ("json", "json_value"), ("chunks", "chunks"))
            if field in self.model_fields_set
        ]
        if len(given) > 1:
            raise ValueError(f"`{given[0]}` and `{given[1]}` are both given; the answer has one")
        if self.error is not None and (given or self.tool_calls):
            raise ValueError("a reply with an `error` has no answer besides it")
        if not (given or self.tool_calls or self.error):
            raise ValueError("a reply needs `text`, `json`, `chunks`, `tool_calls` or `error`")
        return self

    @property
    def answer(self) -> str:
        """The text of the answer."""
        if "json_value" in self.model_fields_set:
            return json.dumps(self.json_value, ensure_ascii=False)
        return "".join(self.chunks) if self.chunks else self.text or ""


class MockRule(MockReply):
    """A reply, and when it is given: all conditions that are there must hold."""

    contains: str | None = None
    """The question contains this text."""
    regex: str | None = None
    """The question holds a match of this Python regular expression."""
    case: str | tuple[str, ...] | None = None
    """The case's id, or one of several."""
    attempt: int | tuple[int, ...] | None = None
    """The attempt, 0-based: 0 is the first, 1 the first retry."""
    turn: int | tuple[int, ...] | None = None
    """Which answer of the model it is in the conversation, 1-based; tool calls count as answers."""
    times: int | None = Field(default=None, ge=1)
    """How often the rule may be used in a run."""

    @field_validator("regex")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"not a regular expression: {error}") from None
        return pattern


class MockSettings(ProviderSettings):
    """Settings of `provider: mock`."""

    replies: tuple[MockRule, ...] = ()
    """The script; the first rule that fits is the answer."""
    default: MockReply | None = None
    """The answer when no rule fits; a text, or a reply without conditions."""
    response: str | None = None
    """The same as a text in `default`."""
    delay: float = Field(default=0.0, ge=0)
    """Seconds before each answer."""
    model: str | None = None
    """The model that answers say they come from."""
    dimensions: int = Field(default=64, gt=0, le=4096)
    """Numbers of each vector that it makes of a text's words."""
    estimate_usage: bool = False
    """Report a quarter of a token for each byte where a reply has no `usage`."""

    @field_validator("default", mode="before", json_schema_input_type=str | MockReply | None)
    @classmethod
    def _text_alone(cls, value: object) -> object:
        return {"text": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_default(self) -> MockSettings:
        if self.default is not None and self.response is not None:
            raise ValueError("`default` and `response` say the same thing; give one of them")
        return self
