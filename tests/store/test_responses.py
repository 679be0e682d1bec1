"""The file of cached answers: its bound, its neighbours, and what happens when it is broken."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from muster.store.responses import ResponseCache


def opened(path: Path, max_bytes: int = 1_000_000) -> ResponseCache:
    cache = ResponseCache(path, max_bytes)
    cache.open()
    assert cache.trouble is None
    return cache


def noise(number: int, size: int = 1000) -> dict[str, str]:
    """What does not get smaller by packing."""
    return {"text": random.Random(number).randbytes(size // 2).hex()}


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def test_kept_between_processes_and_only_for_the_owner(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "r.sqlite"
    cache = opened(path)
    cache.put(key(1), {"text": "ä"})
    cache.close()
    assert os.stat(path).st_mode & 0o077 == 0
    again = opened(path)
    assert again.get(key(1)) == {"text": "ä"}
    assert again.get(key(2)) is None
    again.close()
    assert again.get(key(1)) is None


def test_what_was_used_least_recently_goes_first(tmp_path: Path) -> None:
    cache = opened(tmp_path / "r.sqlite", max_bytes=100_000)
    for number in range(400):
        cache.put(key(number), noise(number))
        assert cache.get(key(0)) is not None, number
    there = [number for number in range(400) if cache.get(key(number)) is not None]
    assert there[0] == 0
    assert there[1:] == list(range(400 - len(there) + 1, 400))
    assert 80 <= len(there) <= 180
    cache.close()


@pytest.mark.parametrize("size", [300, 2_000, 5_000, 20_000])
def test_the_file_is_bounded_whatever_answers_are_like(tmp_path: Path, size: int) -> None:
    path = tmp_path / "r.sqlite"
    cache = opened(path, max_bytes=500_000)
    for number in range(1_500_000 // size):
        cache.put(key(number), noise(number, size))
    cache.close()
    assert 350_000 < path.stat().st_size < 550_000


def test_one_that_is_too_large_is_not_kept_and_evicts_nobody(tmp_path: Path) -> None:
    cache = opened(tmp_path / "r.sqlite", max_bytes=10_000)
    cache.put(key(1), noise(1))
    cache.put(key(2), noise(2, size=30_000))
    assert cache.get(key(1)) is not None
    assert cache.get(key(2)) is None
    cache.close()


def write_some(path: Path, first: int) -> None:
    cache = opened(path, max_bytes=200_000)
    for number in range(first, first + 200):
        cache.put(key(number), noise(number))
        assert cache.get(key(number)) in (noise(number), None)
    assert cache.trouble is None
    cache.close()


def test_several_processes_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    command = [sys.executable, __file__, str(path)]
    workers = [subprocess.Popen([*command, str(first)]) for first in (0, 1000, 2000)]
    assert [worker.wait(60) for worker in workers] == [0, 0, 0]
    cache = opened(path, max_bytes=200_000)
    found = {n: cache.get(key(n)) for first in (0, 1000, 2000) for n in range(first, first + 200)}
    kept = {number: plain for number, plain in found.items() if plain is not None}
    assert all(plain == noise(number) for number, plain in kept.items())
    assert 100 < len(kept) < 600
    cache.close()


def test_a_broken_file_is_no_cache(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    path.write_bytes(b"this is no database" * 100)
    cache = ResponseCache(path)
    cache.open()
    assert cache.trouble is not None
    assert "not a database" in cache.trouble
    cache.put(key(1), {})
    assert cache.get(key(1)) is None


if __name__ == "__main__":
    write_some(Path(sys.argv[1]), int(sys.argv[2]))
