"""`provider: promptfoo`: a Python provider file of promptfoo's, with its `call_api`, as it is.

It is run in this process, synchronous functions on threads. What it answers with is checked: an
answer without `output` is an error, and counts are as they were reported, or not known.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from muster.capabilities import Capabilities
from muster.errors import UsageError, nearest
from muster.importing import CodeError, import_file
from muster.provider import (
    BadProviderOutput,
    ProviderFailed,
    ProviderRequest,
    ProviderResponse,
    TokenUsage,
)
from muster.providers.answers import is_amount
from muster.providers.callables import CallableProvider
from muster.providers.conversation import chat_messages, system_text
from muster.providers.openai_chat import chat_message
from muster.providers.settings import ProviderSettings, located, refuse_if_safe
from muster.providers.threads import DEFAULT_THREADS, Threads
from muster.target import ResolvedTarget

__all__ = ("PromptfooProvider",)


class PromptfooSettings(ProviderSettings):
    """Settings of `provider: promptfoo`."""

    file: str
    """The provider's Python file, from the targets file on; `file://` and `:function` may stand
    around it, as in a promptfoo configuration."""
    function: str = "call_api"
    """The function that is called."""
    options: dict[str, Any] = Field(default_factory=dict)
    """What the function gets as `options["config"]`."""


class PromptfooProvider:
    """Answers with what `call_api(prompt, options, context)` returns.

    The prompt is the question; with a system prompt, earlier messages, files or images it is the
    conversation as JSON, which is promptfoo's form of a chat prompt.
    """

    Settings = PromptfooSettings
    capabilities = Capabilities(streaming=False, tools=False, history=True, batch=False)

    def __init__(self, target: ResolvedTarget) -> None:
        """Raises `MusterError` when there is no such file or function, or it fails to load."""
        settings = PromptfooSettings.model_validate(dict(target.config))
        refuse_if_safe(target, f'file "{settings.file}" would be run')
        path, function = _named(settings, target)
        self._who = target.name
        self._call = _load(path, function, target)
        self._options: dict[str, Any] = {
            "id": f"python:{path}",
            "config": {"basePath": str(path.parent), **settings.options},
        }
        self._limit = target.workers or DEFAULT_THREADS
        self._threads: Threads | None = None
        self._inner = CallableProvider(self._answer, inner=self._call, name=target.name)

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        """Answer. Raises a `ProviderError`."""
        return await self._inner.invoke(request)

    async def aclose(self) -> None:
        """Let the threads of a synchronous function end."""
        if self._threads is not None:
            self._threads.close()
            self._threads = None

    async def _answer(self, request: ProviderRequest) -> ProviderResponse:
        prompt = await _prompt(request)
        context = {"vars": dict(request.metadata), "prompt": {"raw": prompt, "label": prompt}}
        if request.eval_case_id is not None:
            context["test"] = {"description": request.eval_case_id}
        # Functions keep what they are given; nobody else's call may be spoilt by it.
        given = (prompt, copy.deepcopy(self._options), context)
        if inspect.iscoroutinefunction(self._call):
            return self._response(await self._call(*given))
        if self._threads is None:
            self._threads = Threads(self._limit, name=self._who)
        answer = await self._threads.run(lambda job: self._call(*given))
        return self._response(await answer if inspect.isawaitable(answer) else answer)

    def _response(self, answer: Any) -> ProviderResponse:
        if not isinstance(answer, Mapping):
            raise self._bad(f"returned {type(answer).__name__}, not a mapping")
        usage, cost = self._usage(answer.get("tokenUsage")), answer.get("cost")
        if cost is not None and not is_amount(cost):
            raise self._bad(f"`cost` must be a number from 0 up, not {cost!r:.60}")
        if answer.get("error"):
            error = answer["error"]
            text = error if isinstance(error, str) else json.dumps(error, default=str)
            raise ProviderFailed(f"{self._who}: {text}", token_usage=usage, cost_usd=cost)
        output = answer.get("output")
        if output is None:
            raise self._bad("returned neither `output` nor `error`")
        text = output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)
        reason = answer.get("finishReason")
        if reason is not None and not isinstance(reason, str):
            raise self._bad("`finishReason` must be text")
        return ProviderResponse(
            text, token_usage=usage, cost_usd=cost, finish_reason=reason, raw=answer.get("raw")
        )

    def _usage(self, usage: Any) -> TokenUsage | None:
        """Input and output, if both were told; a total alone says neither."""
        if not isinstance(usage, Mapping):
            return None
        counts = {
            "input": usage.get("prompt"),
            "output": usage.get("completion"),
            "cached": usage.get("cached"),
        }
        if counts["input"] is None or counts["output"] is None:
            return None
        try:
            return TokenUsage.from_mapping(counts)
        except ValueError as error:
            raise self._bad(str(error)) from None

    def _bad(self, text: str) -> BadProviderOutput:
        return BadProviderOutput(f"{self._who}: {text}", retryable=False)


def _named(settings: PromptfooSettings, target: ResolvedTarget) -> tuple[Path, str]:
    """The file and the function, from any of promptfoo's ways to write them."""
    written, function = settings.file, settings.function
    for prefix in ("python:", "file://"):
        written = written.removeprefix(prefix)
    before, colon, after = written.rpartition(":")
    if colon and before.endswith(".py"):
        written, function = before, after
    path = located(target, written, "file")
    if not path.is_file():
        raise UsageError(f'target "{target.name}": file: there is no {path}')
    return path, function


def _load(path: Path, function: str, target: ResolvedTarget) -> Any:
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:12]
    module = import_file(path, name=f"_muster_promptfoo_{digest}")
    found = getattr(module, function, None)
    if not callable(found):
        near = nearest(function, [name for name in vars(module) if not name.startswith("_")])
        hint = f" (near: {near[0]})" if near else ""
        raise CodeError(f'target "{target.name}": {path} has no function "{function}"{hint}')
    return found


async def _prompt(request: ProviderRequest) -> str:
    """The question; the conversation as JSON where there is more than a question."""
    system = system_text(request)
    if not (system or request.messages or request.input_files or request.images):
        return request.question
    messages = [{"role": "system", "content": system}] if system else []
    messages += [chat_message(message) for message in await chat_messages(request)]
    return json.dumps(messages, ensure_ascii=False)
