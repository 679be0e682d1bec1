"""Runs as cases: read by the real loader, they say what the run was asked and answered."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from muster.errors import UsageError
from muster.evals.case import Case
from muster.evals.suites.load import load_suite
from muster.provider import TokenUsage
from muster.store.export import run_as_data, suite_cases, suite_text
from muster.store.journal import Journal
from muster.store.records import CallRecord, RunRecord, StepRecord


def succeeded(journal: Journal, run_id: str = "t-0", **fields: Any) -> RunRecord:
    fields = {"status": "succeeded", "output": "done", **fields}
    run = RunRecord(id=run_id, team="t", **fields)
    journal.begin_run(run)
    return run


def answered(journal: Journal, name: str, prompt: str | None, output: str, **fields: Any) -> None:
    row = journal.begin_step(StepRecord(run_id="t-0", name=name, prompt=prompt, **fields))
    journal.end_step(row, status="succeeded", output=output)


def loaded(tests: list[dict[str, Any]], path: Path) -> list[Case]:
    path.write_text(suite_text(tests, path), encoding="utf-8", newline="")
    suite = load_suite(path, env={"HOME": "/home/ada"})
    assert list(suite.warnings) == []
    return list(suite.cases())


def said(case: Case) -> tuple[str, str]:
    return case.input[-1].text, str(case.reference_answer)


NASTY = [
    "plain", "1e3", "0o17", "off", "null", "a: b", "# no", "- x", "file://cases.jsonl",
    "{{ question }}", "{{ question }} and {{ answer }}", "{% if x %}", "two\nlines\n",
    "  indented\n more", "\ttab", "x\x00y\x1b[31m", "\u2028\x85", "🌍 ünï", "'\"\\",
    "ends with space ", "a\r\nb", "{{ vars.x }}", "$ {{x}}", "\n\nabove", " \n x",
]  # fmt: skip


@pytest.mark.parametrize("name", ["a.yaml", "a.jsonl"])
def test_texts_come_back_as_they_were(journal: Journal, tmp_path: Path, name: str) -> None:
    run = succeeded(journal)
    for text in NASTY:
        answered(journal, "s", text + "?", text)
        answered(journal, "s", text, text)
    cases = loaded(suite_cases(journal, [run], "s"), tmp_path / name)
    assert [said(case) for case in cases] == [
        pair for text in NASTY for pair in ((text + "?", text), (text, text))
    ]
    assert len({case.id for case in cases}) == 2 * len(NASTY)


@pytest.mark.parametrize(
    "text", ["use ${{ HOME }}", "{{ env.HOME }}", "${{ HOME:-x }}", "${{ a-b }}"]
)
def test_variables_of_the_environment_want_jsonl(
    journal: Journal, tmp_path: Path, text: str
) -> None:
    tests = suite_cases(journal, [succeeded(journal, output=text)])
    with pytest.raises(UsageError, match=r"t-0 holds text like .* write a\.jsonl, where it is"):
        suite_text(tests, tmp_path / "a.yaml")
    (case,) = loaded(tests, tmp_path / "a.jsonl")
    assert case.reference_answer == text


def test_a_run_is_a_case(journal: Journal, tmp_path: Path) -> None:
    run = succeeded(journal, input={"topic": "Ada", "n": 2}, output="She wrote programs.")
    (case,) = loaded(suite_cases(journal, [run]), tmp_path / "a.yaml")
    assert case.id == "t-0"
    assert said(case) == ('{"topic": "Ada", "n": 2}', "She wrote programs.")
    assert case.metadata == {"run": "t-0", "team": "t"}
    assert len(case.graders) == 1


def test_answers_of_a_step_are_cases(journal: Journal, tmp_path: Path) -> None:
    run = succeeded(journal)
    answered(journal, "a", "first", "1", agent="ada", item=0)
    failed = journal.begin_step(StepRecord(run_id="t-0", name="a", prompt="second", item=1))
    journal.end_step(failed, status="failed", error="no")
    answered(journal, "a", "second", "2", agent="ada", item=1, attempt=1)
    answered(journal, "b", "other", "3")
    cases = loaded(suite_cases(journal, [run], "a"), tmp_path / "a.yaml")
    assert [case.id for case in cases] == ["t-0/a/item-0", "t-0/a/item-1"]
    assert [said(case) for case in cases] == [("first", "1"), ("second", "2")]
    assert cases[1].metadata == {
        "run": "t-0", "team": "t", "step": "a", "item": 1, "agent": "ada"
    }  # fmt: skip
    (only,) = loaded(suite_cases(journal, [run], "b"), tmp_path / "b.yaml")
    assert (only.id, said(only)) == ("t-0/b", ("other", "3"))


def test_what_has_no_answer_is_no_case(journal: Journal) -> None:
    failed = succeeded(journal, status="failed", output=None)
    answered(journal, "a", None, "")
    silent = succeeded(journal, "t-1", output=" ")
    for runs, step, told in (
        ([failed], None, "run t-0: failed, so that there is nothing to expect of a test"),
        ([silent], None, "run t-1: succeeded without an output, so"),
        ([failed], "a", 'run t-0: step "a" has no answer to expect; it is succeeded'),
        ([failed], "aa", 'run t-0 has no step "aa" (did you mean "a"?)'),
        ([failed], "zz", 'run t-0 has no step "zz" (it has: a)'),
    ):
        with pytest.raises(UsageError, match=re.escape(told)):
            suite_cases(journal, runs, step)


def test_the_name_says_the_form(journal: Journal) -> None:
    with pytest.raises(UsageError, match=r"a\.csv: the name of a suite ends in \.yaml or \.jsonl"):
        suite_text([], Path("a.csv"))


def test_all_of_a_run_as_data(journal: Journal) -> None:
    run = succeeded(journal, input={"x": 1}, started_at="2026-01-01T00:00:00.000Z")
    row = journal.begin_step(StepRecord(run_id="t-0", name="a", started_at=run.started_at))
    call = journal.begin_call(
        row, CallRecord(kind="tool", name="t", arguments={"q": 1}, started_at=run.started_at)
    )
    journal.end_call(call, status="ok", result="r", duration_ms=2.0)
    journal.end_step(row, status="succeeded", output="o", token_usage=TokenUsage(2, 3))
    journal.event("t-0", "routed", {"to": "a"})
    journal.event("t-0", "chunk", {"end": 1}, row_id=row)
    data = json.loads(json.dumps(run_as_data(journal.view("t-0"))))
    (step,), events = data.pop("steps"), data.pop("events")
    assert data.pop("pid") > 0
    assert data == {
        "schema_version": 1,
        "id": "t-0",
        "team": "t",
        "file": "",
        "definition_hash": "",
        "input": {"x": 1},
        "options": {},
        "status": "succeeded",
        "output": "done",
        "started_at": "2026-01-01T00:00:00.000Z",
        "token_usage": {"input": 2, "output": 3},
        "approvals": [],
    }
    assert step["calls"] == [
        {
            "kind": "tool",
            "name": "t",
            "arguments": {"q": 1},
            "result": "r",
            "status": "ok",
            "started_at": "2026-01-01T00:00:00.000Z",
            "duration_ms": 2.0,
            "step_id": row,
            "id": call,
        }
    ]
    assert (step["name"], step["output"], "data" in step) == ("a", "o", False)
    assert [event["kind"] for event in step["events"]] == ["chunk"]
    assert [(event["kind"], event["data"]) for event in events] == [("routed", {"to": "a"})]
