"""The examples of docs/providers/adapters.md: every setting is right, and each that its library is
there for is asked."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from manual import ROOT, blocks_of
from muster.config.environment import load_environment
from muster.config.targets import load_catalog
from muster.importing import import_file
from muster.providers import providers
from muster.targets import settings_for
from muster.testing.environment import Environment

PAGE = ROOT / "docs" / "providers" / "adapters.md"
TARGETS = {
    "models/by-litellm": "litellm",
    "models/by-pydantic-ai": "pydantic_ai",
    "models/by-llm": "llm",
    "models/by-inspect": "inspect_ai",
    "objects/support": "pydantic_ai",
    "objects/triage": "agents",
    "objects/langchain-model": "langchain_openai",
    "objects/one-word": "langchain_openai",
    "promptfoo/capitals": "muster",
    "agentv/script": "muster",
    "reverse/capitals": "muster",
}
"""Every target of the page, and the module that it needs."""
OFFLINE = {"capitals": "Paris", "script": "You asked: What is the capital of France?"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for block in blocks_of(PAGE):
        assert block.file is not None, block.place
        path = tmp_path / block.file
        path.parent.mkdir(exist_ok=True)
        path.write_text(block.text, encoding="utf-8")
    return tmp_path


def test_every_setting_is_right(project: Path) -> None:
    """Without the libraries too: a mistake in a setting is told when a target is resolved."""
    found = []
    for folder in sorted(path.parent for path in project.glob("*/targets.yaml")):
        catalog = load_catalog(folder, env=load_environment(folder))
        for name in catalog.names:
            target = catalog.resolve(name)
            model = settings_for(providers, target.provider)
            assert model is not None
            model.model_validate(dict(target.config))
            found.append(f"{folder.name}/{name}")
        assert catalog.warnings == ()
    assert sorted(found) == sorted(TARGETS)


ASK = """
import asyncio, json, sys
import muster

async def main():
    async with muster.open_target(sys.argv[1]) as target:
        response = await target.invoke("What is the capital of France?")
        usage = response.token_usage and response.token_usage.to_dict()
        print(json.dumps([response.text, usage, response.cost_usd]))

asyncio.run(main())
"""


@pytest.mark.parametrize("name", TARGETS)
def test_each_answers(name: str, project: Path) -> None:
    folder, _, target = name.partition("/")
    if importlib.util.find_spec(TARGETS[name]) is None:
        pytest.skip(f"{TARGETS[name]} is not installed: make test-adapters")
    with Environment() as environment:
        around = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "LLM_USER_PATH": str(project),
            "OPENAI_BASE_URL": f"{environment.url}/v1",
            "OPENAI_API_KEY": environment.key,
        }
        ended = subprocess.run(
            [sys.executable, "-c", ASK, target],
            cwd=project / folder,
            env=around,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        text, usage, cost = json.loads(ended.stdout.splitlines()[-1])
        assert text == OFFLINE.get(target, "ready")
        if target in OFFLINE:
            return
        (call,) = environment.calls
        assert "What is the capital of France?" in call.text
        assert usage == {"input": 20, "output": 5}
        assert cost == pytest.approx(20 * 0.15e-6 + 5 * 0.6e-6)


def test_the_file_that_promptfoo_is_pointed_at(project: Path) -> None:
    file = project / "reverse" / "muster_provider.py"
    call_api = import_file(file, name="muster_provider_of_the_page").call_api
    config = {"target": "capitals", "basePath": str(project / "reverse")}
    answer = call_api("What is the capital of France?", {"config": config}, {})
    assert answer["output"] == "Paris"
