"""`muster.register` and `muster.register_grader`: as calls and as decorators."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import muster
from muster.errors import UsageError
from muster.evals.graders import graders
from muster.provider import ProviderRequest
from muster.providers import providers

SUM = {"id": "sum", "input": "1+1", "assertions": [{"type": "equals", "value": "2"}]}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    for name in ("mine", "echo"):
        providers.unregister(name)
    for name in ("mine", "contains"):
        graders.unregister(name)


def calculate(question: str) -> str:
    return str(eval(question))


def test_register() -> None:
    def factory(target: Any) -> Any:
        return calculate

    assert muster.register("mine", factory) is factory
    assert muster.evaluate([SUM], "mine").passed
    with pytest.raises(UsageError, match='provider "mine" is registered already; override=True'):
        muster.register("mine", lambda target: calculate)
    muster.register("mine", factory)  # the same again
    muster.register("mine", lambda target: lambda request: "3", override=True)
    assert not muster.evaluate([SUM], "mine").passed


def test_register_as_a_decorator() -> None:
    @muster.register("mine")
    class Mine:
        def __init__(self, target: Any) -> None:
            assert (target.name, target.provider) == ("mine", "mine")

        async def invoke(self, request: ProviderRequest) -> str:
            return calculate(request.question)

    assert isinstance(Mine, type)
    assert muster.evaluate([SUM], "mine").passed


def test_built_in_names_are_overridden_only_explicitly() -> None:
    with pytest.raises(UsageError, match='"echo" is a built-in provider; register it with overr'):
        muster.register("echo", lambda target: calculate)
    assert not muster.evaluate([SUM], "echo").passed
    muster.register("echo", override=True)(lambda target: calculate)
    assert muster.evaluate([SUM], "echo").passed


def test_register_grader() -> None:
    @muster.register_grader("mine")
    def factory(spec: Any) -> Any:
        return lambda context: context.output == str(spec.config["want"])

    case = {"id": "a", "input": "1+1", "assertions": [{"type": "mine", "want": 2}]}
    assert muster.evaluate([case], calculate).passed
    with pytest.raises(UsageError, match='"contains" is a built-in grader'):
        muster.register_grader("contains", factory)
    assert muster.register_grader("contains", factory, override=True) is factory
    case["assertions"] = [{"type": "contains", "want": 2}]
    assert muster.evaluate([case], calculate).passed
