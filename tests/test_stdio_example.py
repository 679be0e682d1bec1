"""examples/stdio: the same child in four languages, asked in all the ways that there are."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from muster.config.targets import load_catalog
from muster.provider import (
    Limits,
    ProviderFailed,
    ProviderRequest,
    QuotaExhausted,
    RateLimited,
    TokenUsage,
    Tool,
)
from muster.providers import stdio_child
from muster.providers.stdio import StdioProvider
from muster.target import ResolvedTarget

EXAMPLE = Path(__file__).parents[1] / "examples" / "stdio"
NEEDS = {"python": ("python3",), "node": ("node",), "sh": ("sh", "jq"), "go": ("go",)}
PATH = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))


@pytest.fixture(scope="module", params=NEEDS)
def language(request: pytest.FixtureRequest) -> str:
    for program in NEEDS[request.param]:
        if shutil.which(program, path=PATH) is None:
            pytest.skip(f"{program} is not installed")
    return str(request.param)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, language: str) -> Path:
    """The example, copied, and built where it has to be."""
    folder = tmp_path_factory.mktemp("example") / "stdio"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / ".git").mkdir()
    if language == "go":
        cache = tmp_path_factory.mktemp("cache")
        subprocess.run(
            ["go", "build", "-o", "agent", "."],
            cwd=folder / "go",
            env={
                **os.environ,
                "GOCACHE": str(cache),
                "GOFLAGS": "-buildvcs=false",
                "GOPROXY": "off",
            },
            check=True,
            timeout=120,
        )
    return folder


@pytest.fixture
async def provider(project: Path, language: str) -> AsyncIterator[StdioProvider]:
    catalog = load_catalog(project, env={**os.environ, "PATH": PATH})
    made = StdioProvider(catalog.resolve(language))
    yield made
    await made.aclose()


def test_the_suite_passes(project: Path, language: str) -> None:
    done = subprocess.run(
        ["muster", "eval", "suite.eval.yaml", "--target", language, "--output", "out"],
        cwd=project,
        env={**os.environ, "PATH": PATH},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in (project / "out" / "results.jsonl").open()]
    assert len(rows) == 5
    assert {row["execution_status"] for row in rows} == {"ok"}
    assert {row["test_id"]: row["token_usage"] for row in rows if row["token_usage"]} == {
        "loud": {"input": 2, "output": 2},
        "unicode": {"input": 5, "output": 5},
        "several lines": {"input": 2, "output": 1},
        "no tools here": {"input": 2, "output": 7},
    }


async def test_chunks_join_to_the_answer(provider: StdioProvider) -> None:
    chunks: list[str] = []
    request = ProviderRequest(question="the quick brown fox", on_chunk=chunks.append)
    response = await provider.invoke(request)
    assert chunks == ["THE", " QUICK", " BROWN", " FOX!"]
    assert response.text == "".join(chunks)
    assert response.token_usage == TokenUsage(4, 4)
    assert provider.capabilities.streaming is True
    assert provider.capabilities.tools is True


async def test_a_tool_round_trip(provider: StdioProvider) -> None:
    asked: list[tuple[str, object]] = []

    async def call_tool(name: str, arguments: object) -> str:
        asked.append((name, arguments))
        return 'sunny, "22 °C"'

    tools = (Tool("get_weather"),)
    request = ProviderRequest(question="weather Århus", tools=tools, call_tool=call_tool)
    response = await provider.invoke(request)
    assert response.text == 'Århus: sunny, "22 °C"'
    assert asked == [("get_weather", {"city": "Århus"})]
    assert [call.tool for call in response.tool_calls] == ["get_weather"]


async def test_an_error_has_its_kind(provider: StdioProvider) -> None:
    with pytest.raises(RateLimited, match="the child reports: too busy") as caught:
        await provider.invoke(ProviderRequest(question="busy"))
    assert caught.value.retry_after == 0.01
    assert caught.value.retryable


async def test_long_and_strange_questions(provider: StdioProvider) -> None:
    for question in ("", "x" * 300_000, "word " * 60_000, "a\tb\\n \"c\" 'd' $HOME `e` %s\u2028"):
        request = ProviderRequest(question=question, limits=Limits(max_seconds=10))
        response = await provider.invoke(request)
        assert response.text.lower() == f"{question}!".lower()


async def test_many_at_a_time_do_not_mix(provider: StdioProvider) -> None:
    questions = [f"number {n}" for n in range(12)]
    asked = (provider.invoke(ProviderRequest(question=question)) for question in questions)
    responses = await asyncio.gather(*asked)
    assert [r.text for r in responses] == [f"NUMBER {n}!" for n in range(12)]


async def test_cancellation(
    provider: StdioProvider, language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stdio_child, "CANCEL_SECONDS", 0.1)
    monkeypatch.setattr(stdio_child, "FAREWELL_SECONDS", 0.1)
    await provider.ready()
    loop = asyncio.get_running_loop()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await provider.invoke(ProviderRequest(question="wait 30"))
    started = loop.time()
    limits = Limits(max_seconds=10)
    response = await provider.invoke(ProviderRequest(question="next", limits=limits))
    assert response.text == "NEXT!"
    (pool,) = provider._pools.values()
    if language != "sh":  # it has heard it, and answered
        (child,) = pool._children
        while child._cancelled:
            await asyncio.sleep(0.01)
    assert loop.time() - started < 10


HELPER = f"""
import sys, time
sys.path.insert(0, {str(EXAMPLE / "python")!r})
from muster_stdio import ProviderError, serve

def answer(call):
    print("this is no message")
    if call.question == "fail":
        raise ProviderError("spent", "quota_exhausted", cost_usd=0.5)
    if call.question == "break":
        return [][1]
    if call.question == "wait":
        while not call.cancelled:
            time.sleep(0.005)
        open("cancelled", "w").close()
    call.chunk("a")
    return {{"text": "a" + call.tool_sync("t", {{"n": 1}}), "model": call.settings["model"]}}

serve(answer, capabilities={{"tools": True}})
"""


async def test_the_helper_with_an_ordinary_function(tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text(HELPER)
    config = {"command": [sys.executable, "child.py"], "settings": {"model": "m"}}
    target = ResolvedTarget(name="a", provider="stdio", config=config, base_dir=tmp_path)
    provider = StdioProvider(target)

    async def call_tool(name: str, arguments: object) -> str:
        return f"{name} {arguments}"

    chunks: list[str] = []
    request = ProviderRequest(
        question="x", tools=(Tool("t"),), call_tool=call_tool, on_chunk=chunks.append
    )
    try:
        responses = await asyncio.gather(*(provider.invoke(request) for _ in range(8)))
        assert {(r.text, r.model) for r in responses} == {("at {'n': 1}", "m")}
        assert chunks == ["a"] * 8
        with pytest.raises(QuotaExhausted, match="spent") as caught:
            await provider.invoke(ProviderRequest(question="fail"))
        assert caught.value.cost_usd == 0.5
        with pytest.raises(ProviderFailed, match="reports: IndexError: list index out of range"):
            await provider.invoke(ProviderRequest(question="break"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await provider.invoke(ProviderRequest(question="wait"))
        while not (tmp_path / "cancelled").exists():
            await asyncio.sleep(0.005)
    finally:
        await provider.aclose()


def test_the_readme_names_every_language() -> None:
    readme = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    assert [name for name in NEEDS if f"--target {name}" not in readme] == []
