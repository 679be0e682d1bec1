"""The coding agents' command lines and answers, with what they wrote on record.

The lines are of the form that the programs themselves wrote, shortened. The real programs are in
`tests/test_coding_agents.py`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manual import ROOT
from muster.errors import UsageError
from muster.provider import BadProviderOutput, ProviderFailed, ProviderRequest, TokenUsage
from muster.providers import providers
from muster.providers.agent import AgentProvider, AgentSettings, command_of
from muster.providers.agents import AGENT_ALIASES, AGENTS
from muster.target import ResolvedTarget

RECORDED = Path(__file__).parent / "agents"
ANSWER = "The file is there now."

Make = Callable[..., AgentProvider]


@pytest.fixture
def agent(tmp_path: Path) -> Make:
    """A provider of that kind, whose program writes these lines and what it was started with."""

    def make(
        kind: str, lines: str | None = None, exit_code: int = 0, **settings: Any
    ) -> AgentProvider:
        output = tmp_path / "output.jsonl"
        recorded = RECORDED / f"{kind}.jsonl"
        output.write_text(recorded.read_text() if lines is None else lines)
        program = tmp_path / "program"
        program.write_text(
            f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/arguments\n'
            f"cat > {tmp_path}/stdin\ncat {output}\nexit {exit_code}\n"
        )
        program.chmod(0o755)
        config = {"executable": str(program), **settings}
        return AgentProvider(
            ResolvedTarget(name="t", provider=kind, config=config, base_dir=tmp_path)
        )

    return make


CALLS = {
    "claude": [("Write", {"file_path": "/w/new.txt", "content": "hello\n"}, "File created", "ok")],
    "codex": [
        ("shell", {"command": "echo hello > new.txt"}, "", "ok"),
        ("shell", {"command": "false"}, "no", "error"),
    ],
    "gemini-cli": [("write_file", {"file_path": "new.txt"}, "not allowed", "error")],
    "opencode": [("write", {"filePath": "new.txt"}, "done", "ok")],
    "pi": [("write", {"path": "new.txt"}, "done", "ok")],
    "copilot": [("create", {"path": "new.txt"}, "Permission denied", "error")],
}
ACCOUNTS: dict[str, tuple[TokenUsage | None, float | None, str | None, str]] = {
    "claude": (
        TokenUsage(44, 12, cached=8),
        0.00046,
        "claude-opus-4-8",
        "d6cec977-9dae-4d10-b658-54d958cbc1db",
    ),
    "codex": (TokenUsage(32, 12, cached=8, reasoning=3), None, None, "01a1fea1"),
    "gemini-cli": (TokenUsage(32, 15, cached=8, reasoning=3), None, "gemini-2.5-pro", "g-1"),
    "opencode": (TokenUsage(32, 12, cached=8, reasoning=3), 0.0005, None, "ses_1"),
    "pi": (TokenUsage(32, 12, cached=8), 0.5, "m-1", "pi-1"),
    "copilot": (None, None, "gpt-m", "co-1"),
}


@pytest.mark.parametrize("kind", AGENTS)
async def test_what_an_agent_wrote_is_read(agent: Make, kind: str) -> None:
    response = await agent(kind).invoke(ProviderRequest(question="write it"))
    assert response.text == ANSWER
    calls = [(call.tool, call.input, call.output, call.status) for call in response.tool_calls]
    assert calls == CALLS[kind]
    usage, cost, model, session = ACCOUNTS[kind]
    assert response.token_usage == usage
    assert response.cost_usd == (None if cost is None else pytest.approx(cost))
    assert response.model == model
    assert isinstance(response.raw, dict)
    assert response.raw["session_id"] == session
    assert response.output[-1].metadata == {"session_id": session}
    assert [message.text for message in response.output].count(ANSWER) == 1


@pytest.mark.parametrize("kind", AGENTS)
async def test_an_answer_that_was_cut_off_is_no_answer(agent: Make, kind: str) -> None:
    lines = (RECORDED / f"{kind}.jsonl").read_text().splitlines(keepends=True)
    with pytest.raises(BadProviderOutput):
        await agent(kind, "".join(lines[:-1])).invoke(ProviderRequest(question="?"))


FAILED = {
    "claude": (
        {"type": "result", "subtype": "error_max_turns", "is_error": False},
        "error_max_turns",
    ),
    "codex": ({"type": "turn.failed", "error": {"message": "no credit"}}, "no credit"),
    "gemini-cli": ({"type": "result", "status": "error", "error": {"message": "m"}}, "m"),
    "opencode": ({"type": "error", "error": {"name": "N", "data": {"message": "m"}}}, "m"),
    "pi": (
        {
            "type": "message_end",
            "message": {"role": "assistant", "stopReason": "error", "errorMessage": "m"},
        },
        "m",
    ),
    "copilot": ({"type": "result", "exitCode": 1}, "its session failed"),
}


@pytest.mark.parametrize("kind", AGENTS)
async def test_an_agent_that_says_that_it_failed(agent: Make, kind: str) -> None:
    row, told = FAILED[kind]
    for exit_code in (0, 1):
        with pytest.raises(ProviderFailed, match=f"the command reports: {told}"):
            await agent(kind, json.dumps(row) + "\n", exit_code).invoke(
                ProviderRequest(question="?")
            )


async def test_why_copilot_failed_and_what_claude_has_spent_in_vain(agent: Make) -> None:
    rows = [
        {"type": "session.error", "data": {"message": "400 too long"}},
        {"type": "result", "exitCode": 1},
    ]
    with pytest.raises(ProviderFailed, match=r"reports: 400 too long .*exit code 1"):
        await agent("copilot", "\n".join(map(json.dumps, rows)), 1).invoke(
            ProviderRequest(question="?")
        )
    usage = {"input_tokens": 5, "output_tokens": 2}
    row = {"type": "result", "is_error": True, "result": "no", "usage": usage}
    with pytest.raises(ProviderFailed) as caught:
        await agent("claude", json.dumps({**row, "total_cost_usd": 0.5}), 1).invoke(
            ProviderRequest(question="?")
        )
    assert (caught.value.token_usage, caught.value.cost_usd) == (TokenUsage(5, 2), 0.5)


async def test_line_separators_within_a_text(agent: Make) -> None:
    """JSON does not escape them, and they end no line."""
    lines = (RECORDED / "codex.jsonl").read_text().replace(ANSWER, "one\u2028two\x85three")
    response = await agent("codex", lines).invoke(ProviderRequest(question="?"))
    assert response.text == "one\u2028two\x85three"


@pytest.mark.parametrize("kind", AGENTS)
async def test_no_prompt_is_an_option(agent: Make, kind: str, tmp_path: Path) -> None:
    """It is standard input, whatever stands in it and however long it is, or `--prompt=…`."""
    prompt = '--version "of  it"\n' + "x" * (1000 if kind == "gemini-cli" else 300_000)
    await agent(kind).invoke(ProviderRequest(question=prompt))
    told = (tmp_path / "arguments").read_text()
    if kind == "gemini-cli":
        assert told.endswith(f"\n--prompt={prompt}\n")
    else:
        assert "version" not in told
        assert (tmp_path / "stdin").read_text() == prompt


def test_the_command_lines() -> None:
    def of(kind: str, **settings: Any) -> list[str]:
        return command_of(kind, AgentSettings.model_validate(settings))

    assert of("claude") == [
        *("claude", "-p", "--output-format", "stream-json", "--verbose"),
    ]
    assert of("claude", allow="edit", model="opus", args=["--max-turns", "3"]) == [
        *("claude", "-p", "--output-format", "stream-json", "--verbose", "--model", "opus"),
        *("--permission-mode", "acceptEdits", "--max-turns", "3"),
    ]
    assert of("codex", executable="/opt/codex") == [
        *("/opt/codex", "exec", "--json", "--skip-git-repo-check", "-s", "read-only", "-"),
    ]
    assert of("codex", allow="edit")[4:6] == ["-s", "workspace-write"]
    assert of("gemini-cli", allow="all") == [
        *("gemini", "--output-format", "stream-json", "--skip-trust", "--approval-mode", "yolo"),
        "--prompt={PROMPT}",
    ]
    assert of("opencode", allow="all") == [
        *("opencode", "run", "--format", "json", "--title", "muster", "--auto"),
    ]
    assert of("pi") == [
        *("pi", "-p", "--mode", "json", "--no-session", "--tools", "read,grep,find,ls"),
    ]
    assert of("copilot", allow="edit") == [
        *("copilot", "--output-format", "json", "--no-ask-user", "--allow-tool=write"),
    ]
    with pytest.raises(UsageError, match=r"opencode: .* `allow: edit` \(it can say: all\)"):
        of("opencode", allow="edit")


@pytest.mark.parametrize("allow", ["read", "edit", "all"])
def test_the_manual_s_table(allow: str) -> None:
    page = (ROOT / "docs" / "providers" / "coding-agents.md").read_text(encoding="utf-8")
    line = next(line for line in page.splitlines() if line.startswith(f"| `{allow}` |"))
    cells = [cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")[1:]]
    for kind, cell in zip(AGENTS, cells, strict=True):
        said = AGENTS[kind].allow.get(allow)
        if said is None:
            assert cell == "cannot be said"
        elif cell == "everything is allowed":
            assert said == ()
        else:
            assert " ".join(said) == cell.strip("`")


def test_the_names() -> None:
    for name in (*AGENTS, *AGENT_ALIASES):
        assert providers.get(name) is AgentProvider
    assert providers.canonical("claude-code") == "claude"


async def test_in_a_container_the_agents_variables_are_named(agent: Make, tmp_path: Path) -> None:
    engine = tmp_path / "engine"
    engine.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/engine-arguments\n')
    engine.chmod(0o755)
    provider = agent(
        "claude",
        runtime="docker",
        docker={"image": "agents:1", "engine": str(engine), "env": ["EXTRA"]},
        env={"ANTHROPIC_API_KEY": "sk-very-secret"},
    )
    with pytest.raises(BadProviderOutput):  # this engine says nothing
        await provider.invoke(ProviderRequest(question="hi"))
    given = (tmp_path / "engine-arguments").read_text().splitlines()
    assert "sk-very-secret" not in "\n".join(given)
    name = given[3]
    assert name.startswith("--name=muster-")
    assert given == [
        *("run", "--rm", "--init", name, "--interactive", "--network=none"),
        f"--user={os.getuid()}:{os.getgid()}",
        *("--cap-drop=ALL", "--security-opt=no-new-privileges", "--pids-limit=512"),
        *("--env", "ANTHROPIC_API_KEY", "--env", "ANTHROPIC_AUTH_TOKEN"),
        *("--env", "ANTHROPIC_BASE_URL", "--env", "EXTRA"),
        *("--volume", f"{tmp_path}:{tmp_path}", f"--workdir={tmp_path}", "agents:1"),
        *(str(tmp_path / "program"), "-p", "--output-format", "stream-json", "--verbose"),
    ]
