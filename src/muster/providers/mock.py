"""`mock`: answers from a script in `targets.yaml`, at once and for nothing.

The first of `replies` whose conditions all hold is the answer. A script with tool calls goes
through the real tool loop.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from muster.capabilities import Capabilities
from muster.embeddings import Embedded
from muster.provider import (
    BadRequest,
    Message,
    OnChunk,
    ProviderRequest,
    ProviderResponse,
    TokenUsage,
    ToolCall,
)
from muster.providers.chat import ChatProvider, ChatReply, ChatTurn
from muster.providers.mock_script import MockReply, MockRule, MockSettings
from muster.providers.prompt import render_prompt
from muster.providers.seconds import within
from muster.target import ResolvedTarget

__all__ = ("MockProvider",)

DEFAULT_TEXT = "mock response"
VERDICT = ProviderResponse("pass", finish_reason="stop")
"""What it says, without a script, when it is asked for a judgement."""
BYTES_PER_TOKEN = 4
"""The usual rule of thumb for English; for `estimate_usage` only."""


@dataclass(slots=True, eq=False)
class _Rule:
    """A rule made ready: conditions as sets and patterns, its response made once."""

    reply: MockReply
    response: ProviderResponse
    chunks: tuple[str, ...]
    calls: tuple[ToolCall, ...]
    delay: float
    contains: str | None = None
    pattern: re.Pattern[str] | None = None
    cases: frozenset[str] | None = None
    attempts: frozenset[int] | None = None
    turns: frozenset[int] | None = None
    left: int | None = None

    def fits(self, request: ProviderRequest, turn: int, after_tools: bool) -> bool:
        if self.left == 0:
            return False
        if self.calls and after_tools and self.turns is None:
            return False  # else it would ask for the same tools until the turns run out
        if self.contains is not None and self.contains not in request.question:
            return False
        if self.cases is not None and request.eval_case_id not in self.cases:
            return False
        if self.attempts is not None and request.attempt not in self.attempts:
            return False
        if self.turns is not None and turn not in self.turns:
            return False
        return self.pattern is None or self.pattern.search(request.question) is not None


class MockProvider:
    """Answers as its script says; without one, with `mock response`, with the smallest instance of
    the schema that was asked for, or, asked as a judge, with `pass` (a verdict that lets pass)."""

    Settings = MockSettings
    capabilities = Capabilities(
        streaming=True, tools=True, history=True, structured_output=True, embeddings=True,
        batch=False,
    )  # fmt: skip
    """It stands in for models, so it refuses nothing that those may be asked."""

    def __init__(self, target: ResolvedTarget) -> None:
        settings = self.Settings.model_validate(target.config)
        self._settings = settings
        self._rules = [_ready(rule, settings) for rule in settings.replies]
        default = settings.default
        if settings.response is not None:
            default = MockReply(text=settings.response)
        self._scripted_default = default is not None
        self._default = _ready(default or MockReply(text=DEFAULT_TEXT), settings)
        every = [*self._rules, self._default]
        self._calls_tools = any(rule.calls for rule in every)
        self._counts_turns = any(rule.turns for rule in every)
        self._instances: dict[str, ProviderResponse] = {}

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        """The scripted answer, or the scripted error."""
        if self._calls_tools:
            return await ChatProvider(_Conversation(self, request)).invoke(request)
        turn = _turn(request.messages) if self._counts_turns else 1
        rule = self._pick(request, turn)
        seconds = request.limits.max_seconds
        playing = self._play(rule, request, request.on_chunk)
        response = await (playing if seconds is None else within(seconds, playing, who="mock"))
        if self._settings.estimate_usage and response.token_usage is None:
            usage = _estimated(render_prompt(request, files="none"), response.text)
            return _with_usage(response, usage)
        return response

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """Vectors of the texts' words: the same for the same text, near for similar ones."""
        from muster.providers.hashed_vectors import hashed_vector

        settings = self._settings
        usage = TokenUsage()
        for text in texts:
            usage += _estimated(text, "")
        return Embedded(
            vectors=tuple(hashed_vector(text, settings.dimensions) for text in texts),
            token_usage=usage if settings.estimate_usage else None,
            model=settings.model,
        )

    def _pick(self, request: ProviderRequest, turn: int, after_tools: bool = False) -> _Rule:
        for rule in self._rules:
            if rule.fits(request, turn, after_tools):
                if rule.left is not None:
                    rule.left -= 1
                return rule
        return self._default

    async def _play(
        self, rule: _Rule, request: ProviderRequest, on_chunk: OnChunk | None
    ) -> ProviderResponse:
        """Wait, raise, stream and answer as the rule says."""
        if rule.delay:
            await asyncio.sleep(rule.delay)
        response = rule.response
        if rule.reply.error is not None:
            raise rule.reply.error.made(response.token_usage, response.cost_usd)
        chunks = rule.chunks
        if rule is self._default and not self._scripted_default:
            judges = request.metadata.get("purpose") == "judge"
            if request.response_schema:
                schema = request.response_schema
                response = self._instance_of(_favourable(schema) if judges else schema)
                chunks = (response.text,)
            elif judges:
                response, chunks = VERDICT, (VERDICT.text,)
        if on_chunk is not None:
            for chunk in chunks:
                on_chunk(chunk)
        return response

    def _instance_of(self, schema: Mapping[str, Any]) -> ProviderResponse:
        from muster.providers.smallest import smallest_instance

        key = json.dumps(schema, default=str)
        known = self._instances.get(key)
        if known is None:
            try:
                value = smallest_instance(schema)
            except ValueError as error:
                raise BadRequest(f"mock: response_schema: {error}") from None
            if len(self._instances) >= 256:
                self._instances.clear()
            text = json.dumps(value, ensure_ascii=False)
            known = ProviderResponse(text, finish_reason="stop", model=self._settings.model)
            self._instances[key] = known
        return known


def _favourable(schema: Any, name: str = "") -> Any:
    """The schema of a verdict, narrowed to one that lets pass: what is true or false is true, and a
    number is as great as it may be; a score without a bound is 1."""
    if isinstance(schema, list):
        return [_favourable(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    if schema.get("type") == "boolean":
        return {"const": True}
    if schema.get("type") in ("number", "integer") and ("maximum" in schema or name == "score"):
        return {"const": schema.get("maximum", 1)}
    return {key: _favourable(value, key) for key, value in schema.items()}


class _Conversation:
    """One request's turns: a chat model that knows which case it answers."""

    takes_documents = True

    def __init__(self, mock: MockProvider, request: ProviderRequest) -> None:
        self._mock = mock
        self._request = request

    async def complete(self, turn: ChatTurn) -> ChatReply:
        mock, request = self._mock, self._request
        after_tools = bool(turn.messages) and turn.messages[-1].role == "tool"
        rule = mock._pick(request, _turn(turn.messages), after_tools)
        response = await mock._play(rule, request, turn.on_chunk)
        usage = response.token_usage
        if usage is None and mock._settings.estimate_usage:
            said = "".join(message.text for message in turn.messages)
            usage = _estimated((turn.system_prompt or "") + said, response.text)
        return ChatReply(
            message=Message("assistant", response.text, tool_calls=rule.calls),
            token_usage=usage,
            finish_reason=response.finish_reason,
            cost_usd=response.cost_usd,
            model=response.model,
        )


def _ready(reply: MockReply, settings: MockSettings) -> _Rule:
    usage = None
    if reply.usage is not None:
        usage = TokenUsage.from_mapping(reply.usage.model_dump())
    calls = tuple(ToolCall(call.tool, call.input, id=call.id) for call in reply.tool_calls)
    text = reply.answer
    response = ProviderResponse(
        (Message("assistant", text, tool_calls=calls),),
        token_usage=usage,
        cost_usd=reply.cost_usd,
        finish_reason=reply.finish_reason or ("tool_calls" if calls else "stop"),
        model=settings.model,
    )
    rule = _Rule(
        reply=reply,
        response=response,
        chunks=reply.chunks or ((text,) if text else ()),
        calls=calls,
        delay=settings.delay if reply.delay is None else reply.delay,
    )
    if isinstance(reply, MockRule):
        rule.contains = reply.contains
        rule.pattern = re.compile(reply.regex) if reply.regex is not None else None
        rule.cases = _set_of(reply.case)
        rule.attempts = _set_of(reply.attempt)
        rule.turns = _set_of(reply.turn)
        rule.left = reply.times
    return rule


def _set_of(value: Any) -> frozenset[Any] | None:
    if value is None:
        return None
    return frozenset(value) if isinstance(value, tuple) else frozenset((value,))


def _turn(messages: tuple[Message, ...]) -> int:
    """Which answer of the model comes next, 1-based."""
    return 1 + sum(message.role == "assistant" for message in messages)


def _estimated(asked: str, answered: str) -> TokenUsage:
    return TokenUsage(
        -(-len(asked.encode()) // BYTES_PER_TOKEN), -(-len(answered.encode()) // BYTES_PER_TOKEN)
    )


def _with_usage(response: ProviderResponse, usage: TokenUsage) -> ProviderResponse:
    return ProviderResponse(
        response.output,
        token_usage=usage,
        cost_usd=response.cost_usd,
        finish_reason=response.finish_reason,
        model=response.model,
    )
