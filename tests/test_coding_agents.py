"""Real coding agents as roles of a team and as targets, against a model server on loopback.

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


def needs(name: str) -> None:
    """Skip the test where the program is not installed."""
    if shutil.which(name) is None:
        pytest.skip(f"the command line of {name} is not on the PATH")


def muster(folder: Path, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in `folder`, for agents with a home of their own and a model at `url`."""
    home = folder / "home"
    (home / ".codex").mkdir(parents=True)
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
    return subprocess.run(
        [sys.executable, "-m", "muster", *arguments],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


@pytest.mark.parametrize("name", ["claude", "codex"])
def test_a_role_answered_by_a_coding_agent(tmp_path: Path, name: str) -> None:
    needs(name)
    (tmp_path / "targets.yaml").write_text(yaml.safe_dump({"targets": [documented(name)]}))
    (tmp_path / "team.yaml").write_text(TEAM.replace("AGENT", name))
    with llmock(FIXTURES) as url:
        ended = muster(tmp_path, url, "run", "team.yaml", "--output", "json")
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert told["output"] == ANSWER
    assert told["token_usage"]["input"] == 11
    assert told["token_usage"]["output"] == 7
    assert (told["cost_usd"] is not None) is (name == "claude")


USAGE = FIXTURES[0]["response"]["usage"]
WRITES = {
    "claude": ("Write", {"file_path": "new.txt", "content": "hello\n"}),
    "codex": ("exec_command", {"cmd": "echo hello > new.txt"}),
}
TARGET = """\
targets:
  - name: coder
    provider: NAME
    allow: edit
    workspace: {template: shop}
    timeout_seconds: 60
"""
SUITE = """\
targets: [coder]
tests:
  - id: writes
    input: please write it
    assertions: [{type: contains, value: bees}]
  - id: option
    input: --version
    assertions: [{type: contains, value: bees}]
"""


@pytest.mark.parametrize("name", ["claude", "codex"])
def test_a_target_that_works_in_a_workspace(tmp_path: Path, name: str) -> None:
    """Messages, tool calls, tokens, money, session and diff of the preset, in the results."""
    needs(name)
    tool, arguments = WRITES[name]
    call = {"toolCalls": [{"name": tool, "arguments": json.dumps(arguments)}], "usage": USAGE}
    said = {"content": "All bees are in the file.", "usage": USAGE}
    fixtures: list[dict[str, Any]] = [
        {"match": {"hasToolResult": True}, "response": said},
        {"match": {"userMessage": "write it"}, "response": call},
        {"match": {}, "response": said},
    ]
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "a.txt").write_text("a\n")
    (tmp_path / "targets.yaml").write_text(TARGET.replace("NAME", name))
    (tmp_path / "shop.eval.yaml").write_text(SUITE)
    with llmock(fixtures) as url:
        ended = muster(tmp_path, url, "eval", "shop.eval.yaml", "--output", "out")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    rows = {row["test_id"]: row for row in map(json.loads, lines)}
    writes, option = rows["writes"], rows["option"]
    calls = [call for message in writes["messages"] for call in message.get("tool_calls", ())]
    if name == "claude":
        assert [(call["tool"], call["input"]["content"]) for call in calls] == [
            ("Write", "hello\n")
        ]
    else:
        assert [call["tool"] for call in calls] == ["shell"]
        assert "echo hello > new.txt" in calls[0]["input"]["command"]
    assert [call["status"] for call in calls] == ["ok"]
    assert writes["token_usage"]["input"] == 22
    assert writes["token_usage"]["output"] == 14
    assert (writes["cost_usd"] is not None) is (name == "claude")
    last = writes["messages"][-1]["metadata"]
    assert last["session_id"]
    assert last["workspace"]["files"] == [{"path": "new.txt", "status": "added"}]
    assert "+hello\n" in last["workspace"]["diff"]
    assert option["messages"][-1]["metadata"]["workspace"]["files"] == []
    assert (tmp_path / "shop" / "a.txt").read_text() == "a\n"
    assert not (tmp_path / "shop" / "new.txt").exists()
