"""How an answer came about is in its result: fallbacks, retries, turns, dependencies, usage."""

from __future__ import annotations

import pytest
from muster_project import Project

FALLBACKS = """
targets:
  - name: default
    provider: mock
    max_retries: 1
    retry_initial_delay_ms: 1
    fallback_targets: [spare]
    replies:
      - {contains: down, error: provider_unavailable}
      - {contains: flaky, attempt: 0, error: rate_limited}
      - {contains: wrong, attempt: 0, error: bad_request}
    default: first
  - name: spare
    provider: mock
    max_retries: 0
    replies: [{contains: all, error: timeout}]
    default: second
"""


def test_fallbacks_and_retries(project: Project) -> None:
    project.write(".muster/targets.yaml", FALLBACKS)
    rows = "".join(
        f"  - {{id: {name}, input: {name}}}\n"
        for name in ("fine", "flaky", "wrong", "down", "all-down")
    )
    project.write("a.eval.yaml", f"assertions: [{{type: regex, value: .}}]\ntests:\n{rows}")
    assert project.eval("a.eval.yaml", "--allow-errors", "1").code == 0
    found = {
        name: (row.get("output"), row.get("target_used"), row.get("attempts", 1))
        for name, row in project.by_id().items()
    }
    assert found["fine"] == ("first", "default", 1)
    assert found["flaky"] == ("first", "default", 2)
    assert found["wrong"][:2] == ("second", "spare")
    assert found["down"] == ("second", "spare", 3)
    failed = project.by_id()["all-down"]
    assert failed["execution_status"] == "execution_error"
    assert "default" in failed["error"]
    assert "spare" in failed["error"]
    assert all(row["target"] == "default" for row in project.rows())


def test_an_error_is_no_answer_of_a_fallback(project: Project) -> None:
    project.write(".muster/targets.yaml", FALLBACKS)
    rows = "[{id: a, input: down}, {id: b, input: wrong}, {id: c, input: all down}]"
    project.write("a.eval.yaml", f"assertions: [{{type: regex, value: .}}]\ntests: {rows}\n")
    ended = project.eval("a.eval.yaml", "--allow-errors", "1")
    assert "note: answers of default that came from a fallback target: 2\n" in ended.out
    (totals,) = project.record()["totals"]["targets"]
    assert totals["answered_by_fallback"] == 2


def test_max_retries_of_the_command_line(project: Project) -> None:
    project.write(".muster/targets.yaml", FALLBACKS.replace("    fallback_targets: [spare]\n", ""))
    project.write(
        "a.eval.yaml", "tests: [{id: a, input: down, assert: [{type: regex, value: .}]}]\n"
    )
    assert project.eval("a.eval.yaml", "--max-retries", "3").code == 1
    assert project.rows()[0]["attempts"] == 4


CONVERSATION = """
target: TARGET
tests:
  - id: memory
    input: [{role: system, content: Be friendly.}]
    turns:
      - input: I am Ada.
        assertions: [{type: contains, value: Ada}]
      - input: Who am I?
        assertions: [{type: contains, value: Ada}]
  - id: forgetful
    window_size: 1
    on_turn_failure: stop
    turns:
      - {input: I am Bob., assertions: [{type: contains, value: Bob}]}
      - {input: It rains., assertions: [{type: contains, value: rains}]}
      - {input: Who am I?, assertions: [{type: contains, value: Bob}]}
      - {input: Still there?, assertions: [{type: contains, value: still}]}
"""

CONVERSATION_TARGETS = """
targets:
  - {name: command, provider: cli, command: "sh ../answer.sh {PROMPT_FILE}"}
  - {name: function, provider: function, function: "agent:answer"}
  - name: mock
    provider: mock
    replies:
      - {contains: I am Ada, text: Hello Ada}
      - {contains: I am Bob, text: Hello Bob}
      - {contains: rains, text: It rains}
      - {contains: Who, case: memory, text: You are Ada}
    default: I do not know
"""

CONVERSATION_AGENT = """
def answer(request):
    said = [*request.messages, request.question]
    if "Who" not in request.question:
        return request.question
    return " / ".join(item if isinstance(item, str) else item.text for item in said)
"""


CONVERSATION_SCRIPT = """
if grep -q Who "$1"; then cat "$1"; else tail -n 1 "$1"; fi
"""


@pytest.mark.parametrize("target", ["command", "function", "mock"])
def test_conversations_with_every_kind_of_target(project: Project, target: str) -> None:
    project.write(".muster/targets.yaml", CONVERSATION_TARGETS)
    project.write("agent.py", CONVERSATION_AGENT)
    project.write("answer.sh", CONVERSATION_SCRIPT)
    project.write("talk.eval.yaml", CONVERSATION.replace("TARGET", target))
    ended = project.eval("talk.eval.yaml", "--no-gate")
    assert ended.code == 0, ended.text
    rows = project.by_id()
    memory = rows["memory"]
    assert (memory["execution_status"], memory["score"]) == ("ok", 1.0)
    assert [turn["score"] for turn in memory["turns"]] == [1.0, 1.0]
    assert memory["turns"][1]["input"] == "Who am I?"
    assert "Ada" in memory["turns"][1]["output"]
    assert memory["output"] == memory["turns"][1]["output"]
    # Only the last exchange is shown, so the name is gone; what follows is not asked.
    forgetful = rows["forgetful"]
    assert "Bob" not in forgetful["turns"][2]["output"]
    if target != "mock":
        assert "rains" in forgetful["turns"][2]["output"]
    assert [turn["score"] for turn in forgetful["turns"]] == [1.0, 1.0, 0.0, 0.0]
    assert forgetful["turns"][3]["verdict"] == "skip"
    assert "output" not in forgetful["turns"][3]
    assert (forgetful["execution_status"], forgetful["score"]) == ("quality_failure", 0.5)


def test_a_turn_that_breaks_is_an_error_and_keeps_what_was_said(project: Project) -> None:
    project.write(
        ".muster/targets.yaml",
        "targets: [{name: mock, provider: mock, replies: [{contains: Who, error: bad_request}], "
        "default: hello Ada}]\n",
    )
    project.write("talk.eval.yaml", CONVERSATION.replace("TARGET", "mock"))
    assert project.eval("talk.eval.yaml", "--test-id", "memory").code == 1
    (row,) = project.rows()
    assert (row["execution_status"], row["error_kind"]) == ("execution_error", "bad_request")
    assert row["turns"][0]["output"] == "hello Ada"
    assert row["score"] is None


def test_dependencies(project: Project) -> None:
    project.write(
        ".muster/targets.yaml",
        "targets: [{name: default, provider: mock, replies: [{contains: broken, error: "
        "bad_request}, {contains: first, text: done, delay: 0.1}], default: done}]\n",
    )
    project.write(
        "a.eval.yaml",
        """
        assertions: [{type: equals, value: done}]
        tests:
          - {id: last, input: q, depends_on: [first]}
          - {id: first, input: first}
          - {id: broken, input: broken}
          - {id: skipped, input: q, depends_on: [broken]}
          - {id: failed, input: q, depends_on: [broken], on_dependency_failure: fail}
          - {id: run, input: q, depends_on: [broken], on_dependency_failure: run}
          - {id: chain, input: q, depends_on: [skipped]}
          - {id: low, input: low, assertions: [{type: equals, value: other}]}
          - {id: after-low, input: q, depends_on: [low]}
        """,
    )
    assert project.eval("a.eval.yaml").code == 1
    order = [row["test_id"] for row in project.rows()]
    assert order.index("first") < order.index("last")
    rows = project.by_id()
    errors = {name: row["error"] for name, row in rows.items() if row.get("error")}
    assert errors.pop("broken")
    assert errors == {
        "skipped": "Skipped: dependency failed (broken)",
        "failed": "Failed: dependency failed (broken)",
        "chain": "Skipped: dependency failed (skipped)",
    }
    assert {rows[name]["error_kind"] for name in errors} == {"dependency_failed"}
    assert rows["run"]["execution_status"] == "ok"
    assert rows["low"]["execution_status"] == "quality_failure"
    assert rows["after-low"]["execution_status"] == "ok"


def test_everything_that_is_needed_to_understand_a_result(project: Project) -> None:
    project.write(
        ".muster/targets.yaml",
        """
        targets:
          - name: default
            provider: mock
            model: tiny
            replies:
              - text: Paris
                usage: {input: 12, output: 3, cached: 4}
                cost_usd: 0.002
                finish_reason: length
        """,
    )
    project.write(
        "a.eval.yaml",
        """
        name: capitals
        category: geo
        tests:
          - id: "ütf/8 'id'"
            input:
              - {role: system, content: Be brief.}
              - {role: user, content: France?}
            expected_output: Paris
            criteria: Names the capital.
            tags: [easy]
            metadata: {level: 1}
            conversation_id: c1
            assertions:
              - {type: equals, value: Paris, weight: 3}
              - {type: contains, value: London, name: londoner}
        """,
    )
    assert project.eval("a.eval.yaml", "--threshold", "0.7").code == 0
    (row,) = project.rows()
    assert row["duration_ms"] >= 0
    assert row.pop("started_at").endswith("+00:00")
    row.pop("duration_ms")
    assert [score["name"] for score in row["scores"]] == ["equals-Paris", "londoner"]
    scores = [(s["type"], s["score"], s["weight"], s["verdict"]) for s in row.pop("scores")]
    assert scores == [("equals", 1.0, 3.0, "pass"), ("contains", 0.0, 1.0, "fail")]
    assert row.pop("messages")[-1] == {"role": "assistant", "content": "Paris"}
    for name, default in (("repeat", 0), ("attempts", 1)):
        assert row.pop(name, default) == default
    assert row == {
        "test_id": "ütf/8 'id'",
        "error": None,
        "target_used": "default",
        "suite": "capitals",
        "target": "default",
        "execution_status": "ok",
        "score": 0.75,
        "threshold": 0.7,
        "input": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "France?"},
        ],
        "output": "Paris",
        "expected_output": "Paris",
        "criteria": "Names the capital.",
        "provider": "mock",
        "model": "tiny",
        "finish_reason": "length",
        "token_usage": {"input": 12, "output": 3, "cached": 4},
        "cost_usd": 0.002,
        "eval_path": "a.eval.yaml",
        "category": "geo",
        "conversation_id": "c1",
        "tags": ["easy"],
        "metadata": {"level": 1},
    }
