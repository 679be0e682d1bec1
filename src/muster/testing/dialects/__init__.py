"""The languages of the environment's server: what a call says, and how an answer is written.

OpenAI's Chat Completions and Responses, Anthropic's Messages, and `plain`: one JSON object, with
its values where the `http` target under test looks for them. An author whose service speaks
another one writes a `Dialect`, most easily as a subclass of `Plain`.
"""

from __future__ import annotations

from muster.testing.dialects.anthropic import Messages
from muster.testing.dialects.base import MODEL_APIS, Dialect, Shape, event, finish_of
from muster.testing.dialects.openai_chat import Chat
from muster.testing.dialects.openai_responses import Responses
from muster.testing.dialects.plain import Plain

__all__ = ("MODEL_APIS", "Dialect", "Plain", "Shape", "dialect_of", "event", "finish_of")


def dialect_of(path: str, shape: Shape) -> Dialect:
    """The language that is spoken at `path`."""
    path = path.partition("?")[0].rstrip("/")
    if path.endswith("/chat/completions"):
        return Chat()
    if path.endswith("/responses"):
        return Responses()
    if path.endswith("/messages"):
        return Messages()
    return Plain(shape)
