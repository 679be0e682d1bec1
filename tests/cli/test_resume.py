"""A run that was cut off anywhere is completed: each case exactly once in the end."""

from __future__ import annotations

import json
import signal
from collections import Counter

import pytest
from muster_project import Project, wait_until

TARGETS = """
targets:
  - name: default
    provider: function
    function: agent:answer
    workers: 2
"""

AGENT = """
import os
import pathlib
import time

HERE = pathlib.Path(__file__).parent


def answer(question: str) -> str:
    with (HERE / "asked.txt").open("a") as asked:
        asked.write(question + "\\n")
    if question == "slow" and (HERE / "slow").exists():
        time.sleep(60)
    if question == "flaky" and (HERE / "flaky").exists():
        raise ConnectionError("not now")
    return question
"""


def write_suite(project: Project, *inputs: str, name: str = "a", more: str = "") -> None:
    project.write(".muster/targets.yaml", TARGETS)
    project.write("agent.py", AGENT)
    rows = "".join(f"  - {{id: t{n}, input: {text}}}\n" for n, text in enumerate(inputs))
    project.write(
        f"{name}.eval.yaml",
        f"assertions: [{{type: latency, threshold: 9999}}]\n{more}tests:\n{rows}",
    )


def asked(project: Project) -> Counter[str]:
    return Counter((project.root / "asked.txt").read_text().split())


def kill_amid(project: Project, *arguments: str, results: int) -> None:
    """`kill -9` once so many results are on disk; what hangs by the file `slow` is under way."""
    hanging = (project.root / "a.eval.yaml").read_text().count("input: slow")
    process = project.start("eval", "a.eval.yaml", *arguments)
    pattern = "run/results.jsonl" if arguments else ".muster/results/*/results.jsonl"

    def there() -> bool:
        found = list(project.root.glob(pattern))
        enough = bool(found) and found[0].read_bytes().count(b"\n") >= results
        return enough and asked(project)["slow"] >= hanging

    wait_until(there)
    process.send_signal(signal.SIGKILL)
    project.finish(process)
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("how", ["folder", "folder-and-path", "latest", "path-after-resume"])
def test_killed_and_resumed(project: Project, how: str) -> None:
    write_suite(project, "one", "two", "slow", "three", "slow", "four")
    project.write("slow", "")
    explicit = how.startswith("folder")
    kill_amid(project, *(("--output", "run") if explicit else ()), results=3)
    (path,) = project.root.glob("**/results.jsonl")
    folder = str(path.parent.relative_to(project.root))
    assert project.record(folder)["status"] == "running"
    (project.root / "slow").unlink()
    torn = path.read_bytes() + b'{"test_id":"t5","suite":"a","tar'
    path.write_bytes(torn)

    arguments = {
        "folder": ["--resume", "run"],
        "folder-and-path": ["a.eval.yaml", "--resume", "run"],
        "latest": ["--resume"],
        "path-after-resume": ["--resume", "a.eval.yaml"],
    }[how]
    ended = project.eval(*arguments)
    assert ended.code == 0, ended.text
    assert project.statuses(folder) == {f"t{n}": "ok" for n in range(6)}
    assert "resuming: 3 of 6 results are there" in ended.err
    # Nothing that was there was asked again: only the two calls that the kill cut off.
    assert asked(project) == {"one": 1, "two": 1, "three": 1, "four": 1, "slow": 4}
    record = project.record(folder)
    assert (record["status"], record["not_run"]) == ("complete", 0)
    assert record["totals"]["results"] == record["totals"]["passed"] == 6
    assert len(list(project.root.glob("**/results.jsonl"))) == 1


def test_resumed_after_ctrl_c(project: Project) -> None:
    write_suite(project, "one", "slow", "two")
    project.write("slow", "")
    process = project.start("eval", "a.eval.yaml", "-o", "run")
    wait_until(lambda: (project.root / "asked.txt").exists() and len(asked(project)) == 3)
    process.send_signal(signal.SIGINT)
    ended = project.finish(process)
    assert ended.code == 130
    (project.root / "slow").unlink()
    told = next(line for line in ended.err.splitlines() if line.startswith("to complete it: "))
    command = told.removeprefix("to complete it: muster ").split()
    assert project.run(*command).code == 0
    assert project.statuses() == {"t0": "ok", "t1": "ok", "t2": "ok"}
    assert asked(project) == {"one": 1, "two": 1, "slow": 2}


def test_errors_are_tried_again_and_failures_are_not(project: Project) -> None:
    write_suite(project, "good", "flaky", "bad")
    suite = project.root / "a.eval.yaml"
    suite.write_text(suite.read_text().replace("latency, threshold: 9999", "regex, value: good|fl"))
    project.write("flaky", "")
    assert project.eval("a.eval.yaml").code == 1
    assert project.statuses() == {"t0": "ok", "t1": "execution_error", "t2": "quality_failure"}
    (project.root / "flaky").unlink()
    assert project.eval("--resume", "run", "--no-gate").code == 0
    assert project.statuses() == {"t0": "ok", "t1": "ok", "t2": "quality_failure"}
    assert asked(project) == {"good": 1, "flaky": 2, "bad": 1}
    # With nothing left to do, nothing is done, and the verdict is the same.
    assert project.eval("--resume", "run").code == 1
    assert asked(project).total() == 4


def test_a_changed_suite_is_refused(project: Project) -> None:
    write_suite(project, "good", "flaky")
    project.write("flaky", "")
    project.eval("a.eval.yaml")
    before = (project.root / "run" / "results.jsonl").read_bytes()
    write_suite(project, "good", "other")
    ended = project.eval("--resume", "run")
    assert ended.code == 2
    assert 'run: suite "a" is not what it was when the run began' in ended.err
    assert (project.root / "run" / "results.jsonl").read_bytes() == before
    assert project.record()["status"] == "complete"


def test_a_changed_target_is_refused_once_it_has_answered(project: Project) -> None:
    project.write("a.eval.yaml", """
        target: t
        assertions: [{type: contains, value: x}]
        tests: [{id: a, input: a}, {id: b, input: down}]
    """)  # fmt: skip

    def target(settings: str) -> None:
        project.write("targets.yaml", f"targets: [{{name: t, provider: mock, {settings}}}]")

    down = "replies: [{contains: down, error: bad_request}], response: x"
    target(f"model: one, {down}")
    project.eval("a.eval.yaml")
    target("model: two, response: x")
    ended = project.eval("--resume", "run")
    assert ended.code == 2
    told = 'run: target "t" is not what it was when the run began (model, replies); results of'
    assert told in ended.err
    target(f"model: one, {down}, workers: 1, timeout_seconds: 9")
    assert project.eval("--resume", "run", "--no-gate", "--allow-errors", "1").code == 0
    results = project.root / "run" / "results.jsonl"
    failed = next(line for line in results.read_text().splitlines(True) if "bad_request" in line)
    results.write_text(failed)  # nothing of it has been answered: what was wrong can be put right
    target("model: two, response: x")
    assert project.eval("--resume", "run").code == 0


def test_a_folder_with_a_run_is_not_written_over(project: Project) -> None:
    write_suite(project, "good")
    assert project.eval("a.eval.yaml").code == 0
    before = (project.root / "run" / "results.jsonl").read_bytes()
    ended = project.eval("a.eval.yaml")
    assert ended.code == 2
    assert ended.err == (
        "error: run holds a run already: choose another folder, or continue it with --resume run\n"
    )
    assert (project.root / "run" / "results.jsonl").read_bytes() == before


@pytest.mark.parametrize("first", ["fresh", "resumed"])
def test_a_folder_belongs_to_one_process(project: Project, first: str) -> None:
    """Also after a resumed run has put its results in order, which makes a new file of them."""
    write_suite(project, "good", "flaky", "slow")
    project.write("flaky", "")
    if first == "resumed":
        project.eval("a.eval.yaml")
        kept = [json.dumps(row) + "\n" for row in project.rows() if row["test_id"] != "t2"]
        project.write("run/results.jsonl", "".join(kept))
        project.write("asked.txt", "")
    project.write("slow", "")
    option = "--output" if first == "fresh" else "--resume"
    process = project.start("eval", "a.eval.yaml", option, "run")
    wait_until(lambda: (project.root / "asked.txt").exists() and asked(project)["slow"] == 1)
    record = (project.root / "run" / "run.json").read_bytes()
    second = project.start("eval", "--resume", "run")
    _, err = second.communicate(timeout=10)
    assert (second.returncode, err) == (2, "error: run: another process is writing this run\n")
    assert (project.root / "run" / "run.json").read_bytes() == record
    process.send_signal(signal.SIGINT)
    assert project.finish(process).code == 130
    assert project.statuses() == {"t0": "ok", "t1": "execution_error"}


def test_the_budget_counts_what_was_spent_before(project: Project) -> None:
    write_suite(project, *["q"] * 5)
    project.write(
        ".muster/targets.yaml",
        "targets: [{name: default, provider: mock, workers: 1, "
        "replies: [{text: x, cost_usd: 0.01}]}]\n",
    )
    ended = project.eval("a.eval.yaml", "--budget-usd", "0.015")
    assert (ended.code, len(project.rows())) == (4, 2)
    ended = project.eval("--resume", "run")  # the budget is spent already
    assert (ended.code, len(project.rows())) == (4, 2)
    ended = project.eval("--resume", "run", "--budget-usd", "0.035")
    assert (ended.code, len(project.rows())) == (4, 4)
    assert project.record()["totals"]["cost_usd"] == pytest.approx(0.04)
    ended = project.eval("--resume", "run", "--budget-usd", "1")
    assert (ended.code, len(project.rows())) == (0, 5)
    assert project.record()["totals"]["cost_usd"] == pytest.approx(0.05)


def test_the_budget_of_a_suite_counts_what_was_spent_before(project: Project) -> None:
    write_suite(project, *["q"] * 5, more="budget_usd: 0.025\n")
    project.write(
        ".muster/targets.yaml",
        "targets: [{name: default, provider: mock, workers: 1, "
        "replies: [{text: x, cost_usd: 0.01}]}]\n",
    )
    assert project.eval("a.eval.yaml").code == 4
    assert len(project.rows()) == 3
    assert project.eval("--resume", "run").code == 4
    assert len(project.rows()) == 3


def test_options_of_the_first_part_hold_for_the_second(project: Project) -> None:
    write_suite(project, "one", "slow", "two", "three")
    project.write("slow", "")
    kill_amid(
        project, "--repeat", "2", "--limit", "3", "--threshold", "0.3", "-o", "run", results=2
    )
    (project.root / "slow").unlink()
    assert project.eval("--resume", "run").code == 0
    rows = project.rows()
    keys = Counter((row["test_id"], row.get("repeat", 0)) for row in rows)
    assert keys == {(f"t{n}", repeat): 1 for n in range(3) for repeat in range(2)}
    assert {row["threshold"] for row in rows} == {0.3}


@pytest.mark.parametrize("option", ["--target other", "--threshold 0", "--limit 1", "--tag x"])
def test_a_run_goes_on_as_it_was_started(project: Project, option: str) -> None:
    write_suite(project, "one", "two")
    project.eval("a.eval.yaml")
    before = (project.root / "run" / "results.jsonl").read_bytes()
    ended = project.eval("--resume", "run", *option.split())
    assert ended.code == 2
    assert f"run: the run was started with another {option.partition(' ')[0]}" in ended.err
    assert (project.root / "run" / "results.jsonl").read_bytes() == before


def test_resume_has_its_folder_already(project: Project) -> None:
    write_suite(project, "one")
    project.eval("a.eval.yaml")
    ended = project.eval("--resume", "run", "--output", "other")
    assert ended.code == 2
    assert "--output" in ended.err


def test_resumed_from_another_folder(project: Project) -> None:
    write_suite(project, "one", "flaky")
    project.write("flaky", "")
    project.eval("a.eval.yaml")
    (project.root / "flaky").unlink()
    elsewhere = project.root.parent / "elsewhere"
    elsewhere.mkdir()
    ended = project.eval("--resume", str(project.root / "run"), cwd=elsewhere)
    assert ended.code == 0, ended.text
    assert project.statuses() == {"t0": "ok", "t1": "ok"}


def test_suites_of_one_name(project: Project) -> None:
    write_suite(project, "one", "flaky", name="here/a")
    write_suite(project, "two", name="there/a")
    project.write("flaky", "")
    assert project.eval("here", "there").code == 1
    (project.root / "flaky").unlink()
    assert project.eval("--resume", "run").code == 0
    found = {(row["eval_path"], row["test_id"]) for row in project.rows()}
    assert found == {
        ("here/a.eval.yaml", "t0"),
        ("here/a.eval.yaml", "t1"),
        ("there/a.eval.yaml", "t0"),
    }
    assert asked(project) == {"one": 1, "two": 1, "flaky": 2}


@pytest.mark.parametrize(
    "broken", ["no-run", "no-run-but-a-path", "no-record", "garbled-record", "garbled-line"]
)
def test_what_cannot_be_resumed(project: Project, broken: str) -> None:
    write_suite(project, "one", "two")
    if not broken.startswith("no-run"):
        project.eval("a.eval.yaml")
    record, results = project.root / "run" / "run.json", project.root / "run" / "results.jsonl"
    expected = {
        "no-run": "run: no run.json there; is it the folder of a run?",
        "no-run-but-a-path": "run: no run.json there; is it the folder of a run?",
        "no-record": "run: no run.json there; is it the folder of a run?",
        "garbled-record": "run/run.json: not valid JSON",
        "garbled-line": "run/results.jsonl:1: not a result: ",
    }[broken]
    if broken == "no-record":
        record.unlink()
    elif broken == "garbled-record":
        record.write_text('{"status": ')
    elif broken == "garbled-line":
        lines = results.read_text().splitlines(keepends=True)
        results.write_text('{"test_id": 1\n' + lines[1])
    before = results.read_bytes() if results.exists() else None
    paths = ["a.eval.yaml"] if broken.endswith("path") else []
    ended = project.eval(*paths, "--resume", "run")
    assert ended.code == 2
    assert ended.err.startswith(f"error: {expected}")
    assert (project.root / "run").exists() == (not broken.startswith("no-run"))
    assert (results.read_bytes() if results.exists() else None) == before


def test_no_run_to_resume(project: Project) -> None:
    write_suite(project, "one")
    ended = project.eval("--resume")
    assert ended.code == 2
    results = project.root / ".muster" / "results"
    assert ended.err == f"error: no run to resume in {results}\n"


def test_a_killed_run_can_be_read_as_it_is(project: Project) -> None:
    write_suite(project, "one", "slow", "two")
    project.write("slow", "")
    kill_amid(project, "-o", "run", results=2)
    rows = project.rows()
    assert sorted(row["test_id"] for row in rows) == ["t0", "t2"]
    assert json.loads((project.root / "run" / "run.json").read_text())["planned"] == 3
    assert sorted(path.name for path in (project.root / "run").iterdir()) == [
        "results.jsonl",
        "run.json",
    ]
