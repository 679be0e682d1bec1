"""A target of Muster's as a model of Inspect's: `inspect eval task.py --model muster/TARGET`.

Inspect finds this module by its entry point. Retries are the target's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inspect_ai.model import (
    ChatMessage,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    modelapi,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from muster.provider import ImagePart, Limits, Message, ProviderRequest
from muster.targets import open_target

__all__ = ("MusterAPI", "muster")


class MusterAPI(ModelAPI):
    """Asks a target. `-M targets_file=…` names a file of targets other than the nearest."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 - as Inspect's own classes have it
        targets_file: str | None = None,
        **model_args: Any,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config)
        if model_args:
            raise ValueError(f"unknown argument {next(iter(model_args))}; known: targets_file")
        file = Path(targets_file) if targets_file is not None else None
        self.target = open_target(model_name, targets_file=file)

    async def generate(
        self,
        input: list[ChatMessage],
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """One turn. Raises a `ProviderError`."""
        from muster.adapters.inspect_messages import from_messages, from_tool, to_output

        offered = [] if tool_choice == "none" else tools
        if offered and not self.target.one_turn:
            raise ValueError(
                f'the target "{self.target.name}" is an agent with tools of its own: it cannot be '
                "given others"
            )
        system, messages = from_messages(input)
        request = _request(system, messages, offered=tuple(map(from_tool, offered)), config=config)
        return to_output(await self.target.invoke(request), self.model_name)

    async def aclose(self) -> None:
        """Close the target."""
        await self.target.aclose()

    def should_retry(self, ex: BaseException) -> bool:
        """The target has retried already what can be."""
        return False


def _request(
    system: str | None, messages: list[Message], *, offered: Any, config: GenerateConfig
) -> ProviderRequest:
    question: str = ""
    images: tuple[ImagePart, ...] = ()
    if messages and messages[-1].role == "user":
        last = messages.pop()
        parts = last.content if isinstance(last.content, tuple) else ()
        question, images = last.text, tuple(p for p in parts if isinstance(p, ImagePart))
    schema = config.response_schema
    return ProviderRequest(
        question=question,
        system_prompt=system,
        messages=tuple(messages),
        images=images,
        tools=offered,
        limits=Limits(max_output_tokens=config.max_tokens),
        response_schema=(
            None if schema is None else schema.json_schema.model_dump(exclude_none=True)
        ),
    )


@modelapi(name="muster")
def muster() -> type[ModelAPI]:
    """What Inspect calls for `muster/…`."""
    return MusterAPI
