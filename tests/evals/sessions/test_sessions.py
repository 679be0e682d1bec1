"""Session logs: two that the real programs have written against a server on loopback (`claude` 2.1
and `codex` 0.169), and made ones for what those have not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from muster.cli.main import cli
from muster.errors import MusterError, UsageError
from muster.evals.results import read_results
from muster.evals.sessions.base import Session, answer_rows, case_rows
from muster.evals.sessions.claude import read_claude
from muster.evals.sessions.codex import read_codex
from muster.evals.sessions.copilot import read_copilot
from muster.provider import TokenUsage

HERE = Path(__file__).parent
READERS = {"claude": read_claude, "codex": read_codex, "copilot": read_copilot}


def written(tmp_path: Path, *rows: dict[str, Any], end: str = "\n") -> Path:
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows) + end)
    return path


def test_what_claude_writes() -> None:
    session = read_claude(HERE / "claude.jsonl")
    (exchange,) = session.exchanges
    assert exchange.question == "Read the notes"
    assert exchange.answer == "They are about bees."
    assert exchange.usage == TokenUsage(51, 15, cached=0)
    assert session.cwd == "/home/ada/project"
    first, second = exchange.messages
    (call,) = first["tool_calls"]
    assert first["content"] == "I look."
    assert (call["tool"], call["output"], call["status"]) == ("Bash", "some notes about bees", "ok")
    assert call["input"] == {"command": "cat notes.txt", "description": "read"}
    assert call["duration_ms"] == 135.0
    assert "tool_calls" not in second
    (row,) = answer_rows(session)
    assert row["duration_ms"] == 301.0


def test_what_codex_writes() -> None:
    session = read_codex(HERE / "codex.jsonl")
    (exchange,) = session.exchanges
    assert exchange.question == "Codex notes"
    assert exchange.answer == "They are about bees."
    assert exchange.usage == TokenUsage(51, 15, cached=0, reasoning=0)
    assert exchange.model == "mock-model"
    (call,) = exchange.messages[0]["tool_calls"]
    assert (call["tool"], call["input"], call["status"]) == (
        "exec_command", {"cmd": "cat notes.txt"}, "ok",
    )  # fmt: skip
    assert call["output"].endswith("some notes about bees\n")


def test_what_copilot_writes() -> None:
    session = read_copilot(HERE / "copilot.jsonl")
    asked, again = session.exchanges
    assert (asked.question, again.question) == ("What do the notes say?", "And hello?")
    assert (asked.answer, again.answer) == ("That bees dance.", "hi there")
    assert asked.usage == TokenUsage(211, 16, cached=0)
    assert again.usage == TokenUsage(50, 3, cached=0)
    assert (asked.model, session.cwd) == ("gpt-4.1", "/home/ada/project")
    (call,) = asked.messages[0]["tool_calls"]
    assert (call["tool"], call["output"], call["status"]) == ("view", "bees dance\n", "ok")
    assert (call["input"], call["duration_ms"]) == ({"path": "/home/ada/project/notes.txt"}, 3.0)
    first, _ = answer_rows(session)
    assert first["duration_ms"] == 141.0


def claude_row(kind: str, content: Any, at: int, **more: Any) -> dict[str, Any]:
    message = {"role": kind, "content": content} | more.pop("message", {})
    at_text = f"2026-01-01T00:00:{at:02}.000Z"
    return {"type": kind, "message": message, "sessionId": "s-1", "timestamp": at_text} | more


def test_claude_by_prompts_without_what_subagents_and_the_program_say(tmp_path: Path) -> None:
    used = {"input_tokens": 1, "cache_read_input_tokens": 10, "cache_creation_input_tokens": 100}
    path = written(
        tmp_path,
        claude_row("user", "first", 1),
        claude_row("user", "a note of the program", 1, isMeta=True),
        claude_row("user", "<command-name>/clear</command-name>", 1),
        claude_row("assistant", [{"type": "thinking", "thinking": "hm"}], 2,
                   message={"id": "m1", "usage": used | {"output_tokens": 1}}),
        claude_row("assistant", [{"type": "text", "text": "one"}], 3,
                   message={"id": "m1", "usage": used | {"output_tokens": 5}}),
        claude_row("assistant", [{"type": "text", "text": "aside"}], 3, isSidechain=True,
                   message={"id": "m9", "usage": used | {"output_tokens": 9}}),
        claude_row("user", [{"type": "text", "text": "second"}], 4),
        claude_row("assistant", [{"type": "tool_use", "id": "t", "name": "Read", "input": {}}], 5,
                   message={"id": "m2"}),
        claude_row("user", [{"type": "tool_result", "tool_use_id": "t", "is_error": True,
                             "content": [{"type": "text", "text": "no such file"}]}], 7),
        claude_row("assistant", "API Error: 529", 8, isApiErrorMessage=True),
        claude_row("user", "third", 9),
    )  # fmt: skip
    session = read_claude(path)
    assert [exchange.question for exchange in session.exchanges] == ["first", "second", "third"]
    first, second, third = session.exchanges
    assert first.messages == [
        {"role": "assistant", "content": "one",
         "token_usage": {"input": 111, "output": 5, "cached": 10}}
    ]  # fmt: skip
    assert first.usage == TokenUsage(111, 5, cached=10)
    assert second.usage is None
    assert second.error == "API Error: 529"
    (call,) = second.messages[0]["tool_calls"]
    assert (call["status"], call["output"], call["duration_ms"]) == (
        "error",
        "no such file",
        2000.0,
    )
    assert not third.is_answered
    assert [row["id"] for row in case_rows(session)] == ["claude-s-1-1", "claude-s-1-2"]
    later = list(case_rows(session))[1]
    assert [message["content"] for message in later["input"]] == ["first", "one", "second"]


def codex_row(kind: str, **payload: Any) -> dict[str, Any]:
    return {"timestamp": "2026-01-01T00:00:01Z", "type": kind, "payload": payload}


def said(role: str, text: str) -> dict[str, Any]:
    kind = "output_text" if role == "assistant" else "input_text"
    content = [{"type": kind, "text": text}]
    return codex_row("response_item", type="message", role=role, content=content)


def total(given: int, out: int) -> dict[str, Any]:
    usage = {"input_tokens": given, "cached_input_tokens": 1, "output_tokens": out}
    return codex_row("event_msg", type="token_count", info={"total_token_usage": usage})


def test_codex_by_prompts_each_with_what_the_sums_grew_by(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        codex_row("session_meta", id="s-2", cwd="/w"),
        said("user", "<environment_context>\n  <cwd>/w</cwd>"),
        said("user", "first"),
        codex_row("event_msg", type="token_count", info=None),
        codex_row("response_item", type="custom_tool_call", name="apply_patch",
                  call_id="c", input="*** P"),
        codex_row("response_item", type="custom_tool_call_output", call_id="c", output="done"),
        said("assistant", "one"),
        total(10, 3),
        total(10, 3),
        said("user", "second"),
        said("assistant", "two"),
        total(25, 4),
    )  # fmt: skip
    first, second = read_codex(path).exchanges
    assert (first.question, second.question) == ("first", "second")
    assert first.usage == TokenUsage(10, 3, cached=1)
    assert second.usage == TokenUsage(15, 1, cached=0)
    (call,) = first.messages[0]["tool_calls"]
    assert (call["tool"], call["input"], call["output"]) == ("apply_patch", "*** P", "done")
    assert "status" not in call


def event(kind: str, at: int = 0, **data: Any) -> dict[str, Any]:
    return {"type": kind, "timestamp": f"2026-01-01T00:00:{at:02}Z", "data": data}


def test_copilot_pairs_calls_and_leaves_subagents_out(tmp_path: Path) -> None:
    request = {"toolCallId": "c1", "name": "create", "arguments": {"path": "new.txt"}}
    path = written(
        tmp_path,
        event("session.start", sessionId="s-3", context={"cwd": "/w"}),
        event("user.message", 1, content="write it"),
        event("assistant.message", 2, content="I do.", toolRequests=[request], outputTokens=7),
        event("tool.execution_start", 2, toolCallId="c1", toolName="create", arguments={}),
        event("assistant.message", 3, content="aside", parentToolCallId="c1"),
        event("tool.execution_complete", 4, toolCallId="c1", success=True,
              result={"content": "ok"}),
        event("assistant.message", 5, content="It is there.", model="m"),
        event("session.shutdown", 6, modelMetrics={
            "m": {"usage": {"inputTokens": 50, "outputTokens": 9, "cacheReadTokens": 20}}
        }),
    )  # fmt: skip
    session = read_copilot(path)
    (exchange,) = session.exchanges
    assert session.id == "s-3"
    assert [message["content"] for message in exchange.messages] == ["I do.", "It is there."]
    (call,) = exchange.messages[0]["tool_calls"]
    assert (call["input"], call["output"], call["status"], call["duration_ms"]) == (
        {"path": "new.txt"}, "ok", "ok", 2000.0,
    )  # fmt: skip
    assert exchange.usage == TokenUsage(50, 9, cached=20)
    assert exchange.model == "m"


@pytest.mark.parametrize("agent", list(READERS))
def test_what_is_no_log(tmp_path: Path, agent: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"a": 1}\n[1]\n"x"\n')
    with pytest.raises(UsageError, match="no session of"):
        READERS[agent](path)
    path.write_text('{"a": 1}\n{"b"\n{"c": 1}\n')
    with pytest.raises(MusterError, match=r"log\.jsonl:2: not valid JSON"):
        READERS[agent](path)
    with pytest.raises(UsageError, match="cannot be read"):
        READERS[agent](tmp_path / "nowhere")


@pytest.mark.parametrize("agent", list(READERS))
def test_odd_values_and_a_torn_end_do_no_harm(tmp_path: Path, agent: str) -> None:
    """Each value of a real log in turn is something else."""
    lines = [json.loads(line) for line in (HERE / f"{agent}.jsonl").read_text().splitlines()]
    for number, row in enumerate(lines):
        holder = row.get("payload") or row.get("message") or row.get("data")
        for name in holder if isinstance(holder, dict) else ():
            for odd in (None, 5, [None, 7], {"x": []}):
                kept, holder[name] = holder[name], odd
                path = written(tmp_path, *lines[: number + 4], end='\n{"torn')
                try:
                    session: Session = READERS[agent](path)
                    list(case_rows(session)), list(answer_rows(session))
                except UsageError:
                    pass
                holder[name] = kept


def test_imported_sessions_are_a_suite_and_its_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NOTES_API_KEY", "some notes about bees")
    made = CliRunner().invoke(cli, ["import", "claude", str(HERE / "claude.jsonl"), "-o", "bees"])
    assert made.exit_code == 0, made.output
    assert "1 sessions, 1 tests, 1 tool calls" in made.output
    assert "some notes" not in (tmp_path / "bees.answers.jsonl").read_text()
    assert (tmp_path / "bees.answers.jsonl").stat().st_mode & 0o077 == 0
    (tmp_path / "targets.yaml").write_text(
        "targets: [{name: then, provider: replay, file: bees.answers.jsonl}]"
    )
    (tmp_path / "bees.eval.yaml").write_text(
        "name: bees\ntarget: then\ntests: file://bees.cases.jsonl\n"
        "assertions: [{type: contains, value: bees}, {type: tool-used, value: Bash}]\n"
    )
    ended = CliRunner().invoke(cli, ["eval", "bees.eval.yaml", "-o", "run", "-q"])
    (result,) = read_results(tmp_path / "run")
    assert result.score == 1.0, ended.output
    assert result.token_usage == {"input": 51, "output": 15, "cached": 0}
    assert result.duration_ms == 301.0


def test_a_session_twice_is_refused(tmp_path: Path) -> None:
    path = str(HERE / "codex.jsonl")
    ended = CliRunner().invoke(cli, ["import", "codex", path, path, "-o", str(tmp_path / "x")])
    assert isinstance(ended.exception, UsageError)
    assert "a session is given twice" in str(ended.exception)
