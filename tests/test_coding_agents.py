"""Real coding agents as roles of a team, against a model server on loopback.

They are large, so that they are not installed for the tests: where `claude` or `codex` is on the
PATH, it is used; elsewhere its test is skipped.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmock import llmock
from manual import ROOT

ANSWER = "Bees dance to tell where flowers are."
FIXTURES: list[dict[str, Any]] = [
    {
        "match": {},
        "response": {
            "content": ANSWER,
            "usage": {
                "prompt_tokens": 11,
                "completion_tokens": 7,
                "total_tokens": 18,
                "input_tokens": 11,
                "output_tokens": 7,
            },
        },
    }
]
TEAM = """\
apiVersion: muster.dev/v1alpha1
kind: Team
metadata: {name: coders}
spec:
  roles:
    - {name: plan, target: AGENT}
  pipeline:
    - {role: plan, inputs: {prompt: "Plan: bees"}}
"""
CODEX = """\
model = "mock-model"
model_provider = "mock"
check_for_update_on_startup = false
[model_providers.mock]
name = "mock"
base_url = "URL/v1"
env_key = "MOCK_KEY"
wire_api = "responses"
[analytics]
enabled = false
"""


def documented(name: str) -> dict[str, Any]:
    """The target of that name in the manual."""
    page = (ROOT / "docs" / "providers" / "cli.md").read_text(encoding="utf-8")
    found = re.search(r"```yaml\n# file: agents.yaml\n(.*?)```", page, re.DOTALL)
    assert found is not None
    targets: list[dict[str, Any]] = yaml.safe_load(found[1])["targets"]
    return next(target for target in targets if target["name"] == name)


@pytest.mark.parametrize("name", ["claude", "codex"])
def test_a_role_answered_by_a_coding_agent(tmp_path: Path, name: str) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"the command line of {name} is not on the PATH")
    home = tmp_path / "home"
    (home / ".codex").mkdir(parents=True)
    (tmp_path / "targets.yaml").write_text(yaml.safe_dump({"targets": [documented(name)]}))
    (tmp_path / "team.yaml").write_text(TEAM.replace("AGENT", name))
    with llmock(FIXTURES) as url:
        (home / ".codex" / "config.toml").write_text(CODEX.replace("URL", url))
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "ANTHROPIC_BASE_URL": url,
            "ANTHROPIC_API_KEY": "none-needed",
            "DISABLE_AUTOUPDATER": "1",
            "DISABLE_TELEMETRY": "1",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "MOCK_KEY": "none-needed",
        }
        ended = subprocess.run(
            [sys.executable, "-m", "muster", "run", "team.yaml", "--output", "json"],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert told["output"] == ANSWER
    assert told["token_usage"]["input"] == 11
    assert told["token_usage"]["output"] == 7
    assert (told["cost_usd"] is not None) is (name == "claude")
