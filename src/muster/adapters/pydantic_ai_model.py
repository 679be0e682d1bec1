"""A target of Muster's as a model of PydanticAI's.

    from muster.adapters.pydantic_ai_model import MusterModel

    agent = Agent(MusterModel("fast"))

The agent's loop asks one turn at a time, so with tools the target must be a chat model; an agent of
Muster's answers without them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic_ai import messages as theirs
from pydantic_ai.exceptions import ModelAPIError, ModelHTTPError
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.settings import ModelSettings
from pydantic_ai.usage import RequestUsage

from muster.provider import (
    ImagePart,
    Limits,
    Message,
    Part,
    ProviderError,
    ProviderRequest,
    ProviderResponse,
    TextPart,
    Tool,
    ToolCall,
)
from muster.targets import Target, open_target

__all__ = ("MusterModel",)

_FINISH = frozenset({"stop", "length", "content_filter", "error"})


class MusterModel(Model):
    """Asks a target; `await model.aclose()` closes it."""

    def __init__(
        self,
        target: str | Target,
        *,
        targets_file: str | Path | None = None,
        settings: ModelSettings | None = None,
    ) -> None:
        """`target` is a name in the nearest `targets.yaml`, or what `muster.open_target` gives.

        Raises:
            MusterError: there is no such target, or it cannot be made.
        """
        super().__init__(settings=settings)
        if isinstance(target, str):
            target = open_target(target, targets_file=targets_file)
        self.target = target

    @property
    def model_name(self) -> str:
        """The target's name."""
        return self.target.name

    @property
    def system(self) -> str:
        """Who answers."""
        return "muster"

    async def aclose(self) -> None:
        """Close the target."""
        await self.target.aclose()

    async def request(
        self,
        messages: list[theirs.ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> theirs.ModelResponse:
        """One turn."""
        request = self._request(messages, model_settings, model_request_parameters)
        return _to_response(await self._ask(request), self.model_name)

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[theirs.ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: Any = None,
    ) -> AsyncGenerator[StreamedResponse]:
        """One turn, its text in pieces as the target streams it."""
        request = self._request(messages, model_settings, model_request_parameters)
        pieces: asyncio.Queue[str | None] = asyncio.Queue()
        work = asyncio.ensure_future(self._ask(replace(request, on_chunk=pieces.put_nowait)))
        work.add_done_callback(lambda _: pieces.put_nowait(None))
        try:
            yield _Stream(
                model_request_parameters=model_request_parameters,
                _name=self.model_name,
                _pieces=pieces,
                _work=work,
            )
        finally:
            work.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await work

    async def _ask(self, request: ProviderRequest) -> ProviderResponse:
        try:
            return await self.target.invoke(request)
        except ProviderError as error:
            if error.status is not None and error.status >= 400:
                raise ModelHTTPError(error.status, self.model_name, error.message) from error
            raise ModelAPIError(self.model_name, f"{error.kind}: {error.message}") from error

    def _request(
        self,
        messages: list[theirs.ModelMessage],
        settings: ModelSettings | None,
        parameters: ModelRequestParameters,
    ) -> ProviderRequest:
        asked, wanted = self.prepare_request(settings, parameters)
        offered = [*wanted.function_tools, *wanted.output_tools]
        if offered and not self.target.one_turn:
            raise ModelAPIError(
                self.model_name,
                f'the target "{self.model_name}" is an agent with tools of its own: it cannot be '
                "given others, nor an output type that is asked for by a tool",
            )
        instructions = self._get_instruction_parts(messages, wanted)
        systems = [part.content for part in instructions or ()]
        said = _to_messages(messages, systems)
        question: str = ""
        images: tuple[ImagePart, ...] = ()
        if said and said[-1].role == "user":
            last = said.pop()
            parts = last.content if isinstance(last.content, tuple) else ()
            question, images = last.text, tuple(p for p in parts if isinstance(p, ImagePart))
        schema = None
        if wanted.output_mode == "native" and wanted.output_object is not None:
            schema = wanted.output_object.json_schema
        return ProviderRequest(
            question=question,
            system_prompt="\n\n".join(systems) or None,
            messages=tuple(said),
            images=images,
            tools=tuple(
                Tool(tool.name, tool.description or "", tool.parameters_json_schema)
                for tool in offered
            ),
            limits=Limits(max_output_tokens=(asked or {}).get("max_tokens")),
            response_schema=schema,
        )


@dataclass
class _Stream(StreamedResponse):
    """A turn under way."""

    _name: str = field(kw_only=True)
    _pieces: asyncio.Queue[str | None] = field(kw_only=True)
    _work: asyncio.Future[ProviderResponse] = field(kw_only=True)
    _begun: datetime = field(default_factory=lambda: datetime.now(UTC), kw_only=True)

    async def _get_event_iterator(self) -> AsyncIterator[theirs.ModelResponseStreamEvent]:
        said = False
        while (piece := await self._pieces.get()) is not None:
            said = True
            for event in self._parts_manager.handle_text_delta(vendor_part_id=0, content=piece):
                yield event
        answer = _to_response(self._work.result(), self._name)
        self._usage = answer.usage
        self.finish_reason = answer.finish_reason
        self.provider_details = answer.provider_details
        for part in answer.parts:
            if isinstance(part, theirs.ToolCallPart):
                yield self._parts_manager.handle_part(vendor_part_id=None, part=part)
            elif isinstance(part, theirs.TextPart) and not said:  # a target that does not stream
                for event in self._parts_manager.handle_text_delta(
                    vendor_part_id=0, content=part.content
                ):
                    yield event

    async def close_stream(self) -> None:
        """Stop the target."""
        self._work.cancel()

    @property
    def model_name(self) -> str:
        """The target's name."""
        return self._name

    @property
    def provider_name(self) -> str:
        """Who answers."""
        return "muster"

    @property
    def provider_url(self) -> None:
        """It is no URL."""
        return

    @property
    def timestamp(self) -> datetime:
        """When it began."""
        return self._begun


def _to_messages(messages: list[theirs.ModelMessage], systems: list[str]) -> list[Message]:
    """The conversation; system prompts go to `systems`."""
    found: list[Message] = []
    for message in messages:
        if isinstance(message, theirs.ModelResponse):
            found.append(_answered(message))
            continue
        for part in message.parts:
            if isinstance(part, theirs.SystemPromptPart):
                systems.append(part.content)
            elif isinstance(part, theirs.UserPromptPart):
                found.append(Message("user", _content(part.content)))
            elif isinstance(part, theirs.ToolReturnPart):
                found.append(_result(part, part.model_response_str()))
            elif isinstance(part, theirs.RetryPromptPart):
                text = part.model_response()
                found.append(_result(part, text) if part.tool_name else Message("user", text))
    return found


def _answered(message: theirs.ModelResponse) -> Message:
    calls = tuple(
        ToolCall(part.tool_name, part.args_as_dict(), id=part.tool_call_id)
        for part in message.parts
        if isinstance(part, theirs.ToolCallPart)
    )
    text = "".join(p.content for p in message.parts if isinstance(p, theirs.TextPart))
    return Message("assistant", text, tool_calls=calls)


def _result(part: theirs.ToolReturnPart | theirs.RetryPromptPart, text: str) -> Message:
    return Message("tool", text, name=part.tool_name, tool_call_id=part.tool_call_id)


def _content(content: Any) -> str | tuple[Part, ...]:
    if isinstance(content, str):
        return content
    parts: list[Part] = []
    for part in content:
        if isinstance(part, str):
            parts.append(TextPart(part))
        elif isinstance(part, theirs.ImageUrl):
            parts.append(ImagePart(part.url))
        elif isinstance(part, theirs.BinaryContent) and part.is_image:
            parts.append(ImagePart(part.data_uri))
        else:
            raise ModelAPIError("muster", f"a {type(part).__name__} cannot be passed on")
    return tuple(parts)


def _to_response(response: ProviderResponse, name: str) -> theirs.ModelResponse:
    parts: list[theirs.ModelResponsePart] = []
    if response.text:
        parts.append(theirs.TextPart(response.text))
    last = response.output[-1] if response.output else None
    # Only calls that nobody has made are the agent's to make.
    for call in last.tool_calls if last is not None else ():
        given: Any = call.input
        parts.append(theirs.ToolCallPart(call.tool, given, call.id or f"call_{len(parts)}"))
    usage = response.token_usage
    counts = (
        RequestUsage()
        if usage is None
        else RequestUsage(
            input_tokens=usage.input,
            output_tokens=usage.output,
            cache_read_tokens=usage.cached or 0,
        )
    )
    finish = "tool_call" if response.finish_reason == "tool_calls" else response.finish_reason
    known: Any = finish if finish in _FINISH or finish == "tool_call" else None
    return theirs.ModelResponse(
        parts=parts,
        usage=counts,
        model_name=response.model or name,
        provider_name="muster",
        finish_reason=known,
        provider_details={"finish_reason": response.finish_reason, "cost_usd": response.cost_usd},
    )
