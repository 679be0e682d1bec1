"""A target of Muster's as a Python provider of promptfoo's.

promptfoo is pointed at a file of two lines, and the target stands in its configuration:

    from muster.adapters.promptfoo_provider import call_api
    __all__ = ["call_api"]

    providers:
      - id: file://muster_provider.py
        config: {target: fast}

promptfoo calls from threads and event loops of its own. The targets live in one loop on a thread
beside these, so that connections and limits are shared by all calls.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from muster.errors import MusterError
from muster.provider import (
    ImagePart,
    Message,
    Part,
    ProviderError,
    ProviderRequest,
    ProviderResponse,
    TextPart,
)
from muster.targets import Target, open_target

__all__ = ("call_api",)

_KNOWN = frozenset({"target", "targets_file", "basePath"})
CLOSE_SECONDS = 10.0


def call_api(
    prompt: str, options: Mapping[str, Any], context: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What promptfoo calls. `options["config"]` names the `target`, and perhaps a `targets_file`;
    without it the nearest `targets.yaml` counts, from promptfoo's configuration up."""
    config = dict(options.get("config") or {})
    try:
        unknown = sorted(config.keys() - _KNOWN)
        if unknown:
            raise MusterError(f'unknown config "{unknown[0]}"; known: target, targets_file')
        name = config.get("target")
        if not isinstance(name, str) or not name:
            raise MusterError("config needs `target`, the name of a target of targets.yaml")
        request = _request(prompt, context or {})
        folder, file = config.get("basePath"), config.get("targets_file")
        key = (name, str(Path(folder or ".").resolve()), file)
        return _answer(_desk.ask(key, request))
    except ProviderError as error:
        found: dict[str, Any] = {"error": f"{error.kind}: {error.message}"}
        if error.cost_usd is not None:
            found["cost"] = error.cost_usd
        return found
    except MusterError as error:
        return {"error": str(error)}


_Key = tuple[str, str, str | None]


class _Desk:
    """The targets that were asked, in an event loop on a thread of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._targets: dict[_Key, Target] = {}

    def ask(self, key: _Key, request: ProviderRequest) -> ProviderResponse:
        """The answer; whoever asks waits for it."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                run = self._loop.run_forever
                threading.Thread(target=run, name="muster-promptfoo", daemon=True).start()
                atexit.register(self.close)
        return asyncio.run_coroutine_threadsafe(self._invoke(key, request), self._loop).result()

    def close(self) -> None:
        """Close the targets, and end the thread."""
        loop, self._loop = self._loop, None
        if loop is None:
            return
        closing = asyncio.run_coroutine_threadsafe(self._aclose(), loop)
        try:
            closing.result(CLOSE_SECONDS)
        except (MusterError, TimeoutError):
            pass  # the process ends, and what is left with it
        finally:
            loop.call_soon_threadsafe(loop.stop)

    async def _invoke(self, key: _Key, request: ProviderRequest) -> ProviderResponse:
        target = self._targets.get(key)
        if target is None:
            name, folder, file = key
            path = Path(folder, file) if file is not None else None
            target = self._targets[key] = open_target(name, targets_file=path, folder=folder)
        return await target.invoke(request)

    async def _aclose(self) -> None:
        targets, self._targets = list(self._targets.values()), {}
        for target in targets:
            await target.aclose()


_desk = _Desk()


def _request(prompt: str, context: Mapping[str, Any]) -> ProviderRequest:
    """The prompt as a request; JSON with a list of messages is a conversation."""
    messages = _conversation(prompt)
    case = (context.get("test") or {}).get("description")
    case = case if isinstance(case, str) else None
    if messages is None:
        return ProviderRequest(question=prompt, eval_case_id=case)
    systems = [message.text for message in messages if message.role in ("system", "developer")]
    rest = [message for message in messages if message.role not in ("system", "developer")]
    question: str = ""
    images: tuple[ImagePart, ...] = ()
    if rest and rest[-1].role == "user":
        last = rest.pop()
        parts = last.content if isinstance(last.content, tuple) else ()
        question, images = last.text, tuple(p for p in parts if isinstance(p, ImagePart))
    return ProviderRequest(
        question=question,
        system_prompt="\n\n".join(systems) or None,
        messages=tuple(rest),
        images=images,
        eval_case_id=case,
    )


def _conversation(prompt: str) -> list[Message] | None:
    if not prompt.lstrip().startswith("["):
        return None
    try:
        rows = json.loads(prompt)
    except ValueError:
        return None
    if not rows or not all(isinstance(row, dict) and "role" in row for row in rows):
        return None
    try:
        return [Message(str(row["role"]), _content(row.get("content"))) for row in rows]
    except (KeyError, TypeError, AttributeError):
        return None  # it only looked like messages


def _content(content: Any) -> str | tuple[Part, ...]:
    """A message's content, in the form of OpenAI's parts too."""
    if not isinstance(content, list):
        return "" if content is None else str(content)
    parts: list[Part] = []
    for part in content:
        if part["type"] == "image_url":
            parts.append(ImagePart(part["image_url"]["url"]))
        else:
            parts.append(TextPart(part["text"]))
    return tuple(parts)


def _answer(response: ProviderResponse) -> dict[str, Any]:
    """A response as promptfoo reads it; what is not known is left out."""
    found: dict[str, Any] = {"output": response.text}
    usage = response.token_usage
    if usage is not None:
        counts = {"total": usage.total, "prompt": usage.input, "completion": usage.output}
        if usage.cached is not None:
            counts["cached"] = usage.cached
        found["tokenUsage"] = counts
    if response.cost_usd is not None:
        found["cost"] = response.cost_usd
    if response.finish_reason is not None:
        found["finishReason"] = response.finish_reason
    calls = [call.to_dict() for call in response.tool_calls]
    metadata = {"model": response.model, "tool_calls": calls}
    found["metadata"] = {name: value for name, value in metadata.items() if value}
    return found
