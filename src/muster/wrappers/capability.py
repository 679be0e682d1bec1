"""What a target does not have is refused before it is asked."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterator

from muster.capabilities import Capabilities
from muster.provider import (
    BadRequest,
    FilePart,
    ImagePart,
    Provider,
    ProviderRequest,
    ProviderResponse,
)
from muster.wrappers.base import Wrapper

__all__ = ("CapabilityCheck", "refusal")

_ADVICE = {
    "tools": "offer it none, or use a target that calls tools",
    "history": "ask it single questions, or use a target that is shown the conversation",
    "files": "put what they hold into the question, or use a target that takes files",
    "images": "leave them out, or use a target that sees images",
    "structured_output": "describe the form in the question, or use a target that takes a schema",
}


class CapabilityCheck(Wrapper):
    """Raises `BadRequest` for what the target declares not to have; what it does not know of itself
    is tried. Outermost, so that nothing is waited for and nothing tried again."""

    __slots__ = ("_capabilities", "_target")

    def __init__(self, provider: Provider, capabilities: Capabilities, target: str) -> None:
        super().__init__(provider)
        self._capabilities = capabilities
        self._target = target

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        """Answer, or say what the target does not have."""
        why = refusal(self._capabilities, request, self._target)
        if why is not None:
            raise BadRequest(why)
        return await self.provider.invoke(request)


def refusal(capabilities: Capabilities, request: ProviderRequest, target: str) -> str | None:
    """Why a target called `target` cannot be asked `request`; `None` if it can."""
    for name, asked in _asked(request, capabilities):
        if getattr(capabilities, name) is False:
            return (
                f'target "{target}" does not support {name}, and the request has {asked}: '
                f"{_ADVICE[name]}; if it does support them, say `capabilities: "
                f"{{{name}: true}}` in its entry"
            )
    return _too_long(capabilities.max_context_tokens, request, target)


def _too_long(most: int | None, request: ProviderRequest, target: str) -> str | None:
    """Why `request` cannot fit into `most` tokens; `None` if it may. No tokenizer in use makes one
    token of two words, so a request that is refused would never have fitted."""
    if most is None:
        return None
    texts = (
        request.system_prompt or "",
        request.guidelines or "",
        *(message.text for message in request.messages),
        request.question,
    )
    if sum(map(len, texts)) <= most:  # the usual case: not that many words are in it
        return None
    words = sum(len(text.split()) for text in texts)
    if words <= most:
        return None
    return (
        f'target "{target}" takes {most:,} tokens (max_context_tokens), and the request has '
        f"{words:,} words, which are more tokens than that: shorten it, or use a target with a "
        "larger context; if it does take more, say `capabilities: {max_context_tokens: …}` in "
        "its entry"
    )


def _asked(request: ProviderRequest, capabilities: Capabilities) -> Iterator[tuple[str, str]]:
    """What the request needs, each with words for it."""
    if request.tools:
        yield "tools", _counted(len(request.tools), "tool")
    if request.messages:
        yield "history", _counted(len(request.messages), "earlier message")
    if request.response_schema is not None:
        yield "structured_output", "a response_schema"
    names = [path.name for path in request.input_files]
    images = len(request.images)
    for message in request.messages:
        for part in message.content if isinstance(message.content, tuple) else ():
            if isinstance(part, FilePart):
                names.append(part.path.name)
            images += isinstance(part, ImagePart)
    pictures = [name for name in names if _is_image(name)]
    if images or pictures:
        shown = f" ({', '.join(pictures[:3])})" if pictures else ""
        yield "images", _counted(images + len(pictures), "image") + shown
    # Who sees images is shown a file that is one as such.
    files = [name for name in names if not (capabilities.images and _is_image(name))]
    if files:
        yield "files", f"{_counted(len(files), 'file')} ({', '.join(files[:3])})"


def _is_image(name: str) -> bool:
    kind = mimetypes.guess_type(name)[0] or ""
    return kind.startswith("image/") and kind != "image/svg+xml"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" + ("s" if number > 1 else "")
