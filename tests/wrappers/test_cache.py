"""What makes two requests the same to the response cache, and what is never kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from muster.capabilities import UNKNOWN
from muster.exchange import OCCASION, Occasion
from muster.provider import (
    ImagePart,
    Limits,
    Message,
    ProviderRequest,
    ProviderResponse,
    RateLimited,
    TokenUsage,
    Tool,
)
from muster.target import ResolvedTarget, Secret
from muster.wrappers.cache import Cached

TARGET = ResolvedTarget(
    name="t",
    provider="openai",
    config={"model": "m", "api_key": Secret("sk-1"), "temperature": 0.5},
    env={"OPENAI_BASE_URL": "http://one", "HOME": "/home/a"},
)
REQUEST = ProviderRequest(question="q", eval_case_id="c", metadata={"suite": "s", "repeat": "0"})
RESPONSE = ProviderResponse(
    "an answer", token_usage=TokenUsage(3, 2, cached=1), cost_usd=0.5, model="m-1",
    finish_reason="stop", duration_ms=12.5,
)  # fmt: skip


class Store(dict[bytes, Mapping[str, Any]]):
    def put(self, key: bytes, plain: Mapping[str, Any]) -> None:
        self[key] = plain


class Asked:
    def __init__(self, answer: ProviderResponse | Exception = RESPONSE) -> None:
        self.answer = answer
        self.count = 0

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        self.count += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def ask_twice(
    first: tuple[ResolvedTarget, ProviderRequest], second: tuple[ResolvedTarget, ProviderRequest]
) -> int:
    """How often the provider is asked."""
    provider, store = Asked(), Store()
    for target, request in (first, second):
        await Cached(provider, target, UNKNOWN, store).invoke(request)
    return provider.count


async def test_the_second_time_nobody_is_asked() -> None:
    provider, store = Asked(), Store()
    cached = Cached(provider, TARGET, UNKNOWN, store)
    first = await cached.invoke(REQUEST)
    second = await cached.invoke(REQUEST)
    assert provider.count == 1
    assert not first.cached
    assert second == replace(RESPONSE, cached=True)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "another"},
        {"workers": 3},
        {"env": {"OPENAI_BASE_URL": "http://one", "HOME": "/home/b"}},
    ],
)
async def test_what_changes_no_answer(change: dict[str, Any]) -> None:
    assert await ask_twice((TARGET, REQUEST), (replace(TARGET, **change), REQUEST)) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"provider": "anthropic"},
        {"config": {**TARGET.config, "model": "m2"}},
        {"config": {**TARGET.config, "temperature": 0.6}},
        {"config": {**TARGET.config, "api_key": Secret("sk-2")}},
        {"config": {"model": "m", "temperature": 0.5}},
        {"env": {"OPENAI_BASE_URL": "http://two"}},
        {"base_dir": Path("/elsewhere")},
    ],
)
async def test_what_of_a_target_changes_the_answer(change: dict[str, Any]) -> None:
    assert await ask_twice((TARGET, REQUEST), (replace(TARGET, **change), REQUEST)) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"question": "r"},
        {"system_prompt": "be brief"},
        {"guidelines": "be kind"},
        {"messages": (Message("user", "before"),)},
        {"images": (ImagePart("data:image/png;base64,aaaa"),)},
        {"tools": (Tool("look"),)},
        {"limits": Limits(max_output_tokens=5)},
        {"response_schema": {"type": "object"}},
        {"metadata": {"suite": "s", "repeat": "1"}},
        {"eval_case_id": "d"},
        {"attempt": 1},
        {"cwd": Path("/somewhere")},
    ],
)
async def test_what_of_a_request_changes_the_answer(change: dict[str, Any]) -> None:
    assert await ask_twice((TARGET, REQUEST), (TARGET, replace(REQUEST, **change))) == 2


async def test_long_images_are_told_apart() -> None:
    one, two = ("data:image/png;base64," + "a" * 5000 + end for end in "xy")
    first, second = (replace(REQUEST, images=(ImagePart(source),)) for source in (one, two))
    assert await ask_twice((TARGET, first), (TARGET, second)) == 2


async def test_the_content_of_files_counts(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    request = replace(REQUEST, input_files=(path,))
    provider, store = Asked(), Store()
    cached = Cached(provider, TARGET, UNKNOWN, store)
    for text in ("one", "one", "two"):
        path.write_text(text)
        await cached.invoke(request)
    assert provider.count == 2
    path.unlink()
    await cached.invoke(request)
    await cached.invoke(request)
    assert provider.count == 4
    assert len(store) == 2


async def test_asked_twice_within_a_case_are_two_answers() -> None:
    """Two votes of one judge are not one vote told twice."""
    provider, store = Asked(), Store()
    cached = Cached(provider, TARGET, UNKNOWN, store)
    for expected in (2, 2):
        occasion = Occasion(
            suite="s", eval_path=None, test_id="c", prompt=None, target="t", repeat=0
        )
        OCCASION.set(occasion)
        for _ in range(2):
            await cached.invoke(REQUEST)
        assert provider.count == expected
    changes = [{name: "x"} for name in ("test_id", "prompt", "eval_path", "target")]
    for change in ({"repeat": 1}, *changes):
        asked = provider.count
        OCCASION.set(replace(occasion, seen={}, **change))  # type: ignore[arg-type]
        await cached.invoke(REQUEST)
        assert provider.count == asked + 1
    OCCASION.set(None)


async def test_errors_fallbacks_and_called_tools_are_not_kept() -> None:
    async def call_tool(name: str, arguments: Mapping[str, Any]) -> str:
        return ""

    store = Store()
    failing = Cached(Asked(RateLimited("busy")), TARGET, UNKNOWN, store)
    with pytest.raises(RateLimited):
        await failing.invoke(REQUEST)
    spare = Asked(replace(RESPONSE, target_used="spare"))
    await Cached(spare, TARGET, UNKNOWN, store).invoke(REQUEST)
    with_tools = replace(REQUEST, tools=(Tool("look"),), call_tool=call_tool)
    await Cached(Asked(), TARGET, UNKNOWN, store).invoke(with_tools)
    assert store == {}


async def test_what_is_damaged_is_asked_for_again() -> None:
    provider, store = Asked(), Store()
    cached = Cached(provider, TARGET, UNKNOWN, store)
    await cached.invoke(REQUEST)
    for key in store:
        store[key] = {"output": [{"no": "role"}]}
    assert not (await cached.invoke(REQUEST)).cached


async def test_no_secret_is_kept_or_part_of_a_key() -> None:
    store = Store()
    await Cached(Asked(), TARGET, UNKNOWN, store).invoke(REQUEST)
    assert "sk-1" not in str(store)
