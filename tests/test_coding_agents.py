"""Real coding agents as roles of a team and as targets, against a model server on loopback.

They are large, so that they are not installed for the tests: each that is on the PATH is used;
elsewhere its test is skipped.
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

from llmock import journal, llmock
from manual import ROOT
from muster.providers.agents import AGENTS

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


PI = {
    "providers": {
        "mock": {
            "baseUrl": "URL/v1",
            "api": "openai-completions",
            "apiKey": "none-needed",
            "models": [{"id": "m"}],
        }
    }
}
OPENCODE = {
    "autoupdate": False,
    "share": "disabled",
    "provider": {
        "mock": {
            "npm": "@ai-sdk/openai-compatible",
            "options": {"baseURL": "URL/v1", "apiKey": "none-needed"},
            "models": {"m": {"name": "m"}},
        }
    },
}
GEMINI = {"security": {"auth": {"selectedType": "gemini-api-key"}}}
FILES = {
    ".codex/config.toml": CODEX,
    ".pi/agent/models.json": json.dumps(PI),
    ".config/opencode/opencode.json": json.dumps(OPENCODE),
    ".gemini/settings.json": json.dumps(GEMINI),
}
"""What the agents need in a home of their own to ask the model at `URL`."""


def documented(name: str) -> dict[str, Any]:
    """The target of that name in the manual."""
    page = (ROOT / "docs" / "providers" / "cli.md").read_text(encoding="utf-8")
    found = re.search(r"```yaml\n# file: agents.yaml\n(.*?)```", page, re.DOTALL)
    assert found is not None
    targets: list[dict[str, Any]] = yaml.safe_load(found[1])["targets"]
    return next(target for target in targets if target["name"] == name)


def needs(name: str) -> None:
    """Skip the test where the program is not installed."""
    if shutil.which(AGENTS[name].executable) is None:
        pytest.skip(f"the command line of {name} is not on the PATH")


def muster(folder: Path, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in `folder`, for agents with a home of their own and a model at `url`."""
    home = folder / "home"
    for name, text in FILES.items():
        (home / name).parent.mkdir(parents=True)
        (home / name).write_text(text.replace("URL/v1", f"{url}/v1"))
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": "none-needed",
        "DISABLE_AUTOUPDATER": "1",
        "DISABLE_TELEMETRY": "1",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "MOCK_KEY": "none-needed",
        "PWD": str(folder),
        "GOOGLE_GEMINI_BASE_URL": url,
        "GEMINI_API_KEY": "none-needed",
        "OPENCODE_DISABLE_MODELS_FETCH": "1",
        "PI_OFFLINE": "1",
        "COPILOT_OFFLINE": "true",
        "COPILOT_PROVIDER_BASE_URL": f"{url}/v1",
        "COPILOT_AUTO_UPDATE": "false",
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
    "gemini-cli": ("write_file", {"file_path": "new.txt", "content": "hello\n"}),
    "opencode": ("write", {"filePath": "new.txt", "content": "hello\n"}),
    "pi": ("write", {"path": "new.txt", "content": "hello\n"}),
    "copilot": ("create", {"path": "new.txt", "file_text": "hello\n"}),
}
MODELS = {"gemini-cli": "gemini-2.5-flash", "opencode": "mock/m", "pi": "mock/m", "copilot": "m"}
PRICED = {"claude", "opencode", "pi"}
SUITE = """\
targets: [coder]
tests:
  - id: writes
    input: please write it
    assertions: [{type: contains, value: bees}]
  - id: option
    input: --version "of  bees"
    assertions: [{type: contains, value: bees}]
  - id: fails
    input: please fail
    assertions: [{type: contains, value: bees}]
"""


@pytest.mark.parametrize("name", AGENTS)
def test_a_target_that_works_in_a_workspace(tmp_path: Path, name: str) -> None:
    """Messages, tool calls, tokens, money, session and diff of the preset, in the results."""
    needs(name)
    tool, arguments = WRITES[name]
    call = {"toolCalls": [{"name": tool, "arguments": json.dumps(arguments)}], "usage": USAGE}
    said = {"content": "All bees are in the file.", "usage": USAGE}
    fixtures: list[dict[str, Any]] = [
        {"match": {"hasToolResult": True}, "response": said},
        {"match": {"userMessage": "write it"}, "response": call},
        {
            "match": {"userMessage": "please fail"},
            "response": {
                "status": 400,
                "error": {"message": "not today", "type": "invalid_request_error"},
            },
        },
        {"match": {}, "response": said},
    ]
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "a.txt").write_text("a\n")
    target = {
        "name": "coder",
        "provider": name,
        "allow": "all" if name == "opencode" else "edit",
        "workspace": {"template": "shop"},
        "timeout_seconds": 60,
        **({"model": MODELS[name]} if name in MODELS else {}),
    }
    (tmp_path / "targets.yaml").write_text(yaml.safe_dump({"targets": [target]}))
    (tmp_path / "shop.eval.yaml").write_text(SUITE)
    with llmock(fixtures) as url:
        ended = muster(tmp_path, url, "eval", "shop.eval.yaml", "--output", "out")
        asked = [json.dumps(entry["body"]) for entry in journal(url)]
    assert ended.returncode == 1, ended.stdout + ended.stderr
    lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    rows = {row["test_id"]: row for row in map(json.loads, lines)}
    writes, option, fails = rows["writes"], rows["option"], rows["fails"]
    assert "not today" in fails["error"]
    if name != "claude":  # its requests are too large for the mock's journal
        exact = json.dumps('--version "of  bees"')[1:]
        told = [body for body in asked if "--version" in body]
        assert len(told) == 1, "more questions than the one that was told of"
        assert exact in told[0], "not as it was written"
    calls = [call for message in writes["messages"] for call in message.get("tool_calls", ())]
    if name == "claude":
        assert [(call["tool"], call["input"]["content"]) for call in calls] == [
            ("Write", "hello\n")
        ]
    elif name == "codex":
        assert [call["tool"] for call in calls] == ["shell"]
        assert "echo hello > new.txt" in calls[0]["input"]["command"]
    else:
        assert [(call["tool"], call["input"]) for call in calls] == [(tool, arguments)]
    assert [call["status"] for call in calls] == ["ok"]
    if name == "copilot":
        assert writes["token_usage"] is None
    else:
        assert writes["token_usage"]["input"] == 22
        assert writes["token_usage"]["output"] == 14
    assert (writes["cost_usd"] is not None) is (name in PRICED)
    last = writes["messages"][-1]["metadata"]
    assert last["session_id"]
    assert last["workspace"]["files"] == [{"path": "new.txt", "status": "added"}]
    assert "+hello\n" in last["workspace"]["diff"]
    assert option["messages"][-1]["metadata"]["workspace"]["files"] == []
    assert (tmp_path / "shop" / "a.txt").read_text() == "a\n"
    assert not (tmp_path / "shop" / "new.txt").exists()
