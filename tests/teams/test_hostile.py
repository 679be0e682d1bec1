"""Models that make calls up, tools that misbehave, delegates that go wrong: each is told in one
line, is in the journal, and ends nothing that need not end."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from chat_parts import calls_of, chat, last, reply
from team_parts import Ran, run, run_async, write_team

from muster.errors import ConfigError
from muster.providers.chat import ChatTurn

ROGUE = Path(__file__).parents[1] / "tools" / "rogue_server.py"

TOOLS = """
import asyncio

def echo(text: str) -> str:
    return text

def huge() -> str:
    return "x" * 50_000_000

def binary() -> str:
    return "\\x7fELF\\x00\\x01\\x02"

def halves() -> str:
    return "a\\ud800b"

def dies() -> str:
    raise SystemExit(3)

async def stops_itself() -> str:
    raise asyncio.CancelledError
"""
NAMES = ("echo", "huge", "binary", "halves", "dies", "stops_itself")


def with_tools(folder: Path, more: str = "", names: tuple[str, ...] = NAMES) -> Path:
    (folder / "hostile_tools.py").write_text(TOOLS)
    tools = "".join(f"\n  - {{name: {name}, python: 'hostile_tools:{name}'}}" for name in names)
    spec = f"""
roles:
- name: w
  target: scripted
  systemPrompt: x
  canDelegate: [v]
  tools:{tools}{more}
- {{name: v, target: scripted, systemPrompt: x}}
entry: w
"""
    return write_team(folder, spec)


def calling(*calls: tuple[str, Any]) -> Any:
    """A model that makes these calls in one turn, and says then what the last of them gave."""

    def script(role: str, number: int, turn: ChatTurn) -> Any:
        if role != "w":
            return "from v"
        return reply("", *calls) if number == 1 else last(turn)

    return chat(script)


def told(ran: Ran, result: str) -> None:
    """The model was told so, and the journal says the same."""
    ((_, status, kept),) = calls_of(ran)
    assert (ran.output, kept, status) == (result, result, "error")
    assert ran.end == ("succeeded", "Succeeded", None)
    kinds = [event.kind for event in ran.events if event.kind.startswith("tool_")]
    assert kinds == ["tool_call", "tool_result"]


# --- calls that are none ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments", "result"),
    [
        (
            "ecko",
            {"text": "a"},
            'error: unknown tool "ecko" (near: echo; known: echo, huge, binary, halves, dies, '
            "stops_itself, delegate)",
        ),
        (
            "echo",
            '{"text": "a"',
            'error: the arguments of echo are not a JSON object: {"text": "a"',
        ),
        ("echo", ["a"], 'error: the arguments of echo are not a JSON object: ["a"]'),
        ("echo", None, "error: the arguments of echo are not a JSON object: null"),
        ("delegate", "v", "error: the arguments of delegate are not a JSON object: v"),
        ("delegate", {"role": ["v"], "prompt": "p"}, "error: delegate: role must not be empty"),
        (
            "delegate",
            {"role": "w", "prompt": "p"},
            'error: w may not delegate to "w" (allowed: v)',
        ),
        (
            "delegate",
            {"role": "nobody", "prompt": "p"},
            'error: w may not delegate to "nobody" (allowed: v)',
        ),
    ],
    ids=["unknown", "half", "list", "null", "text", "role-list", "itself", "nobody"],
)
def test_calls_that_cannot_be_made(tmp_path: Path, name: str, arguments: Any, result: str) -> None:
    told(run(with_tools(tmp_path), calling((name, arguments))), result)


@pytest.mark.parametrize("name", ["", "a b/../c", "\u202eevil\n\x00", "\U0001f600", "x" * 100_000])
def test_odd_names_of_tools(tmp_path: Path, name: str) -> None:
    ran = run(with_tools(tmp_path), calling((name, {})))
    assert ran.end[0] == "succeeded"
    ((kept, status, result),) = calls_of(ran)
    assert (kept, status) == (name, "error")
    assert (result or "").startswith(f'error: unknown tool "{name[:200]}')
    assert len(ran.output) < 500


def test_a_hundred_calls_in_one_turn(tmp_path: Path) -> None:
    calls = [("echo", {"text": str(n)}) for n in range(97)]
    mixed = [*calls, ("nothing", {}), ("delegate", {"role": "v", "prompt": "p"}), ("echo", {})]
    ran = run(with_tools(tmp_path), calling(*mixed), max_tokens=100_000, budget_usd=1.0)
    assert ran.end[0] == "succeeded"
    made = calls_of(ran)
    assert [name for name, _, _ in made] == [name for name, _ in mixed]
    assert [result for _, _, result in made[:97]] == [str(n) for n in range(97)]
    assert [status for _, status, _ in made[97:]] == ["error", "ok", "error"]


# --- what tools give ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "status", "result"),
    [
        ("binary", "ok", "[binary data, 7 bytes]"),
        ("halves", "ok", "a?b"),
        ("dies", "error", "hostile_tools.py:17: SystemExit: 3"),
        ("stops_itself", "cancelled", "error: the tool was cancelled"),
    ],
)
async def test_odd_results(tmp_path: Path, name: str, status: str, result: str) -> None:
    ran = await run_async(with_tools(tmp_path), calling((name, {})))
    assert ran.end == ("succeeded", "Succeeded", None)
    assert ran.output.endswith(result)
    ((_, kept, _),) = calls_of(ran)
    assert kept == status


async def test_fifty_megabytes(tmp_path: Path) -> None:
    ran = await run_async(with_tools(tmp_path), calling(("huge", {})))
    assert ran.end[0] == "succeeded"
    ((_, status, result),) = calls_of(ran)
    assert status == "ok"
    note = "\n[error: the result is too large: cut to 1,000,000 bytes of 50,000,000 bytes]"
    assert ran.output == result == "x" * 1_000_000 + note


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("dies", "Traceback: the disk is on fire"),
        ("huge", "[error: the result is too large: cut to 1,000,000 bytes of 50,000,000 bytes]"),
        ("binary", "[image/png, "),
    ],
)
async def test_servers_that_misbehave(tmp_path: Path, mode: str, said: str) -> None:
    pids = tmp_path / "pids"
    command = f"[{sys.executable}, -S, {ROGUE}, {mode}, {pids}]"
    server = f"\n  mcpServers: [{{name: r, command: {command}}}]"
    ran = await run_async(with_tools(tmp_path, server), calling(("r__go", {})))
    assert ran.end[0] == "succeeded"
    assert said in ran.output
    assert calls_of(ran)[0][2] == ran.output
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids.read_text().split())


async def test_a_server_that_never_answers_takes_its_tools_away(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    command = f"[{sys.executable}, -S, {ROGUE}, mute, {pids}]"
    server = f"\n  mcpServers: [{{name: r, command: {command}, startupTimeoutSeconds: 1}}]"
    ran = await run_async(with_tools(tmp_path, server), calling(("echo", {"text": "hi"})))
    assert (ran.end[0], ran.output) == ("succeeded", "hi")
    (warning,) = [event.text for event in ran.events if event.kind == "warning"]
    assert 'MCP server "r"' in warning
    assert "waiting for the database" in warning
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids.read_text().split())


# --- names ---------------------------------------------------------------------------------------


def test_a_tool_called_delegate_is_refused(tmp_path: Path) -> None:
    file = with_tools(tmp_path)
    file.write_text(file.read_text().replace("name: echo,", "name: delegate,"))
    with pytest.raises(
        ConfigError, match='role "w": "delegate" is a tool of its agent and one of the team'
    ):
        run(file)


def test_a_tool_called_submit_subtask_is_refused(tmp_path: Path) -> None:
    file = with_tools(tmp_path, "\n  builtinTools: [submit_subtask]")
    file.write_text(file.read_text().replace("name: echo,", "name: submit_subtask,"))
    with pytest.raises(ConfigError, match='"submit_subtask" is a tool of its agent'):
        run(file)


def test_a_role_that_does_not_exist(tmp_path: Path) -> None:
    file = with_tools(tmp_path)
    file.write_text(file.read_text().replace("canDelegate: [v]", "canDelegate: [vv]"))
    with pytest.raises(ConfigError, match='"vv"') as caught:
        run(file)
    assert "team.yaml:" in str(caught.value)


def test_delegating_to_oneself_is_refused(tmp_path: Path) -> None:
    file = with_tools(tmp_path)
    file.write_text(file.read_text().replace("canDelegate: [v]", "canDelegate: [w]"))
    with pytest.raises(ConfigError, match="cycle"):
        run(file)


# --- secrets ------------------------------------------------------------------------------------


def test_secrets_of_calls_are_not_in_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_API_KEY", "sk-very-secret-0123456789")
    calls = [
        ("echo", {"text": "sk-very-secret-0123456789"}),
        ("sk-very-secret-0123456789", {"a": 1}),
        ("echo", "half sk-very-secret-0123456789"),
    ]
    ran = run(with_tools(tmp_path), calling(*calls))
    assert len(calls_of(ran)) == 3
    for file in (tmp_path / ".muster").glob("runs.db*"):
        assert b"sk-very-secret" not in file.read_bytes()


# --- for each, in a loop ------------------------------------------------------------------------


def test_for_each_in_a_loop_does_all_items_again(tmp_path: Path) -> None:
    spec = """
    steps:
    - name: s
      arkAgent: a
      forEach: {items: '{{ list 1 2 }}', as: n, maxParallel: 1}
      inputs: {prompt: "{{ .n }} of {{ .index }}"}
      loop: {condition: '{{ ne (index .steps.s.data 0) 3.0 }}', maxIterations: 5}
    """
    said = iter("12345678")
    ran = run(write_team(tmp_path, spec, kind="Flow"), lambda request: next(said))
    assert ran.end == ("succeeded", "Succeeded", None)
    assert ran.prompts == ["prompt: 1 of 0\n", "prompt: 2 of 1\n"] * 2
    assert ran.output == "[3, 4]"
    rows = [(row.iteration, row.item) for row in ran.rows()]
    assert rows == [(0, 0), (0, 1), (1, 0), (1, 1)]
