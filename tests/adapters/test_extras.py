"""Objects of the user's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.adapters.extras import load_own
from muster.importing import CodeError
from muster.target import ResolvedTarget

SOURCE = """
made = []
thing = object()

def make():
    made.append(object())
    return made[-1]

def fails():
    raise KeyError("BASE_URL")

def takes(one):
    return one
"""


@pytest.fixture
def target(tmp_path: Path) -> ResolvedTarget:
    (tmp_path / "things_of_mine.py").write_text(SOURCE)
    return ResolvedTarget(name="t", provider="langchain", base_dir=tmp_path)


def own(name: str, target: ResolvedTarget) -> object:
    return load_own(f"things_of_mine:{name}", "runnable", target=target)


def test_an_object_is_the_same_each_time(target: ResolvedTarget) -> None:
    assert own("thing", target) is own("thing", target)


def test_a_function_makes_one_for_each_provider(target: ResolvedTarget) -> None:
    assert own("make", target) is not own("make", target)
    assert len(own("made", target)) == 2  # type: ignore[arg-type]


def test_a_function_with_arguments_is_an_object(target: ResolvedTarget) -> None:
    assert callable(own("takes", target))


def test_a_function_that_fails_is_told_with_its_line(target: ResolvedTarget) -> None:
    with pytest.raises(CodeError, match=r"makes no runnable: .*mine\.py:10: KeyError: 'BASE_URL'"):
        own("fails", target)
