"""Which targets are asked for one turn at a time, and what is told of a name that is not served."""

from __future__ import annotations

from pathlib import Path

import pytest
from serving_parts import targets_of

from muster.errors import MusterError
from muster.provider import Message, ProviderRequest
from muster.providers.chat import ChatReply, ChatTurn

TEXT = """
  - {name: wrapped, provider: given-0, workers: 2, timeout_seconds: 5, max_retries: 3}
  - {name: with-chat, provider: given-0, fallback_targets: [model]}
  - {name: with-function, provider: given-0, fallback_targets: [model, plain]}
"""


class Model:
    async def complete(self, turn: ChatTurn) -> ChatReply:
        return ChatReply(message=Message("assistant", "hi"))


async def plain(request: ProviderRequest) -> str:
    return "hi"


def test_one_turn_is_for_chat_models(tmp_path: Path) -> None:
    given = {"model": Model(), "plain": plain}
    names = ["model", "plain", "wrapped", "with-chat", "with-function"]
    _, targets = targets_of(tmp_path, given, TEXT, names=names)
    assert {each.name: each.one_turn for each in targets} == {
        "model": True,
        "plain": False,
        "wrapped": True,
        "with-chat": True,
        "with-function": False,
    }
    assert targets.find("model") is not None
    assert targets.find("modle") is None
    assert targets.unknown("modle").startswith('no target "modle" is served (near: model; served: ')


def test_a_target_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MusterError, match="nobody"):
        targets_of(tmp_path, {"plain": plain}, names=["nobody"])
