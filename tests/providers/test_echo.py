"""The provider that says the question again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from muster.provider import ProviderRequest
from muster.providers.create import create_provider
from muster.target import ResolvedTarget

ECHO = create_provider(ResolvedTarget(name="echo", provider="echo"))


@given(st.text())
async def test_says_the_question_in_words(question: str) -> None:
    heard: list[str] = []
    response = await ECHO.invoke(ProviderRequest(question=question, on_chunk=heard.append))
    assert response.text == question == "".join(heard)
    assert response.token_usage is None
    assert response.finish_reason == "stop"


async def test_streams_words() -> None:
    heard: list[str] = []
    await ECHO.invoke(ProviderRequest(question="one two\nthree", on_chunk=heard.append))
    assert heard == ["one ", "two\n", "three"]


def test_has_no_settings() -> None:
    with pytest.raises(ValidationError, match="shout"):
        create_provider(ResolvedTarget(name="e", provider="echo", config={"shout": True}))
