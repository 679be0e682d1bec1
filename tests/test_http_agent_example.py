"""examples/http-agent: a custom provider and a declared one against a real HTTP server."""

from __future__ import annotations

import asyncio
import json
import os
import runpy
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from muster.provider import ProviderFailed, ProviderRequest, TokenUsage
from muster.providers import providers
from muster.providers.create import create_provider
from muster.target import ResolvedTarget

EXAMPLE = Path(__file__).parent.parent / "examples" / "http-agent"
KEY = "demo-agent-key"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    handler = runpy.run_path(str(EXAMPLE / "server.py"))["Agent"]
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The example, copied: nothing is written into the repository."""
    shutil.copytree(EXAMPLE, tmp_path / "example")
    (tmp_path / "example" / ".git").mkdir()
    return tmp_path / "example"


def test_both_targets_pass_the_suite(server: str, project: Path) -> None:
    arguments = "eval suite.eval.yaml --target my_http_agent --target declared --output out"
    done = subprocess.run(
        [sys.executable, "-m", "muster", *arguments.split()],
        cwd=project,
        env={**os.environ, "AGENT_URL": server},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in (project / "out" / "results.jsonl").open()]
    assert {(row["target"], row["test_id"]) for row in rows} == {
        (target, test)
        for target in ("my_http_agent", "declared")
        for test in ("sum", "product", "difference")
    }
    for row in rows:
        assert row["execution_status"] == "ok"
        assert row["token_usage"] == {"input": 5, "output": 1}
        assert row["cost_usd"] == pytest.approx(5e-5)
        assert KEY not in json.dumps(row)


async def test_the_provider_is_the_seeds(server: str) -> None:
    registry = providers.for_project([EXAMPLE / ".muster" / "providers"])
    assert registry.failures == []
    entry = registry.describe("http-agent")
    assert entry.source == "project"
    assert entry.location.endswith("http_agent.py")
    target = ResolvedTarget(
        name="mine",
        provider="http-agent",
        config={"base_url": server, "api_key": KEY},
        judge_target="azure_base",
    )
    made = registry.get("http-agent")(target)
    assert (made.id, made.kind, made.target_name) == ("http-agent:mine", "cli", "mine")
    response = await create_provider(target, registry).invoke(ProviderRequest(question="2 + 2"))
    assert response.text == "4"
    assert response.token_usage == TokenUsage(3, 1)
    assert response.cost_usd == pytest.approx(3e-5)
    assert response.duration_ms is not None
    assert response.duration_ms > 0
    assert isinstance(response.raw, dict)


async def test_a_refusal_names_the_providers_own_line(server: str) -> None:
    registry = providers.for_project([EXAMPLE / ".muster" / "providers"])
    target = ResolvedTarget(name="mine", provider="http-agent", config={"base_url": server})
    with pytest.raises(ProviderFailed, match=r"http_agent\.py:\d+: RuntimeError: HTTP 401: ") as e:
        await create_provider(target, registry).invoke(ProviderRequest(question="2 + 2"))
    assert not e.value.retryable


async def test_without_settings_it_asks_the_seeds_default_place() -> None:
    registry = providers.for_project([EXAMPLE / ".muster" / "providers"])
    made = registry.get("http-agent")(ResolvedTarget(name="mine", provider="http-agent"))
    assert (made.base_url, made.api_key) == ("http://localhost:8080", "")


async def test_a_cancelled_call_leaves_no_task(server: str) -> None:
    registry = providers.for_project([EXAMPLE / ".muster" / "providers"])

    async def never_answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1024):
            pass
        writer.close()

    listener = await asyncio.start_server(never_answers, "127.0.0.1", 0)
    base_url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    target = ResolvedTarget(name="mine", provider="http-agent", config={"base_url": base_url})
    provider = create_provider(target, registry)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await provider.invoke(ProviderRequest(question="?"))
    listener.close()
    for _ in range(100):
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if not others:
            break
        await asyncio.sleep(0.01)
    assert not others
