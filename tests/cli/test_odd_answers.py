"""Answers that nobody expects: each is a result of its case, and no crash of the run."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from muster_project import Project

AGENT = r"""
import asyncio
import sys


async def odd(question: str):
    if question == "nothing":
        return None
    if question == "number":
        return 7
    if question == "negative":
        return {"text": "x", "token_usage": {"input": -1, "output": 2}}
    if question == "nan":
        return {"text": "x", "cost_usd": float("nan")}
    if question == "exit":
        sys.exit(7)
    if question == "cancel":
        raise asyncio.CancelledError
    if question == "recursion":
        return await odd(question)
    if question == "no-message":
        raise ValueError
    if question == "nul":
        return "a\x00b\u2028c\x7f\U0001f600"
    if question == "empty":
        return ""
    if question == "long":
        return "x" * 3_000_000
    return "fine"


def printing(question: str):
    print("noise")
    return "fine"
"""

ERRORS = ("nothing", "number", "negative", "nan", "exit", "cancel", "recursion", "no-message")
ANSWERS = ("nul", "empty", "long", "good")


def write_suite(project: Project, *inputs: str, target: str) -> None:
    project.write("agent.py", AGENT)
    project.write(".muster/targets.yaml", f"targets:\n  - {{name: default, {target}}}\n")
    rows = "".join(f"  - {{id: {text}, input: {text}}}\n" for text in inputs)
    project.write("a.eval.yaml", f"assertions: [{{type: regex, value: .}}]\ntests:\n{rows}")


def test_what_a_function_may_return(project: Project) -> None:
    write_suite(project, *ERRORS, *ANSWERS, target='provider: function, function: "agent:odd"')
    ended = project.eval("a.eval.yaml")
    assert ended.code == 1
    rows = project.by_id()
    kinds = {name: rows[name]["error_kind"] for name in ERRORS}
    assert kinds == {
        **dict.fromkeys(("nothing", "number", "negative", "nan"), "bad_output"),
        **dict.fromkeys(("exit", "cancel", "recursion", "no-message"), "provider_failed"),
    }
    where = str(project.root / "agent.py")
    assert f"{where}:15: SystemExit: 7" in rows["exit"]["error"]
    assert f"{where}:21: ValueError" in rows["no-message"]["error"]
    assert {name: rows[name]["execution_status"] for name in ANSWERS} == {
        "nul": "ok",
        "empty": "quality_failure",
        "long": "ok",
        "good": "ok",
    }
    assert rows["nul"]["output"] == "a\x00b\u2028c\x7f\U0001f600"
    assert len(rows["long"]["output"]) == 3_000_000
    assert len(ended.text) < 10_000


HALF = r"""printf '{"text": "x \ud83d y"}'"""


@pytest.mark.parametrize("where", ["answer", "error"])
def test_half_a_character(project: Project, where: str) -> None:
    """Half a surrogate pair is valid in JSON, and cannot be written as UTF-8."""
    script = HALF.replace("text", "error") if where == "error" else HALF
    project.write("say.sh", f'case "$1" in good) echo fine ;; *) {script} > "$2" ;; esac\n')
    command = "sh ../say.sh {PROMPT} {OUTPUT_FILE}"
    write_suite(project, "bad", "good", target=f'provider: cli, command: "{command}"')
    ended = project.eval("a.eval.yaml", "--verbose")
    assert ended.code == (1 if where == "error" else 0)
    rows = project.by_id()
    assert rows["good"]["output"] == "fine"
    told = rows["bad"]["error" if where == "error" else "output"]
    assert "x \ufffd y" in told


def test_half_a_character_is_printed_as_far_as_that_goes(project: Project) -> None:
    project.write("agent.py", 'def odd(question: str):\n    return "x \\ud83d y"\n')
    target = 'provider: function, function: "agent:odd"'
    project.write("targets.yaml", f"targets:\n  - {{name: odd, {target}}}\n")
    ended = project.run("targets", "check", "odd")
    assert (ended.code, ended.out.splitlines()[-1].strip()) == (0, "x ? y")
    asked = (
        b'{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocol_version":1,'
        b'"client":{"name":"t","version":"1"},"target":"odd"}}\n'
        b'{"jsonrpc":"2.0","id":1,"method":"invoke","params":{"question":"?"}}\n'
    )
    served = subprocess.run(
        [sys.executable, "-m", "muster", "serve-provider", "odd"],
        input=asked,
        cwd=project.root,
        env=project.environment(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    answer = json.loads(served.stdout.splitlines()[-1])
    assert answer["result"] == {"text": "x \ufffd y"}


def test_half_a_character_in_a_question(project: Project) -> None:
    """Is refused where it stands, before anything is asked."""
    write_suite(project, "good", target="provider: echo")
    row = r'{"id": "a", "input": "x \ud83d y", "assertions": [{"type": "contains", "value": "x"}]}'
    project.write("b.jsonl", row + "\n")
    ended = project.eval("a.eval.yaml", "b.jsonl")
    assert ended.code == 2
    assert ended.err.startswith(f"error: {project.root / 'b.jsonl'}:1:31: not valid JSON: ")


def test_what_a_function_prints(project: Project) -> None:
    write_suite(project, "a", target='provider: function, function: "agent:printing"')
    ended = project.eval("a.eval.yaml", "--json", "--quiet")
    assert ended.code == 0
    assert ended.json()["totals"]["passed"] == 1
    assert "noise" in ended.err


def test_counts_that_make_no_sense(project: Project) -> None:
    """A command's accounting is left out where it cannot be true; its answer is not."""
    answer = '{"text": "x", "cost_usd": NaN, "token_usage": {"input": -1, "output": 1e400}}'
    project.write("answer.json", answer)
    write_suite(
        project, "a", target="provider: cli, command: 'cp ../answer.json {OUTPUT_FILE}; : {PROMPT}'"
    )
    assert project.eval("a.eval.yaml").code == 0
    (row,) = project.rows()
    assert row["output"] == "x"
    assert row.get("cost_usd") is None
    assert row.get("token_usage") is None


def test_ids_of_any_characters(project: Project) -> None:
    ids = ["a/b", "../up", "sp ace", "$(touch evil)", "ü—😀", "'\"", "-x", "a\\b", "{PROMPT}"]
    project.write("odd.jsonl", "".join(json.dumps({"id": i, "input": i}) + "\n" for i in ids))
    project.write("odd.yaml", "assertions: [{type: contains, value: '|'}]\n")
    project.write(
        ".muster/targets.yaml",
        "targets:\n  - name: default\n    provider: cli\n"
        "    command: printf '%s|%s' {EVAL_ID} {PROMPT} > {OUTPUT_FILE}\n",
    )
    assert project.eval("odd.jsonl").code == 0
    assert {name: row["output"] for name, row in project.by_id().items()} == {
        i: f"{i}|{i}" for i in ids
    }
    assert not list(project.root.rglob("evil"))


GRADERS = """
import muster


def register(name, grade):
    muster.register_grader(name, lambda spec: grade)


register("raises", lambda context: 1 / 0)
register("nan", lambda context: float("nan"))
register("two", lambda context: 2.0)
register("none", lambda context: None)
register("half", lambda context: {"score": 0.5, "reason": "half of it"})
"""


def test_graders_that_fail(project: Project) -> None:
    """An error of the case that names the grader; never a score of 0."""
    project.write(".muster/graders/own.py", GRADERS)
    project.write(".muster/targets.yaml", "targets: [{name: default, provider: echo}]\n")
    names = ("raises", "nan", "two", "none", "half")
    rows = "".join(f"  - {{id: {n}, input: q, assertions: [{{type: {n}}}]}}\n" for n in names)
    project.write("a.eval.yaml", f"threshold: 0.5\ntests:\n{rows}")
    ended = project.eval("a.eval.yaml")
    assert ended.code == 1
    found = project.by_id()
    assert (found["half"]["score"], found["half"]["execution_status"]) == (0.5, "ok")
    for name in names[:-1]:
        row = found[name]
        assert (row["execution_status"], row["error_kind"]) == ("execution_error", "grader_error")
        assert row["failure_stage"] == "evaluator"
        assert row["score"] is None
        assert row["output"] == "q"
        assert name in row["error"]
    assert f"{project.root}/.muster/graders/own.py:8: ZeroDivisionError" in found["raises"]["error"]
