"""Vectors of texts: the OpenAI API, the mock, a project's own, through a target's wrappers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import muster.providers
from llmock import llmock
from muster.capabilities import Capabilities
from muster.config.targets import load_catalog
from muster.embeddings import Embedded, Embedder, cosine_similarity, embed_function
from muster.errors import UsageError
from muster.memory.base import open_memory
from muster.memory.definition import Memory
from muster.provider import (
    AuthenticationFailed,
    BadProviderOutput,
    BadRequest,
    ProviderFailed,
    TokenUsage,
)
from muster.providers.openai_embeddings import MAX_TEXTS
from muster.registry import Registry
from muster.targets import TargetPool
from muster.teams.definition import Agent
from muster.teams.remembering import Memories
from raw_server import RawServer, reply

Open = Callable[..., TargetPool]


@pytest.fixture
def pool(tmp_path: Path) -> Open:
    def open_pool(targets: str, registry: Registry[Any] = muster.providers.providers) -> TargetPool:
        (tmp_path / "targets.yaml").write_text(targets)
        return TargetPool(load_catalog(tmp_path, env={}), registry)

    return open_pool


def openai(url: str, more: str = "") -> str:
    return f"""
targets:
  - name: small
    provider: openai
    base_url: {url}/v1
    api_key: sk-key-1234
    model: text-embedding-3-small
    retry_initial_delay_ms: 0
    {more}
"""


def answer(*vectors: Sequence[float], **more: Any) -> bytes:
    rows = [{"index": index, "embedding": list(row)} for index, row in enumerate(vectors)]
    usage = {"prompt_tokens": 5, "total_tokens": 5}
    return reply({"data": rows, "usage": usage, "model": "text-embedding-3-small", **more})


async def test_what_is_asked_and_answered(pool: Open) -> None:
    rows = [{"index": 1, "embedding": [0, 1]}, {"index": 0, "embedding": [1, 0.5]}]
    async with RawServer(answer(data=rows)) as server:
        opened = pool(openai(server.url, "dimensions: 2"))
        made = await opened.embedder("small").embed(["a", "b"])
        await opened.aclose()
    request = server.requests[0]
    assert request.path == "/v1/embeddings"
    assert request.headers["authorization"] == "Bearer sk-key-1234"
    assert request.json() == {
        "model": "text-embedding-3-small",
        "input": ["a", "b"],
        "dimensions": 2,
    }
    assert made.vectors == ((1.0, 0.5), (0.0, 1.0))
    assert made.token_usage == TokenUsage(5)
    assert made.cost_usd == pytest.approx(5 * 0.02e-6)
    assert made.model == "text-embedding-3-small"


async def test_many_texts_are_several_calls(pool: Open) -> None:
    async def by_size(request: Any, writer: Any) -> None:
        texts = request.json()["input"]
        writer.write(answer(*([float(text)] for text in texts)))

    async with RawServer(by_size) as server:
        opened = pool(openai(server.url))
        made = await opened.embedder("small").embed([str(n) for n in range(MAX_TEXTS + 3)])
        await opened.aclose()
    assert [len(request.json()["input"]) for request in server.requests] == [MAX_TEXTS, 3]
    assert made.vectors == tuple((float(n),) for n in range(MAX_TEXTS + 3))
    assert made.token_usage == TokenUsage(10)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (answer([1.0]), "1 vectors for 2 texts"),
        (answer([1.0], [1.0, 2.0]), "not of one length"),
        (answer([1.0], []), "a vector without numbers"),
        (reply({"data": [{"index": 0, "embedding": [1]}] * 2}), "which vector belongs"),
        (reply("<html>"), "HTML page"),
        (reply({"data": "?"}), "not of the expected shape"),
    ],
)
async def test_broken_answers(pool: Open, body: bytes, told: str) -> None:
    async with RawServer(body) as server:
        opened = pool(openai(server.url, "max_retries: 0"))
        with pytest.raises(BadProviderOutput, match=told):
            await opened.embedder("small").embed(["a", "b"])
        await opened.aclose()


async def test_the_wrappers_of_the_target_stand_around_it(pool: Open) -> None:
    busy = reply({"error": {"message": "slow down"}}, status=429)
    async with RawServer([busy, answer([1.0])]) as server:
        opened = pool(openai(server.url))
        made = await opened.embedder("small").embed(["a"])
        await opened.aclose()
    assert made.vectors == ((1.0,),)
    assert len(server.requests) == 2
    async with RawServer(reply({"error": {"message": "no"}}, status=401)) as server:
        opened = pool(openai(server.url))
        with pytest.raises(AuthenticationFailed):
            await opened.embedder("small").embed(["a"])
        await opened.aclose()
    assert len(server.requests) == 1


async def test_no_text_and_empty_texts(pool: Open) -> None:
    opened = pool(openai("http://127.0.0.1:9"))
    embedder = opened.embedder("small")
    assert isinstance(embedder, Embedder)
    assert await embedder.embed([]) == Embedded(vectors=())
    with pytest.raises(BadRequest, match="text 2 of 2 is empty"):
        await embedder.embed(["a", " "])
    await opened.aclose()


@pytest.mark.node
async def test_a_server_that_others_wrote(pool: Open) -> None:
    numbers = [0.25, -0.5, 0.125]
    fixture = {"match": {"inputText": "a"}, "response": {"embedding": numbers}}
    with llmock([fixture]) as url:
        opened = pool(openai(url))
        made = await opened.embedder("small").embed(["a cat", "a dog"])
        await opened.aclose()
    assert made.vectors == (tuple(numbers), tuple(numbers))


MOCK = "targets:\n  - {name: m, provider: mock, estimate_usage: true, dimensions: 32}\n"


async def test_the_mock_makes_vectors_of_words(pool: Open) -> None:
    opened = pool(MOCK)
    made = await opened.embedder("m").embed(
        ["the black cat sleeps", "the black cat eats", "Quarterly revenue grew", "", "…"]
    )
    again = await opened.embedder("m").embed(["the black cat sleeps"])
    await opened.aclose()
    one, other, far, *odd = made.vectors
    assert again.vectors == (one,)
    assert len(one) == 32
    assert all(math.isclose(math.hypot(*vector), 1) for vector in made.vectors)
    assert odd[0] != odd[1]
    assert cosine_similarity(one, other) > 0.5 > abs(cosine_similarity(one, far))
    assert made.token_usage == TokenUsage(5 + 5 + 6 + 0 + 1)


async def test_a_providers_own(pool: Open) -> None:
    class Own:
        def __init__(self, target: Any) -> None:
            self.does = target.config["does"]

        async def invoke(self, request: Any) -> str:
            return "?"

        async def embed(self, texts: Sequence[str]) -> Any:
            match self.does:
                case "lists":
                    return [[1, 2] for _ in texts]
                case "few":
                    return []
                case "nan":
                    return [[math.nan] for _ in texts]
            raise KeyError("broken")

    registry: Registry[Any] = muster.providers.providers.for_project([])
    registry._project["own"] = (Own, "here")
    names = ("lists", "few", "nan", "raises")
    rows = [f"  - {{name: {name}, provider: own, does: {name}, max_retries: 0}}" for name in names]
    opened = pool("\n".join(["targets:", *rows]), registry)
    assert (await opened.embedder("lists").embed(["a", "b"])).vectors == ((1.0, 2.0), (1.0, 2.0))
    with pytest.raises(BadProviderOutput, match="few: expected 1 vectors of one length, found 0"):
        await opened.embedder("few").embed(["a"])
    with pytest.raises(BadProviderOutput, match="no finite number"):
        await opened.embedder("nan").embed(["a"])
    with pytest.raises(ProviderFailed, match=r"raises: .*: KeyError"):
        await opened.embedder("raises").embed(["a"])
    await opened.aclose()


def test_targets_that_make_none(pool: Open) -> None:
    opened = pool(
        "targets:\n  - {name: e, provider: echo}\n"
        "  - {name: m, provider: mock, capabilities: {embeddings: false}}\n"
    )
    for name in ("e", "m"):
        with pytest.raises(UsageError, match=f'target "{name}" .* makes no vectors of texts'):
            opened.embedder(name)


async def test_a_memory_finds_what_is_near(pool: Open, tmp_path: Path) -> None:
    opened = pool(MOCK)
    memory = open_memory(
        Memory(backend="vector-store", embed="m"),
        path=tmp_path / "memory.db",
        embed=embed_function(opened.embedder("m")),
    )
    for text in ("the cat is black", "revenue grew in March", "dogs bark at night"):
        await memory.remember("a", text)
    assert await memory.recall("a", "how black is the cat", 1) == ["the cat is black"]
    await memory.aclose()
    await opened.aclose()


async def test_a_manifest_s_memory_names_a_target(pool: Open, tmp_path: Path) -> None:
    opened = pool(MOCK)
    memories = Memories(tmp_path, opened.embedder)
    memory = memories.of(Agent(name="a"), Memory(backend="vector-store", embed="m"))
    await memory.remember("a", "the cat is black")
    assert await memory.recall("a", "a black cat?", 5) == ["the cat is black"]
    with pytest.raises(UsageError, match='target "nobody" not found'):
        memories.of(Agent(name="a"), Memory(backend="vector-store", embed="nobody"))
    await memories.aclose()
    await opened.aclose()


def test_cosine_similarity() -> None:
    assert cosine_similarity((1, 0), (2, 0)) == 1
    assert cosine_similarity((1, 0), (0, 3)) == 0
    assert cosine_similarity((1, 0), (-1, 0)) == -1
    with pytest.raises(ValueError, match="vectors of 1 and 2 numbers"):
        cosine_similarity((1,), (1, 2))
    with pytest.raises(ValueError, match="without a direction"):
        cosine_similarity((0, 0), (1, 2))


def test_capabilities_know_of_it(pool: Open) -> None:
    assert pool(MOCK).open("m").capabilities.embeddings is True
    assert Capabilities().embeddings is None
