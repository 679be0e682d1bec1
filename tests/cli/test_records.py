"""`muster eval --record`, `provider: replay` of its records, and `muster grade`."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
from muster_project import Project

KEY = "sk-the-key-of-the-judge"

TARGETS = """
targets:
  - name: calc
    provider: mock
    model: tiny
    max_retries: 1
    retry_initial_delay_ms: 1
    fallback_targets: [spare]
    replies:
      - {contains: shaky, attempt: 0, error: {kind: provider_unavailable, message: down}}
      - {contains: shaky, text: up again, usage: {input: 3, output: 2}, cost_usd: 0.001}
      - {contains: refused, error: {kind: bad_request, message: not that}}
      - {contains: first, text: one, usage: {input: 1, output: 1}}
      - {contains: second, text: two, usage: {input: 5, output: 7}}
      - {contains: sum, text: It is 42., usage: {input: 9, output: 4}, cost_usd: 0.0002}
  - name: spare
    provider: mock
    replies: [{contains: refused, error: {kind: bad_request, message: nor I}}]
  - name: judge
    provider: mock
    default:
      json:
        reason: "KEY"
        score: 1
        checks: [{id: rubric-1, satisfied: true, reasoning: it is}]
"""

SUITE = """
name: sums
target: calc
tests:
  - {id: sum, input: What is the sum?, assert: [{type: contains, value: "42"}]}
  - {id: shaky, input: A shaky question, assert: [{type: contains, value: up}]}
  - {id: refused, input: To be refused, assert: [{type: contains, value: up}]}
  - id: talk
    mode: conversation
    turns:
      - {input: the first, assertions: [{type: equals, value: one}]}
      - {input: the second, assertions: [{type: equals, value: two}]}
"""

MASK = "**********"


def records(project: Project, folder: str = "run") -> list[dict[str, Any]]:
    text = (project.root / folder / "records.jsonl").read_text()
    return [json.loads(line) for line in text.split("\n")[:-1]]


@pytest.fixture
def sums(project: Project) -> Project:
    project.write("targets.yaml", TARGETS.replace('KEY"', f'{KEY}"'))
    project.write("sums.eval.yaml", SUITE)
    return project


def run(project: Project, *arguments: str) -> None:
    ended = project.eval("sums.eval.yaml", "--no-gate", "--allow-errors", "1", *arguments)
    assert ended.code == 0, ended.text


def graded(project: Project, *arguments: str, code: int = 0) -> str:
    ended = project.run(
        "grade", "run", "-o", "again", "--no-gate", "--allow-errors", "1", *arguments
    )
    assert ended.code == code, ended.text
    return ended.text


def test_each_try_is_a_line(sums: Project) -> None:
    run(sums, "--record")
    tries = [
        (row["case"]["test_id"], row["target"], row["attempt"], row.get("error", {}).get("kind"))
        for row in records(sums)
        if row["case"]["test_id"] in ("shaky", "refused")
    ]
    assert sorted(tries) == [
        ("refused", "calc", 0, "bad_request"),
        ("refused", "spare", 0, "bad_request"),
        ("shaky", "calc", 0, "provider_unavailable"),
        ("shaky", "calc", 1, None),
    ]
    failed, answered = (r for r in records(sums) if r["case"]["test_id"] == "shaky")
    assert failed["request_hash"] == answered["request_hash"]
    assert failed["case"] == answered["case"]
    assert answered["request"]["question"] == "A shaky question"
    assert answered["response"] == {
        "output": [{"role": "assistant", "content": "up again"}],
        "token_usage": {"input": 3, "output": 2},
        "cost_usd": 0.001,
        "finish_reason": "stop",
        "model": "tiny",
    }
    assert answered["duration_ms"] >= 0
    assert [r["case"]["turn"] for r in records(sums) if r["case"]["test_id"] == "talk"] == [0, 1]


def test_judges_are_recorded_and_secrets_masked(sums: Project) -> None:
    sums.write(
        "sums.eval.yaml",
        """
        name: sums
        target: calc
        tests: [{id: sum, input: What is the sum?, assert: [It is right.]}]
        """,
    )
    ended = sums.eval("sums.eval.yaml", "--record", "--judge", "judge", env={"JUDGE_KEY": KEY})
    assert ended.code == 0, ended.text
    asked, judged = records(sums)
    assert (asked["role"], asked["target"]) == ("target", "calc")
    assert (judged["role"], judged["target"]) == ("judge", "judge")
    assert judged["case"]["test_id"] == "sum"
    assert KEY not in (sums.root / "run" / "records.jsonl").read_text()
    assert MASK in judged["response"]["output"][0]["content"]
    assert (sums.root / "run" / "records.jsonl").stat().st_mode & 0o077 == 0


def test_without_record_there_is_none(sums: Project) -> None:
    run(sums)
    assert not (sums.root / "run" / "records.jsonl").exists()


def test_a_torn_line_is_cut_off_when_the_run_goes_on(sums: Project) -> None:
    run(sums, "--record")
    path = sums.root / "run" / "records.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"target": "calc", "requ')
    results = sums.root / "run" / "results.jsonl"
    kept = [line for line in results.read_text().splitlines(True) if '"test_id":"sum"' not in line]
    results.write_text("".join(kept))
    ended = sums.run("eval", "--resume", "run", "--no-gate", "--allow-errors", "1")
    assert ended.code == 0, ended.text
    assert path.read_bytes().startswith(whole)
    again = records(sums)[whole.count(b"\n") :]
    assert {row["case"]["test_id"] for row in again} == {"sum", "refused"}


@pytest.mark.parametrize("recorded", [True, False])
def test_grading_again_sees_what_graders_saw(sums: Project, recorded: bool) -> None:
    run(sums, *(["--record"] if recorded else []))
    before = sums.by_id()
    sums.write("sums.eval.yaml", SUITE.replace('value: "42"', 'value: "43"'))
    sums.write("targets.yaml", "targets: [{name: calc, provider: mock, response: not asked}]")
    text = graded(sums)
    after = sums.by_id("again")
    assert set(after) == set(before)
    assert (before["sum"]["score"], after["sum"]["score"]) == (1.0, 0.0)
    assert (before["talk"]["score"], after["talk"]["score"]) == (1.0, 1.0)
    for name in ("sum", "shaky", "talk"):
        for field in ("output", "messages", "token_usage", "cost_usd", "attempts", "provider"):
            assert after[name][field] == before[name][field], (name, field)
    for name in ("sum", "shaky"):
        assert after[name]["duration_ms"] == before[name]["duration_ms"]
    assert after["refused"]["error"] == before["refused"]["error"]
    assert after["refused"]["error_kind"] == "bad_request"
    about = sums.record("again")["graded_from"]
    assert about["folder"] == str(sums.root / "run")
    assert about["records"] is recorded
    assert "tokens and cost are as recorded" in text


def test_grading_again_by_tokens_of_a_turn(sums: Project) -> None:
    """Of each turn its own usage, which only records know."""
    run(sums, "--record")
    sums.write(
        "by-tokens.eval.yaml",
        SUITE.replace(
            "assertions: [{type: equals, value: two}]",
            "assertions: [{type: token-usage, max_total: 12}]",
        ),
    )
    graded(sums, "--suite", "by-tokens.eval.yaml")
    assert sums.by_id("again")["talk"]["turns"][1]["score"] == 1.0


def test_what_asks_something_else_by_now_is_left_out(sums: Project) -> None:
    run(sums)
    sums.write(
        "sums.eval.yaml",
        SUITE.replace("What is the sum?", "Another?").replace("id: shaky", "id: new"),
    )
    text = graded(sums)
    assert "left out: 1 results: the test asks something else by now" in text
    assert "left out: 1 results: the suite has no such test any more" in text
    assert set(sums.by_id("again")) == {"refused", "talk"}
    assert sums.record("again")["graded_from"]["left_out"] == {"changed": 1, "gone": 1}
    assert sums.record("again")["planned"] == 2


def test_answers_about_what_a_file_held_then_are_left_out(sums: Project) -> None:
    for name in ("same", "other"):
        sums.write(f"{name}.txt", name)
    asks = "input: [{role: user, content: [{type: file, value: NAME.txt}, {type: text, value: x}]}]"
    tests = "\n".join(
        f"  - {{id: {name}, {asks.replace('NAME', name)}}}" for name in ("same", "other")
    )
    suite = f"name: sums\ntarget: echo\nassertions: [{{type: equals, value: x}}]\ntests:\n{tests}\n"
    sums.write("sums.eval.yaml", suite)
    run(sums, "--record")
    sums.write("other.txt", "changed")
    text = graded(sums)
    assert "left out: 1 results: the test asks something else by now" in text
    assert set(sums.by_id("again")) == {"same"}


def test_repeats_that_are_not_there_are_not_made_up(sums: Project) -> None:
    run(sums, "--repeat", "3", "--test-id", "sum")
    path = sums.root / "run" / "results.jsonl"
    kept = [line for line in path.read_text().splitlines(True) if '"repeat":1' not in line]
    path.write_text("".join(kept))
    graded(sums)
    assert sorted(row["repeat"] for row in sums.rows("again")) == [0, 2]


def test_a_target_may_judge_its_own_recorded_answers(sums: Project) -> None:
    run(sums, "--target", "judge", "--test-id", "sum")
    sums.write(
        "sums.eval.yaml",
        """
        name: sums
        tests: [{id: sum, input: What is the sum?, assert: [It is right.]}]
        """,
    )
    graded(sums, "--judge", "judge", "--record")
    (row,) = sums.rows("again")
    assert row["judge_calls"] >= 1
    assert {entry["role"] for entry in records(sums, "again")} == {"judge"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("grade", "nowhere"), 'no run "nowhere"'),
        (("grade", "."), "no run.json there"),
        (("grade", "run", "--resume"), "name it with --output DIR"),
        (("grade", "run", "--target", "other"), 'no result of a target "other" (found: calc)'),
        (("eval", "--resume", "again"), "muster grade"),
    ],
)
def test_bad_usage(sums: Project, arguments: tuple[str, ...], told: str) -> None:
    run(sums)
    graded(sums)
    ended = sums.run(*arguments)
    assert ended.code == 2
    assert told in ended.err


def test_a_budget_holds_what_judges_cost_and_the_rest_is_gone_on_with(sums: Project) -> None:
    tests = ", ".join(
        f"{{id: t{n}, input: 'q {n}', assert: [{{type: llm-grader, criteria: Good}}]}}"
        for n in range(6)
    )
    sums.write("sums.eval.yaml", f"name: sums\ntarget: calc\ntests: [{tests}]\n")
    sums.write(
        "targets.yaml",
        """
        targets:
          - {name: calc, provider: mock, default: {text: "42", cost_usd: 5}}
          - name: judge
            provider: mock
            default: {text: '{"pass": true, "score": 0.9, "reason": "so"}', cost_usd: 0.25}
        """,
    )
    ended = sums.eval("sums.eval.yaml", "--judge", "judge", "-w", "1")
    assert ended.code == 0, ended.text
    kept = sums.root / ".muster/results"
    kept.mkdir(parents=True, exist_ok=True)
    shutil.move(sums.root / "run", kept / "20260101-sums")
    again = ("grade", "latest", "--judge", "judge", "-w", "1", "-o", "again")
    ended = sums.run(*again, "--budget-usd", "0.5")
    assert ended.code == 4, ended.text
    assert len(sums.rows("again")) == 2
    assert "muster grade latest --output again --resume" in ended.err
    ended = sums.run(*again, "--resume", "--report", "csv=all.csv")
    assert ended.code == 0, ended.text
    rows = sums.rows("again")
    assert sorted(row["test_id"] for row in rows) == [f"t{n}" for n in range(6)]
    assert {(row["cost_usd"], row["judge_cost_usd"]) for row in rows} == {(5.0, 0.25)}
    assert (sums.root / "all.csv").read_text().count("\n") == 7


def test_a_replay_target_answers_with_the_records(sums: Project) -> None:
    run(sums, "--record")
    sums.write("replay.yaml", "targets: [{name: calc, provider: replay, run: run, target: calc}]")
    suite = SUITE.replace("value: two", "value: two}, {type: token-usage, max_total: 12")
    sums.write("sums.eval.yaml", suite)
    ended = sums.eval(
        "sums.eval.yaml", "--targets", "replay.yaml", "-o", "again", "--allow-errors", "1"
    )
    assert ended.code == 0, ended.text
    before, after = sums.by_id(), sums.by_id("again")
    for name in ("sum", "shaky", "talk"):
        assert after[name]["messages"] == before[name]["messages"]
        assert after[name]["token_usage"] == before[name]["token_usage"]
    assert after["refused"]["execution_status"] == "execution_error"
